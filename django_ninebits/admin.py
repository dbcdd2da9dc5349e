"""The admin: the inbox that support staff live in, and all that was kept, to look at.

Nothing can be deleted here: a deleted text would be taken again when it is redelivered, and a
deleted reply could be sent again. Nothing of a message can be edited either: it is what was said.
"""

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, Q, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, pgettext_lazy

from django_ninebits import inbox, search, wording
from django_ninebits.canned import CannedReplyAdmin
from django_ninebits.decisions import (
    DecidingAdmin,
    outside_transactions,
)
from django_ninebits.exceptions import (
    DeliveryNotUnderstood,
    WrongStatus,
    traceback_without_values,
)
from django_ninebits.folders import named
from django_ninebits.logged_out import LoggedOutAdmin
from django_ninebits.models import (
    Attempt,
    CannedReply,
    ConsentChange,
    Contact,
    Conversation,
    Message,
    QuarantinedDelivery,
    database,
)
from django_ninebits.starting import StartingAdmin
from django_ninebits.status import unattended
from django_ninebits.thread import place_of

Row = TypeVar("Row", bound=Model)

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
else:

    class ModelAdmin(admin.ModelAdmin):
        """Takes the subscript that the type checker asks for."""

        def __class_getitem__(cls, _model):
            return cls


logger = logging.getLogger(__name__)


class KeptAdmin(ModelAdmin[Row]):
    """Rows that are kept for ever."""

    list_per_page = 100
    show_full_result_count = False

    class Media:
        css = {"all": ["django_ninebits/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Row]:
        return super().get_queryset(request).using(database())

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyAdmin(KeptAdmin[Row]):
    """Rows that nobody adds or edits by hand."""

    sortable_by = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


admin.site.register(CannedReply, CannedReplyAdmin)


@admin.register(Conversation)
class ConversationAdmin(LoggedOutAdmin, StartingAdmin, ReadOnlyAdmin[Conversation]):
    """The inbox; the page of a conversation is its thread, with a form to reply."""

    @outside_transactions
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        # What leads elsewhere would have the next page say it twice.
        if isinstance(response, TemplateResponse) and self.has_reply_permission(request):
            _warn_of_a_backlog(request, self.admin_site)
        return response


class OptedOutFilter(admin.SimpleListFilter):
    title = pgettext_lazy("filter", "opted out")
    parameter_name = "opted_out"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", pgettext_lazy("contact", "opted out"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(opted_out_at__isnull=False) if self.value() == "yes" else queryset


class SeenInline(admin.TabularInline):  # type: ignore[type-arg]
    """Rows that belong to another: whoever sees that one sees them, and nobody edits them."""

    template = "admin/django_ninebits/seen_inline.html"
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).using(database())

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ConsentChangeInline(SeenInline):
    """When a subscriber opted out or in, and by which text."""

    model = ConsentChange
    # What became is the headline of each.
    readonly_fields = ["changed_at", "said"]
    fields = ["changed_at", "said"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConsentChange]:
        return super().get_queryset(request).select_related("message").defer("message__delivery")

    @admin.display(description=_("text"))
    def said(self, change: ConsentChange) -> SafeString:
        return format_html(
            '<a href="{}">{}</a>',
            place_of(change, self.admin_site.name),
            _excerpt(change.message.text),
        )


@admin.register(Contact)
class ContactAdmin(KeptAdmin[Contact]):
    """The number is who it is, so it stays; name and notes are what is known of them."""

    inlines = [ConsentChangeInline]
    list_display = ["phone_number", "name", "opted_out_at", "created_at"]
    list_display_links = ["phone_number", "name"]
    list_filter = [OptedOutFilter]
    fields = ["phone_number", "name", "notes", "threads", "opted_out_at", "created_at"]
    ordering = ["-id"]
    search_fields = ["name"]
    search_help_text = _("A name, a number or its last digits.")

    def get_readonly_fields(self, request: HttpRequest, obj: Contact | None = None) -> list[str]:
        made = ["threads", "opted_out_at", "created_at"]
        return made if obj is None else ["phone_number", *made]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Contact], search_term: str
    ) -> tuple[QuerySet[Contact], bool]:
        term = search_term.strip()
        return (queryset.filter(search.fits(term)) if term else queryset), False

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["new_conversation"] = self._new_conversation(request, kwargs["obj"])
        return super().render_change_form(request, context, *args, **kwargs)

    def _new_conversation(self, request: HttpRequest, contact: Contact | None) -> str:
        """The address that begins one, for whoever may."""
        if contact is None or not self.admin_site.is_registered(Conversation):
            return ""
        conversations = self.admin_site.get_model_admin(Conversation)
        if not conversations.has_add_permission(request):
            return ""
        name = f"{self.admin_site.name}:django_ninebits_conversation_add"
        return reverse(name, query={"to": str(contact.phone_number)})

    def get_inlines(self, request: HttpRequest, obj: Contact | None) -> Any:
        return [] if obj is None else self.inlines

    def save_model(self, request: HttpRequest, obj: Contact, form: Any, change: bool) -> None:
        # Not what else it had when it was read: they may have opted out since.
        obj.save(update_fields=form.changed_data if change else None)

    @admin.display(description=_("conversations"))
    def threads(self, contact: Contact) -> SafeString:
        name = f"{self.admin_site.name}:django_ninebits_conversation_change"
        links = (
            [
                (reverse(name, args=[conversation.pk]), conversation.short_code)
                for conversation in contact.conversations.order_by("id")
            ]
            if contact.pk
            else []
        )
        return format_html_join(" ", '<a href="{}">{}</a>', links) or SafeString("-")


class AttemptInline(SeenInline):
    """What was learnt of each attempt to send a message."""

    model = Attempt
    # Its number and outcome are the headline of each.
    readonly_fields = ["began_at", "seconds", "http_status", "said"]
    fields = ["began_at", "seconds", "http_status", "said"]

    @admin.display(description=_("answer"))
    def said(self, attempt: Attempt) -> SafeString:
        return format_html(
            '<div class="nb-text" dir="auto">{}</div>', wording.shown(attempt.answer)
        )


@admin.register(Message)
class MessageAdmin(DecidingAdmin, ReadOnlyAdmin[Message]):
    """Every message with all that is known of it, for whoever looks into a complaint."""

    inlines = [AttemptInline]

    list_display = ["created_at", "number", "direction", "status", "excerpt"]
    list_filter = ["direction", "status"]
    ordering = ["-id"]
    # Only so that there is a box: see get_search_results.
    search_fields = ["ref_id"]
    search_help_text = _("A number or its last digits, or a whole session or reference.")
    fields = [
        "conversation",
        "direction",
        "status",
        "written",
        "problem",
        "author",
        "author_name",
        "telco",
        "session_id",
        "ref_id",
        "identity",
        "created_at",
        "sent_date",
        "priority",
        "send_at",
        "due_at",
        "expires_at",
        "give_up_at",
        "attempts",
        "claimed_at",
        "claim_token",
        "was_uncertain",
        "override_opt_out",
        "needs_decision",
        "announce_at",
        "delivered",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        rows = super().get_queryset(request).select_related("conversation__contact")
        # The page of a single message fetches it then.
        return rows.defer("delivery")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Message], search_term: str
    ) -> tuple[QuerySet[Message], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        theirs = Q(conversation__in=search.conversations_with(term))
        return queryset.filter(Q(session_id=term) | Q(ref_id=term) | theirs), False

    @admin.display(description=pgettext_lazy("column", "who"))
    def number(self, message: Message) -> SafeString:
        return named(message.conversation.contact)

    @admin.display(description=_("text"))
    def excerpt(self, message: Message) -> SafeString:
        return _excerpt(message.text)

    @admin.display(description=_("text"))
    def written(self, message: Message) -> SafeString:
        return format_html('<div class="nb-text" dir="auto">{}</div>', message.text)

    @admin.display(description=_("error"))
    def problem(self, message: Message) -> str:
        return wording.shown(message.error) or self.get_empty_value_display()

    @admin.display(description=_("delivery"))
    def delivered(self, message: Message) -> SafeString:
        return SafeString("-") if message.delivery is None else _bytes(message.delivery)


class TakenInFilter(admin.SimpleListFilter):
    title = pgettext_lazy("filter", "taken in")
    parameter_name = "taken_in"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("no", _("Not yet")), ("yes", _("Taken in"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = {"no": True, "yes": False}.get(self.value() or "")
        return queryset if wanted is None else queryset.filter(message__isnull=wanted)


@admin.register(QuarantinedDelivery)
class QuarantinedDeliveryAdmin(ReadOnlyAdmin[QuarantinedDelivery]):
    """What came and was not understood, readable, and a button to try again."""

    list_display = ["received_at", "problems", "excerpt", "taken_in_at"]
    list_filter = [TakenInFilter]
    ordering = ["-id"]
    fields = ["received_at", "problems", "delivered", "message", "taken_in_at"]

    def get_urls(self) -> list[URLPattern]:
        take_in_again = path(
            "<path:object_id>/take-in-again/",
            self.admin_site.admin_view(self.take_in_again_view),
            name="django_ninebits_quarantineddelivery_take_in_again",
        )
        return [take_in_again, *super().get_urls()]

    def has_take_in_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_ninebits.change_quarantineddelivery")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["may_take_in"] = self.has_take_in_permission(request)
        return super().render_change_form(request, context, *args, **kwargs)

    @outside_transactions
    def take_in_again_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if not self.has_take_in_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        quarantined = self.get_object(request, unquote(object_id))
        if quarantined is None:
            raise Http404
        self._take_in_again(request, quarantined)
        name = f"{self.admin_site.name}:django_ninebits_quarantineddelivery_change"
        return HttpResponseRedirect(reverse(name, args=[quarantined.pk]))

    def _take_in_again(self, request: HttpRequest, quarantined: QuarantinedDelivery) -> None:
        try:
            taken = inbox.take_in_again(quarantined)
        except DeliveryNotUnderstood as problem:
            why = " ".join(map(wording.shown, problem.errors))
            messages.error(request, _("It is still not understood: %s") % why)
        except WrongStatus:
            messages.warning(request, _("It was taken in already; nothing was changed."))
        except inbox.CannotStoreNow:
            messages.error(request, _("It cannot be stored now. Try again in half a minute."))
        except Exception as error:  # noqa: BLE001 - the bytes stay where they are
            logger.error("A delivery was not taken in.\n%s", traceback_without_values(error))
            messages.error(
                request,
                _("It could not be stored (%s). It is still here.") % type(error).__name__,
            )
        else:
            said = _("It was there already: {}") if taken.repeated else _("Taken in: {}")
            messages.success(request, format_html(str(said), self._link(taken)))

    def _link(self, taken: inbox.TakenIn) -> SafeString:
        message = taken.message
        assert message is not None  # noqa: S101 - what is taken in again is a message
        name = f"{self.admin_site.name}:django_ninebits_conversation_change"
        return format_html(
            '<a href="{}">{}</a>', reverse(name, args=[message.conversation_id]), message
        )

    @admin.display(description=_("errors"))
    def problems(self, quarantined: QuarantinedDelivery) -> str:
        return "\n".join(map(wording.shown, quarantined.errors.split("\n")))

    @admin.display(description=_("body"))
    def excerpt(self, quarantined: QuarantinedDelivery) -> SafeString:
        return _excerpt(_readable(quarantined.body))

    @admin.display(description=_("body"))
    def delivered(self, quarantined: QuarantinedDelivery) -> SafeString:
        return _bytes(quarantined.body)


def _warn_of_a_backlog(request: HttpRequest, site: admin.AdminSite) -> None:
    backlog = unattended()
    if backlog is None:
        return
    said = ngettext(
        "%(count)s message waits to be sent, for %(time)s: is a worker running?",
        "%(count)s messages wait to be sent, the oldest for %(time)s: is a worker running?",
        backlog.count,
    ) % {"count": backlog.count, "time": timesince(backlog.since, depth=1)}
    if site.is_registered(Message) and request.user.has_perm("django_ninebits.view_message"):
        address = reverse(
            f"{site.name}:django_ninebits_message_changelist",
            query={"status__exact": Message.Status.QUEUED},
        )
        said = format_html('<a href="{}">{}</a>', address, said)
    messages.warning(request, said)


def _excerpt(text: str) -> SafeString:
    return format_html('<bdi class="nb-preview">{}</bdi>', text[:160])


def _bytes(body: bytes | memoryview) -> SafeString:
    return format_html('<pre class="nb-bytes" dir="ltr">{}</pre>', _readable(body))


def _readable(body: bytes | memoryview) -> str:
    """As text, in which whatever cannot be seen or is no text can be seen."""
    decoded = bytes(body).decode(errors="backslashreplace")
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape").decode()
        for character in decoded
    )
