"""``path("hooks/9bits/", include("django_ninebits.urls"))`` puts the webhook below it."""

from django.urls import path

from django_ninebits.webhook import webhook

app_name = "ninebits"

urlpatterns = [
    path("webhook/", webhook, name="webhook"),
    # Without the slash too: a redirect would lose the text.
    path("webhook", webhook),
]
