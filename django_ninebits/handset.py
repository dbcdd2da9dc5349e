"""A phone in the browser, on a 9bits that is simulated: for development, and for a demo.

A host mounts it in its development URLs, where ``NINEBITS["API_URL"]`` leads to this machine::

    NINEBITS = {"API_URL": "http://127.0.0.1:9480/ng/v1/sendsms", ...}

    if settings.DEBUG:
        urlpatterns += [path("handset/", include("django_ninebits.handset"))]

Whoever opens the page texts as any subscriber, so it answers only where ``DEBUG`` is on, or where
``NINEBITS["HANDSET_WITHOUT_DEBUG"]`` says so. The simulator starts in the process that serves the
page, when it is first opened, and its ledger ends with that process: serve it from one process, as
``runserver`` does.
"""

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.urls import NoReverseMatch, path, reverse
from django.utils.translation import gettext, gettext_lazy, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from django_ninebits.conf import conf
from django_ninebits.exceptions import InvalidPhoneNumber
from django_ninebits.phone import inbound_number, service_number, subscriber_number
from django_ninebits.segments import segments
from django_ninebits.simulator import PATH, Behaviour, Call, Post, Simulator
from django_ninebits.wording import shown

#: How much faster than 9bits' own its clock runs here: the first redelivery after 3 s, not 30.
SPEED = 10.0

#: Seconds that 9bits goes away for, and that a late text takes.
AWAY = 60.0
LATE = 10.0

#: Seconds that a slow answer takes: less than the default ``TIMEOUT``.
SLOW = 5.0

INBOX = "admin:django_ninebits_conversation_changelist"
WEBHOOK = "ninebits:webhook"

#: How 9bits can be told to answer: name → what it does, in two words, and what the app makes of it.
ANSWERS: Mapping[str, tuple[Behaviour, Any, Any]] = {
    "accept": (
        Behaviour.accept(),
        gettext_lazy("Accept"),
        gettext_lazy("The message is sent."),
    ),
    "slow": (
        Behaviour.slow(SLOW),
        gettext_lazy("Be slow"),
        gettext_lazy("Accepted at once, answered after 5 seconds: sent."),
    ),
    "refuse": (
        Behaviour.status(400, {"message": "Invalid recipient"}),
        gettext_lazy("Refuse"),
        gettext_lazy("400: failed, with 9bits' words."),
    ),
    "busy": (
        Behaviour.status(503, {"message": "Try again later"}, {"Retry-After": "5"}),
        gettext_lazy("Be busy"),
        gettext_lazy("503: surely not accepted, so it is tried again."),
    ),
    "fail": (
        Behaviour.status(500, {"message": "Internal error"}),
        gettext_lazy("Fail"),
        gettext_lazy("500: uncertain, because it may have been accepted."),
    ),
    "hang_up": (
        Behaviour.cut(),
        gettext_lazy("Hang up"),
        gettext_lazy("Accepted, and the answer is cut off: uncertain, though it arrives."),
    ),
    "silent": (
        Behaviour.silent(),
        gettext_lazy("Say nothing"),
        gettext_lazy("Accepted, and never answered: uncertain after the time limit."),
    ),
}


class Line:
    """A simulated 9bits, and how it misbehaves."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.id = secrets.token_hex(4)
        self.answer = "accept"
        self._away: ExitStack | None = None
        self._back_at = 0.0
        self._changing = threading.Lock()
        self._sessions: dict[tuple[str, str], str] = {}

    def answer_with(self, name: str) -> None:
        """Answer every call so from now on; a name of ``ANSWERS``."""
        self.simulator.behave(ANSWERS[name][0])
        self.answer = name

    def go_away(self, seconds: float = AWAY) -> None:
        """Refuse connections for so long, or until ``come_back``."""
        with self._changing:
            if self._away is None:
                self._away = ExitStack()
                self._away.enter_context(self.simulator.down())
                self._back_at = time.monotonic() + seconds
                back = threading.Timer(seconds, self.come_back)
                back.daemon = True
                self._away.callback(back.cancel)
                back.start()

    def come_back(self) -> None:
        """Listen again, if it was away."""
        with self._changing:
            if self._away is not None:
                self._away.close()
                self._away = None

    @property
    def away_for(self) -> float:
        """Seconds until it is back; 0 if it is there."""
        return max(self._back_at - time.monotonic(), 0.0) if self._away else 0.0

    def text(self, webhook: str, credential: str, typed: "TextForm") -> dict[str, Any]:
        """Deliver what was typed, in a thread → the fields that tell its deliveries."""
        said = typed.cleaned_data
        pair = (said["sender"], said["service"])
        fields = {
            "sender": said["sender"][1:],
            "short_code": said["service"],
            "telco": said["telco"],
            "session_id": self._sessions.setdefault(pair, secrets.token_hex(5)),
            "ref_id": secrets.token_hex(10),
            "sent_date": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "without": ["ref_id"] if said["without_ref_id"] else [],
        }

        def deliver() -> None:
            time.sleep(LATE if said["late"] else 0)
            for _ in range(2 if said["twice"] else 1):
                self.simulator.deliver(
                    webhook, said["text"], **fields, **_credential(credential), redeliver=True
                )

        threading.Thread(target=deliver, daemon=True).start()
        return {"subscriber": pair[0], "service": pair[1], "sent_date": fields["sent_date"]}


def _credential(header: str) -> dict[str, Any]:
    """The value of ``Authorization``, as ``Simulator.deliver`` takes it."""
    kind, _, secret = header.partition(" ")
    if kind == "Basic":
        user, _, password = base64.b64decode(secret).decode().partition(":")
        return {"basic": (user, password)}
    return {"token": secret}


_lines: dict[str, Line] = {}
_starting = threading.Lock()


def use(simulator: Simulator) -> None:
    """Put the phone on this simulator, which runs already, wherever ``API_URL`` leads to it."""
    _lines[simulator.url] = Line(simulator)


class NotOnThisMachine(ImproperlyConfigured):
    """The settings lead to no simulator that could be started."""


def line() -> Line:
    """The one that ``API_URL`` leads to; its simulator is started if need be."""
    with _starting:
        url = conf.api_url
        if url not in _lines:
            _lines[url] = Line(_started(url))
        return _lines[url]


def _started(url: str) -> Simulator:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.port or parts.path != PATH:
        raise NotOnThisMachine(
            f'NINEBITS["API_URL"] is {url}, which is no simulator. Set it to'
            f" http://127.0.0.1:9480{PATH} in the settings of development."
        )
    simulator = Simulator(
        token=conf.api_token, host=parts.hostname or "", port=parts.port, speed=SPEED
    )
    try:
        return simulator.start()
    except OSError as error:
        raise NotOnThisMachine(
            f"The simulator cannot listen on port {parts.port} ({error.strerror}). End what uses"
            ' it, or choose another port in NINEBITS["API_URL"].'
        ) from error


def is_allowed() -> bool:
    """Whether the pages answer here."""
    return bool(settings.DEBUG) or conf.handset_without_debug


def _guarded(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        if not is_allowed():
            raise Http404('DEBUG is off, and NINEBITS["HANDSET_WITHOUT_DEBUG"] is not True.')
        try:
            return view(request)
        except ImproperlyConfigured as problem:
            return render(
                request, "django_ninebits/handset_unusable.html", {"problem": problem}, status=503
            )

    return never_cache(guarded)


class TextForm(forms.Form):
    """What is typed on the phone."""

    sender = forms.CharField(label=gettext_lazy("Subscriber"), initial="0802 000 0000")
    service = forms.CharField(label=gettext_lazy("Short code"))
    telco = forms.ChoiceField(
        label=gettext_lazy("Network"),
        choices=[(name, name) for name in ("mtn", "airtel", "glo", "9mobile")],
    )
    text = forms.CharField(
        label=gettext_lazy("Text"),
        strip=False,
        max_length=1600,
        widget=forms.Textarea({"rows": 2}),
    )
    twice = forms.BooleanField(label=gettext_lazy("Deliver twice"), required=False)
    late = forms.BooleanField(label=gettext_lazy("Deliver 10 seconds late"), required=False)
    without_ref_id = forms.BooleanField(
        label=gettext_lazy("Without ref_id, as older accounts do"), required=False
    )

    def clean_sender(self) -> str:
        return _number(subscriber_number, self.cleaned_data["sender"])

    def clean_service(self) -> str:
        return _number(service_number, self.cleaned_data["service"])

    def clean_text(self) -> str:
        # A phone knows only one line end; a form posts two characters.
        return str(self.cleaned_data["text"]).replace("\r\n", "\n")


def _number(read: Callable[[str], str], written: str) -> str:
    try:
        return read(written)
    except InvalidPhoneNumber as error:
        raise forms.ValidationError(shown(str(error))) from error


@_guarded
@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """The phone."""
    on = line()
    form = TextForm(initial={"service": conf.short_code}, auto_id="nb-%s")
    answers = [(name, label, hint) for name, (_, label, hint) in ANSWERS.items()]
    context = {"form": form, "answers": answers, "line": on, "inbox": _address(INBOX)}
    return render(request, "django_ninebits/handset.html", context)


@_guarded
@require_GET
def wire(request: HttpRequest) -> HttpResponse:
    """What went over the wire since ``?after=``, and how 9bits is disposed."""
    on = line()
    went = on.simulator.wire
    after = request.GET.get("after", "")
    first = int(after) if after.isdecimal() and request.GET.get("line") == on.id else 0
    return JsonResponse(
        {
            "line": on.id,
            "answer": on.answer,
            "away_for": round(on.away_for),
            # A login in another tab draws a new one.
            "csrf": get_token(request),
            "after": len(went),
            "entries": [_entry(entry) for entry in went[first:]],
        }
    )


@_guarded
@require_POST
def text(request: HttpRequest) -> HttpResponse:
    """Deliver a text to the webhook of this site."""
    typed = TextForm(request.POST)
    if not typed.is_valid():
        return JsonResponse({"errors": typed.errors})
    webhook = _address(WEBHOOK)
    if not webhook:
        raise ImproperlyConfigured(
            "The webhook is not mounted: add"
            ' path("hooks/9bits/", include("django_ninebits.urls")) to the URLs.'
        )
    credentials, _ = conf.webhook_credentials()
    credential = credentials[0].decode() if credentials else ""
    told = line().text(request.build_absolute_uri(webhook), credential, typed)
    return JsonResponse(told, status=202)


@_guarded
@require_POST
def answer(request: HttpRequest) -> HttpResponse:
    """Choose how 9bits answers from now on."""
    name = request.POST.get("answer", "")
    if name not in ANSWERS:
        return JsonResponse({"errors": {"answer": [f"One of {', '.join(ANSWERS)}."]}}, status=400)
    line().answer_with(name)
    return JsonResponse({})


@_guarded
@require_POST
def away(request: HttpRequest) -> HttpResponse:
    """Let 9bits go away for a minute, or come back."""
    if request.POST.get("away") == "yes":
        line().go_away()
    else:
        line().come_back()
    return JsonResponse({})


def _address(name: str) -> str:
    """Empty where it is not mounted."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""


def _entry(entry: Call | Post) -> dict[str, Any]:
    """One exchange as the page shows it."""
    body = _object(entry.raw)
    is_call = isinstance(entry, Call)
    subscriber, service = ("to", "from") if is_call else ("from", "to")
    said = str(body.get("message", ""))
    return {
        "way": "call" if is_call else "delivery",
        "at": (entry.received_at if isinstance(entry, Call) else entry.posted_at).isoformat(),
        "subscriber": _read(inbound_number, str(body.get(subscriber, ""))),
        "service": _read(service_number, str(body.get(service, ""))),
        "sent_date": str(body.get("sent_date", "")),
        "text": said,
        "arrived": entry.accepted if isinstance(entry, Call) else 200 <= entry.status < 300,
        "parts": _parts(said),
        "outcome": _outcome(entry),
        "request": _pretty(entry.raw),
        "answer": _pretty(entry.answer),
    }


def _read(read: Callable[[str], str], written: str) -> str:
    try:
        return read(written)
    except InvalidPhoneNumber:
        return written


def _parts(said: str) -> str:
    """How the text travels, in words."""
    found = segments(said)
    count = len(found.parts)
    words = ngettext("%(count)d part", "%(count)d parts", count) % {"count": count}
    if not found.forcing:
        return words
    return gettext("%(parts)s, Unicode because of %(characters)s") % {
        "parts": words,
        "characters": " ".join(found.forcing[:5]),
    }


def _outcome(entry: Call | Post) -> str:
    """The status, and in a word what was done or said."""
    if not entry.status:
        return gettext("no answer")
    if isinstance(entry, Call):
        word = "" if entry.answered.startswith("status") else entry.answered
    else:
        word = str(_object(entry.answer).get("status", ""))
    return f"{entry.status} {word}".strip()


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _pretty(raw: bytes) -> str:
    found = _object(raw)
    if found:
        return json.dumps(found, indent=2, ensure_ascii=False)
    return raw.decode(errors="replace")


app_name = "ninebits-handset"

urlpatterns = [
    path("", page, name="page"),
    path("wire/", wire, name="wire"),
    path("text/", text, name="text"),
    path("answer/", answer, name="answer"),
    path("away/", away, name="away"),
]
