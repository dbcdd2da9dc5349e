"""Staff of a host, with the permissions that a test gives them."""

import uuid

from django.contrib.auth.models import Permission, User
from django.test import Client


def user(*codenames, **fields):
    given = {"is_staff": True, "first_name": "Ada", **fields}
    somebody = User.objects.create_user(uuid.uuid4().hex, **given)
    found = Permission.objects.filter(codename__in=codenames)
    assert len(found) == len(codenames)
    somebody.user_permissions.set(found)
    return somebody


def client_of(somebody):
    client = Client()
    client.force_login(somebody)
    return client


def cookie_of(somebody, url):
    """What a browser has once somebody has logged in."""
    session = client_of(somebody).cookies["sessionid"]
    return {"name": session.key, "value": session.value, "url": url}
