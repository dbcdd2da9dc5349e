from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_ninebits.conf import DEFAULTS, NotSetYet, conf


def given(**settings):
    return override_settings(NINEBITS=settings)


def broken_store():
    raise KeyError("the secret itself")


def problem_with(name, **settings):
    with given(**settings), pytest.raises(ImproperlyConfigured) as error:
        getattr(conf, name)
    return error


@pytest.mark.parametrize(
    ("key", "value", "name", "read"),
    [
        ("API_TOKEN", "abc", "api_token", "abc"),
        ("API_TOKEN", lambda: "abc", "api_token", "abc"),
        ("SHORT_CODE", "+48974", "short_code", "48974"),
        ("SHORT_CODE", "MyShop", "short_code", "MyShop"),
        ("SHORT_CODES", ("+48975", "MyShop"), "short_codes", ["48975", "MyShop"]),
        ("API_URL", "https://example.com/a", "api_url", "https://example.com/a"),
        ("API_URL", "http://127.0.0.1:80/a", "api_url", "http://127.0.0.1:80/a"),
        ("API_URL", "http://localhost/a", "api_url", "http://localhost/a"),
        ("API_URL", "http://[::1]/a", "api_url", "http://[::1]/a"),
        ("WEBHOOK_ALLOW_ANONYMOUS", True, "webhook_allow_anonymous", True),
        ("TIMEOUT", 300, "timeout", 300.0),
        ("TIMEOUT", 0.5, "timeout", 0.5),
        ("DISPATCHER", "django_ninebits.dispatch.defer", "dispatcher", None),
        ("CONCURRENCY", 1000, "concurrency", 1000),
        ("GIVE_UP_AFTER", timedelta(days=365), "give_up_after", timedelta(days=365)),
        ("OPT_OUT_WORDS", (" Stop ", "FIN"), "opt_out_words", {"stop", "fin"}),
        ("OPT_OUT_WORDS", [], "opt_out_words", frozenset()),
        ("OPT_IN_WORDS", {"Straße"}, "opt_in_words", {"strasse"}),
        ("MAX_SEGMENTS", 1, "max_segments", 1),
        ("MAX_SEGMENTS", 255, "max_segments", 255),
        ("MAX_SEGMENTS", None, "max_segments", None),
        ("OPT_OUT_CONFIRMATION", "", "opt_out_confirmation", ""),
        ("OPT_OUT_CONFIRMATION", " Ẹ ṣé\n", "opt_out_confirmation", " Ẹ ṣé\n"),
        ("ONLY_TO", [], "only_to", frozenset()),
        ("ONLY_TO", None, "only_to", None),
        ("ONLY_TO", ["0802 000 0000"], "only_to", {"+2348020000000"}),
    ],
)
def test_a_setting_is_read_at_use(key, value, name, read):
    with given(**{key: value}):
        found = getattr(conf, name)
    assert found == read or found.__name__ == "defer"


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("api_url", "https://app.9bits.net:2081/ng/v1/sendsms"),
        ("webhook_allow_anonymous", False),
        ("timeout", 10),
        ("concurrency", 16),
        ("give_up_after", timedelta(hours=24)),
        ("only_to", None),
        ("short_codes", []),
        ("max_segments", 10),
        ("opt_out_words", {"stop"}),
        ("opt_in_words", {"start"}),
        ("opt_out_confirmation", DEFAULTS["OPT_OUT_CONFIRMATION"]),
    ],
)
def test_a_setting_has_its_default(name, default):
    with given():
        assert getattr(conf, name) == default


def test_the_default_dispatcher_sends_inline():
    with given():
        assert conf.dispatcher.__name__ == "inline"


def test_without_the_dict_everything_has_its_default(settings):
    del settings.NINEBITS
    assert conf.timeout == 10
    assert conf.unknown_keys() == []


@pytest.mark.parametrize("name", ["api_token", "short_code"])
@pytest.mark.parametrize("empty", [{}, {"API_TOKEN": None, "SHORT_CODE": None}])
def test_what_is_needed_has_no_default(name, empty):
    assert problem_with(name, **empty).type is NotSetYet


@pytest.mark.parametrize("token", ["", lambda: "", lambda: None])
def test_an_empty_token_is_none(token):
    assert problem_with("api_token", API_TOKEN=token).type is NotSetYet


def test_an_empty_short_code_is_none():
    assert problem_with("short_code", SHORT_CODE="").type is NotSetYet


def test_the_short_codes_begin_with_the_default_and_name_each_once():
    further = ["48975", "48974", "MyShop", "MYSHOP", "48975"]
    with given(SHORT_CODE="48974", SHORT_CODES=further):
        assert conf.short_codes == ["48974", "48975", "MyShop"]


def test_an_address_that_all_can_read_is_not_used():
    assert problem_with("api_url", API_URL="http://example.com/").type is NotSetYet


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("API_TOKEN", "to ken", "api_token"),
        ("API_TOKEN", "token\n", "api_token"),
        ("API_TOKEN", "tọken", "api_token"),
        ("API_TOKEN", b"token", "api_token"),
        ("API_TOKEN", lambda: 5, "api_token"),
        ("SHORT_CODE", 48974, "short_code"),
        ("SHORT_CODE", "ọjà", "short_code"),
        ("SHORT_CODE", "ọjà", "short_codes"),
        ("SHORT_CODES", "48975", "short_codes"),
        ("SHORT_CODES", [48975], "short_codes"),
        ("SHORT_CODES", [""], "short_codes"),
        ("API_URL", "", "api_url"),
        ("API_URL", None, "api_url"),
        ("API_URL", "ftp://example.com/", "api_url"),
        ("API_URL", "https://", "api_url"),
        ("API_URL", "https://example.com:99999/", "api_url"),
        ("API_URL", "https://[::1/", "api_url"),
        ("API_URL", "https://user@example.com/", "api_url"),
        ("API_URL", "https://:password@example.com/", "api_url"),
        ("WEBHOOK_ALLOW_ANONYMOUS", "yes", "webhook_allow_anonymous"),
        ("WEBHOOK_ALLOW_ANONYMOUS", 1, "webhook_allow_anonymous"),
        ("TIMEOUT", 0, "timeout"),
        ("TIMEOUT", 301, "timeout"),
        ("TIMEOUT", True, "timeout"),
        ("TIMEOUT", "10", "timeout"),
        ("TIMEOUT", float("nan"), "timeout"),
        ("DISPATCHER", None, "dispatcher"),
        ("DISPATCHER", "no.such.thing", "dispatcher"),
        ("DISPATCHER", "nodots", "dispatcher"),
        ("DISPATCHER", "django_ninebits.wire.MAX_ID", "dispatcher"),
        ("CONCURRENCY", 0, "concurrency"),
        ("CONCURRENCY", 1001, "concurrency"),
        ("CONCURRENCY", True, "concurrency"),
        ("CONCURRENCY", 1.5, "concurrency"),
        ("MAX_SEGMENTS", 0, "max_segments"),
        ("MAX_SEGMENTS", 256, "max_segments"),
        ("MAX_SEGMENTS", True, "max_segments"),
        ("MAX_SEGMENTS", "3", "max_segments"),
        ("GIVE_UP_AFTER", timedelta(), "give_up_after"),
        ("GIVE_UP_AFTER", timedelta(days=366), "give_up_after"),
        ("GIVE_UP_AFTER", 3600, "give_up_after"),
        ("ONLY_TO", "+2348020000000", "only_to"),
        ("ONLY_TO", ["MTN"], "only_to"),
        ("ONLY_TO", [None], "only_to"),
    ],
)
def test_a_wrong_value_is_named(key, value, name):
    error = problem_with(name, **{key: value})
    assert error.type is ImproperlyConfigured
    assert f'NINEBITS["{key}"]' in str(error.value)


def test_a_setting_that_is_no_dict_is_named(settings):
    settings.NINEBITS = ["API_TOKEN"]
    with pytest.raises(ImproperlyConfigured, match="must be a dict"):
        conf.timeout  # noqa: B018


def test_a_token_that_is_wrong_is_not_in_the_error():
    assert "to ken" not in str(problem_with("api_token", API_TOKEN="to ken").value)


def test_what_a_secret_store_says_is_not_in_the_error():
    error = problem_with("api_token", API_TOKEN=broken_store).value
    assert "KeyError" in str(error)
    assert "secret" not in str(error)
    assert error.__suppress_context__


def test_a_callable_token_is_called_at_each_use():
    tokens = iter(["first", "second"])
    with given(API_TOKEN=lambda: next(tokens)):
        assert [conf.api_token, conf.api_token] == ["first", "second"]


def test_misspelt_keys_are_found():
    with given(API_TOKN="a", TIMEOUT=1, x=1):
        assert conf.unknown_keys() == ["API_TOKN", "x"]


def test_every_key_of_the_defaults_is_read_by_a_property():
    with given(API_TOKEN="a", SHORT_CODE="1"):
        for key in DEFAULTS.keys() - {"WEBHOOK_TOKENS", "WEBHOOK_BASIC_AUTH"}:
            getattr(conf, key.lower())


# What opens the webhook


@pytest.mark.parametrize(
    ("settings", "credentials"),
    [
        ({"API_TOKEN": "a"}, [b"Bearer a"]),
        ({"API_TOKEN": lambda: "a"}, [b"Bearer a"]),
        ({"API_TOKEN": "a", "WEBHOOK_TOKENS": None}, [b"Bearer a"]),
        ({"API_TOKEN": "a", "WEBHOOK_TOKENS": ["b", "c"]}, [b"Bearer b", b"Bearer c"]),
        ({"WEBHOOK_TOKENS": ("b",)}, [b"Bearer b"]),
        ({"WEBHOOK_BASIC_AUTH": ["u:p"]}, [b"Basic dTpw"]),
        ({"WEBHOOK_BASIC_AUTH": ["u:p:q"]}, [b"Basic dTpwOnE="]),
        ({"WEBHOOK_BASIC_AUTH": ["u:p:"]}, [b"Basic dTpwOg=="]),
        ({"WEBHOOK_TOKENS": ["a:"]}, [b"Bearer a:"]),
        ({"WEBHOOK_BASIC_AUTH": ["ú:p"]}, [b"Basic w7o6cA=="]),
        ({"API_TOKEN": "a", "WEBHOOK_BASIC_AUTH": ["u:p"]}, [b"Bearer a", b"Basic dTpw"]),
    ],
)
def test_the_credentials_are_those_of_the_settings(settings, credentials):
    with given(**settings):
        assert conf.webhook_credentials() == (credentials, [])


@pytest.mark.parametrize(
    "settings",
    [
        {"WEBHOOK_TOKENS": ["a b"]},
        {"WEBHOOK_TOKENS": [["a"]]},
        {"WEBHOOK_TOKENS": "abc"},
        {"API_TOKEN": broken_store},
        {"API_TOKEN": "a b"},
        {"WEBHOOK_BASIC_AUTH": ["u"], "WEBHOOK_TOKENS": []},
        {"WEBHOOK_BASIC_AUTH": [":p"], "WEBHOOK_TOKENS": []},
        {"WEBHOOK_BASIC_AUTH": [("u", "p")], "WEBHOOK_TOKENS": []},
        {"WEBHOOK_BASIC_AUTH": ["u:\udc80"], "WEBHOOK_TOKENS": []},
        {"WEBHOOK_BASIC_AUTH": "u:p", "WEBHOOK_TOKENS": []},
    ],
)
def test_a_credential_that_cannot_be_read_is_a_problem(settings):
    with given(**settings):
        credentials, problems = conf.webhook_credentials()
    assert credentials == []
    assert [type(problem) for problem in problems] == [ImproperlyConfigured]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"API_TOKEN": ""},
        {"WEBHOOK_TOKENS": []},
        {"WEBHOOK_TOKENS": [None]},
        {"WEBHOOK_TOKENS": [""]},
        {"WEBHOOK_TOKENS": [], "WEBHOOK_BASIC_AUTH": ["u:"]},
        {"WEBHOOK_TOKENS": [], "WEBHOOK_BASIC_AUTH": [None]},
        {"WEBHOOK_TOKENS": [], "WEBHOOK_BASIC_AUTH": [""]},
    ],
)
def test_no_credential_at_all_is_a_problem(settings):
    with given(**settings):
        credentials, problems = conf.webhook_credentials()
    assert credentials == []
    assert [type(problem) for problem in problems] == [NotSetYet]


def test_a_problem_hides_no_credential_that_can_be_read():
    with given(WEBHOOK_TOKENS=["a b", "c"], WEBHOOK_BASIC_AUTH=["u", "u:p"]):
        credentials, problems = conf.webhook_credentials()
    assert credentials == [b"Bearer c", b"Basic dTpw"]
    assert len(problems) == 2


# Opting out


@pytest.mark.parametrize("words", ["STOP", None, [1], [""], [" "], ["STOP", "\u2003"], {"a": 1}])
@pytest.mark.parametrize("key", ["OPT_OUT_WORDS", "OPT_IN_WORDS"])
def test_words_that_are_none_are_named(key, words):
    error = problem_with(key.lower(), **{key: words})
    assert str(error.value).startswith(f'NINEBITS["{key}"] must be a list')


def test_nobody_opts_out_for_ever():
    error = problem_with("opt_in_words", OPT_IN_WORDS=[])
    assert "nobody who opted out could come back" in str(error.value)


def test_without_words_that_opt_out_none_is_needed_to_come_back():
    with given(OPT_OUT_WORDS=[], OPT_IN_WORDS=[]):
        assert conf.opt_in_words == conf.opt_out_words == frozenset()


def test_no_word_means_both():
    error = problem_with("opt_in_words", OPT_OUT_WORDS=["A", "B"], OPT_IN_WORDS=["START", "b "])
    assert "holds 'b', which is one of OPT_OUT_WORDS too" in str(error.value)


def test_what_is_wrong_with_the_words_that_opt_out_is_not_said_of_the_others():
    with given(OPT_OUT_WORDS=None):
        assert conf.opt_in_words == {"start"}


@pytest.mark.parametrize("text", [None, 1, ["Bye."], " ", "\n", "a\0", "\ud83d", chr(0xDFFF)])
def test_a_confirmation_that_cannot_be_sent_is_named(text):
    error = problem_with("opt_out_confirmation", OPT_OUT_CONFIRMATION=text)
    assert 'NINEBITS["OPT_OUT_CONFIRMATION"] must be a text' in str(error.value)
