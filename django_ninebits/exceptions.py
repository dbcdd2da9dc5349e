"""What can go wrong, split by what the caller may safely do next.

::

    NinebitsError
    ├── MessageRefused (ValueError)    nothing was stored: mend the call, call again
    │   ├── InvalidPhoneNumber         the recipient or the sender is no number that can be sent to
    │   ├── OptedOut                   the subscriber wants no messages: leave it at that
    │   └── RefIdConflict              this ``ref_id`` belongs to another message
    ├── WrongStatus                    the message is in no state for this verb: look at it again
    ├── DeliveryNotUnderstood          what 9bits posted is no text: it is quarantined
    └── SendError                      one attempt to hand a message to 9bits did not succeed
        ├── NotAccepted                9bits surely has not taken it: try again later
        ├── Refused                    9bits will never take it: do not try again
        └── OutcomeUnknown             9bits may have taken it: only a person may try again

Mistakes in the settings are ``django.core.exceptions.ImproperlyConfigured``, outside of this tree:
a host that catches ``NinebitsError`` around a call does not hide them.
"""

import traceback
from collections.abc import Iterator
from datetime import datetime
from typing import Any


class NinebitsError(Exception):
    """Whatever this app raises by itself."""


class MessageRefused(NinebitsError, ValueError):
    """The message cannot be sent as it was given; nothing of it was stored."""


class InvalidPhoneNumber(MessageRefused):
    """No subscriber can have this number, or no service can send from it."""


class OptedOut(MessageRefused):
    """The subscriber opted out, and only they can opt in again.

    ``opted_out_at`` is when. ``override_opt_out=True`` is for legal notices.
    """

    def __init__(self, detail: str, opted_out_at: datetime) -> None:
        super().__init__(detail)
        self.opted_out_at = opted_out_at


class RefIdConflict(MessageRefused):
    """The ``ref_id`` was used for another recipient or another text.

    ``first`` is the message that has it.
    """

    def __init__(self, detail: str, first: Any) -> None:
        super().__init__(detail)
        self.first = first


class WrongStatus(NinebitsError):
    """The message's status does not allow this, or somebody was quicker. Nothing was changed."""


class DeliveryNotUnderstood(NinebitsError):
    """A body from 9bits that is no text for us; ``errors`` says why, a sentence each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(" ".join(errors))
        self.errors = errors


class SendError(NinebitsError):
    """One attempt did not end with 9bits accepting the message.

    ``http_status`` is that of the answer, where there was one.
    """

    def __init__(self, reason: str, *, http_status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.http_status = http_status


class NotAccepted(SendError):
    """9bits surely has not taken the message. It may be tried again.

    ``retry_after``: the seconds that 9bits asked to wait, where it did.
    """

    def __init__(
        self, reason: str, *, http_status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(reason, http_status=http_status)
        self.retry_after = retry_after


class Refused(SendError):
    """9bits has looked at the message and will not take it, now or later."""


class OutcomeUnknown(SendError):
    """The request may have reached 9bits, and what became of it cannot be known."""


def traceback_without_values(error: BaseException) -> str:
    """The traceback of ``error`` and of what caused it, with the types but not the messages.

    A database's messages print the row that it would not take, with its text and its number.
    """
    return "".join(_blocks(error)).rstrip("\n")


def _blocks(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _blocks(cause)
        yield "which led to:\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__module__}.{type(error).__qualname__}\n"
