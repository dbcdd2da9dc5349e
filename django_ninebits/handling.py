"""What staff do with the conversation that they look at: take it, hand it over, close it, go on.

Each is the action of the list with one row, so that it is done, told and recorded in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
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
            "hand_over",
            _("Hand over…"),
            "hand_over",
            "assign",
            lambda conversation, user: True,
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
        asking = getattr(self, handling.action)(request, self._selected(request))
        return asking or redirect(self._follows(request, conversation, handling))

    def hand_over(
        self, request: HttpRequest, selected: QuerySet[Conversation]
    ) -> HttpResponse | None:
        back = self._path("change", selected.first())
        return self.ask_for_colleague(request, {"do": "hand_over"}, back)

    def _may(self, request: HttpRequest, handling: Handling) -> bool:
        may: bool = getattr(self, f"has_{handling.permission}_permission")(request)
        return may

    def _follows(self, request: HttpRequest, conversation: Conversation, handling: Handling) -> str:
        """The address of the same one; after it was closed, of the next, or else of the list."""
        conversation.refresh_from_db(fields=["status"])
        is_done = handling.name == "close" and conversation.status == Conversation.Status.CLOSED
        following = self._next(request) if is_done else conversation
        return self._path("change", following) if following else self._path("changelist")

    def _path(
        self,
        page: str,
        conversation: Conversation | None = None,
        query: dict[str, str] | None = None,
    ) -> str:
        args = [conversation.pk] if conversation else []
        name = f"{self.admin_site.name}:django_ninebits_conversation_{page}"
        return reverse(name, args=args, query=query)

    def _next(self, request: HttpRequest) -> Conversation | None:
        """Whoever waits longest, for this user or for anybody."""
        waiting = self.get_queryset(request).filter(waiting_since__isnull=False)
        free = waiting.filter(Q(assignee=None) | Q(assignee=request.user.pk))
        return free.order_by("waiting_since", "pk").first()
