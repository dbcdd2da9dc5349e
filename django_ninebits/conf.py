"""The ``NINEBITS`` setting: one dict, read at use, so that ``override_settings`` just works.

Every key is a property of ``conf``. Reading one that is wrong raises ``ImproperlyConfigured`` with
a sentence that names the key and says what to do; the system checks report the same sentences.
"""

import base64
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_ninebits.exceptions import InvalidPhoneNumber
from django_ninebits.phone import service_number, subscriber_number
from django_ninebits.segments import MOST

DEFAULTS: Mapping[str, Any] = {
    "API_TOKEN": None,
    "SHORT_CODE": None,
    "SHORT_CODES": [],
    "API_URL": "https://app.9bits.net:2081/ng/v1/sendsms",
    "WEBHOOK_TOKENS": None,
    "WEBHOOK_BASIC_AUTH": [],
    "WEBHOOK_ALLOW_ANONYMOUS": False,
    "TIMEOUT": 10,
    "DISPATCHER": "django_ninebits.dispatch.inline",
    "CONCURRENCY": 16,
    "GIVE_UP_AFTER": timedelta(hours=24),
    "ONLY_TO": None,
    "MAX_SEGMENTS": 10,
    "OPT_OUT_WORDS": ["STOP"],
    "OPT_IN_WORDS": ["START"],
    "OPT_OUT_CONFIRMATION": "You will get no more messages from us. Text START to get them again.",
    "HANDSET_WITHOUT_DEBUG": False,
}

#: Takes the ids of messages that were queued.
Dispatcher = Callable[[list[int]], object]


class NotSetYet(ImproperlyConfigured):
    """Nothing is malformed, but this is not usable yet: only a warning until it is needed."""


class Conf:
    """The settings, typed and checked."""

    @property
    def api_token(self) -> str:
        """The token that sends. A callable in the settings is called at each use."""
        value = self._value("API_TOKEN")
        token = _called(value) if callable(value) else value
        if token is None or token == "":
            raise NotSetYet('NINEBITS["API_TOKEN"] is not set. Nothing can be sent without it.')
        return _token("API_TOKEN", token)

    @property
    def short_code(self) -> str:
        """The number that sends when none is named."""
        code = self._value("SHORT_CODE")
        if code is None or code == "":
            raise NotSetYet(
                'NINEBITS["SHORT_CODE"] is not set. Set it, or name the sender in each call.'
            )
        return _sender("SHORT_CODE", code)

    @property
    def further_short_codes(self) -> list[str]:
        """The numbers that staff may start a conversation from beside ``SHORT_CODE``."""
        return [_sender("SHORT_CODES", code) for code in self._list("SHORT_CODES")]

    @property
    def short_codes(self) -> list[str]:
        """All that staff may start a conversation from, the default first, each once."""
        codes = self.further_short_codes
        with suppress(NotSetYet):
            codes.insert(0, self.short_code)
        found: dict[str, str] = {}
        for code in codes:
            # Sender IDs that differ in case only have the same conversations.
            found.setdefault(code.lower(), code)
        return list(found.values())

    @property
    def api_url(self) -> str:
        """Where calls go."""
        url = self._value("API_URL")
        if not isinstance(url, str) or not _is_http_url(url):
            raise _wrong("API_URL", "must be a URL such as https://example.com/sendsms")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise _wrong("API_URL", "must not hold a user or password: API_TOKEN is the credential")
        if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
            raise NotSetYet(
                'NINEBITS["API_URL"] is neither https nor on this machine. The token and the texts'
                " would be readable on the way, so nothing is sent: use https://."
            )
        return url

    def webhook_credentials(self) -> tuple[list[bytes], list[ImproperlyConfigured]]:
        """The values of ``Authorization`` that open the webhook, and why others cannot be read.

        One that cannot be read does not hide those that can.
        """
        credentials: list[bytes] = []
        problems: list[ImproperlyConfigured] = []
        for key, entry in self._webhook_entries(problems):
            try:
                credentials.append(_credential(key, entry, self))
            except ImproperlyConfigured as problem:
                problems.append(problem)
        if credentials:
            problems = [problem for problem in problems if not isinstance(problem, NotSetYet)]
        elif not problems:
            problems = [NotSetYet("NINEBITS holds no credential that opens the webhook.")]
        return credentials, problems

    def _webhook_entries(self, problems: list[ImproperlyConfigured]) -> Iterable[tuple[str, Any]]:
        if self._value("WEBHOOK_TOKENS") is None:
            yield "API_TOKEN", None
        for key in ("WEBHOOK_TOKENS", "WEBHOOK_BASIC_AUTH"):
            try:
                yield from ((key, entry) for entry in self._list(key))
            except ImproperlyConfigured as problem:
                problems.append(problem)

    @property
    def webhook_allow_anonymous(self) -> bool:
        """Whether any delivery is let in, whatever it offers."""
        return self._bool("WEBHOOK_ALLOW_ANONYMOUS")

    @property
    def handset_without_debug(self) -> bool:
        """Whether the simulator's phone is served although ``DEBUG`` is off."""
        return self._bool("HANDSET_WITHOUT_DEBUG")

    @property
    def timeout(self) -> float:
        """Seconds for a whole attempt, from the look-up of the name to the answer's last byte."""
        value = self._value("TIMEOUT")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 300:
            raise _wrong("TIMEOUT", "must be a number of seconds above 0 and at most 300")
        return float(value)

    @property
    def dispatcher(self) -> Dispatcher:
        """The callable that is given the ids of queued messages after commit."""
        path = self._value("DISPATCHER")
        if not isinstance(path, str):
            raise _wrong("DISPATCHER", "must be the dotted path of a callable")
        try:
            dispatcher = import_string(path)
        except ImportError as error:
            raise _wrong("DISPATCHER", f"cannot be imported: {error}") from error
        if not callable(dispatcher):
            raise _wrong("DISPATCHER", f"names {path}, which cannot be called")
        return dispatcher  # type: ignore[no-any-return]

    @property
    def concurrency(self) -> int:
        """Requests in flight in one worker."""
        value = self._value("CONCURRENCY")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
            raise _wrong("CONCURRENCY", "must be a whole number from 1 to 1000")
        return value

    @property
    def give_up_after(self) -> timedelta:
        """How long after it was due a message is tried."""
        value = self._value("GIVE_UP_AFTER")
        if not isinstance(value, timedelta) or not timedelta() < value <= timedelta(days=365):
            raise _wrong("GIVE_UP_AFTER", "must be a timedelta above 0 and of at most a year")
        return value

    @property
    def only_to(self) -> frozenset[str] | None:
        """The only numbers that are sent to, in E.164, or ``None`` for everybody."""
        if self._value("ONLY_TO") is None:
            return None
        return frozenset(_recipient(number) for number in self._list("ONLY_TO"))

    @property
    def max_segments(self) -> int | None:
        """The most segments of a reply from the inbox, or ``None`` for any number."""
        value = self._value("MAX_SEGMENTS")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
            raise _wrong("MAX_SEGMENTS", f"must be a whole number from 1 to {MOST}, or None")
        return value

    @property
    def opt_out_words(self) -> frozenset[str]:
        """The texts that opt out, each ``normal``."""
        return self._words("OPT_OUT_WORDS")

    @property
    def opt_in_words(self) -> frozenset[str]:
        """The texts that opt in again, each ``normal``."""
        words = self._words("OPT_IN_WORDS")
        try:
            opposite = self.opt_out_words
        except ImproperlyConfigured:
            # Said where those are read.
            return words
        if opposite and not words:
            raise _wrong("OPT_IN_WORDS", "must not be empty: nobody who opted out could come back")
        if both := sorted(words & opposite):
            raise _wrong("OPT_IN_WORDS", f"holds {both[0]!r}, which is one of OPT_OUT_WORDS too")
        return words

    @property
    def opt_out_confirmation(self) -> str:
        """What answers a text that opts out; empty where nothing does."""
        text = self._value("OPT_OUT_CONFIRMATION")
        if not isinstance(text, str) or (text and not _can_be_sent(text)):
            raise _wrong("OPT_OUT_CONFIRMATION", 'must be a text to send, or "" to send none')
        return text

    def unknown_keys(self) -> list[str]:
        """Keys that no setting has, such as a misspelt one."""
        return sorted(str(key) for key in _dict() if key not in DEFAULTS)

    def _value(self, key: str) -> Any:
        return _dict().get(key, DEFAULTS[key])

    def _bool(self, key: str) -> bool:
        value = self._value(key)
        if not isinstance(value, bool):
            raise _wrong(key, "must be True or False")
        return value

    def _words(self, key: str) -> frozenset[str]:
        words = self._list(key)
        if not all(isinstance(word, str) and normal(word) for word in words):
            raise _wrong(key, "must be a list of words, each a string that is not empty")
        return frozenset(map(normal, words))

    def _list(self, key: str) -> list[Any]:
        value = self._value(key)
        if value is None and DEFAULTS[key] is None:
            return []
        if not isinstance(value, list | tuple | set | frozenset):
            raise _wrong(key, "must be a list of strings")
        return list(value)


conf = Conf()


def normal(word: str) -> str:
    """A word or text in the way that those of ``OPT_OUT_WORDS`` are compared.

    Case, spaces around it, and the ways of writing an accent make no difference.
    """
    return unicodedata.normalize("NFC", word.casefold()).strip()


def _dict() -> Mapping[Any, Any]:
    value = getattr(settings, "NINEBITS", {})
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured("NINEBITS must be a dict.")
    return value


def _wrong(key: str, problem: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f'NINEBITS["{key}"] {problem}.')


def _called(token: Callable[[], Any]) -> Any:
    try:
        return token()
    except Exception as error:  # noqa: BLE001
        # Not chained: what a secret store says when it fails can hold the secret.
        raise _wrong("API_TOKEN", f"is a callable that raised {type(error).__name__}") from None


def _sender(key: str, code: Any) -> str:
    if not isinstance(code, str):
        must = "must be a string" if key == "SHORT_CODE" else "must hold strings"
        raise _wrong(key, f'{must} such as "48974"')
    try:
        return service_number(code)
    except InvalidPhoneNumber as error:
        raise _wrong(key, f"is not usable: {error}") from error


def _token(key: str, token: Any) -> str:
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        raise _wrong(key, "must hold tokens of printable ASCII without spaces")
    return token


def _credential(key: str, entry: Any, source: Conf) -> bytes:
    if key != "API_TOKEN" and _is_without_secret(key, entry):
        raise NotSetYet(f'NINEBITS["{key}"] holds an entry whose secret is not set.')
    if key == "WEBHOOK_BASIC_AUTH":
        if not isinstance(entry, str) or not entry.isprintable() or ":" not in entry.strip(":"):
            raise _wrong(key, 'must hold strings such as "user:password"')
        return b"Basic " + base64.b64encode(entry.encode())
    token = source.api_token if key == "API_TOKEN" else _token(key, entry)
    return b"Bearer " + token.encode()


def _is_without_secret(key: str, entry: Any) -> bool:
    """What is left of an entry where the environment lacks its secret: nothing, or half a pair."""
    if key == "WEBHOOK_BASIC_AUTH" and isinstance(entry, str):
        return entry == "" or entry.find(":") == len(entry) - 1
    return entry is None or entry == ""


def _recipient(number: Any) -> str:
    try:
        return subscriber_number(str(number))
    except InvalidPhoneNumber as error:
        raise _wrong("ONLY_TO", f"holds something else than numbers: {error}") from error


def _can_be_sent(text: str) -> bool:
    """Whether it is no mere space, and has neither NUL nor half of a surrogate pair."""
    return bool(text.strip()) and not re.search("[\0\ud800-\udfff]", text)


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or bool(re.fullmatch(r"127(\.[0-9]{1,3}){3}", host))
