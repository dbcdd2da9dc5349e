"""The thread of a conversation: its messages a page at a time, and what a reply does.

An open page asks what has changed: what has come since, and what became of the messages it shows.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timesince import timesince
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_ninebits import consent, links, live, services, wording
from django_ninebits.canned import Offers
from django_ninebits.composer import ReplyForm, key_of
from django_ninebits.decisions import (
    Seen,
    Verb,
    may_decide,
    outside_transactions,
    verbs_for,
)
from django_ninebits.folders import id_of, local_time
from django_ninebits.handling import HandlingAdmin
from django_ninebits.models import (
    ConsentChange,
    Contact,
    Conversation,
    ConversationChange,
    Message,
    atomic,
    database,
    name_of,
)
from django_ninebits.sending import Outcome, pressed, tell_what_became_of
from django_ninebits.trail import NoteForm, changes_of

#: Messages on one page of a thread.
PAGE = 100

#: Of how many messages beyond its page an open page may ask what became of them.
WATCHED = 100

#: A text that takes longer to arrive says when it was sent, too.
ON_TIME = timedelta(minutes=1)

#: Statuses whose error somebody may have to act upon.
_TROUBLED = {Message.Status.FAILED, Message.Status.UNCERTAIN, Message.Status.QUEUED}


@dataclass(frozen=True)
class Entry:
    """A message as the thread shows it."""

    message: Message
    begins_session: bool = False
    #: What staff did while it was the newest.
    changes: Sequence[ConversationChange] = ()

    @property
    def parts(self) -> list[str | links.Link]:
        """The text, and the links in it."""
        return links.parts(self.message.text)

    @property
    def sent_late(self) -> str:
        """When a text was sent that took long to arrive, or arrived on another day."""
        sent, arrived = self.message.sent_date, self.message.created_at
        if not self.message.is_inbound or sent is None or sent > arrived:
            return ""
        is_another_day = local_time(sent).date() != local_time(arrived).date()
        if arrived - sent <= ON_TIME and not is_another_day:
            return ""
        shown = "DATETIME_FORMAT" if is_another_day else "TIME_FORMAT"
        return str(date_format(local_time(sent), shown))

    @property
    def trouble(self) -> str:
        return wording.shown(self.message.error) if self.message.status in _TROUBLED else ""

    @property
    def verbs(self) -> list[Verb]:
        """What can be decided about it."""
        return verbs_for(self.message)

    @property
    def seen(self) -> Seen:
        return Seen.of(self.message)

    @property
    def state(self) -> tuple[object, ...]:
        """All of it that can change."""
        verbs = [verb.name for verb in self.verbs]
        return str(self.seen), self.message.error, verbs


@dataclass(frozen=True)
class Page:
    """Some messages of a conversation that follow each other, the oldest first."""

    entries: list[Entry]
    has_older: bool
    before: int | None
    #: What staff did before there was any message.
    first_changes: Sequence[ConversationChange] = ()

    @classmethod
    def of(cls, conversation: Conversation, before: int | None) -> "Page":
        found = _messages(conversation)
        if before is not None:
            found = found.filter(id__lt=before)
        # One more than is shown: whether it is there, and whether its session ends with it.
        newest_first = list(found.order_by("-id")[: PAGE + 1])
        earlier = [*(message.session_id for message in newest_first[1:]), None]
        entries = [
            Entry(message, begins_session=message.session_id != session_before)
            for message, session_before in zip(newest_first, earlier, strict=False)
        ]
        return cls(entries[PAGE - 1 :: -1], has_older=len(entries) > PAGE, before=before)

    def with_trail(self, conversation: Conversation) -> "Page":
        ids = [entry.message.pk for entry in self.entries]
        placed = changes_of(conversation, ids, before=self.before, has_older=self.has_older)
        entries = [
            replace(entry, changes=placed.get(entry.message.pk, ())) for entry in self.entries
        ]
        return replace(self, entries=entries, first_changes=placed.get(0, ()))


def _messages(conversation: Conversation) -> QuerySet[Message]:
    found = Message.objects.using(database()).filter(conversation=conversation)
    return found.select_related("consent_change").defer("delivery")


def watched(conversation: Conversation, ids: list[int]) -> list[Entry]:
    """Messages beyond the page, whatever page they are on."""
    found = _messages(conversation).filter(id__in=ids).order_by("id") if ids else []
    return [Entry(message) for message in found]


class ThreadAdmin(HandlingAdmin):
    """For the admin of conversations: the page of one."""

    def get_urls(self) -> list[URLPattern]:
        asked = path(
            "<path:object_id>/live/",
            self.admin_site.admin_view(self.live_view),
            name="django_ninebits_conversation_live",
        )
        return [asked, *super().get_urls()]

    @outside_transactions
    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        conversation = self._looked_at(request, object_id)
        if request.method == "POST":
            if "note" in request.POST:
                return self._note(request, conversation)
            return self._reply(request, conversation)
        return self._read(request, conversation, extra_context or {})

    @outside_transactions
    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """For the script of an open page: what it would show now; by POST, what has been seen."""
        conversation = self._looked_at(request, object_id)
        if request.method == "POST":
            return self._mark_read(request, conversation)
        page = Page.of(conversation, _int(request.GET.get("before")))
        shown = self._shown(request, conversation, page)
        if shown["tag"] in live.known_tag(request):
            return HttpResponseNotModified()
        shown |= _trail(conversation, page)
        request.current_app = self.admin_site.name
        shown["opted_out"] = opted_out(conversation.contact, self.admin_site.name)
        return TemplateResponse(request, "admin/django_ninebits/conversation/thread.html", shown)

    def _looked_at(self, request: HttpRequest, object_id: str) -> Conversation:
        conversation = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, conversation):
            raise PermissionDenied
        if conversation is None:
            raise Http404
        return conversation

    def _mark_read(self, request: HttpRequest, conversation: Conversation) -> HttpResponse:
        if not self.has_reply_permission(request):
            raise PermissionDenied
        live.let_session_end(request)
        seen = _messages(conversation).filter(id__lte=_int(request.POST.get("seen")) or 0)
        if newest := seen.order_by("-id").values_list("id", flat=True).first():
            conversation.mark_read_up_to(newest)
        return HttpResponse(status=204)

    def _read(
        self, request: HttpRequest, conversation: Conversation, extra_context: dict[str, Any]
    ) -> HttpResponse:
        before = _int(request.GET.get("before"))
        page = Page.of(conversation, before)
        if before is not None or not self.has_reply_permission(request):
            return self._thread(request, conversation, page, None, extra_context)
        ref_id = key_of(request.GET.get("compose"))
        if ref_id is None and request.method != "POST":
            return HttpResponseRedirect(_address(request, compose=uuid.uuid4()))
        is_opted_out = conversation.contact.opted_out_at is not None
        newest = page.entries[-1].message.pk if page.entries else 0
        begun = {"ref_id": ref_id or uuid.uuid4(), "seen": newest}
        offers = Offers(conversation, request.user)
        form = None if is_opted_out else ReplyForm(initial=begun, offers=offers)
        if request.method == "GET" and page.entries:
            conversation.mark_read_up_to(newest)
        return self._thread(request, conversation, page, form, extra_context)

    def _reply(self, request: HttpRequest, conversation: Conversation) -> HttpResponse:
        if not self.has_reply_permission(request):
            raise PermissionDenied
        form = ReplyForm(request.POST, offers=Offers(conversation, request.user))
        try:
            outcome = pressed(form, lambda: _answer(conversation, form, request.user))
        except LookFirst as first:
            outcome = Outcome(form.having_seen(first.message.pk, first.said))
        if outcome.message is not None:
            tell_what_became_of(request, outcome)
            return HttpResponseRedirect(_address(request, compose=uuid.uuid4()))
        return self._thread(request, conversation, Page.of(conversation, None), outcome.form, {})

    def _note(self, request: HttpRequest, conversation: Conversation) -> HttpResponse:
        if not self.may_note(request):
            raise PermissionDenied
        form = NoteForm(request.POST)
        if form.is_valid():
            conversation.note(form.cleaned_data["note"], author=request.user)
            return HttpResponseRedirect(_same_reply(request))
        return self._read(request, conversation, {"note_form": form})

    def may_note(self, request: HttpRequest) -> bool:
        """Whoever does anything with conversations."""
        return self.has_reply_permission(request) or self.has_assign_permission(request)

    def _shown(
        self, request: HttpRequest, conversation: Conversation, page: Page
    ) -> dict[str, Any]:
        """What of the page changes as messages come and go."""
        further = watched(conversation, _ids(request.GET.get("watch", "")))
        decides = may_decide(request)
        state = [entry.state for entry in (*page.entries, *further)]
        about = (page.has_older, conversation.status, conversation.contact.opted_out_at, decides)
        assignee, handlings = conversation.assignee, self.handlings(request, conversation)
        whose = (conversation.assignee_id, [handling.name for handling in handlings])
        done = conversation.trail_up_to
        oldest = page.entries[0].message.pk if page.entries else None
        here = self._path("change", conversation)
        return {
            "original": conversation,
            "watched": further,
            "may_decide": decides,
            "tag": live.tag_of(state, *about, *whose, done),
            "assigned": name_of(assignee) if assignee else "",
            "handlings": handlings,
            "handled_up_to": page.entries[-1].message.pk if page.entries else 0,
            "older": _address(request, here, before=oldest) if page.has_older else "",
            "newest": _address(request, here) if "before" in request.GET else "",
        }

    def _thread(
        self,
        request: HttpRequest,
        conversation: Conversation,
        page: Page,
        form: ReplyForm | None,
        extra_context: dict[str, Any],
    ) -> TemplateResponse:
        before = request.GET.get("before")
        asks = {} if before is None else {"before": before}
        may_reply = self.has_reply_permission(request)
        here = self._path("change", conversation)
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            "admin/django_ninebits/conversation/change_form.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": conversation.contact,
                "media": self.media,
                "has_view_permission": True,
                "preserved_filters": self.get_preserved_filters(request),
                **self._shown(request, conversation, page),
                **_trail(conversation, page),
                "live": _address(request, self._path("live", conversation), **asks),
                # Not as the language writes numbers.
                "every": str(live.EVERY),
                "page_length": str(PAGE),
                "marks_read": may_reply and before is None,
                "form": form,
                "form_address": form and _address(request, here, compose=form["ref_id"].value()),
                "errors": form and form.errors,
                "opted_out": opted_out(conversation.contact, self.admin_site.name),
                "may_reply": may_reply,
                "note_form": NoteForm() if before is None and self.may_note(request) else None,
                "note_address": _same_reply(request, here),
                **extra_context,
            },
        )


def _trail(conversation: Conversation, page: Page) -> dict[str, Any]:
    """The messages of the page with what staff did: not asked for where nothing has changed."""
    full = page.with_trail(conversation)
    return {"entries": full.entries, "first_changes": full.first_changes}


class LookFirst(Exception):
    """Somebody else has answered since the reply was begun."""

    def __init__(self, message: Message) -> None:
        self.message = message

    @property
    def said(self) -> str:
        ago = _ago(self.message.created_at)
        if not self.message.author_name:
            automatic = _(
                "Not sent: an automatic message left %(time)s ago. Look first, and press Send if"
                " your reply is still needed."
            )
            return automatic % {"time": ago}
        said = _(
            "Not sent: %(who)s replied %(time)s ago. Look first, and press Send if your reply is"
            " still needed."
        )
        return said % {"who": self.message.author_name, "time": ago}


def _answer(conversation: Conversation, form: ReplyForm, author: Any) -> Message:
    """The reply, queued; or ``LookFirst``, also where two answer at the same instant."""
    ref_id = str(form.cleaned_data["ref_id"])
    with atomic():
        Conversation.objects.filter(pk=conversation.pk).hold()
        answers = _messages(conversation).filter(status__in=Message.ANSWERING)
        newer = answers.filter(id__gt=form.seen_up_to)
        # The same words of one's own may have left from another tab.
        others = newer.exclude(Q(author=author) & ~Q(text=form.cleaned_data["text"]))
        # One of the same key is this very reply, sent before.
        if newest := others.exclude(ref_id=ref_id).order_by("-id").first():
            raise LookFirst(newest)
        return services.reply(
            conversation,
            form.cleaned_data["text"],
            ref_id=ref_id,
            author=author,
            send_at=form.cleaned_data["send_at"],
        )


def _ago(moment: datetime) -> str:
    seconds = int((timezone.now() - moment).total_seconds())
    if seconds < 60:
        said = ngettext("%(count)s second", "%(count)s seconds", seconds)
        return said % {"count": max(seconds, 0)}
    return timesince(moment, depth=1)


def opted_out(contact: Contact, site: str) -> dict[str, Any] | None:
    """What is to be said of somebody who wants no messages: since when, why, and the way back."""
    if contact.opted_out_at is None:
        return None
    # There is none where a list was taken over that another system kept.
    changes = contact.consent_changes.using(database()).filter(changed_at=contact.opted_out_at)
    change = changes.select_related("message").defer("message__delivery").last()
    _out, words = consent.words()
    return {
        "since": contact.opted_out_at,
        "text": change and place_of(change, site),
        "words": ", ".join(sorted(word.upper() for word in words)),
    }


def place_of(change: ConsentChange, site: str) -> str:
    """The address of the thread that ends with the text which made the change."""
    message = change.message
    name, query = f"{site}:django_ninebits_conversation_change", {"before": message.pk + 1}
    address = reverse(name, args=[message.conversation_id], query=query)
    return f"{address}#nb-message-{message.pk}"


def _address(request: HttpRequest, path: str = "", **parameters: object) -> str:
    """This page with others of these parameters; what else the address says is kept."""
    query = request.GET.copy()
    for name in ("before", "compose", "watch", "to", "from"):
        query.pop(name, None)
    for name, value in parameters.items():
        query[name] = str(value)
    return f"{path or request.path}?{query.urlencode()}#nb-newest"


def _same_reply(request: HttpRequest, path: str = "") -> str:
    """This page, with the reply that is being written."""
    return _address(request, path, compose=key_of(request.GET.get("compose")) or uuid.uuid4())


def _int(written: str | None) -> int | None:
    try:
        return int(written or "")
    except ValueError:
        return None


def _ids(written: str) -> list[int]:
    """As many as may be asked for; what is no id of any row is left out."""
    found = map(id_of, written.split(",")[:WATCHED])
    return [pk for pk in found if pk is not None]
