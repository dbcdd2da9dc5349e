"""The story of a message that goes out: claim it, send it, record what became of it.

A claim is one conditional update, committed before the first byte leaves; so is each record.
Whoever loses one of them changes nothing. Between the two no transaction, lock or cursor is open.
"""

import logging
import math
import random
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial, reduce
from operator import attrgetter, or_
from typing import Any, NamedTuple, Self

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections, transaction
from django.db.models import CharField, F, Q, Value
from django.db.models.functions import Cast, Coalesce
from django.db.models.lookups import Exact
from django.dispatch import Signal
from django.utils import timezone

from django_ninebits import client
from django_ninebits.conf import conf
from django_ninebits.contention import persistently
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown, Refused, SendError
from django_ninebits.models import (
    Attempt,
    Conversation,
    DatabaseNow,
    Message,
    MessageQuerySet,
    after_commit,
    atomic,
    aware_time,
    database,
)
from django_ninebits.phone import masked
from django_ninebits.signals import announce, message_failed, message_sent, message_uncertain
from django_ninebits.wire import write_call

logger = logging.getLogger(__name__)

#: How long after its attempt's deadline a claim is good for: then nobody reports any more.
CLAIM_GRACE = timedelta(seconds=10)

#: The pause after the first attempt that 9bits surely did not take, and the longest one.
FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=10)

#: Seconds for which what a worker has found to be due serves its claims.
LOOK_EVERY = 0.1

#: Seconds for which a worker that lost a claim to another takes in any order what is as urgent.
SHARED_FOR = 1.0

#: How many messages one sweep settles at most; the next one takes the rest. Each is announced.
SWEEP = 20

LOST = "The process that was sending it did not report what became of it."
EXPIRED = "Expired before it could be sent."
GIVEN_UP = "Given up: it could not be sent in time."
NOT_IN_ONLY_TO = "not in ONLY_TO"
OPTED_OUT = "opted out"


@dataclass(frozen=True)
class Claim:
    """The right to make one attempt, and all that is needed for it without the database."""

    message_id: int
    attempt: int
    call: dict[str, str] = field(repr=False)
    url: str
    token: str = field(repr=False)
    deadline: float
    """Of ``time.monotonic()``: nothing leaves after it."""
    ends_at: float = math.inf
    """The same of ``time.time()``, which goes on while the machine sleeps."""


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt."""

    claim: Claim
    error: SendError | None
    answer: client.Answer | None = None
    began_at: datetime = field(default_factory=timezone.now)
    seconds: float = 0.0

    @property
    def ended_at(self) -> datetime:
        return self.began_at + timedelta(seconds=self.seconds)

    def learnt(self) -> dict[str, Any]:
        """All of it, as it is kept."""
        told: dict[str, Any] = {"began_at": self.began_at, "seconds": self.seconds}
        if self.error is not None:
            kind, status, words = type(self.error), self.error.http_status, self.error.reason
            return told | {"outcome": _OUTCOMES[kind], "http_status": status, "answer": words}
        accepted: dict[str, Any] = {"outcome": Attempt.Outcome.ACCEPTED}
        if self.answer is not None:
            accepted |= {"http_status": self.answer.status, "answer": self.answer.excerpt}
        return told | accepted


def claim_due(
    limit: int, *, rather_than: int | None = None, ahead: "Ahead | None" = None
) -> list[Claim]:
    """Claim up to ``limit`` messages that are due; each then belongs to the caller alone.

    The message ``rather_than`` is claimed only where there is no other. Whoever claims again and
    again does it with less effort with the same ``ahead``. What may not be sent any more (expired,
    given up, opted out, not in ``ONLY_TO``) fails on the way. Raises ``ImproperlyConfigured``
    before anything is claimed.
    """
    ahead = ahead or Ahead()
    found = ahead.take(limit if rather_than is None else limit + 1)
    others = [candidate for candidate in found if candidate.pk != rather_than]
    sendable = _sendable((others or found)[:limit])
    claims = _claim(sendable)
    if len(claims) < len(sendable):
        ahead.share()
    return claims


def call_settings() -> tuple[str, str, float]:
    """What every call needs: URL, token and time limit. Raises ``ImproperlyConfigured``."""
    return conf.api_url, conf.api_token, conf.timeout


def is_any_due() -> bool:
    """Whether there is anything to claim, or to fail because it may not be sent any more."""
    now = timezone.now()
    return Message.objects.using(database()).due(now).next_in_conversation(now).exists()


def send_now(message_id: int) -> None:
    """Send this message in this thread, if it is due and no earlier one holds it back."""
    found = _Candidate.among(_next(Message.objects.filter(pk=message_id)))
    for claim in _claim(_sendable(found)):
        outcome = attempt(claim)
        # The connection may have broken meanwhile; and what is known now nobody can find out later.
        persistently(partial(record, outcome), passes=lambda _error: True)


def attempt(claim: Claim) -> Outcome:
    """Make the attempt. Touches no database and raises nothing."""
    began_at, began = timezone.now(), time.monotonic()
    error, answer = None, None
    try:
        answer = client.send(
            claim.call,
            url=claim.url,
            token=claim.token,
            deadline=claim.deadline,
            ends_at=claim.ends_at,
        )
    except SendError as problem:
        error = problem
    return Outcome(claim, error, answer, began_at, time.monotonic() - began)


def record_together(outcomes: list[Outcome]) -> list[Outcome]:
    """Record those that were accepted, all at once → those that are still to be recorded.

    Where one was taken for lost meanwhile, or the database fails, that is all of them.
    """
    accepted = [outcome for outcome in outcomes if outcome.error is None]
    with suppress(Error):
        if accepted and _accept(accepted):
            return [outcome for outcome in outcomes if outcome.error is not None]
    return outcomes


def _accept(outcomes: list[Outcome]) -> bool:
    attempts = [(outcome.claim.message_id, outcome.claim.attempt) for outcome in outcomes]
    changes = {"status": Message.Status.SENT, "error": ""}
    with atomic():
        if _moved(attempts, Message.Status.SENDING, changes) < len(attempts):
            transaction.set_rollback(True, using=database())
            return False
        Attempt.objects.using(database()).bulk_create(
            Attempt(message_id=message_id, number=number, **outcome.learnt())
            for (message_id, number), outcome in zip(attempts, outcomes, strict=True)
        )
        after_commit(lambda: _announce_sent([message_id for message_id, _number in attempts]))
    return True


def _announce_sent(message_ids: list[int]) -> None:
    if message_sent.has_listeners(Message):
        for message in Message.objects.using(database()).filter(pk__in=message_ids):
            announce(message_sent, message)


def record(outcome: Outcome) -> None:
    """Write down what became of an attempt: of the message, unless that has moved on since."""
    claim = outcome.claim
    message = (
        Message.objects.using(database())
        .filter(pk=claim.message_id, attempts=claim.attempt, status__in=_AWAITING_AN_OUTCOME)
        .first()
    )
    is_late = message is None or message.status != Message.Status.SENDING
    if message is not None and not _settle(message, outcome.error):
        # A sweep has just taken it for lost.
        record(outcome)
    else:
        _keep(claim.message_id, claim.attempt, outcome.learnt(), is_late=is_late)


def _settle(message: Message, error: SendError | None) -> bool:
    """Whether nobody else has changed the message meanwhile."""
    if error is None:
        return move(message, Message.Status.SENT, error="")
    if isinstance(error, NotAccepted):
        return _has_ended_since(message) or _try_later(message, error)
    if isinstance(error, Refused):
        return end(message, error.reason)
    if message.status == Message.Status.SENDING:
        return move(message, Message.Status.UNCERTAIN, error=error.reason)
    return True


def _has_ended_since(message: Message) -> bool:
    """Whether a person had it tried again meanwhile, and that was cancelled or could not be.

    What an attempt before that learns late must not set it going again.
    """
    return message.status == Message.Status.UNCERTAIN and message.error != LOST


def settle_lost() -> int:
    """Make messages ``uncertain`` whose claim ran out with nothing recorded → how many."""
    ran_out = DatabaseNow() - (timedelta(seconds=conf.timeout) + CLAIM_GRACE)
    lost = Message.objects.using(database()).filter(
        status=Message.Status.SENDING, claimed_at__lt=ran_out
    )
    return sum(map(_lose, lost[:SWEEP]))


def _lose(message: Message) -> bool:
    is_mine = move(message, Message.Status.UNCERTAIN, error=LOST)
    if is_mine:
        # ``claimed_at`` is in UTC also where the host's other times are not.
        told = {"began_at": message.sent_date, "outcome": Attempt.Outcome.UNKNOWN, "answer": LOST}
        _keep(message.pk, message.attempts, told, is_late=False)
    return is_mine


def _keep(message_id: int, number: int, learnt: dict[str, Any], *, is_late: bool) -> None:
    """Keep what was learnt of an attempt; if it is late, in the place of what was believed."""
    mine = Attempt.objects.using(database()).filter(message_id=message_id, number=number)
    if is_late and (mine.update(**learnt) or not _exists(message_id)):
        return
    mine.create(message_id=message_id, number=number, **learnt)


def _exists(message_id: int) -> bool:
    return Message.objects.using(database()).filter(pk=message_id).exists()


def end_expired() -> int:
    """End what expired while it waited, also behind another message → how many."""
    expired = Message.objects.using(database()).filter(
        status=Message.Status.QUEUED, expires_at__lte=timezone.now()
    )
    return sum(end(message, EXPIRED) for message in expired[:SWEEP])


def end(message: Message, reason: str) -> bool:
    """``failed``, or ``uncertain`` again where an earlier attempt may have arrived."""
    if message.was_uncertain:
        return move(message, Message.Status.UNCERTAIN, error=reason)
    return move(message, Message.Status.FAILED, error=reason)


def move(message: Message, to: Message.Status, **changes: Any) -> bool:
    """From the status that ``message`` has to another, unless somebody else was quicker.

    Returns whether it was done; then ``message`` is changed too, and the signal follows commit.
    """
    before = message.status
    mine = _unchanged(message)
    needs_decision = to in Message.UNDECIDED
    recount = (
        (before in Message.ANSWERING) != (to in Message.ANSWERING)
        or needs_decision
        or before in Message.UNDECIDED
    )
    is_bulk_again = to == Message.Status.QUEUED and message.priority < Message.SINGLE
    with atomic():
        if recount or is_bulk_again:
            # The conversation is written before its messages, as everywhere.
            Conversation.objects.filter(pk=message.conversation_id).hold()
        changes = {"status": to, "needs_decision": needs_decision, **changes}
        if is_bulk_again and _is_followed_by_a_single(message):
            # That leaves after it, and must not wait for the rest of its bulk.
            changes["priority"] = Message.SINGLE
        if not mine.update(**changes):
            return False
        for field, value in changes.items():
            setattr(message, field, value)
        if recount:
            message.conversation.recount()
        signal = _SIGNALS.get(to)
        if signal is not None and to != before:
            after_commit(lambda: announce(signal, message))
    return True


def _is_followed_by_a_single(message: Message) -> bool:
    queued = Message.objects.using(database()).filter(status=Message.Status.QUEUED)
    mine = queued.filter(conversation=message.conversation_id, priority=Message.SINGLE)
    return mine.filter(id__gt=message.pk).exists()


_SIGNALS: dict[Message.Status, Signal] = {
    Message.Status.SENT: message_sent,
    Message.Status.FAILED: message_failed,
    Message.Status.UNCERTAIN: message_uncertain,
}

_OUTCOMES: dict[type[SendError], Attempt.Outcome] = {
    Refused: Attempt.Outcome.REFUSED,
    NotAccepted: Attempt.Outcome.NOT_ACCEPTED,
    OutcomeUnknown: Attempt.Outcome.UNKNOWN,
}

# A sweep may have taken a slow attempt for lost; what it learns late still counts.
_AWAITING_AN_OUTCOME = {Message.Status.SENDING, Message.Status.UNCERTAIN}


def _unchanged(message: Message) -> MessageQuerySet:
    # Each retry has its own ``due_at``: where there was one since, the message has moved on.
    return Message.objects.filter(
        pk=message.pk, status=message.status, attempts=message.attempts, due_at=message.due_at
    )


def _moved(
    attempts: Iterable[tuple[int, int]], status: Message.Status, changes: dict[str, Any]
) -> int:
    """Change those messages of these attempts (id, number) that have this status → how many."""
    messages = defaultdict[int, list[int]](list)
    for message_id, number in attempts:
        messages[number].append(message_id)
    same = (Q(attempts=number, pk__in=ids) for number, ids in messages.items())
    # Found by their ids: an index on the status still lists all that had this one of late.
    has_status = Exact(Coalesce("status", Value("")), status)
    return Message.objects.filter(reduce(or_, same), has_status).update(**changes)


class _Candidate(NamedTuple):
    """What a claim needs to know of a message. (To build the models would cost twice as much.)"""

    pk: int
    attempts: int
    priority: int
    text: str
    session_id: str
    ref_id: str
    expires_at: datetime | None
    give_up_at: datetime | None
    error: str
    override_opt_out: bool
    short_code: str
    opted_out_at: datetime | None
    phone_number: str

    @classmethod
    def among(cls, messages: MessageQuerySet) -> "list[Self]":
        conversation, contact = "conversation__", "conversation__contact__"
        own = cls._fields[:-3]
        theirs = (f"{conversation}short_code", f"{contact}opted_out_at")
        # As it is stored: to take a number apart costs more than the rest of the row.
        number = Cast(f"{contact}phone_number", CharField())
        return [cls(*row) for row in messages.values_list(*own, *theirs, number)]


def _next(messages: MessageQuerySet) -> MessageQuerySet:
    """Those that may leave now, in the order in which they should."""
    now = timezone.now()
    return messages.using(database()).in_turn(now).next_in_conversation(now)


class Ahead:
    """What one worker has found for its next claims, since to look costs more than to claim.

    ``number`` is how many it looks for at least. What has changed since is left out when it is
    claimed; what was queued since waits for the next look.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self._found: list[_Candidate] = []
        self._stale_at = 0.0
        self._shared_until = 0.0

    def take(self, number: int) -> "list[_Candidate]":
        """So many that are due, or as many as there are."""
        if len(self._found) < number or time.monotonic() >= self._stale_at:
            self._look(max(number, self.number))
        taken, self._found = self._found[:number], self._found[number:]
        return taken

    def _look(self, number: int) -> None:
        self._stale_at = time.monotonic() + LOOK_EVERY
        self._found = _Candidate.among(_next(Message.objects.all())[:number])
        if time.monotonic() < self._shared_until:
            random.shuffle(self._found)
            self._found.sort(key=attrgetter("priority"), reverse=True)

    def share(self) -> None:
        """Another worker claims the same: look anew, and for a while begin elsewhere than it."""
        self._found = []
        self._shared_until = time.monotonic() + SHARED_FOR


def _sendable(candidates: list[_Candidate]) -> list[_Candidate]:
    """Those that may be sent. The others end here."""
    now, only_to = timezone.now(), conf.only_to
    sendable = []
    for candidate in candidates:
        reason = _why_not(candidate, now, only_to)
        if reason is None:
            sendable.append(candidate)
        else:
            _end_unsent(candidate, reason)
    return sendable


def _why_not(candidate: _Candidate, now: datetime, only_to: frozenset[str] | None) -> str | None:
    if candidate.expires_at is not None and candidate.expires_at <= now:
        return EXPIRED
    if candidate.give_up_at is not None and candidate.give_up_at <= now:
        return f"{GIVEN_UP} {candidate.error}".strip()
    if candidate.opted_out_at is not None and not candidate.override_opt_out:
        return OPTED_OUT
    if only_to is not None and candidate.phone_number not in only_to:
        return NOT_IN_ONLY_TO
    return None


def _end_unsent(candidate: _Candidate, reason: str) -> None:
    still_queued = Message.objects.using(database()).filter(
        pk=candidate.pk, status=Message.Status.QUEUED, attempts=candidate.attempts
    )
    for message in still_queued:
        end(message, reason)


def _claim(candidates: list[_Candidate]) -> list[Claim]:
    if not candidates:
        return []
    url, token, timeout = call_settings()
    deadline, ends_at, now = time.monotonic() + timeout, time.time() + timeout, timezone.now()
    return [
        Claim(begun.pk, begun.attempts + 1, _call(begun, now), url, token, deadline, ends_at)
        for begun in _begin(candidates, now)
    ]


def _begin(candidates: list[_Candidate], now: datetime) -> list[_Candidate]:
    """Make queued messages ``sending`` → those with which nobody else was quicker."""
    attempts = [(candidate.pk, candidate.attempts) for candidate in candidates]
    token = secrets.randbits(63)
    changes = {
        "status": Message.Status.SENDING,
        "attempts": F("attempts") + 1,
        "claim_token": token,
        "claimed_at": DatabaseNow(),
        "sent_date": now,
    }

    def begin() -> int:
        # Alone, a statement is its transaction, and needs no words to begin and end one.
        with nullcontext() if transaction.get_autocommit(database()) else _durable():
            return _moved(attempts, Message.Status.QUEUED, changes)

    # Where a connection broke it may have been done all the same: the token tells.
    if persistently(begin, passes=lambda _error: True) == len(candidates):
        return candidates
    ids = [candidate.pk for candidate in candidates]
    claimed = Message.objects.using(database()).filter(
        pk__in=ids, status=Message.Status.SENDING, claim_token=token
    )
    mine = set(claimed.values_list("pk", flat=True))
    return [candidate for candidate in candidates if candidate.pk in mine]


def _durable() -> AbstractContextManager[None]:
    """Refuses to be part of a transaction; but where nothing commits by itself, nobody can tell."""
    if not connections[database()].in_atomic_block:
        raise ImproperlyConfigured(
            "Autocommit is off for the database of the messages, so a claim would not be committed"
            " before its message leaves: nothing is sent. Take AUTOCOMMIT out of DATABASES."
        )
    return atomic(durable=True)


def _call(candidate: _Candidate, now: datetime) -> dict[str, str]:
    return write_call(
        sender=candidate.short_code,
        to=candidate.phone_number,
        text=candidate.text,
        session_id=candidate.session_id,
        ref_id=candidate.ref_id,
        sent_date=aware_time(now),
    )


def _try_later(message: Message, error: NotAccepted) -> bool:
    now, growing = timezone.now(), _pause(message.attempts)
    due_at = now + max(growing, timedelta(seconds=error.retry_after or 0))
    if message.give_up_at is not None and due_at > message.give_up_at:
        # Whoever asks to wait for longer than that asks in vain.
        due_at = now + growing
        if due_at > message.give_up_at:
            return end(message, f"{GIVEN_UP} {error.reason}")
    if message.expires_at is not None:
        due_at = min(due_at, message.expires_at)
    is_moved = move(message, Message.Status.QUEUED, error=error.reason, due_at=due_at)
    if is_moved:
        logger.warning(
            "Message %s to %s waits until %s: %s",
            message.pk,
            masked(message.conversation.contact.phone_number),
            due_at,
            # The words of an answer may quote the message.
            error.http_status or error.reason,
        )
    return is_moved


def _pause(attempts: int) -> timedelta:
    """Growing, and jittered so that what failed together is not tried together."""
    doublings = min(attempts - 1, 20)
    growing: timedelta = min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE)
    return growing * random.uniform(0.5, 1.0)  # noqa: S311 - only to spread
