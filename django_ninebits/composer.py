"""The composer: what a reply is made of before it is one."""

import uuid
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _


class ReplyForm(forms.Form):
    """A reply and its idempotency key, which the page's address has too.

    A browser that goes Back asks for the page again and fills in the text that was written there.
    Because the address is the same the key is too, and so the same reply is not sent twice.
    """

    text = forms.CharField(
        label=_("Your reply"),
        strip=False,
        error_messages={"required": _("Write a text first.")},
        widget=forms.Textarea(attrs={"rows": 3, "dir": "auto", "class": "nb-textarea"}),
    )
    ref_id = forms.UUIDField(widget=forms.HiddenInput)

    def clean_text(self) -> str:
        text: str = self.cleaned_data["text"]
        if not text.strip():
            raise forms.ValidationError(_("Write a text first."))
        return text

    def with_ref_id(self, ref_id: uuid.UUID, problem: Any) -> "ReplyForm":
        """The same text in a form that sends it as another message, and why."""
        form = ReplyForm({"text": self.data.get("text", ""), "ref_id": str(ref_id)})
        form.add_error(None, problem)
        return form
