"""The trail of a conversation: who took, handed over, closed and noted what, and when.

It stands in the thread, each change below the message that was the newest then.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from django_ninebits.models import Conversation, ConversationChange, database

#: Characters of a note.
LONGEST_NOTE = 2000


class NoteField(forms.CharField):
    """Counts the end of a line, which browsers post as CRLF, as the one character that it is."""

    def to_python(self, value: Any) -> str:
        return (super().to_python(value) or "").replace("\r\n", "\n")


class NoteForm(forms.Form):
    """A note for colleagues: whatever becomes of it, it is sent to nobody."""

    note = NoteField(
        label=_("Internal note"),
        max_length=LONGEST_NOTE,
        widget=forms.Textarea(attrs={"rows": 2, "dir": "auto"}),
        help_text=_("For colleagues. It is never sent."),
        error_messages={"required": _("Write a note first.")},
    )

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, label_suffix="", auto_id="nb-%s")


def changes_of(
    conversation: Conversation, message_ids: list[int], *, before: int | None, has_older: bool
) -> dict[int, list[ConversationChange]]:
    """What was done while these messages, in their order, were the newest, by their ids.

    What was done before there was any message is found at 0.
    """
    found = ConversationChange.objects.using(database()).filter(conversation=conversation)
    if has_older:
        found = found.filter(after__gte=message_ids[0])
    if before is not None:
        found = found.filter(after__lt=before)
    return _placed(found, message_ids)


def _placed(
    changes: Iterable[ConversationChange], message_ids: list[int]
) -> dict[int, list[ConversationChange]]:
    placed: dict[int, list[ConversationChange]] = {}
    for change in changes:
        # Messages are not deleted by us; if a host does, the one before it will do.
        place = bisect_right(message_ids, change.after)
        placed.setdefault(message_ids[place - 1] if place else 0, []).append(change)
    return placed
