import re
from pathlib import Path

import pytest
from django.core.checks import Error, Tags, run_checks
from django.core.management import call_command
from django.db import connection, connections
from django.test import override_settings

from django_ninebits import checks
from django_ninebits.models import Message

TOKEN = "a-token-that-is-long-enough"
SOUND = {"API_TOKEN": TOKEN, "SHORT_CODE": "48974", "API_URL": "https://9bits.example/sendsms"}


def said(function, /, **keys):
    """The ids of what a check says of sound settings with ``keys`` instead."""
    with override_settings(NINEBITS=SOUND | keys):
        return [message.id.removeprefix("ninebits.") for message in function()]


def hints(function, /, **keys):
    with override_settings(NINEBITS=SOUND | keys):
        return [message.hint for message in function()]


def test_sound_settings_are_silent():
    assert said(checks.check_settings) == []
    assert said(checks.check_deployment) == []
    assert checks.check_apps() == []


def test_settings_that_are_no_dict_are_one_error():
    with override_settings(NINEBITS=["API_TOKEN"]):
        (message,) = checks.check_settings()
    assert isinstance(message, Error)
    assert message.id == "ninebits.E001"
    assert message.msg == "NINEBITS must be a dict."


def test_a_misspelt_key_is_told_which_was_meant():
    assert said(checks.check_settings, webhook_token=["a"]) == ["E002"]
    assert hints(checks.check_settings, webhook_token=["a"]) == ["Did you mean 'WEBHOOK_TOKENS'?"]


def test_a_key_like_no_other_is_told_all_there_are():
    (hint,) = hints(checks.check_settings, COLOUR="red")
    assert "API_TOKEN, SHORT_CODE" in hint


@pytest.mark.parametrize(
    ("name", "number"), [("phonenumber_field", "E003"), ("rest_framework", "E004")]
)
def test_an_app_that_is_missing_is_an_error(settings, name, number):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != name]
    (message,) = checks.check_apps()
    assert message.id == f"ninebits.{number}"
    assert name in str(message.hint)


@pytest.mark.parametrize(
    ("key", "value", "number"),
    [
        ("API_TOKEN", 5, "E005"),
        ("API_TOKEN", "two words", "E005"),
        ("SHORT_CODE", 48974, "E006"),
        ("SHORT_CODE", "é", "E006"),
        ("SHORT_CODES", "48975", "E021"),
        ("SHORT_CODES", ["é"], "E021"),
        ("API_URL", "9bits", "E007"),
        ("API_URL", "https://user:secret@9bits.example/", "E007"),
        ("WEBHOOK_TOKENS", TOKEN, "E008"),
        ("WEBHOOK_TOKENS", [TOKEN, 5], "E008"),
        ("WEBHOOK_BASIC_AUTH", ["a user without a password"], "E008"),
        ("WEBHOOK_ALLOW_ANONYMOUS", "no", "E009"),
        ("TIMEOUT", 0, "E010"),
        ("DISPATCHER", "no.such.module", "E011"),
        ("DISPATCHER", "django_ninebits.outbox.LOST", "E011"),
        ("CONCURRENCY", "16", "E012"),
        ("GIVE_UP_AFTER", 24, "E013"),
        ("ONLY_TO", ["MTN"], "E014"),
        ("OPT_OUT_WORDS", "STOP", "E017"),
        ("OPT_IN_WORDS", [], "E018"),
        ("OPT_IN_WORDS", ["STOP"], "E018"),
        ("OPT_OUT_CONFIRMATION", None, "E019"),
        ("MAX_SEGMENTS", 0, "E020"),
        ("ONLY_TO", "+2348020000000", "E014"),
    ],
)
def test_what_is_malformed_is_one_error_that_names_it(key, value, number):
    with override_settings(NINEBITS=SOUND | {key: value}):
        (message,) = checks.check_settings()
    assert isinstance(message, Error)
    assert message.id == f"ninebits.{number}"
    assert key in message.msg
    assert message.hint


def test_one_mistake_does_not_hide_another():
    numbers = said(checks.check_settings, TIMEOUT=0, CONCURRENCY=0, COLOUR="red", SHORT_CODE="")
    assert numbers == ["E002", "W002", "E010", "E012"]


@pytest.mark.parametrize(
    ("key", "value", "numbers"),
    [
        ("API_TOKEN", None, ["W001", "W004"]),
        ("API_TOKEN", "", ["W001", "W004"]),
        ("SHORT_CODE", None, ["W002"]),
        ("API_URL", "http://9bits.example/sendsms", ["W003"]),
        ("WEBHOOK_TOKENS", [], ["W004"]),
        ("WEBHOOK_TOKENS", [None], ["W004"]),
        ("WEBHOOK_TOKENS", [""], ["W004"]),
    ],
)
def test_what_is_not_usable_yet_is_only_a_warning(key, value, numbers):
    assert said(checks.check_settings, **{key: value}) == numbers


@pytest.mark.parametrize("pair", [None, "", ":", "user:"])
def test_a_pair_whose_secret_is_missing_is_only_a_warning(pair):
    keys = {"WEBHOOK_TOKENS": [], "WEBHOOK_BASIC_AUTH": [pair]}
    assert said(checks.check_settings, **keys) == ["W004"]


def test_a_secret_may_end_with_a_colon():
    assert said(checks.check_settings, WEBHOOK_TOKENS=["token:"]) == []
    keys = {"WEBHOOK_TOKENS": [], "WEBHOOK_BASIC_AUTH": ["user:password:"]}
    assert said(checks.check_settings, **keys) == []


def test_one_secret_that_is_missing_beside_another_is_silent():
    assert said(checks.check_settings, WEBHOOK_TOKENS=[None, TOKEN]) == []


def test_an_image_without_secrets_can_migrate():
    with override_settings(NINEBITS={}):
        assert not [message for message in checks.check_settings() if message.is_serious(40)]


def test_nothing_at_all_may_open_a_webhook_that_lets_everybody_in():
    assert said(checks.check_settings, WEBHOOK_TOKENS=[], WEBHOOK_ALLOW_ANONYMOUS=True) == []


def test_a_callable_token_is_not_called():
    calls = []
    token = {"API_TOKEN": lambda: calls.append("called")}
    assert said(checks.check_settings, **token) == []
    assert said(checks.check_deployment, **token) == []
    assert calls == []


@pytest.mark.parametrize(
    ("key", "value", "numbers"),
    [
        ("WEBHOOK_ALLOW_ANONYMOUS", True, ["W007"]),
        ("ONLY_TO", [], ["W008"]),
        ("WEBHOOK_TOKENS", ["fifteen-letters"], ["W009"]),
        ("WEBHOOK_TOKENS", [TOKEN, None, ""], []),
        ("WEBHOOK_TOKENS", ["sixteen--letters"], []),
        ("WEBHOOK_BASIC_AUTH", ["a-user-with-a-long-name:short"], ["W009"]),
        ("WEBHOOK_BASIC_AUTH", [f"user:{TOKEN}", "user:", None], []),
        ("WEBHOOK_BASIC_AUTH", ["user:sixteen--letters"], []),
        ("API_TOKEN", "9bits-chose-it", []),
        ("API_URL", "http://127.0.0.1:9480/ng/v1/sendsms", ["W010"]),
        ("ONLY_TO", "malformed", []),
        ("OPT_OUT_WORDS", [], []),
        ("OPT_IN_WORDS", ["BEGIN"], ["W011"]),
        ("OPT_IN_WORDS", ["BEGIN", "start"], []),
        ("OPT_IN_WORDS", ["STOP"], []),
    ],
)
def test_what_is_unwise_in_production(key, value, numbers):
    assert said(checks.check_deployment, **{key: value}) == numbers


def test_a_confirmation_of_ones_own_may_name_any_word():
    given = {"OPT_IN_WORDS": ["BEGIN"], "OPT_OUT_CONFIRMATION": "Bye. BEGIN brings you back."}
    assert said(checks.check_deployment, **given) == []


def test_no_message_shows_a_secret():
    wrong = {"API_TOKEN": "two secrets", "WEBHOOK_TOKENS": ["two secrets"]}
    with override_settings(NINEBITS=wrong | {"WEBHOOK_BASIC_AUTH": ["secrets"]}):
        messages = [*checks.check_settings(), *checks.check_deployment()]
    assert [str(message.id)[-4:] for message in messages] == [
        "E005",
        "W002",
        "E008",
        "E008",
        "W009",
    ]
    assert "secrets" not in "".join(message.msg for message in messages)


@pytest.mark.parametrize(
    ("vendor", "age", "options", "numbers"),
    [
        ("postgresql", 0, {}, ["W005"]),
        ("mysql", 0, {}, ["W005"]),
        ("sqlite", 0, {}, []),
        ("postgresql", 60, {}, []),
        ("postgresql", None, {}, []),
        ("postgresql", 0, {"pool": True}, []),
        ("mysql", 0, {"pool": False}, ["W005"]),
    ],
)
def test_a_connection_for_each_delivery_is_warned_of(monkeypatch, vendor, age, options, numbers):
    monkeypatch.setattr(connection, "vendor", vendor, raising=False)
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", age)
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    assert said(checks.check_connection) == numbers


class Elsewhere:
    def db_for_write(self, model, **hints):
        return "elsewhere" if model is Message else None


def test_the_connection_is_that_of_the_messages(monkeypatch, settings):
    monkeypatch.setattr(connection, "vendor", "postgresql", raising=False)
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    monkeypatch.setitem(connections.settings, "elsewhere", connections.settings["default"])
    connections["elsewhere"] = connections.create_connection("elsewhere")
    connections["elsewhere"].vendor = "sqlite"
    settings.DATABASE_ROUTERS = [Elsewhere()]
    assert said(checks.check_connection) == []
    del connections["elsewhere"]


@pytest.mark.django_db
def test_the_suite_has_a_database_that_holds_emoji():
    assert checks.check_charset(databases=["default"]) == []


def test_no_database_is_asked_unless_it_may_be():
    assert checks.check_charset(databases=None) == []
    assert checks.check_charset(databases=["another"]) == []


def store_texts_in(charset):
    """In a database that has no charsets, nothing."""
    table = Message._meta.db_table
    modify = f"ALTER TABLE {table} MODIFY text longtext CHARACTER SET {charset} NOT NULL"
    with connection.cursor() as cursor:
        for statement in {"mysql": [modify]}.get(connection.vendor, []):
            cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
def test_a_table_that_holds_no_emoji_is_warned_of_where_there_can_be_one():
    store_texts_in("utf8mb3")
    found = checks.check_charset(databases=["default"])
    store_texts_in("utf8mb4")
    expected = {"mysql": [("ninebits.W006", True)]}.get(connection.vendor, [])
    assert [(message.id, "utf8mb3" in message.msg) for message in found] == expected


def test_the_checks_are_bound(settings):
    settings.NINEBITS = []
    assert "ninebits.E001" in {message.id for message in run_checks(tags=["django_ninebits"])}


def test_the_deployment_checks_are_bound_to_deployment(settings):
    settings.NINEBITS = SOUND | {"ONLY_TO": []}
    tags = ["django_ninebits"]
    ids = {message.id for message in run_checks(tags=tags, include_deployment_checks=True)}
    assert "ninebits.W008" in ids
    assert "ninebits.W008" not in {message.id for message in run_checks(tags=tags)}


@pytest.mark.django_db
def test_the_database_check_is_bound_to_the_database_tag():
    assert run_checks(tags=[Tags.database], databases=["default"]) == []
    call_command("check", databases=["default"])


def test_every_id_is_documented_once():
    documented = re.findall(r"^ninebits\.([EW]\d{3}) ", checks.__doc__, re.MULTILINE)
    source = Path(checks.__file__).read_text().removeprefix(f'"""{checks.__doc__}"""')
    assert sorted(documented) == sorted(set(re.findall(r"[EW]0\d{2}", source)))
