"""The list of the inbox: its folders, their orders, what narrows them, and how it stays up to date.

Nothing here counts or sorts what may be a million rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR, SEARCH_VAR, ChangeList
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext, ngettext, pgettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from django_ninebits import live
from django_ninebits.exceptions import InvalidPhoneNumber
from django_ninebits.keyset import PAGE, Key, Page, Stretch
from django_ninebits.models import (
    PREVIEW_LENGTH,
    Contact,
    Conversation,
    Message,
    aware_time,
    name_of,
)
from django_ninebits.phone import subscriber_number
from django_ninebits.search import Found, find

if TYPE_CHECKING:
    ConversationModelAdmin = admin.ModelAdmin[Conversation]
else:
    ConversationModelAdmin = object


#: A folder that holds more is only said to hold more than this.
COUNTED = 99

#: What the address of a list can say beside its filters.
FOLDER, ORDER, AFTER, BEFORE = "folder", "order", "after", "before"

#: From which message on a search goes on.
OLDER = "older"

#: Whether the filters are to be seen, and what they are called in an address.
FILTER = "filter"
FILTERS = ("code", "telco", "assignee", "since", "until")

#: How many of what a filter can be set to are offered.
OFFERED = 30


@dataclass(frozen=True)
class Folder:
    """Some of the conversations, and the orders in which they can be listed."""

    name: str
    label: Any
    #: Said where it is empty.
    empty: Any
    condition: Callable[[Any], Q]
    #: In which of its rows somebody or something waits, and since when.
    waits: str = "waiting_since"
    #: What its indexes have before the column of the order.
    lead: tuple[str, ...] = ()
    #: Nothing is in it that does not wait.
    has_only_waiting: bool = False
    #: Nothing in it waits.
    has_none_waiting: bool = False
    is_counted: bool = True

    @property
    def orders(self) -> list[str]:
        return ["newest"] if self.has_none_waiting else ["longest", "newest"]

    def chain(self, order: str, user: Any) -> list[Stretch]:
        """Its rows in this order."""
        condition = self.condition(user)
        is_newest_first = order == "newest"
        newest = Stretch(condition, "last_message_at", True, self.lead)
        if self.has_none_waiting:
            return [newest]
        waiting = Stretch(condition, self.waits, is_newest_first, self.lead)
        if self.has_only_waiting:
            return [waiting]
        if is_newest_first:
            return [newest]
        answered = Stretch(condition & Q(waiting_since=None), "last_message_at", True, self.lead)
        return [waiting, answered]


_OPEN = Q(status=Conversation.Status.OPEN)

FOLDERS = {
    folder.name: folder
    for folder in (
        Folder(
            "open",
            pgettext_lazy("folder", "Open"),
            _(
                "Nothing is open. When somebody texts your short code, the conversation appears"
                " here."
            ),
            lambda user: _OPEN,
        ),
        Folder(
            "waiting",
            pgettext_lazy("folder", "Waiting"),
            _("Nobody waits for an answer."),
            lambda user: Q(),
            has_only_waiting=True,
        ),
        Folder(
            "mine",
            pgettext_lazy("folder", "Mine"),
            _("Nothing that is open is assigned to you."),
            lambda user: _OPEN & Q(assignee=user.pk),
            lead=("assignee_id",),
        ),
        Folder(
            "unassigned",
            pgettext_lazy("folder", "Unassigned"),
            _("All that is open is assigned to somebody."),
            lambda user: _OPEN & Q(assignee=None),
            lead=("assignee_id",),
        ),
        Folder(
            "undecided",
            pgettext_lazy("folder", "Needs a decision"),
            _("No message needs a decision."),
            # Where there was only bulk, it is decided among the messages.
            lambda user: Q(last_message_at__isnull=False),
            waits="undecided_since",
            has_only_waiting=True,
        ),
        Folder(
            "closed",
            pgettext_lazy("folder", "Closed"),
            _("Nothing is closed."),
            lambda user: Q(status=Conversation.Status.CLOSED),
            has_none_waiting=True,
            is_counted=False,
        ),
        Folder(
            "all",
            pgettext_lazy("folder", "All"),
            _("No texts yet. When somebody texts your short code, the conversation appears here."),
            lambda user: Q(),
            is_counted=False,
        ),
    )
}

ORDERS = {
    "longest": _("Longest waiting first"),
    "newest": _("Newest first"),
}


@dataclass(frozen=True)
class Link:
    """To the same list in another folder or order."""

    label: Any
    address: str
    is_current: bool
    count: str = ""


class FilterForm(forms.Form):
    """What a folder can be narrowed to. What is no date and nobody narrows nothing."""

    code = forms.CharField(label=_("short code"), required=False)
    telco = forms.CharField(label=_("telco"), required=False)
    assignee = forms.CharField(label=_("assignee"), required=False)
    since = forms.DateField(
        label=_("last message from"),
        required=False,
        widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d"),
        input_formats=["%Y-%m-%d"],
    )
    until = forms.DateField(
        label=pgettext_lazy("filter", "to"),
        required=False,
        widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d"),
        input_formats=["%Y-%m-%d"],
    )

    def condition(self) -> Q:
        """What was asked for. Each part is a range or a value of a column that an index has."""
        self.is_valid()
        fits = Q()
        for name, narrow in _NARROWING.items():
            if value := self.cleaned_data.get(name):
                fits &= narrow(value)
        return fits

    def offer(self, rows: QuerySet[Conversation]) -> None:
        """Let what there is be chosen from."""
        codes, telcos = (_values(rows, column) for column in ("short_code", "telco"))
        users = get_user_model()._default_manager.filter(pk__in=_values(rows, "assignee_id"))
        names = sorted((name_of(user), str(user.pk)) for user in users)
        self._choose("code", [(code, code) for code in codes])
        self._choose("telco", [(telco, telco) for telco in telcos])
        nobody = (NOBODY, pgettext("filter", "nobody"))
        self._choose("assignee", [nobody, *((pk, name) for name, pk in names)])

    def _choose(self, name: str, choices: list[tuple[Any, Any]]) -> None:
        value = self.data.get(name, "")
        if value and value not in {choice for choice, _label in choices}:
            choices = [(value, value), *choices]
        self.fields[name].widget = forms.Select(choices=[("", pgettext("filter", "any")), *choices])


#: Of which a user's key is no writing.
NOBODY = "nobody"


def _of_assignee(value: str) -> Q:
    if value == NOBODY:
        return Q(assignee=None)
    try:
        # With its range, beyond which no database looks.
        return Q(assignee=get_user_model()._meta.pk.clean(value, None))
    except ValidationError:
        return Q()


def _midnight(day: date, later: timedelta = timedelta()) -> datetime:
    # Within what every time zone and database can write; there is no message beyond.
    day = min(max(day, date(1990, 1, 1)), date(2200, 1, 1)) + later
    moment = datetime.combine(day, time())
    return timezone.make_aware(moment) if settings.USE_TZ else moment


_NARROWING: dict[str, Callable[[Any], Q]] = {
    "code": lambda code: Q(short_code=code),
    "telco": lambda telco: Q(telco=telco),
    "assignee": _of_assignee,
    "since": lambda day: Q(last_message_at__gte=_midnight(day)),
    "until": lambda day: Q(last_message_at__lt=_midnight(day, timedelta(days=1))),
}


def _values(rows: QuerySet[Conversation], column: str) -> list[Any]:
    """What there is in a column: a step along its index for each, however many rows have it."""
    found: list[Any] = []
    ordered = rows.select_related(None).order_by(column).values_list(column, flat=True)
    is_text = isinstance(Conversation._meta.get_field(column), models.CharField)
    further = ordered.filter(**({f"{column}__gt": ""} if is_text else {f"{column}__isnull": False}))
    while len(found) < OFFERED and (value := further.first()) is not None:
        found.append(value)
        further = ordered.filter(**{f"{column}__gt": value})
    return found


class FolderList(ChangeList):
    """A page of a folder, found by its key."""

    def get_filters_params(self, params: Any = None) -> Any:
        found = super().get_filters_params(params)
        return {name: value for name, value in found.items() if name not in _OURS}

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        self.user = request.user
        self.counts: dict[str, str] = {}
        self.folder = FOLDERS.get(self.params.get(FOLDER, ""), FOLDERS["open"])
        wanted = self.params.get(ORDER, "")
        if self.is_search:
            # Whoever looks for somebody looks everywhere.
            self.folder, wanted = FOLDERS["all"], "newest"
        self.order = wanted if wanted in self.folder.orders else self.folder.orders[0]
        # Not of the list itself: what else is asked of it begins at its first page.
        self.after, self.before = (self.params.pop(name, "") for name in (AFTER, BEFORE))
        self.filters = FilterForm(self.params)
        self.narrowed = [name for name in FILTERS if self.params.get(name)]
        found = super().get_queryset(request, *args, **kwargs)
        self.search: Found | None = getattr(request, "ninebits_found", None)
        return found.filter(self.filters.condition())

    @property
    def is_search(self) -> bool:
        return bool(self.query.strip())

    def get_results(self, request: HttpRequest) -> None:
        self.page = Page.of(
            self.queryset.annotate(
                last_message_status=Subquery(_status_of_the_last), newest_id=Subquery(_newest)
            ),
            self.folder.chain(self.order, self.user),
            after=Key.read(self.after),
            before=Key.read(self.before),
            size=self.list_per_page,
        )
        for row in self.page.rows:
            row.found_text = self.search.texts.get(row.pk, "") if self.search else ""  # type: ignore[attr-defined]
        self.result_list = self.page.rows
        # Of this page: nobody counts the rest.
        self.result_count = self.full_result_count = len(self.page.rows)
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.page.rows)
        self.can_show_all = self.multi_page = False
        self.paginator = self.model_admin.get_paginator(
            request, self.queryset.none(), self.list_per_page
        )

    def get_query_string(self, new_params: Any = None, remove: Any = None) -> str:
        """Of another list: its pages are others."""
        new_params = {AFTER: None, BEFORE: None, **(new_params or {})}
        return super().get_query_string(new_params, remove)

    @property
    def further(self) -> str:
        """The same search among older texts."""
        if self.search is None or self.search.further is None:
            return ""
        return self.get_query_string({OLDER: self.search.further})

    @property
    def number(self) -> str:
        """What was searched for, where that can be sent to."""
        try:
            return subscriber_number(self.query)
        except InvalidPhoneNumber:
            return ""

    @property
    def filter_is_shown(self) -> bool:
        return bool(self.narrowed) or FILTER in self.params

    @property
    def filter_form(self) -> FilterForm:
        """With what can be chosen, which is looked up for it."""
        self.filters.offer(self.root_queryset)
        return self.filters

    @property
    def filter_link(self) -> str:
        return self.get_query_string({FILTER: "yes"})

    @property
    def unfiltered_link(self) -> str:
        return self.get_query_string(dict.fromkeys((*FILTERS, FILTER)))

    @property
    def kept(self) -> list[tuple[str, str]]:
        """What the form of the filters takes along."""
        return self._kept(SEARCH_VAR, FOLDER, ORDER)

    @property
    def kept_by_search(self) -> list[tuple[str, str]]:
        """What the search takes along: it is over all folders, and begins at the newest text."""
        return self._kept(FILTER, *FILTERS)

    def _kept(self, *names: str) -> list[tuple[str, str]]:
        return [(name, self.params[name]) for name in names if name in self.params]

    @property
    def previous(self) -> str:
        return self._page_at(BEFORE, self.page.before)

    @property
    def next(self) -> str:
        return self._page_at(AFTER, self.page.after)

    @property
    def first(self) -> str:
        """Only where this is not the first page."""
        return self.get_query_string() if self.after or self.before else ""

    @cached_property
    def folders(self) -> list[Link]:
        return [
            Link(
                folder.label,
                self.get_query_string({FOLDER: folder.name, **_ELSEWHERE}),
                folder is self.folder and not self.is_search,
                self._count(folder) if folder.is_counted else "",
            )
            for folder in FOLDERS.values()
        ]

    @property
    def orders(self) -> list[Link]:
        names = self.folder.orders if len(self.folder.orders) > 1 and not self.is_search else []
        return [
            Link(ORDERS[name], self.get_query_string({ORDER: name}), name == self.order)
            for name in names
        ]

    def _page_at(self, parameter: str, key: Key | None) -> str:
        return "" if key is None else self.get_query_string({parameter: str(key)})

    @property
    def every(self) -> str:
        # Not as the language writes numbers.
        return str(live.EVERY)

    @property
    def now(self) -> str:
        return str(int(aware_time(timezone.now()).timestamp()))

    @property
    def said(self) -> str:
        """What a screen reader is told when it changes."""
        return gettext("Waiting: %s") % self._count(FOLDERS["waiting"])

    @cached_property
    def tag(self) -> str:
        """Of all that is shown and can change: the same as long as nothing has."""
        shown = [[getattr(row, name) for name in _SHOWN] for row in self.page.rows]
        names = [(row.contact.name, row.contact.opted_out_at) for row in self.page.rows]
        return live.tag_of(shown, names, self._count(FOLDERS["waiting"]), self.page.after is None)

    def _count(self, folder: Folder) -> str:
        """At most a hundred of its rows are looked at, and once."""
        if folder.name not in self.counts:
            self.counts[folder.name] = self._counted(folder)
        return self.counts[folder.name]

    def _counted(self, folder: Folder) -> str:
        (stretch, *_rest) = folder.chain("newest", self.user)
        rows = stretch.rows(self.root_queryset, None, is_backwards=False)
        count = rows.select_related(None)[: COUNTED + 1].count()
        return str(count) if count <= COUNTED else f"{COUNTED}+"


#: What of a conversation a row shows, or its actions depend on.
_SHOWN = (
    "pk",
    "status",
    "assignee_id",
    "telco",
    "unread_count",
    "waiting_since",
    "undecided_since",
    "last_message_at",
    "last_message_status",
    "newest_id",
)

_OURS = {FOLDER, ORDER, AFTER, BEFORE, OLDER, FILTER, *FILTERS, PAGE_VAR}

#: What a folder is opened without.
_ELSEWHERE = dict.fromkeys((ORDER, SEARCH_VAR, OLDER))

_status_of_the_last = (
    Message.objects.order_by().filter(identity=OuterRef("last_message_identity")).values("status")
)

_newest = Message.objects.filter(conversation=OuterRef("pk")).order_by("-id").values("id")[:1]


class FolderAdmin(ConversationModelAdmin):
    """For the admin of conversations: the list."""

    list_display = ["who", "preview", "waits", "short_code", "telco", "assigned", "when"]
    list_display_links = ["who", "preview"]
    list_per_page = PAGE
    # Counts are of folders, and go no further than is said.
    show_facets = admin.ShowFacets.NEVER
    # The order is that of the folder.
    ordering = ()
    # Only so that there is a box: see get_search_results.
    search_fields = ["contact__name"]
    search_help_text = _(
        "A number or its last four digits, a name, a session or a reference, or words of a text."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        return super().get_queryset(request).select_related("contact", "assignee")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return FolderList

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": _("Inbox"), **(extra_context or {})}
        response = super().changelist_view(request, context)
        known = live.known_tag(request)
        # Which is rendered only after this.
        return HttpResponseNotModified() if known and _shows(response, known) else response

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Conversation], search_term: str
    ) -> tuple[QuerySet[Conversation], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        found = find(term, id_of(request.GET.get(OLDER, "")))
        request.ninebits_found = found  # type: ignore[attr-defined]
        return queryset.filter(pk__in=found.ids), False

    @admin.display(description=pgettext_lazy("column", "who"))
    def who(self, conversation: Conversation) -> SafeString:
        unread = SafeString("")
        if conversation.unread_count:
            unread = format_html(
                ' <span class="nb-unread">{} <span class="nb-hidden">{}</span></span>',
                conversation.unread_count,
                ngettext("unread text", "unread texts", conversation.unread_count),
            )
        return format_html("{}{}", named(conversation.contact), unread)

    @admin.display(description=_("last message"))
    def preview(self, conversation: Conversation) -> SafeString:
        is_inbound = conversation.last_message_direction == Message.Direction.INBOUND
        whose = pgettext("message", "received") if is_inbound else _("sent by us")
        return format_html(
            '<span class="nb-preview"><span class="nb-arrow" title="{}">{}</span>'
            ' <span class="nb-hidden">{}{}</span> <bdi>{}</bdi></span>{}',
            whose,
            "↓" if is_inbound else "↑",
            whose,
            _(":"),
            conversation.last_message_text.strip() or _("(empty)"),
            _states(conversation),
        ) + _found_text(conversation)

    @admin.display(description=pgettext_lazy("column", "waiting for"))
    def waits(self, conversation: Conversation) -> SafeString:
        if conversation.waiting_since is None:
            is_closed = conversation.status == Conversation.Status.CLOSED
            closed = conversation.get_status_display() if is_closed else ""
            return format_html('<span class="nb-quiet">{}</span>', closed)
        since, now = aware_time(conversation.waiting_since), aware_time(timezone.now())
        return _moment(since, timesince(since, now, depth=1), "nb-waits")

    @admin.display(description=_("assignee"))
    def assigned(self, conversation: Conversation) -> SafeString:
        return format_html("<bdi>{}</bdi>", name_of(conversation.assignee))

    @admin.display(description=pgettext_lazy("column", "when"))
    def when(self, conversation: Conversation) -> SafeString:
        last = conversation.last_message_at
        assert last is not None  # noqa: S101 - or else it is not listed
        moment = local_time(last)
        is_today = moment.date() == local_time(timezone.now()).date()
        return _moment(last, date_format(moment, "TIME_FORMAT" if is_today else "DATE_FORMAT"))


def _shows(response: HttpResponse, known: str) -> bool:
    """Whether it is the list, as whoever asks has it."""
    shown = (getattr(response, "context_data", None) or {}).get("cl")
    return isinstance(shown, FolderList) and shown.tag in known


def id_of(written: str) -> int | None:
    """``None`` for what is no id of any row."""
    return int(written) if written.isdecimal() and len(written) < 19 else None


def named(contact: Contact) -> SafeString:
    """A contact as lists show it."""
    number = format_html('<span class="nb-number" dir="ltr">{}</span>', contact.phone_number)
    if not contact.name:
        return number
    return format_html('<bdi class="nb-name">{}</bdi> {}', contact.name, number)


def _states(conversation: Conversation) -> SafeString:
    """What is to be known of the last message, and of those before it."""
    state = getattr(conversation, "last_message_status", None)
    said = SafeString("")
    if state is not None:
        label = Message.Status(state).label
        said = format_html(' <span class="nb-state nb-state-{}">{}</span>', state, label)
    if conversation.undecided_since is not None and state not in Message.UNDECIDED:
        said += format_html(
            ' <span class="nb-state nb-state-failed">{}</span>', _("needs a decision")
        )
    if conversation.contact.opted_out_at is not None:
        said += format_html(' <span class="nb-state">{}</span>', pgettext("contact", "opted out"))
    return said


def _found_text(conversation: Conversation) -> SafeString:
    text = getattr(conversation, "found_text", "")
    if text[:PREVIEW_LENGTH] in {"", conversation.last_message_text}:
        return SafeString("")
    return format_html(
        '<span class="nb-found"><span class="nb-hidden">{}</span><bdi>{}</bdi></span>',
        _("Found in:"),
        text[:PREVIEW_LENGTH],
    )


def _moment(moment: datetime, shown: str, css_class: str = "nb-when") -> SafeString:
    local = local_time(moment)
    return format_html(
        '<time class="{}" datetime="{}" title="{}">{}</time>',
        css_class,
        local.isoformat(),
        date_format(local, "DATETIME_FORMAT"),
        shown,
    )


def local_time(moment: datetime) -> datetime:
    """As it is shown."""
    return timezone.localtime(aware_time(moment))
