"""What staff do with the conversation that they look at: take it, release it, close it, go on.

Each is the action of the list with one row, so that it is done, told and recorded in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from django_ninebits.bulk import BulkAdmin
from django_ninebits.decisions import outside_transactions
from django_ninebits.models import Conversation


@dataclass(frozen=True)
class Handling:
    """Something to do, where it changes anything."""

    name: str
    label: Any
    #: The action of the list, and the permission that it takes.
    action: str
    permission: str
    changes: Callable[[Conversation, Any], bool]


HANDLINGS = {
    handling.name: handling
    for handling in (
        Handling(
            "take",
            _("Take it"),
            "assign_to_me",
            "assign",
            lambda conversation, user: conversation.assignee_id != user.pk,
        ),
        Handling(
            "release",
            _("Release it"),
            "assign_to_nobody",
            "assign",
            lambda conversation, user: conversation.assignee_id is not None,
        ),
        Handling(
            "close",
            _("Close, and go on"),
            "close_selected",
            "reply",
            lambda conversation, user: conversation.status == Conversation.Status.OPEN,
        ),
        Handling(
            "reopen",
            pgettext_lazy("action", "Reopen"),
            "reopen_selected",
            "reply",
            lambda conversation, user: conversation.status == Conversation.Status.CLOSED,
        ),
    )
}


class HandlingAdmin(BulkAdmin):
    """For the admin of conversations: the buttons of the thread."""

    def get_urls(self) -> list[URLPattern]:
        handle = path(
            "handle/",
            self.admin_site.admin_view(self.handle_view),
            name="django_ninebits_conversation_handle",
        )
        return [handle, *super().get_urls()]

    def handlings(self, request: HttpRequest, conversation: Conversation) -> list[Handling]:
        """What this user may do with it."""
        return [
            handling
            for handling in HANDLINGS.values()
            if handling.changes(conversation, request.user) and self._may(request, handling)
        ]

    @outside_transactions
    def handle_view(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        handling = HANDLINGS.get(request.POST.get("do", ""))
        if not self.has_view_permission(request) or (handling and not self._may(request, handling)):
            raise PermissionDenied
        conversation = self._selected(request).first()
        if handling is None or conversation is None:
            raise Http404
        getattr(self, handling.action)(request, self._selected(request))
        return self._go_on(request, conversation)

    def _may(self, request: HttpRequest, handling: Handling) -> bool:
        may: bool = getattr(self, f"has_{handling.permission}_permission")(request)
        return may

    def _go_on(self, request: HttpRequest, conversation: Conversation) -> HttpResponse:
        """To the same one; where it is closed now, to the next, or else to the list."""
        named = f"{self.admin_site.name}:django_ninebits_conversation_"
        conversation.refresh_from_db(fields=["status"])
        is_open = conversation.status == Conversation.Status.OPEN
        following = conversation if is_open else self._next(request)
        if following is None:
            return redirect(f"{named}changelist")
        return redirect(f"{named}change", following.pk)

    def _next(self, request: HttpRequest) -> Conversation | None:
        """Whoever waits longest, for this user or for anybody."""
        waiting = self.get_queryset(request).filter(waiting_since__isnull=False)
        free = waiting.filter(Q(assignee=None) | Q(assignee=request.user.pk))
        return free.order_by("waiting_since", "pk").first()
