"""Hosts whose settings are in the way. Each is a process of its own, since Django REST framework
reads its settings as it is imported."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.deliveries import body

pytestmark = pytest.mark.own_database

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = """
    from pathlib import Path

    HERE = Path(__file__).parent
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "db.sqlite3"}}
    INSTALLED_APPS = [
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "phonenumber_field",
        "rest_framework",
        "django_ninebits",
    ]
    MIDDLEWARE = []
    NINEBITS = {
        "API_TOKEN": "token",
        "SHORT_CODE": "48974",
        "DISPATCHER": "django_ninebits.dispatch.defer",
    }
    ROOT_URLCONF = "host_urls"
    SECRET_KEY = "only-for-tests"
    USE_TZ = True
"""

URLS = """
    from django.urls import include, path

    urlpatterns = [path("hooks/9bits/", include("django_ninebits.urls"))]
"""

# Prints what the host has after a text, a redelivery, a body that is no text, a visit without a
# credential and a reply.
VISIT = """
    import json
    import sys

    import django

    django.setup()

    from django.core.management import call_command
    from django.db import connections
    from django.test import Client

    from django_ninebits.models import Contact, Conversation, Message
    from django_ninebits.services import reply

    for app in sys.argv[1:]:
        call_command("makemigrations", app, verbosity=0)
    for alias in connections:
        call_command("migrate", database=alias, verbosity=0)
    call_command("makemigrations", "django_ninebits", check=True, dry_run=True, verbosity=0)

    def post(data, **headers):
        response = Client().post("/hooks/9bits/webhook/", data, "application/json", **headers)
        return response.status_code, response["Content-Type"], response.json()["status"]

    raw = sys.stdin.buffer.read()
    authentic = {"HTTP_AUTHORIZATION": "Bearer token"}
    answers = [post(raw, **authentic), post(raw, **authentic), post(b"{", **authentic), post(raw)]
    for alias in connections:
        assert not connections[alias].in_atomic_block
    conversation = Conversation.objects.get()
    reply(conversation, "Yesterday")
    inbound, outbound = Message.objects.all()
    print(json.dumps({
        "answers": answers,
        "number": str(Contact.objects.get().phone_number),
        "unread": conversation.unread_count,
        "sent_date": str(inbound.sent_date),
        "statuses": [inbound.status, outbound.status],
        "session": outbound.session_id,
        "key": type(outbound.pk).__name__,
    }))
"""

EXPECTED = {
    "answers": [
        [200, "application/json", "stored"],
        [200, "application/json", "repeated"],
        [202, "application/json", "quarantined"],
        [401, "application/json", "refused"],
    ],
    "number": "+2348020000000",
    "unread": 1,
    "sent_date": "2024-01-02 23:50:37+00:00",
    "statuses": ["received", "queued"],
    "session": "67543uhn3",
    "key": "int",
}


@pytest.fixture
def host(tmp_path):
    """Visit a host with these settings → what it has afterwards."""

    def visit(extra, *apps, **modules):
        modules |= {"host_urls": URLS, "visit": VISIT}
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        settings = textwrap.dedent(SETTINGS) + textwrap.dedent(extra)
        (tmp_path / "host_settings.py").write_text(settings)
        environ = os.environ | {
            "DJANGO_SETTINGS_MODULE": "host_settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        }
        command = [sys.executable, "-W", "error", str(tmp_path / "visit.py"), *apps]
        done = subprocess.run(
            command, input=body(), env=environ, cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return visit


def test_a_friendly_host(host):
    assert host("") == EXPECTED


HOSTILE_API = """
    from rest_framework.negotiation import BaseContentNegotiation
    from rest_framework.permissions import BasePermission
    from rest_framework.throttling import BaseThrottle
    from rest_framework.versioning import BaseVersioning

    def broken(*args, **kwargs):
        raise RuntimeError("hostile")

    class Denied(BasePermission):
        has_permission = broken

    class Throttled(BaseThrottle):
        allow_request = broken

    class Versioned(BaseVersioning):
        determine_version = broken

    class Negotiated(BaseContentNegotiation):
        select_parser = select_renderer = broken

    class Anonymous:
        pass
"""


def test_a_host_whose_every_default_of_the_rest_framework_is_hostile(host):
    extra = """
        REST_FRAMEWORK = {
            "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.StaticHTMLRenderer"],
            "DEFAULT_PARSER_CLASSES": [],
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_PERMISSION_CLASSES": ["hostile.Denied"],
            "DEFAULT_THROTTLE_CLASSES": ["hostile.Throttled"],
            "DEFAULT_THROTTLE_RATES": {"anon": "0/day"},
            "DEFAULT_CONTENT_NEGOTIATION_CLASS": "hostile.Negotiated",
            "DEFAULT_METADATA_CLASS": None,
            "DEFAULT_VERSIONING_CLASS": "hostile.Versioned",
            "DEFAULT_SCHEMA_CLASS": "rest_framework.schemas.openapi.AutoSchema",
            "DEFAULT_VERSION": "9",
            "ALLOWED_VERSIONS": ["9"],
            "UNAUTHENTICATED_USER": None,
            "UNAUTHENTICATED_TOKEN": None,
            "EXCEPTION_HANDLER": "hostile.broken",
            "URL_FORMAT_OVERRIDE": "type",
            "FORMAT_SUFFIX_KWARG": None,
            "UNICODE_JSON": False,
            "COMPACT_JSON": False,
        }
    """
    assert host(extra, hostile=HOSTILE_API) == EXPECTED


def test_a_host_that_is_atomic_on_every_database(host):
    extra = """
        DATABASES["other"] = DATABASES["default"] | {"NAME": HERE / "other.sqlite3"}
        for database in DATABASES.values():
            database["ATOMIC_REQUESTS"] = True
    """
    assert host(extra) == EXPECTED


def test_a_host_that_keeps_messages_beside_its_default_database(host):
    extra = """
        DATABASES["other"] = DATABASES["default"] | {"NAME": HERE / "other.sqlite3"}
        DATABASE_ROUTERS = ["routers.Router"]
    """
    router = """
        class Router:
            def db_for_read(self, model, **hints):
                return "other"

            db_for_write = db_for_read
    """
    assert host(extra, routers=router) == EXPECTED


def test_a_host_that_requires_a_login(host):
    extra = """
        ALLOWED_HOSTS = ["testserver"]
        INSTALLED_APPS += ["django.contrib.sessions", "django.contrib.messages"]
        MIDDLEWARE = [
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.locale.LocaleMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.auth.middleware.LoginRequiredMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ]
    """
    assert host(extra) == EXPECTED


def test_a_host_that_stores_no_time_zones(host):
    extra = """
        USE_TZ = False
        TIME_ZONE = "Africa/Lagos"
    """
    assert host(extra) == EXPECTED | {"sent_date": "2024-01-03 00:50:37"}


def test_a_host_that_speaks_french(host):
    assert host('LANGUAGE_CODE = "fr"') == EXPECTED


def test_a_host_with_users_of_its_own(host, tmp_path):
    extra = """
        INSTALLED_APPS += ["people"]
        AUTH_USER_MODEL = "people.Person"
    """
    models = """
        import uuid

        from django.contrib.auth.models import AbstractUser
        from django.db import models

        class Person(AbstractUser):
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    """
    (tmp_path / "people" / "migrations").mkdir(parents=True)
    for module in ("people/__init__", "people/migrations/__init__"):
        (tmp_path / f"{module}.py").touch()
    assert host(extra, "people", **{"people/models": models}) == EXPECTED


@pytest.mark.parametrize("field", ["AutoField", "SmallAutoField"])
def test_a_host_with_other_automatic_keys(host, field):
    assert host(f'DEFAULT_AUTO_FIELD = "django.db.models.{field}"') == EXPECTED


def test_a_host_with_phone_settings(host):
    extra = """
        PHONENUMBER_DEFAULT_REGION = "US"
        PHONENUMBER_DB_FORMAT = "NATIONAL"
        PHONENUMBER_DEFAULT_FORMAT = "RFC3966"
    """
    assert host(extra) == EXPECTED


def test_a_host_with_small_uploads_and_no_slashes(host):
    extra = """
        DATA_UPLOAD_MAX_MEMORY_SIZE = 1
        APPEND_SLASH = False
        DEFAULT_CHARSET = "latin-1"
        USE_I18N = False
        DEBUG = True
    """
    assert host(extra) == EXPECTED
