"""System checks: every mistake in the settings by name, with what to do.

What is malformed is an error, which also stops ``migrate``. What is not usable yet is a warning:
images are built without secrets. So no callable in the settings is called here either.

=============  ==================================================================================
ninebits.E001  ``NINEBITS`` is not a dict
ninebits.E002  a key that there is not
ninebits.E003  ``phonenumber_field`` is not in ``INSTALLED_APPS``
ninebits.E004  ``rest_framework`` is not in ``INSTALLED_APPS``
ninebits.E005  ``API_TOKEN`` is malformed
ninebits.E006  ``SHORT_CODE`` is malformed
ninebits.E007  ``API_URL`` is malformed
ninebits.E008  ``WEBHOOK_TOKENS`` or ``WEBHOOK_BASIC_AUTH`` is malformed
ninebits.E009  ``WEBHOOK_ALLOW_ANONYMOUS`` is malformed
ninebits.E010  ``TIMEOUT`` is malformed
ninebits.E011  ``DISPATCHER`` is malformed or cannot be imported
ninebits.E012  ``CONCURRENCY`` is malformed
ninebits.E013  ``GIVE_UP_AFTER`` is malformed
ninebits.E014  ``ONLY_TO`` is malformed
ninebits.E015  ``HANDSET_WITHOUT_DEBUG`` is malformed
ninebits.E016  the simulator's phone is mounted where ``DEBUG`` is off
ninebits.E017  ``OPT_OUT_WORDS`` is malformed
ninebits.E018  ``OPT_IN_WORDS`` is malformed, or leads nobody back
ninebits.E019  ``OPT_OUT_CONFIRMATION`` is malformed
ninebits.E020  ``MAX_SEGMENTS`` is malformed
ninebits.E021  ``SHORT_CODES`` is malformed
ninebits.W001  ``API_TOKEN`` is not set
ninebits.W002  ``SHORT_CODE`` is not set
ninebits.W003  ``API_URL`` is neither https nor on this machine
ninebits.W004  nothing opens the webhook
ninebits.W005  the database is connected to anew for each delivery
ninebits.W006  the MariaDB or MySQL database is not ``utf8mb4`` (``check --database``)
ninebits.W007  the webhook lets in whoever finds it (``check --deploy``)
ninebits.W008  ``ONLY_TO`` is set (``check --deploy``)
ninebits.W009  a secret of the webhook is short (``check --deploy``)
ninebits.W010  ``API_URL`` is on this machine (``check --deploy``)
ninebits.W011  ``OPT_OUT_CONFIRMATION`` names a word that does not opt in (``check --deploy``)
=============  ==================================================================================
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.urls import NoReverseMatch, reverse

from django_ninebits.conf import DEFAULTS, Conf, NotSetYet, normal
from django_ninebits.models import Message, database

#: The shortest secret that nobody guesses, in characters.
SHORTEST_SECRET = 16

# property of ``conf`` → the ids of malformed and of not usable yet, and what to do.
_PROPERTIES = {
    "api_token": (
        "E005",
        "W001",
        "Use the token of your 9bits account: a string, or a callable that returns one.",
    ),
    "short_code": ("E006", "W002", 'Use the number that 9bits gave you, such as "48974".'),
    "further_short_codes": ("E021", "", 'Use a list of strings such as ["48974", "MyShop"].'),
    "api_url": ("E007", "W003", "Leave API_URL out to use 9bits itself."),
    "webhook_allow_anonymous": (
        "E009",
        "",
        "Leave it out, unless the callbacks of your account carry no credentials.",
    ),
    "timeout": ("E010", "", "Leave it out, or use a number of seconds such as 10."),
    "dispatcher": (
        "E011",
        "",
        'Use "django_ninebits.dispatch.inline", "django_ninebits.dispatch.defer", or the dotted'
        " path of your own function.",
    ),
    "concurrency": ("E012", "", "Leave it out, or use a whole number such as 16."),
    "give_up_after": ("E013", "", "Leave it out, or use a timedelta such as timedelta(hours=24)."),
    "only_to": (
        "E014",
        "",
        'Use a list of numbers such as ["+2348020000000"], or None to send to everybody.',
    ),
    "opt_out_words": (
        "E017",
        "",
        'Use a list of words such as ["STOP", "ARRET"], or [] to let nobody opt out by a text.',
    ),
    "opt_in_words": ("E018", "", 'Use a list of other words, such as ["START"].'),
    "opt_out_confirmation": ("E019", "", 'Use a text, or "" to confirm nothing.'),
    "max_segments": ("E020", "", "Leave it out, or use a whole number such as 3, or None."),
    "handset_without_debug": ("E015", "", "Leave it out, or use True or False."),
}

_WEBHOOK_HINT = (
    "List tokens in WEBHOOK_TOKENS, or user:password pairs in WEBHOOK_BASIC_AUTH, and give 9bits"
    " one of them. Without either key, API_TOKEN opens the webhook."
)

_APPS = {"phonenumber_field": "E003", "rest_framework": "E004"}


class _UncalledConf(Conf):
    """The settings, where a callable token counts as a token that is well-formed."""

    @property
    def api_token(self) -> str:
        return "uncalled" if callable(self._value("API_TOKEN")) else super().api_token

    def webhook_secrets(self) -> Iterator[str]:
        """The secret parts of what opens the webhook; empty where one is not set yet."""
        for key, entry in self._webhook_entries([]):
            if key == "WEBHOOK_TOKENS":
                yield str(entry or "")
            elif key == "WEBHOOK_BASIC_AUTH":
                yield str(entry).partition(":")[2]


_conf = _UncalledConf()


def check_apps(**kwargs: Any) -> list[CheckMessage]:
    """The apps that this one stands on."""
    return [
        Error(
            f"django_ninebits needs {name!r} in INSTALLED_APPS.",
            hint=f"Add {name!r} before 'django_ninebits'.",
            id=f"ninebits.{number}",
        )
        for name, number in _APPS.items()
        if not apps.is_installed(name)
    ]


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Every key, each by itself: one mistake does not hide another."""
    try:
        unknown = _conf.unknown_keys()
    except ImproperlyConfigured as problem:
        hint = 'Write NINEBITS = {"API_TOKEN": …, "SHORT_CODE": …}.'
        return [Error(str(problem), hint=hint, id="ninebits.E001")]
    return [
        *(_unknown(key) for key in unknown),
        *(message for name in _PROPERTIES for message in _check_property(name)),
        *_check_webhook(),
    ]


def check_handset(**kwargs: Any) -> list[CheckMessage]:
    """Whether strangers could find the simulator's phone."""
    is_meant = settings.DEBUG or _is_so(lambda: _conf.handset_without_debug)
    if is_meant or not _is_mounted("ninebits-handset:page"):
        return []
    return [
        Error(
            "The simulator's phone is mounted, and DEBUG is off: whoever finds it texts in"
            " anybody's name.",
            hint='Mount it under "if settings.DEBUG:". On a site that only testers reach, set'
            ' NINEBITS["HANDSET_WITHOUT_DEBUG"] to True.',
            id="ninebits.E016",
        )
    ]


def check_connection(**kwargs: Any) -> list[CheckMessage]:
    """Whether the database's connections live longer than a request."""
    connection = connections[database()]
    options = connection.settings_dict
    is_kept = options["CONN_MAX_AGE"] != 0 or options["OPTIONS"].get("pool")
    if is_kept or connection.vendor not in {"postgresql", "mysql"}:
        return []
    return [
        Warning(
            f"The database {connection.alias!r} is connected to anew for each delivery, which makes"
            " the webhook about three times slower.",
            hint="Set CONN_MAX_AGE to 60, say, or use a connection pool.",
            id="ninebits.W005",
        )
    ]


def check_charset(*, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Whether the database can hold every text. Asks it, so only where checks may."""
    alias = database()
    if alias not in (databases or ()) or connections[alias].vendor != "mysql":
        return []
    charset = _charset(alias)
    if charset == "utf8mb4":
        return []
    return [
        Warning(
            f"The database {alias!r} holds texts as {charset}: a text with an emoji cannot be"
            " stored there, and is quarantined.",
            hint="Convert it: ALTER DATABASE … CHARACTER SET utf8mb4, and ALTER TABLE … CONVERT TO"
            " CHARACTER SET utf8mb4 for the tables of django_ninebits.",
            id="ninebits.W006",
        )
    ]


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """What is well-formed, but hardly meant for production."""
    return [
        Warning(message, hint=hint, id=f"ninebits.{number}")
        for number, is_unwise, message, hint in _UNWISE
        if _is_so(is_unwise)
    ]


def _is_mounted(name: str) -> bool:
    if not getattr(settings, "ROOT_URLCONF", None):
        return False
    try:
        return bool(reverse(name))
    except NoReverseMatch:
        return False


def _unknown(key: str) -> CheckMessage:
    closest = difflib.get_close_matches(key.upper(), DEFAULTS, n=1)
    hint = f"Did you mean {closest[0]!r}?" if closest else f"There are {', '.join(DEFAULTS)}."
    return Error(f'NINEBITS["{key}"] is no setting.', hint=hint, id="ninebits.E002")


def _check_property(name: str) -> list[CheckMessage]:
    malformed, not_yet, hint = _PROPERTIES[name]
    try:
        getattr(_conf, name)
    except NotSetYet as problem:
        return [Warning(str(problem), hint=hint, id=f"ninebits.{not_yet}")]
    except ImproperlyConfigured as problem:
        return [Error(str(problem), hint=hint, id=f"ninebits.{malformed}")]
    return []


def _check_webhook() -> list[CheckMessage]:
    credentials, problems = _conf.webhook_credentials()
    malformed = [problem for problem in problems if not isinstance(problem, NotSetYet)]
    if malformed:
        # What is wrong with API_TOKEN has been said.
        return [
            Error(str(problem), hint=_WEBHOOK_HINT, id="ninebits.E008")
            for problem in malformed
            if 'NINEBITS["API_TOKEN"]' not in str(problem)
        ]
    if credentials or _is_so(lambda: _conf.webhook_allow_anonymous):
        return []
    text = "Nothing opens the webhook: every delivery is told to come again later."
    return [Warning(text, hint=_WEBHOOK_HINT, id="ninebits.W004")]


def _is_so(question: Any) -> bool:
    """The answer; no, where the settings are so wrong that there is none."""
    try:
        return bool(question())
    except ImproperlyConfigured:
        return False


_UNWISE = [
    (
        "W007",
        lambda: _conf.webhook_allow_anonymous,
        "WEBHOOK_ALLOW_ANONYMOUS is on: whoever finds the webhook can write texts in anybody's"
        " name.",
        "Ask 9bits for callbacks with credentials, or let only the addresses of 9bits reach the"
        " webhook and silence this check.",
    ),
    (
        "W008",
        lambda: _conf.only_to is not None,
        "ONLY_TO is set: messages to everybody else fail. It is a leash for staging copies.",
        "Remove ONLY_TO in production; on a staging copy, silence this check.",
    ),
    (
        "W009",
        lambda: any(0 < len(secret) < SHORTEST_SECRET for secret in _conf.webhook_secrets()),
        f"WEBHOOK_TOKENS or WEBHOOK_BASIC_AUTH holds a secret of fewer than {SHORTEST_SECRET}"
        " characters, which can be guessed.",
        "Draw another, such as with python -c 'import secrets; print(secrets.token_urlsafe())'.",
    ),
    (
        "W010",
        lambda: _conf.api_url.startswith("http:"),
        "API_URL is on this machine, such as the simulator's: nothing reaches a phone.",
        "Leave API_URL out to use 9bits itself.",
    ),
    (
        "W011",
        lambda: _conf.opt_out_words and _names_no_way_back(),
        "OPT_OUT_CONFIRMATION is not set: it says that START brings messages back, and START is"
        " not one of OPT_IN_WORDS.",
        "Set OPT_OUT_CONFIRMATION to a text that names one of them.",
    ),
]


def _names_no_way_back() -> bool:
    is_default = _conf.opt_out_confirmation == DEFAULTS["OPT_OUT_CONFIRMATION"]
    return is_default and normal("START") not in _conf.opt_in_words


def _charset(alias: str) -> str:
    """Of the column that holds the texts, or what it will have once it is created."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT COALESCE((SELECT character_set_name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND table_name = %s AND column_name = %s),"
            " @@character_set_database)",
            [Message._meta.db_table, "text"],
        )
        return str(cursor.fetchone()[0])
