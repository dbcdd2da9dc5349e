"""What an operator asks: what waits, since when and why, and whether anything is sending it.

Read only, in few queries that follow indexes. No text, no number and no words of 9bits are in it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Min, Q
from django.db.models.functions import Left
from django.utils import timezone

from django_ninebits.conf import conf
from django_ninebits.models import (
    Attempt,
    Heartbeat,
    Message,
    MessageQuerySet,
    QuarantinedDelivery,
    aware_time,
    database,
)

#: How long messages have been due when somebody should hear that no worker is there.
UNATTENDED_AFTER = timedelta(minutes=1)

#: For how long a worker may show no sign of life: it does so every ten seconds.
NO_SIGN_FOR = timedelta(minutes=1)

#: More than our own words ever are.
_REASON_LENGTH = 120

_Status = Message.Status


@dataclass(frozen=True)
class Reason:
    """Why messages that were tried are queued again, without what 9bits wrote."""

    reason: str
    count: int
    newest_at: datetime


@dataclass(frozen=True)
class Status:
    """What was measured, with aware times."""

    measured_at: datetime
    queued: int
    due: int
    oldest_due_at: datetime | None
    """Since when the message that has waited longest is due, all its pauses included."""
    tried: int
    """Queued again: 9bits told them to wait, could not be reached, or a person pressed retry."""
    reasons: tuple[Reason, ...]
    """Those of the ``tried``, the newest first."""
    sending: int
    uncertain: int
    undecided: int
    """Uncertain messages about which nobody has decided, nor closed the conversation since."""
    quarantined: int
    """Deliveries that were not taken in yet."""
    last_quarantined_at: datetime | None
    unannounced: int
    """Texts whose receivers are overdue: their process died, and no worker announced them."""
    oldest_unannounced_at: datetime | None
    last_text_at: datetime | None
    last_accepted_at: datetime | None
    """When the attempt was begun that 9bits accepted last."""
    last_worker_at: datetime | None
    """When a worker last showed that it is there and able to send."""


@dataclass(frozen=True)
class Backlog:
    """Messages that are due for too long."""

    count: int
    since: datetime


def measure() -> Status:
    """Look at everything, in eight queries."""
    now = timezone.now()
    outbound = {row["status"]: row for row in _outbound(now)}
    queued = outbound.get(_Status.QUEUED, {"count": 0, "due": 0, "since": None})
    tried = list(_tried())
    quarantined, unannounced = _quarantined(), _unannounced(now)
    return Status(
        measured_at=aware_time(now),
        queued=queued["count"],
        due=queued["due"],
        oldest_due_at=_oldest([queued["since"], *map(_due_at_first, tried)]),
        tried=sum(group["count"] for group in tried),
        reasons=_reasons(tried),
        sending=outbound.get(_Status.SENDING, {"count": 0})["count"],
        uncertain=outbound.get(_Status.UNCERTAIN, {"count": 0})["count"],
        undecided=_undecided(),
        quarantined=quarantined["count"],
        last_quarantined_at=_aware(quarantined["newest"]),
        unannounced=unannounced["count"],
        oldest_unannounced_at=_aware(unannounced["oldest"]),
        last_text_at=_last_text_at(),
        last_accepted_at=_last_accepted_at(),
        last_worker_at=_aware(Heartbeat.last()),
    )


def unattended() -> Backlog | None:
    """What has been due for a while although no worker is there. One query if nothing has."""
    now = timezone.now()
    found = (
        _messages()
        .due(now - UNATTENDED_AFTER)
        .aggregate(count=Count("status"), since=Min("due_at"))
    )
    if not found["count"] or _is_worker_there(now):
        return None
    return Backlog(found["count"], aware_time(found["since"]))


def _is_worker_there(now: datetime) -> bool:
    last = Heartbeat.last()
    return last is not None and last > now - NO_SIGN_FOR


def _messages() -> MessageQuerySet:
    return Message.objects.using(database())


def _outbound(now: datetime) -> Iterable[Any]:
    is_due = Q(due_at__lte=now)
    statuses = [_Status.QUEUED, _Status.SENDING, _Status.UNCERTAIN]
    # Nothing that is not in the index on status, priority and due_at.
    return (
        _messages()
        .filter(status__in=statuses)
        .values("status")
        .annotate(
            count=Count("status"),
            due=Count("status", filter=is_due),
            since=Min("due_at", filter=is_due),
        )
    )


def _tried() -> Iterable[Any]:
    """Messages that are queued again, in groups whose reasons begin alike."""
    return (
        _messages()
        .filter(status=_Status.QUEUED, sent_date__isnull=False)
        .values(words=Left("error", _REASON_LENGTH))
        .annotate(
            count=Count("id"),
            newest=Max("sent_date"),
            first_given_up=Min("give_up_at"),
            first_written=Min("created_at"),
        )
    )


def _due_at_first(group: dict[str, Any]) -> datetime | None:
    """Since when messages wait that were tried: each pause has moved their ``due_at`` on."""
    if group["first_given_up"] is None:
        return None
    # Not before it was written, if GIVE_UP_AFTER has become longer since.
    due_at: datetime = max(group["first_given_up"] - conf.give_up_after, group["first_written"])
    return due_at


def _reasons(tried: list[dict[str, Any]]) -> tuple[Reason, ...]:
    reasons: dict[str, Reason] = {}
    for group in tried:
        ours, newest_at = _our_words(group["words"]), aware_time(group["newest"])
        same = reasons.get(ours, Reason(ours, 0, newest_at))
        reasons[ours] = Reason(ours, same.count + group["count"], max(same.newest_at, newest_at))
    return tuple(sorted(reasons.values(), key=lambda one: one.newest_at, reverse=True))


def _our_words(error: str) -> str:
    """Without the words of an answer, which may quote the message."""
    answered = r"(9bits answered \d+(?: with status_code \d+)?).*"
    return re.sub(answered, r"\1", error, flags=re.DOTALL)


def _undecided() -> int:
    return _messages().filter(status=_Status.UNCERTAIN, needs_decision=True).count()


def _quarantined() -> dict[str, Any]:
    waiting = QuarantinedDelivery.objects.using(database()).filter(message=None)
    return waiting.aggregate(count=Count("id"), newest=Max("received_at"))


def _unannounced(now: datetime) -> dict[str, Any]:
    overdue = _messages().filter(announce_at__lte=now)
    return overdue.aggregate(count=Count("id"), oldest=Min("created_at"))


def _last_text_at() -> datetime | None:
    # Each text has this priority and no ``due_at``: said so that an index leads to the newest.
    texts = (
        _messages()
        .filter(status=_Status.RECEIVED, priority=Message.SINGLE, due_at=None)
        .order_by("-id")
    )
    return _aware(texts.values_list("created_at", flat=True).first())


def _last_accepted_at() -> datetime | None:
    attempts = Attempt.objects.using(database()).order_by("-id")
    accepted = attempts.filter(outcome=Attempt.Outcome.ACCEPTED)
    return _aware(accepted.values_list("began_at", flat=True).first())


def _oldest(moments: Iterable[datetime | None]) -> datetime | None:
    return _aware(min((moment for moment in moments if moment is not None), default=None))


def _aware(moment: datetime | None) -> datetime | None:
    return None if moment is None else aware_time(moment)
