"""What becomes of a button of the composer: a message, or the form that comes back and says why."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils import timezone

from django_ninebits import wording
from django_ninebits.composer import WRONG_SETTINGS, ReplyForm
from django_ninebits.contention import persistently
from django_ninebits.decisions import LEVELS
from django_ninebits.exceptions import MessageRefused, RefIdConflict
from django_ninebits.models import Message


@dataclass(frozen=True)
class Outcome:
    """Where there is a message it is stored; else nothing is, and the form is to be shown."""

    form: ReplyForm
    message: Message | None = None
    #: The message was stored before, by the same form.
    is_repeated: bool = False


def pressed(form: ReplyForm, store: Callable[[], Message]) -> Outcome:
    """Do what the button asks for. ``store`` is called where it is Send and the form is sound."""
    if not form.is_sent:
        return Outcome(form.answered())
    if form.is_valid():
        return _stored(form, store)
    if "ref_id" in form.errors:
        return Outcome(form.with_ref_id(uuid.uuid4(), form.said.incomplete))
    return Outcome(form)


def _stored(form: ReplyForm, store: Callable[[], Message]) -> Outcome:
    began = timezone.now()
    try:
        message = persistently(store)
    except RefIdConflict:
        # Always the same one for this text: a browser may send the old form again.
        ref_id = uuid.uuid5(form.cleaned_data["ref_id"], form.cleaned_data["text"])
        return Outcome(form.with_ref_id(ref_id, form.said.conflict))
    except MessageRefused as error:
        form.add_error("text", wording.shown(str(error)))
    except ImproperlyConfigured as error:
        form.add_error(None, WRONG_SETTINGS % error)
    else:
        return Outcome(form, message, is_repeated=message.created_at < began)
    return Outcome(form)


def tell_what_became_of(request: HttpRequest, outcome: Outcome) -> None:
    """For the next page, where there is a message."""
    message, said = outcome.message, outcome.form.said
    assert message is not None  # noqa: S101 - or else there is nothing to tell
    message.refresh_from_db(fields=["status"])
    status = message.get_status_display()
    if outcome.is_repeated:
        messages.info(request, said.repeated % status)
    else:
        level = LEVELS.get(Message.Status(message.status), messages.INFO)
        messages.add_message(request, level, said.became % status)
