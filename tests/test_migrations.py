import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from django_ninebits import models

ROOT = Path(__file__).resolve().parent.parent

#: Everything that a host can set and that models look at, as unlike the suite's as can be.
HOSTILE = """
from tests.settings import *

PHONENUMBER_DB_FORMAT = "NATIONAL"
PHONENUMBER_DEFAULT_FORMAT = "NATIONAL"
PHONENUMBER_DEFAULT_REGION = "US"
LANGUAGE_CODE = "fr"
TIME_ZONE = "Asia/Kathmandu"
USE_TZ = False
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = [*INSTALLED_APPS, "people"]
AUTH_USER_MODEL = "people.Person"
"""
PEOPLE = """
import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models


class Person(AbstractUser):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
"""


def manage(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments, "--settings", "hostile"],
        env=os.environ
        | {
            "NINEBITS_TEST_DATABASE": f"sqlite:///{cwd / 'hostile.sqlite3'}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(cwd)]),
        },
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def host(tmp_path):
    """The folder of a host with settings and a user model of its own."""
    people = tmp_path / "people"
    people.mkdir()
    (people / "__init__.py").touch()
    (people / "models.py").write_text(PEOPLE)
    (tmp_path / "hostile.py").write_text(HOSTILE)
    return tmp_path


def test_there_is_one_initial_migration():
    loader = MigrationLoader(None)
    names = [name for app, name in loader.disk_migrations if app == "django_ninebits"]
    assert names == ["0001_initial"]


@pytest.mark.django_db
def test_nothing_is_missing_from_it(capsys):
    call_command("makemigrations", "django_ninebits", check=True, dry_run=True)
    assert "No changes detected" in capsys.readouterr().out


def test_nothing_is_missing_from_it_whatever_the_host_has_set(host):
    made = manage("makemigrations", "django_ninebits", "--check", "--dry-run", cwd=host)
    assert made.returncode == 0, made.stdout + made.stderr


def test_it_migrates_whatever_the_host_has_set(host):
    migrated = manage("migrate", "--run-syncdb", cwd=host)
    assert migrated.returncode == 0, migrated.stderr
    assert "Applying django_ninebits.0001_initial... OK" in migrated.stdout


@pytest.mark.django_db
def test_every_table_is_there():
    tables = set(connection.introspection.table_names())
    assert {
        model._meta.db_table
        for model in (
            models.Contact,
            models.Conversation,
            models.Message,
            models.QuarantinedDelivery,
        )
    } <= tables
