"""What staff do with several conversations at once: close, reopen, assign, mark as read.

Each conversation is changed by itself, by an update that is made only where there is something to
change. Closing and marking as read are about what was seen: the page says of each row which message
was its newest, and whatever has come since is neither closed away nor marked.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop, ngettext_lazy, pgettext_lazy

from django_ninebits.folders import FolderAdmin, id_of
from django_ninebits.models import Conversation, name_of
from django_ninebits.trail import NoteForm

#: What of a row the page carries: which conversation, and its newest message then.
SEEN = "seen"

#: Colleagues that can be chosen from.
COLLEAGUES = 200


class BulkForm(ActionForm):
    """The choice of an action, as the bar of unfold listens to it; elsewhere that means nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["action"].widget.attrs["x-model"] = "action"


class BulkAdmin(FolderAdmin):
    """For the admin of conversations: the actions of the list."""

    action_form = BulkForm
    actions = [
        "close_selected",
        "reopen_selected",
        "mark_read_selected",
        "assign_to_me",
        "assign_to_colleague",
        "assign_to_nobody",
    ]

    def has_reply_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_ninebits.reply_conversation")

    def has_assign_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_ninebits.assign_conversation")

    @admin.display(description=getattr(admin.ModelAdmin.action_checkbox, "short_description", ""))
    def action_checkbox(self, obj: Conversation) -> SafeString:
        newest = getattr(obj, "newest_id", None) or 0
        seen = format_html('<input type="hidden" name="{}" value="{}:{}">', SEEN, obj.pk, newest)
        return SafeString(super().action_checkbox(obj) + seen)

    @admin.action(permissions=["reply"], description=pgettext_lazy("action", "Close"))
    def close_selected(self, request: HttpRequest, selected: QuerySet[Conversation]) -> None:
        seen = _seen(request)
        self._change(
            request,
            lambda one: one.close(seen.get(one.pk, 0), author=request.user),
            told=ngettext_lazy(
                "Closed %(count)s conversation.", "Closed %(count)s conversations.", "count"
            ),
            left=ngettext_lazy(
                "%(count)s conversation was left alone: it was closed already, or a text has come"
                " or a message failed since you looked.",
                "%(count)s conversations were left alone: they were closed already, or a text has"
                " come or a message failed since you looked.",
                "count",
            ),
            recorded=gettext_noop("status: closed"),
        )

    @admin.action(permissions=["reply"], description=pgettext_lazy("action", "Reopen"))
    def reopen_selected(self, request: HttpRequest, selected: QuerySet[Conversation]) -> None:
        self._change(
            request,
            partial(Conversation.reopen, author=request.user),
            told=ngettext_lazy(
                "Reopened %(count)s conversation.", "Reopened %(count)s conversations.", "count"
            ),
            left=ngettext_lazy(
                "%(count)s conversation was open already.",
                "%(count)s conversations were open already.",
                "count",
            ),
            recorded=gettext_noop("status: reopened"),
        )

    @admin.action(permissions=["reply"], description=_("Mark as read"))
    def mark_read_selected(self, request: HttpRequest, selected: QuerySet[Conversation]) -> None:
        seen = _seen(request)
        self._change(
            request,
            lambda conversation: conversation.mark_read_up_to(seen.get(conversation.pk, 0)),
            told=ngettext_lazy(
                "Marked %(count)s conversation as read.",
                "Marked %(count)s conversations as read.",
                "count",
            ),
            left=ngettext_lazy(
                "%(count)s conversation was read already.",
                "%(count)s conversations were read already.",
                "count",
            ),
        )

    @admin.action(permissions=["assign"], description=_("Assign to me"))
    def assign_to_me(self, request: HttpRequest, selected: QuerySet[Conversation]) -> None:
        self._assign(request, request.user)

    @admin.action(permissions=["assign"], description=_("Assign to nobody"))
    def assign_to_nobody(self, request: HttpRequest, selected: QuerySet[Conversation]) -> None:
        self._assign(request, None)

    @admin.action(permissions=["assign"], description=_("Assign to a colleague…"))
    def assign_to_colleague(
        self, request: HttpRequest, selected: QuerySet[Conversation]
    ) -> HttpResponse | None:
        sent = {"action": "assign_to_colleague", "index": "0"}
        return self.ask_for_colleague(request, sent, back=request.get_full_path())

    def ask_for_colleague(
        self, request: HttpRequest, sent: dict[str, str], back: str
    ) -> HttpResponse | None:
        """To whom, and a note to them: until that is known, the page that asks for it.

        ``sent`` is what its form sends besides, and ``back`` where it leads without an answer.
        """
        colleagues = {str(user.pk): user for user in self.get_colleagues(request)}
        chosen = colleagues.get(request.POST.get("assignee", ""))
        form = NoteForm(request.POST if chosen else None)
        form.fields["note"].required = False
        if chosen is not None and form.is_valid():
            self._assign(request, chosen, note=form.cleaned_data["note"])
            return None
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            "admin/django_ninebits/conversation/assign.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": _("Assign to a colleague"),
                "colleagues": [(pk, name_of(user)) for pk, user in colleagues.items()],
                "chosen_pk": str(chosen.pk) if chosen else "",
                "form": form,
                # Not as the language writes numbers.
                "selected": [str(conversation.pk) for conversation in self._selected(request)],
                "checkbox": ACTION_CHECKBOX_NAME,
                "action": request.get_full_path(),
                "sent": sent,
                "back": back,
            },
        )

    def get_colleagues(self, request: HttpRequest) -> list[Any]:
        """Whom conversations can be assigned to: staff who may look at them, by their names."""
        users = get_user_model()
        fields = {field.name for field in users._meta.get_fields()}
        staff = {name: True for name in ("is_active", "is_staff") if name in fields}
        found = users._default_manager.filter(**staff).order_by(users.USERNAME_FIELD)[:COLLEAGUES]
        may_look = [user for user in found if user.has_perm("django_ninebits.view_conversation")]
        return sorted(may_look, key=name_of)

    def _selected(self, request: HttpRequest) -> QuerySet[Conversation]:
        """In whatever folder they are by now; never more than a page has."""
        written = map(id_of, request.POST.getlist(ACTION_CHECKBOX_NAME))
        chosen = [pk for pk in written if pk is not None]
        rows = self.get_queryset(request).filter(pk__in=chosen[: self.list_per_page])
        return rows.order_by("pk")

    def _assign(self, request: HttpRequest, user: Any, note: str = "") -> None:
        self._change(
            request,
            partial(Conversation.assign, user=user, author=request.user, note=note),
            told=ngettext_lazy(
                "Assigned %(count)s conversation.", "Assigned %(count)s conversations.", "count"
            )
            if user is not None
            else ngettext_lazy(
                "%(count)s conversation is assigned to nobody now.",
                "%(count)s conversations are assigned to nobody now.",
                "count",
            ),
            left=ngettext_lazy(
                "%(count)s conversation was assigned so already.",
                "%(count)s conversations were assigned so already.",
                "count",
            ),
            recorded=gettext_noop("assignee"),
        )

    def _change(
        self,
        request: HttpRequest,
        change: Callable[[Conversation], bool],
        *,
        told: Any,
        left: Any,
        recorded: str = "",
    ) -> None:
        """Do it to each that was selected, and say to how many it was done."""
        done = alone = 0
        for conversation in self._selected(request):
            if not change(conversation):
                alone += 1
                continue
            done += 1
            if recorded:
                self.log_change(request, conversation, [{"changed": {"fields": [recorded]}}])
        if done:
            messages.success(request, told % {"count": done})
        if alone:
            messages.info(request, left % {"count": alone})


def _seen(request: HttpRequest) -> dict[int, int]:
    """The newest message of each conversation, as the page had it."""
    pairs = [one.partition(":") for one in request.POST.getlist(SEEN)]
    read = [(id_of(pk), id_of(newest)) for pk, _colon, newest in pairs]
    return {pk: newest for pk, newest in read if pk is not None and newest is not None}
