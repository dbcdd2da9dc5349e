"""Settings of the example site. They are for your own machine, not for a server."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

NINEBITS = {
    "API_TOKEN": os.environ.get("NINEBITS_API_TOKEN", "demo-token"),
    "SHORT_CODE": os.environ.get("NINEBITS_SHORT_CODE", "48974"),
    # Where no 9bits is named, messages go to the simulator behind the phone, at /phone/.
    "API_URL": os.environ.get("NINEBITS_API_URL", "http://127.0.0.1:9480/ng/v1/sendsms"),
    # Replies wait for `manage.py ninebits_worker`. Without a worker, use dispatch.inline.
    "DISPATCHER": os.environ.get("NINEBITS_DISPATCHER", "django_ninebits.dispatch.defer"),
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "phonenumber_field",
    "rest_framework",
    "django_ninebits",
    "example_project",
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
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE", BASE_DIR / "db.sqlite3"),
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DEBUG = True
SECRET_KEY = "only-for-the-example-everybody-knows-it"
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
STATIC_URL = "static/"
TIME_ZONE = "Africa/Lagos"
USE_TZ = True
