"""For the tests of a host: an outbox to look into, and a way to make a text arrive. No network.

With pytest, a fixture is three lines::

    import pytest

    from django_ninebits import services, testing


    @pytest.fixture
    def sent(db):
        with testing.outbox() as sent:
            yield sent


    def test_a_parcel_is_announced(sent):
        services.send_sms("0802 000 0000", "Your parcel is here.")
        assert [(call.to, call.text) for call in sent] == [
            ("+2348020000000", "Your parcel is here.")
        ]


    def test_who_cannot_be_reached_is_seen(sent):
        sent.refuse("Blocked by the subscriber")
        message = services.send_sms("0802 000 0000", "Your parcel is here.")
        message.refresh_from_db()
        assert message.status == "failed"

With ``django.test.TestCase``, it is one line in ``setUp``::

    from django.dispatch import receiver
    from django.test import TestCase

    from django_ninebits import services, testing
    from django_ninebits.signals import message_received


    @receiver(message_received)
    def answer_help(message, **kwargs):
        if message.text == "HELP":
            services.reply(message, "Call 0800 1234.", ref_id=f"help-{message.pk}")


    class HelpTests(TestCase):
        def setUp(self):
            self.sent = self.enterContext(testing.outbox())

        def test_help_is_answered_in_its_session(self):
            message = testing.receive("HELP")
            self.assertEqual(self.sent[0].text, "Call 0800 1234.")
            self.assertEqual(self.sent[0].session_id, message.session_id)

Only the one function that speaks to 9bits is replaced: rows, statuses, signals and the dispatcher
are real. So a dispatcher such as ``dispatch.defer``, and bulk always, waits for a worker:
``sent.run_worker()`` is one. Messages end up ``sent`` as long as the outbox is not told otherwise.

A ``TestCase`` never commits. Inside the outbox what this app does after commit is done as soon as
it would be outside of the test's own transaction; ``on_commit`` callbacks of yours still need
``captureOnCommitCallbacks(execute=True)``, as always in Django.
"""

import json
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

from django_ninebits import client
from django_ninebits.conf import conf
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown, Refused, SendError
from django_ninebits.inbox import take_in
from django_ninebits.models import Message, database
from django_ninebits.outbox import attempt, claim_due, is_any_due, record
from django_ninebits.wire import TWO_WAY_SMS, write_date

#: The token where the settings hold none, or one that would be fetched from elsewhere.
TOKEN = "token-of-a-test"  # noqa: S105 - it opens nothing

_BATCH = 100


@dataclass(frozen=True)
class Call:
    """One call that 9bits would have had."""

    to: str
    """E.164."""
    text: str
    sender: str
    session_id: str
    ref_id: str
    accepted: bool
    """Whether the outbox took it: it does unless it is told otherwise."""


class Outbox(list[Call]):
    """The calls so far, the oldest first: a list."""

    def __init__(self) -> None:
        super().__init__()
        self._planned: deque[SendError] = deque()

    def refuse(self, words: str = "Refused") -> None:
        """9bits refuses the next call in these words: its message becomes ``failed``."""
        self._planned.append(Refused(f"9bits answered 422: {words}", http_status=422))

    def try_later(self, retry_after: float | None = None) -> None:
        """9bits cannot take the next call now: its message is ``queued`` again, for later."""
        self._planned.append(
            NotAccepted("9bits answered 503: Busy", http_status=503, retry_after=retry_after)
        )

    def uncertain(self) -> None:
        """The next call gets no answer: its message becomes ``uncertain``."""
        self._planned.append(OutcomeUnknown("TimeoutError: no answer before the deadline"))

    def run_worker(self) -> int:
        """Send whatever is due, such as bulk, as a worker does → how many calls that took."""
        calls_before = len(self)
        while is_any_due():
            for claim in claim_due(_BATCH):
                record(attempt(claim))
        return len(self) - calls_before

    def _take(self, call: Mapping[str, str], **_where_and_until: object) -> client.Answer:
        """In place of ``client.send``."""
        problem = self._planned.popleft() if self._planned else None
        self.append(
            Call(
                to=f"+{call['to']}",
                text=call["message"],
                sender=call["from"],
                session_id=call["session_id"],
                ref_id=call["ref_id"],
                accepted=problem is None,
            )
        )
        if problem is not None:
            raise problem
        return client.Answer(200, "")


@contextmanager
def outbox() -> Iterator[Outbox]:
    """Nothing reaches the network in here: what would have is in the list that this gives.

    A context manager, for a ``with`` block, a fixture or ``enterContext``. It can be nested; the
    innermost has the calls.
    """
    sent = Outbox()
    with patch.object(client, "send", sent._take), _a_token(), _commits():
        yield sent


def receive(
    text: str,
    *,
    sender: str = "+2348020000000",
    short_code: str | None = None,
    session_id: str | None = None,
    ref_id: str | None = None,
    **fields: Any,
) -> Message:
    """A subscriber's text arrives → its row. The receivers of ``message_received`` have run.

    ``short_code`` is by default that of the settings; ``session_id`` and ``ref_id`` are by default
    new ones. ``fields`` are more of the delivery's: ``telco``, ``sent_date``, or those to come. The
    same text with the same ``session_id``, ``ref_id`` and ``sent_date`` is a redelivery: the first
    row comes back, and no receiver hears of it.

    Raises ``AssertionError`` where the text is quarantined. Outside of ``outbox()``, what receivers
    send goes nowhere.
    """
    delivery = {
        "type": TWO_WAY_SMS,
        "telco": "mtn",
        "from": sender,
        "to": conf.short_code if short_code is None else short_code,
        "message": text,
        "session_id": session_id or uuid.uuid4().hex,
        "sent_date": write_date(datetime.now(UTC)),
        "ref_id": ref_id or uuid.uuid4().hex,
    }
    with _any_outbox():
        taken = take_in(json.dumps(delivery | fields).encode())
    if taken.message is None:
        raise AssertionError(f"The text was quarantined: {' '.join(taken.errors)}")
    return taken.message


def _any_outbox() -> AbstractContextManager[object]:
    """The one that there is, else one for now."""
    is_inside = isinstance(getattr(client.send, "__self__", None), Outbox)
    return nullcontext() if is_inside else outbox()


def _a_token() -> AbstractContextManager[object]:
    """A token to send with, so that none needs to be set, and none is fetched from elsewhere."""
    keys: Mapping[str, Any] = getattr(settings, "NINEBITS", {})
    token = keys.get("API_TOKEN")
    if token and isinstance(token, str):
        return nullcontext()
    return override_settings(NINEBITS={**keys, "API_TOKEN": TOKEN})


@contextmanager
def _commits() -> Iterator[None]:
    """Where a ``TestCase`` has opened a transaction, take what is directly inside as committed."""
    connection = connections[database()]
    release = connection.savepoint_commit

    def release_and_commit(sid: str) -> None:
        release(sid)
        _commit(connection)

    with patch.object(connection, "savepoint_commit", release_and_commit):
        yield


def _commit(connection: BaseDatabaseWrapper) -> None:
    """Do what this app has left for after commit, each thing once."""
    # Django's own mark of the transactions that its TestCase opens.
    if not any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks[-1:]):
        return
    while (position := _next_of_ours(connection.run_on_commit)) is not None:
        callback = connection.run_on_commit[position][1]
        # It keeps its place in the list, which captureOnCommitCallbacks counts.
        connection.run_on_commit[position] = (set(), _done, True)  # type: ignore[assignment]
        callback()


def _next_of_ours(run_on_commit: Sequence[tuple[Any, ...]]) -> int | None:
    for position, (_savepoints, callback, *_rest) in enumerate(run_on_commit):
        module = getattr(callback, "__module__", None) or ""
        if module.startswith(f"{__package__}.") and callback is not _done:
            return position
    return None


def _done() -> None:
    """Stands where a callback stood."""
