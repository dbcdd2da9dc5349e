"""Settings of the suite. ``NINEBITS_TEST_DATABASE`` is the URL of the database it runs on::

    sqlite:///build/test.sqlite3  (the default: a file, because tests have threads)
    postgresql://user:password@127.0.0.1:5432/name
    mysql://user:password@127.0.0.1:3306/name

On a server the tests create a database of their own, ``test_<name>``.

``NINEBITS_TEST_ADMIN`` names an app that replaces the templates of Django's admin, such as
``unfold``.
"""

import json
import os
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

IS_RESTARTED = "NINEBITS_CHAOS_RESTART" in os.environ
BASE_DIR = Path(__file__).resolve().parent.parent


def database(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    name = unquote(parts.path[1:])
    if parts.scheme == "sqlite":
        file = BASE_DIR / name
        file.parent.mkdir(exist_ok=True)
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": file,
            # Not for a crash of the machine: a process that is killed loses nothing by it.
            "OPTIONS": {"timeout": 20, "init_command": "PRAGMA synchronous=OFF"},
            "TEST": {"NAME": file},
        }
    server = {
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }
    if parts.scheme == "mysql":
        return server | {
            "ENGINE": "django.db.backends.mysql",
            "OPTIONS": {"charset": "utf8mb4"},
            "TEST": {"CHARSET": "utf8mb4"},
        }
    return server | {
        "ENGINE": f"django.db.backends.{parts.scheme}",
        # Where the server itself is restarted, it must have kept what it said it had.
        "OPTIONS": {"options": f"-c synchronous_commit={'on' if IS_RESTARTED else 'off'}"},
    }


URL = os.environ.get("NINEBITS_TEST_DATABASE") or "sqlite:///build/test.sqlite3"
DATABASES = {"default": database(URL)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Processes that a test starts are told more of them. Read-only, so that a test that adds a key
# changes its own settings and not those of the next test.
NINEBITS = MappingProxyType(
    {"API_TOKEN": "test-token", "SHORT_CODE": "48974"}
    | json.loads(os.environ.get("NINEBITS_TEST_SETTINGS", "{}"))
)

INSTALLED_APPS = [
    *filter(None, [os.environ.get("NINEBITS_TEST_ADMIN")]),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "phonenumber_field",
    "rest_framework",
    "django_ninebits",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ROOT_URLCONF = "tests.urls"
SECRET_KEY = "only-for-tests"
STATIC_URL = "static/"
USE_TZ = True
