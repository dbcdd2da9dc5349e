"""What becomes of a reply whose author has been logged out: it is shown again, and not kept.

Where a script runs, the browser keeps a draft, and the way leads to the login at once.
"""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from django_ninebits.composer import as_sent
from django_ninebits.decisions import outside_transactions
from django_ninebits.models import Conversation

if TYPE_CHECKING:
    ConversationModelAdmin = admin.ModelAdmin[Conversation]
else:
    ConversationModelAdmin = object


class LoggedOutAdmin(ConversationModelAdmin):
    """For the admin of conversations: a reply that nobody was logged in for."""

    def get_urls(self) -> list[URLPattern]:
        name = "django_ninebits_conversation_change"
        return [
            path("add/", self.start_view, name="django_ninebits_conversation_add"),
            path("<path:object_id>/change/", self.thread_view, name=name),
            *super().get_urls(),
        ]

    @outside_transactions
    def thread_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The page of a conversation, for whoever may see it."""
        if self._must_show_again(request):
            return self.logged_out_view(request)
        return self.admin_site.admin_view(self.change_view)(request, object_id)

    @outside_transactions
    def start_view(self, request: HttpRequest) -> HttpResponse:
        """The page of a new one, for whoever may start it."""
        if self._must_show_again(request):
            return self.logged_out_view(request)
        return self.admin_site.admin_view(self.add_view)(request)

    def _must_show_again(self, request: HttpRequest) -> bool:
        is_kept = request.method == "POST" and "keep" in request.POST
        return is_kept and not self.admin_site.has_permission(request)

    @method_decorator(never_cache)
    @method_decorator(csrf_protect)
    def logged_out_view(self, request: HttpRequest) -> HttpResponse:
        """The text, to be copied: whose it was is not known any more, so it is stored nowhere."""
        login = reverse(
            f"{self.admin_site.name}:login", query={REDIRECT_FIELD_NAME: request.get_full_path()}
        )
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            "admin/django_ninebits/conversation/logged_out.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": _("You are logged out"),
                "text": as_sent(request.POST.get("text") or request.POST.get("note", "")),
                "login": login,
            },
            status=403,
        )
