from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone, translation

from django_ninebits import live

INBOX = reverse("admin:django_ninebits_conversation_changelist")

pytestmark = pytest.mark.django_db


def asks(client, tag):
    return client.get(INBOX, headers={"If-None-Match": tag})


def test_a_tag_is_that_of_what_is_shown_to_whom():
    tag = live.tag_of(1, "a")
    assert (tag == live.tag_of(1, "a"), tag == live.tag_of(1, "b")) == (True, False)
    with translation.override("fr"):
        assert live.tag_of(1, "a") != tag
    with timezone.override("Africa/Lagos"):
        assert live.tag_of(1, "a") != tag


def test_a_session_that_every_request_prolongs_is_not_by_a_page_that_asks(admin_client, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    tag = admin_client.get(INBOX).context["cl"].tag
    ends = Session.objects.values_list("expire_date", flat=True)
    Session.objects.update(expire_date=timezone.now() + timedelta(minutes=5))
    before = ends.get()
    with CaptureQueriesContext(connection) as captured:
        assert asks(admin_client, tag).status_code == 304
        assert asks(admin_client, '"another"').status_code == 200
    assert [q["sql"] for q in captured if not q["sql"].startswith("SELECT")] == []
    assert ends.get() == before
    admin_client.get(INBOX)
    assert ends.get() > before


def test_what_else_changes_a_session_is_saved(admin_client, settings):
    hashed = admin_client.session["_auth_user_hash"]
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another"
    assert asks(admin_client, '"another"').status_code == 200
    assert Session.objects.get().get_decoded()["_auth_user_hash"] != hashed
