"""The story of a text that comes in: understand it, keep it once, tell the host.

Whatever bytes come in, one row is there afterwards: a message, or a quarantined delivery. Only
where the database cannot be reached is nothing kept, and then ``CannotStoreNow`` says so.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import Error, IntegrityError, InterfaceError, OperationalError
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone

from django_ninebits import consent
from django_ninebits.contention import is_contention, persistently
from django_ninebits.exceptions import (
    DeliveryNotUnderstood,
    NinebitsError,
    WrongStatus,
    traceback_without_values,
)
from django_ninebits.models import (
    PREVIEW_LENGTH,
    Conversation,
    Message,
    QuarantinedDelivery,
    after_commit,
    atomic,
    database,
    stored_time,
)
from django_ninebits.signals import announce, message_received
from django_ninebits.wire import Delivery, read_delivery

Row = TypeVar("Row")

logger = logging.getLogger(__name__)

#: How long receivers have before a worker takes the process for dead and announces the text again.
ANNOUNCE_AFTER = timedelta(minutes=1)

#: How many texts one sweep announces at most; the next one takes the rest.
SWEEP = 20


class CannotStoreNow(NinebitsError):
    """Nothing was kept; the same delivery may well be stored in half a minute."""


@dataclass(frozen=True)
class TakenIn:
    """What became of a delivery: ``message`` or ``quarantined`` is the row that holds it."""

    message: Message | None = None
    repeated: bool = False
    """The message was there already: a redelivery."""
    quarantined: QuarantinedDelivery | None = None
    errors: tuple[str, ...] = ()


def take_in(body: bytes) -> TakenIn:
    """Keep an authentic delivery, whatever its bytes are. Raises ``CannotStoreNow`` only."""
    try:
        return keep(body)
    except DeliveryNotUnderstood as problem:
        return _quarantine(body, problem.errors)
    except CannotStoreNow:
        raise
    except Exception as error:  # noqa: BLE001
        # The one catch-all on the storing path, because it keeps.
        logger.error(
            "A delivery could not be stored; it is quarantined.\n%s",
            traceback_without_values(error),
        )
        return _quarantine(body, [f"It could not be stored: {type(error).__name__}."])


def keep(body: bytes, *, arrived_at: datetime | None = None) -> TakenIn:
    """Store the text in ``body``, or find that it is there already.

    ``arrived_at``: when it came, if that was not just now. Raises ``DeliveryNotUnderstood``,
    ``CannotStoreNow``, or what else the database says.
    """
    delivery = read_delivery(body)
    try:
        return TakenIn(message=_stored(lambda: _store(delivery, body, arrived_at)))
    except IntegrityError:
        first = _first_with(delivery.identity)
        if first is None:
            raise
        return TakenIn(message=first, repeated=True)


def take_in_again(quarantined: QuarantinedDelivery) -> TakenIn:
    """Try a quarantined delivery once more, and note at its row what became of it.

    Raises what ``keep`` raises, the row being as it was, and ``WrongStatus`` where somebody has
    taken it in already.
    """
    row = QuarantinedDelivery.objects.filter(pk=quarantined.pk, message=None)
    with atomic():
        if not row.update(taken_in_at=timezone.now()):
            raise WrongStatus("This delivery has been taken in already.")
        taken = keep(bytes(quarantined.body), arrived_at=quarantined.received_at)
        row.update(message=taken.message)
    return taken


def announce_overdue() -> int:
    """Announce texts whose process died before its receivers were done. Returns how many."""
    now = timezone.now()
    overdue = Message.objects.using(database()).filter(announce_at__lte=now).order_by("id")
    return sum(_announce_again(message, now) for message in overdue[:SWEEP])


def _announce_again(message: Message, now: datetime) -> bool:
    mine = Message.objects.filter(pk=message.pk, announce_at=message.announce_at)
    if not mine.update(announce_at=now + ANNOUNCE_AFTER):
        return False
    _announce(message)
    return True


def _store(delivery: Delivery, body: bytes, arrived_at: datetime | None) -> Message:
    conversation = Conversation.objects.using(database()).between(
        delivery.subscriber, delivery.short_code
    )
    now = timezone.now()
    said_at = _said_at(delivery, arrived_at or now)
    with atomic():
        # The conversation first: whoever writes to it next waits here, so that within it the order
        # of ids is the order of commits. A redelivery fails on the message and undoes both.
        _count_in(conversation, delivery, now, said_at)
        message = Message.objects.create(
            conversation=conversation,
            direction=Message.Direction.INBOUND,
            status=Message.Status.RECEIVED,
            identity=delivery.identity,
            session_id=delivery.session_id,
            ref_id=delivery.ref_id,
            text=delivery.text,
            telco=delivery.telco,
            sent_date=delivery.sent_at and stored_time(delivery.sent_at),
            created_at=now,
            delivery=body,
            announce_at=now + ANNOUNCE_AFTER,
        )
        consent.heed(message, said_at)
        after_commit(lambda: _announce(message))
    return message


def _count_in(
    conversation: Conversation, delivery: Delivery, now: datetime, said_at: datetime
) -> None:
    Conversation.objects.filter(pk=conversation.pk).update(
        status=Conversation.Status.OPEN,
        unread_count=F("unread_count") + 1,
        waiting_since=Coalesce("waiting_since", Value(now)),
        last_message_at=now,
        last_message_text=delivery.text[:PREVIEW_LENGTH],
        last_message_direction=Message.Direction.INBOUND,
        last_message_identity="",
        **({"telco": delivery.telco} if delivery.telco else {}),
        **_session_marks(delivery, said_at),
    )


def _session_marks(delivery: Delivery, said_at: datetime) -> dict[str, Case]:
    """The latest session by the date of its text, for replies to use."""
    if not delivery.session_id:
        return {}
    newest = Q(session_at=None) | Q(session_at__lte=said_at)
    # In this order: MariaDB sees the first assignment when it works out the second.
    return {
        "session_id": Case(When(newest, then=Value(delivery.session_id)), default=F("session_id")),
        "session_at": Case(When(newest, then=Value(said_at)), default=F("session_at")),
    }


def _said_at(delivery: Delivery, arrived_at: datetime) -> datetime:
    """When the text was sent, where that can be believed; else when it came."""
    # What claims to come from the future must not outdo what is said later.
    return min(stored_time(delivery.sent_at), arrived_at) if delivery.sent_at else arrived_at


def _announce(message: Message) -> None:
    announce(message_received, message)
    Message.objects.filter(pk=message.pk).update(announce_at=None)
    message.announce_at = None


def _first_with(identity: str | None) -> Message | None:
    if identity is None:
        return None
    return Message.objects.using(database()).filter(identity=identity).first()


def _quarantine(body: bytes, errors: list[str]) -> TakenIn:
    def write() -> QuarantinedDelivery:
        return QuarantinedDelivery.objects.create(body=body, errors="\n".join(errors))

    try:
        return TakenIn(quarantined=_stored(write), errors=tuple(errors))
    except Error as error:
        raise CannotStoreNow from error


def _stored(write: Callable[[], Row]) -> Row:
    """Written, after whatever may pass by itself, a lost connection too."""
    try:
        return persistently(write, passes=lambda error: True)
    except (OperationalError, InterfaceError) as error:
        if is_contention(error):
            raise CannotStoreNow from error
        raise
