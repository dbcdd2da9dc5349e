"""What a person decides about a message: it arrived, send it again, or do not send it.

A decision is about the state in which that person saw the message: the page that asks carries it,
and whoever decides about a message that has moved on since changes nothing and is told so.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest, ImproperlyConfigured, PermissionDenied
from django.db import connections, transaction
from django.db.models import Case, Count, F, Q, QuerySet, Value, When
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop, ngettext, ngettext_lazy, pgettext, pgettext_lazy

from django_ninebits import services, wording
from django_ninebits.exceptions import OptedOut, WrongStatus
from django_ninebits.models import Conversation, Message, atomic, database
from django_ninebits.segments import segments

View = TypeVar("View", bound=Callable[..., HttpResponse])

if TYPE_CHECKING:
    MessageModelAdmin = admin.ModelAdmin[Message]
else:
    MessageModelAdmin = object

#: How many messages can be decided about at once, and how many of them the page that asks shows.
LIMIT = 500
SHOWN = 10

#: So many newer messages are shown below one that a thread is opened at; a page has more.
NEWER = 50

LEVELS = {
    Message.Status.SENT: messages.SUCCESS,
    Message.Status.UNCERTAIN: messages.WARNING,
    Message.Status.FAILED: messages.ERROR,
}


class Changed(WrongStatus):
    """The message is not any more as it was seen."""


@dataclass(frozen=True)
class Seen:
    """The state in which somebody saw a message, as pages carry it."""

    message_id: int
    status: str
    attempts: str
    #: It tells two waits apart between which there was no attempt, since the first was cancelled.
    due_at: str

    @classmethod
    def of(cls, message: Message) -> "Seen":
        due_at = f"{message.due_at:%Y%m%d%H%M%S%f}" if message.due_at else ""
        return cls(message.pk, message.status, str(message.attempts), due_at)

    @classmethod
    def read(cls, form: QueryDict) -> list["Seen"]:
        """At least one, or ``BadRequest``."""
        try:
            written = [one.split(":") for one in form.get("seen", "").split()]
            seen = [cls(int(pk), *state) for pk, *state in written]
        except (TypeError, ValueError):
            seen = []
        if not 1 <= len(seen) <= LIMIT:
            raise BadRequest("The form does not say which messages were seen.")
        return seen

    def __str__(self) -> str:
        return f"{self.message_id}:{self.status}:{self.attempts}:{self.due_at}"


@dataclass(frozen=True)
class Verb:
    """One thing that can be decided, and the words for it."""

    name: str
    do: Callable[[Message], Message]
    statuses: tuple[Message.Status, ...]
    ends_with_expiry: bool
    label: Any
    question: Any
    yes: Any
    meaning: Any
    #: What else it means where an attempt may have arrived: for the one message, and of several.
    risk: Any
    risk_of_several: Any
    #: What else it means where none can have.
    safety: Any
    told: Any
    counted: Any
    #: Stored in English; the page of the history translates it.
    recorded: str

    def fits(self, message: Message) -> bool:
        expires_at = message.expires_at if self.ends_with_expiry else None
        is_expired = expires_at is not None and expires_at <= timezone.now()
        return message.status in self.statuses and not is_expired

    def fitting(self) -> Q:
        """The same as a condition."""
        fits = Q(status__in=self.statuses)
        if self.ends_with_expiry:
            fits &= Q(expires_at=None) | Q(expires_at__gt=timezone.now())
        return fits

    def meanings(self, count: int, risky: int) -> list[str]:
        """What it means for so many messages, of which so many may have arrived."""
        if count == 1:
            sentences = [self.risk if risky else self.safety, self.meaning]
        else:
            sentences = [self.risk_of_several % {"count": risky} if risky else "", self.meaning]
        return [str(sentence) for sentence in sentences if sentence]


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            name="confirm",
            do=services.confirm,
            statuses=(Message.Status.UNCERTAIN,),
            ends_with_expiry=False,
            label=_("It arrived"),
            question=ngettext_lazy("Did it arrive?", "Did these %(count)s arrive?", "count"),
            yes=ngettext_lazy("Yes, it arrived", "Yes, they arrived", "count"),
            meaning=_(
                "What arrived is shown as accepted by 9bits, and cannot be sent again. This cannot"
                " be undone."
            ),
            risk="",
            risk_of_several="",
            safety="",
            told=_("Noted: it arrived. Its status: %s."),
            counted=ngettext_lazy(
                "Noted: %(count)s message arrived.", "Noted: %(count)s messages arrived.", "count"
            ),
            recorded=gettext_noop("status: it arrived"),
        ),
        Verb(
            name="retry",
            do=services.retry,
            statuses=(Message.Status.UNCERTAIN, Message.Status.FAILED),
            ends_with_expiry=True,
            label=_("Send again"),
            question=ngettext_lazy("Send it again?", "Send these %(count)s again?", "count"),
            yes=ngettext_lazy("Yes, send it again", "Yes, send them again", "count"),
            meaning=_("Sending is left to the worker."),
            risk=_(
                "It may already have arrived: the subscriber may get it twice, and each part costs"
                " again."
            ),
            risk_of_several=ngettext_lazy(
                "%(count)s of these may already have arrived: the subscriber may get it twice, and"
                " each part costs again.",
                "%(count)s of these may already have arrived: the subscribers may get them twice,"
                " and each part costs again.",
                "count",
            ),
            safety=_("It has not arrived: 9bits did not take it."),
            told=_("It will be sent again. Its status: %s."),
            counted=ngettext_lazy(
                "%(count)s message will be sent again, by the worker.",
                "%(count)s messages will be sent again, by the worker.",
                "count",
            ),
            recorded=gettext_noop("status: send again"),
        ),
        Verb(
            name="cancel",
            do=services.cancel,
            statuses=(Message.Status.QUEUED,),
            ends_with_expiry=False,
            label=pgettext_lazy("message", "Cancel"),
            question=ngettext_lazy("Cancel it?", "Cancel these %(count)s?", "count"),
            yes=ngettext_lazy("Yes, do not send it", "Yes, do not send them", "count"),
            meaning=_(
                "What becomes cancelled cannot be sent again. What begins to leave before you press"
                " is not called back."
            ),
            risk=_(
                "An earlier attempt may have arrived: it does not become cancelled, but uncertain"
                " again."
            ),
            risk_of_several=ngettext_lazy(
                "An earlier attempt of %(count)s of these may have arrived: it does not become"
                " cancelled, but uncertain again.",
                "An earlier attempt of %(count)s of these may have arrived: they do not become"
                " cancelled, but uncertain again.",
                "count",
            ),
            safety="",
            told=_("It will not be sent. Its status: %s."),
            counted=ngettext_lazy(
                "%(count)s message will not be sent.",
                "%(count)s messages will not be sent.",
                "count",
            ),
            recorded=gettext_noop("status: do not send"),
        ),
    )
}


@dataclass(frozen=True)
class Shown:
    """A message as the page that asks shows it."""

    message: Message

    @property
    def error(self) -> str:
        return wording.shown(self.message.error)

    @property
    def parts(self) -> int:
        return len(segments(self.message.text).parts)


def verbs_for(message: Message) -> list[Verb]:
    """What can be decided about it now."""
    return [verb for verb in VERBS.values() if verb.fits(message)]


def may_decide(request: HttpRequest) -> bool:
    """Nobody decides who cannot look at what was said before and after."""
    may_look = any(
        request.user.has_perm(f"django_ninebits.{may}_conversation") for may in ("view", "change")
    )
    return may_look and request.user.has_perm("django_ninebits.resolve_message")


def decide(verb: Verb, seen: Seen, record: Callable[[Message], object]) -> Message:
    """Do it to the message that was seen, and ``record`` it in the same transaction.

    Raises ``Changed`` where it is not as it was seen any more, and what the services raise; then
    nothing was done and nothing recorded.
    """
    message = _messages().filter(pk=seen.message_id).first()
    if message is None:
        raise Changed
    with atomic():
        # The conversation is written before its messages, as everywhere.
        Conversation.objects.filter(pk=message.conversation_id).hold()
        # A write that changes nothing: from here on nobody else moves it.
        Message.objects.filter(pk=message.pk).update(attempts=F("attempts"))
        message.refresh_from_db(using=database())
        if Seen.of(message) != seen:
            raise Changed
        verb.do(message)
        record(message)
    return message


def outside_transactions(view: View) -> View:
    """Not in the transaction that ``ATOMIC_REQUESTS`` opens: those of the app begin by a write."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


class DecidingAdmin(MessageModelAdmin):
    """For the admin of messages: the page that asks, and the actions of the list that lead to it.

    What is decided is written into the history of the message, with who did it and when.
    """

    actions = ["confirm_selected", "retry_selected", "cancel_selected"]

    def get_urls(self) -> list[URLPattern]:
        decide = path(
            "decide/<slug:name>/",
            self.admin_site.admin_view(self.decide_view),
            name="django_ninebits_message_decide",
        )
        return [decide, *super().get_urls()]

    def has_decide_permission(self, request: HttpRequest) -> bool:
        # On a site without conversations nobody sees them.
        return self.admin_site.is_registered(Conversation) and may_decide(request)

    @admin.action(permissions=["decide"], description=VERBS["confirm"].label)
    def confirm_selected(
        self, request: HttpRequest, selected: QuerySet[Message]
    ) -> HttpResponse | None:
        return self._ask_about_selected(request, VERBS["confirm"], selected)

    @admin.action(permissions=["decide"], description=VERBS["retry"].label)
    def retry_selected(
        self, request: HttpRequest, selected: QuerySet[Message]
    ) -> HttpResponse | None:
        return self._ask_about_selected(request, VERBS["retry"], selected)

    @admin.action(permissions=["decide"], description=VERBS["cancel"].label)
    def cancel_selected(
        self, request: HttpRequest, selected: QuerySet[Message]
    ) -> HttpResponse | None:
        return self._ask_about_selected(request, VERBS["cancel"], selected)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        message = context["original"]
        context["verbs"] = verbs_for(message) if self.has_decide_permission(request) else []
        context["seen"] = Seen.of(message)
        return super().render_change_form(request, context, *args, **kwargs)

    @outside_transactions
    def decide_view(self, request: HttpRequest, name: str) -> HttpResponse:
        if not self.has_decide_permission(request):
            raise PermissionDenied
        if name not in VERBS:
            raise Http404
        is_decided = request.method == "POST"
        seen = Seen.read(request.POST if is_decided else request.GET)
        if is_decided and "selected" in request.POST:
            return self._decide_about_selected(request, VERBS[name], seen)
        message = get_object_or_404(self._shown(request, _messages()), pk=seen[0].message_id)
        if is_decided:
            return self._decide_about_one(request, VERBS[name], seen[0], message)
        return self._ask_about_one(request, VERBS[name], seen[0], message)

    def _shown(self, request: HttpRequest, found: QuerySet[Message]) -> QuerySet[Message]:
        """Those of them that are in conversations which the admin shows to this person."""
        shown = self.admin_site.get_model_admin(Conversation).get_queryset(request)
        return found.filter(conversation__in=shown.order_by().values("pk"))

    def _ask_about_one(
        self, request: HttpRequest, verb: Verb, seen: Seen, message: Message
    ) -> HttpResponse:
        if Seen.of(message) != seen or message.status not in verb.statuses:
            return self._tell_changed(request, message)
        context = {"back": self._thread(message), "shown": [Shown(message)]}
        return self._ask(request, verb, [message], context)

    def _ask_about_selected(
        self, request: HttpRequest, verb: Verb, selected: QuerySet[Message]
    ) -> HttpResponse | None:
        selected = self._shown(request, selected)
        left_alone = _left_alone(request, verb, selected)
        fitting = selected.filter(verb.fitting()).order_by("pk")
        # Only what is needed of each: they may be many, and their texts long.
        states = fitting.select_related(None).only("status", "attempts", "due_at", "was_uncertain")
        asked = list(states[: LIMIT + 1])
        if not asked:
            messages.warning(request, _("There is nothing to decide about: %s.") % left_alone)
            return None
        context = {
            "back": request.get_full_path(),
            "is_selected": True,
            "is_cut": len(asked) > LIMIT,
            "limit": LIMIT,
            "left_alone": left_alone,
            "shown": [Shown(message) for message in fitting[:SHOWN]],
            "further": max(len(asked[:LIMIT]) - SHOWN, 0),
        }
        return self._ask(request, verb, asked[:LIMIT], context)

    def _ask(
        self, request: HttpRequest, verb: Verb, asked: list[Message], context: dict[str, Any]
    ) -> HttpResponse:
        count = {"count": len(asked)}
        address = reverse(self._named("message_decide"), args=[verb.name])
        filters = self.get_preserved_filters(request)
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            "admin/django_ninebits/message/decide.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": verb.question % count,
                "meanings": verb.meanings(len(asked), sum(map(_may_have_arrived, asked))),
                "yes": verb.yes % count,
                "seen": " ".join(str(Seen.of(message)) for message in asked),
                "form_address": f"{address}?{filters}" if filters else address,
                **context,
            },
        )

    def _decide_about_one(
        self, request: HttpRequest, verb: Verb, seen: Seen, message: Message
    ) -> HttpResponse:
        try:
            decided = decide(verb, seen, partial(self._record, request, verb))
        except Changed:
            return self._tell_changed(request, message)
        except (WrongStatus, OptedOut) as error:
            messages.warning(request, wording.shown(str(error)))
        except ImproperlyConfigured as error:
            messages.error(request, _WRONG_SETTINGS % error)
        else:
            level = LEVELS.get(Message.Status(decided.status), messages.INFO)
            messages.add_message(request, level, verb.told % decided.get_status_display())
        return HttpResponseRedirect(self._thread(message))

    def _decide_about_selected(
        self, request: HttpRequest, verb: Verb, seen: list[Seen]
    ) -> HttpResponse:
        done = changed = opted_out = 0
        ids = [one.message_id for one in seen]
        asked = Message.objects.using(database()).filter(pk__in=ids)
        shown = set(self._shown(request, asked).values_list("pk", flat=True))
        try:
            for one in seen:
                try:
                    if one.message_id not in shown:
                        raise Changed
                    decide(verb, one, partial(self._record, request, verb))
                    done += 1
                except WrongStatus:
                    changed += 1
                except OptedOut:
                    opted_out += 1
        except ImproperlyConfigured as error:
            messages.error(request, _WRONG_SETTINGS % error)
        if done:
            messages.success(request, verb.counted % {"count": done})
        if changed:
            left = ngettext(
                "%(count)s message has changed meanwhile and was left alone: look again.",
                "%(count)s messages have changed meanwhile and were left alone: look again.",
                changed,
            )
            messages.warning(request, left % {"count": changed})
        if opted_out:
            left = ngettext(
                "%(count)s message was left alone: the subscriber has opted out, and only they can"
                " opt in again.",
                "%(count)s messages were left alone: the subscribers have opted out, and only they"
                " can opt in again.",
                opted_out,
            )
            messages.warning(request, left % {"count": opted_out})
        address, query = reverse(self._named("message_changelist")), request.GET.get(_FILTERS)
        return HttpResponseRedirect(f"{address}?{query}" if query else address)

    def _record(self, request: HttpRequest, verb: Verb, message: Message) -> None:
        self.log_change(request, message, [{"changed": {"fields": [verb.recorded]}}])

    def _tell_changed(self, request: HttpRequest, message: Message) -> HttpResponse:
        message.refresh_from_db(using=database(), fields=["status"])
        told = _(
            "Nothing was done: the message has changed since you looked at it, or you pressed"
            " twice. Its status now: %s."
        )
        messages.warning(request, told % message.get_status_display())
        return HttpResponseRedirect(self._thread(message))

    def _thread(self, message: Message) -> str:
        """The address of the thread at this message."""
        newer = _messages().filter(conversation=message.conversation_id, pk__gt=message.pk)
        beyond = newer.order_by("pk").values_list("pk", flat=True)[NEWER : NEWER + 1].first()
        # The address of a form that nobody has sent, as a thread is opened by a link.
        query = f"compose={uuid.uuid4()}" if beyond is None else f"before={beyond}"
        address = reverse(self._named("conversation_change"), args=[message.conversation_id])
        return f"{address}?{query}#nb-message-{message.pk}"

    def _named(self, name: str) -> str:
        return f"{self.admin_site.name}:django_ninebits_{name}"


#: What the admin calls the query of the list that one comes from.
_FILTERS = "_changelist_filters"

_WRONG_SETTINGS = _("Nothing was done, because the settings of this site are wrong: %s")


def _messages() -> QuerySet[Message]:
    rows = Message.objects.using(database()).select_related("conversation__contact")
    return rows.defer("delivery")


def _may_have_arrived(message: Message) -> bool:
    return message.was_uncertain or message.status == Message.Status.UNCERTAIN


def _left_alone(request: HttpRequest, verb: Verb, selected: QuerySet[Message]) -> str:
    """How many of those selected cannot be decided about, and why."""
    why = Case(When(status__in=verb.statuses, then=Value("expired")), default=F("status"))
    others = selected.exclude(verb.fitting()).order_by().values_list(why)
    counts = dict(others.annotate(Count("pk")))
    if request.POST.get("select_across") != "1":
        gone = len(set(request.POST.getlist(ACTION_CHECKBOX_NAME))) - selected.count()
        counts |= {"gone": gone} if gone else {}
    names = {
        **dict(Message.Status.choices),
        "expired": pgettext("message", "expired"),
        "gone": _("no longer in this list"),
    }
    return ", ".join(f"{count} {names[why]}" for why, count in sorted(counts.items()))
