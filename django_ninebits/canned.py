"""Canned replies: texts that staff insert instead of writing them each time.

A shared one is everybody's, and Django's own permissions say who manages those. A personal one is
seen by its owner alone, whatever others may do.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from django_ninebits.models import CannedReply, Conversation, database
from django_ninebits.placeholders import filled

#: So many are offered beside a text.
OFFERED = 300

if TYPE_CHECKING:
    CannedModelAdmin = admin.ModelAdmin[CannedReply]
    CannedModelForm = forms.ModelForm[CannedReply]
else:
    CannedModelAdmin = admin.ModelAdmin
    CannedModelForm = forms.ModelForm


@dataclass(frozen=True)
class Offer:
    """A canned reply as it would stand in a text."""

    pk: str
    title: str
    text: str


@dataclass(frozen=True)
class Offers:
    """The canned replies for whoever writes in a conversation."""

    conversation: Conversation
    author: Any

    @cached_property
    def all(self) -> list[Offer]:
        """By their titles."""
        return [
            Offer(str(reply.pk), reply.title, self._filled(reply.text))
            for reply in seen_by(self.author).order_by("title", "pk")[:OFFERED]
        ]

    def text_of(self, pk: str) -> str:
        """Empty where there is none."""
        return next((offer.text for offer in self.all if offer.pk == pk), "")

    def _filled(self, text: str) -> str:
        return filled(text.replace("\r\n", "\n"), self._values)

    @cached_property
    def _values(self) -> dict[str, str]:
        contact = self.conversation.contact
        full_name = getattr(self.author, "get_full_name", str)
        return {
            "name": contact.name.strip(),
            "number": str(contact.phone_number),
            "short_code": self.conversation.short_code,
            "me": full_name().strip(),
        }


def seen_by(user: Any) -> QuerySet[CannedReply]:
    """The shared ones, and those of this user."""
    return CannedReply.objects.using(database()).filter(Q(owner=None) | Q(owner=user.pk))


class CannedReplyForm(CannedModelForm):
    """A canned reply, and whose it will be."""

    is_shared = forms.BooleanField(
        label=_("For everybody"),
        required=False,
        help_text=_("Otherwise only you see it. This cannot be changed later."),
    )


class CannedReplyAdmin(CannedModelAdmin):
    """Everybody who may reply manages their own; permissions are about the shared ones."""

    form = CannedReplyForm
    list_display = ["title", "excerpt", "whose"]
    ordering = ["title", "pk"]
    search_fields = ["title", "text"]
    show_full_result_count = False

    class Media:
        css = {"all": ["django_ninebits/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[CannedReply]:
        return seen_by(request.user).order_by(*self.ordering)

    def get_fields(self, request: HttpRequest, obj: CannedReply | None = None) -> Any:
        if obj is not None:
            return ["title", "text", "whose"]
        is_free = self._may_reply(request) and self._may(request, "add")
        return ["title", "text", *(["is_shared"] if is_free else [])]

    def get_readonly_fields(
        self, request: HttpRequest, obj: CannedReply | None = None
    ) -> list[str]:
        return ["whose"]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._may_reply(request) or super().has_module_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: CannedReply | None = None) -> bool:
        may = self._may_reply(request) or super().has_view_permission(request)
        return may and (obj is None or obj.owner_id in {None, request.user.pk})

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._may_reply(request) or self._may(request, "add")

    def has_change_permission(self, request: HttpRequest, obj: CannedReply | None = None) -> bool:
        return self._may_manage(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: CannedReply | None = None) -> bool:
        return self._may_manage(request, "delete", obj)

    def save_model(self, request: HttpRequest, obj: CannedReply, form: Any, change: bool) -> None:
        if not change:
            wants = form.cleaned_data["is_shared"] or not self._may_reply(request)
            obj.owner_id = None if wants and self._may(request, "add") else request.user.pk
        super().save_model(request, obj, form, change)

    @admin.display(description=_("text"))
    def excerpt(self, reply: CannedReply) -> str:
        return Truncator(reply.text).chars(100)

    @admin.display(description=_("whose"))
    def whose(self, reply: CannedReply) -> str:
        return str(_("Everybody's") if reply.owner_id is None else _("Yours alone"))

    def _may_manage(self, request: HttpRequest, action: str, obj: CannedReply | None) -> bool:
        # Those of others are not found here; they go when their owner is deleted.
        is_mine = obj is None or obj.owner_id == request.user.pk
        return (is_mine and self._may_reply(request)) or self._may(request, action)

    def _may(self, request: HttpRequest, action: str) -> bool:
        return request.user.has_perm(f"django_ninebits.{action}_cannedreply")

    def _may_reply(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_ninebits.reply_conversation")
