"""What one worker process does: claims what is due, keeps requests in flight, sweeps.

The database belongs to the main thread, the network to the sending threads; they meet in futures.
"""

import logging
import queue
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from operator import attrgetter

from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, Error, IntegrityError, connections

from django_ninebits import inbox, outbox
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown, traceback_without_values
from django_ninebits.models import Heartbeat, database

logger = logging.getLogger(__name__)

#: Seconds between two looks for due work while there is none, between two sweeps, between two signs
#: of life, and before what failed is tried again.
POLL_EVERY = 1.0
SWEEP_EVERY = 10.0
BEAT_EVERY = 10.0
RECOVER_AFTER = 1.0

#: Seconds in which attempts that end are recorded, and replaced, together.
GROUP = 0.003

#: After how many answers in a row that nothing was accepted 9bits counts as down.
FAILURES = 5

#: Seconds before the first probe and the longest ones between two, and what 9bits can ask for.
FIRST_PROBE = 5.0
LONGEST_PROBE = 60.0
LONGEST_ASKED = 600.0

#: How often recording is tried again at the end, before the process ends all the same.
FINISHING_TRIES = 30


class Breaker:
    """Whether 9bits seems to be down: then one probe goes a pause, until one of them succeeds.

    What says so are answers that accept nothing now (401, 403, 429, 503, no connection) and those
    that leave a message uncertain (silence, a reset, any other 5xx). After each of the latter one
    request less is in flight, so that in all ``concurrency`` messages become uncertain at most,
    and one for each probe.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._reset()

    def _reset(self) -> None:
        #: The message that failed last: the next probe is another, so that no one stalls the rest.
        self.last_message: int | None = None
        self._failures = 0
        self._uncertain = 0
        self._probes = 0
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """Whether only a probe may leave."""
        return self._failures >= FAILURES or self._uncertain >= self.concurrency

    def slots(self, in_flight: int) -> int:
        """How many more requests may leave now."""
        if not self.is_open:
            return max(self.concurrency - self._uncertain - in_flight, 0)
        return 1 if not in_flight and time.monotonic() >= self._next_probe else 0

    def note(self, outcome: outbox.Outcome) -> None:
        """Learn from what became of an attempt."""
        error = outcome.error
        if not isinstance(error, NotAccepted | OutcomeUnknown):
            self._close()
            return
        self.last_message = outcome.claim.message_id
        self._failures += 1
        self._uncertain += isinstance(error, OutcomeUnknown)
        if self.is_open:
            self._wait(error)

    def _close(self) -> None:
        if self.is_open:
            logger.warning("9bits answers again")
        self._reset()

    def _wait(self, error: NotAccepted | OutcomeUnknown) -> None:
        growing = min(FIRST_PROBE * 2 ** min(self._probes, 20), LONGEST_PROBE)
        asked = error.retry_after or 0.0 if isinstance(error, NotAccepted) else 0.0
        jittered = growing * random.uniform(0.5, 1.0)  # noqa: S311 - only to spread
        pause = max(jittered, min(asked, LONGEST_ASKED))
        self._probes += 1
        self._next_probe = time.monotonic() + pause
        # The words of an answer may quote the message.
        logger.warning(
            "9bits seems to be down (%s): one message is tried in %.0f s",
            error.http_status or error.reason,
            pause,
        )


class Worker:
    """Sends what is due until it is told to stop; ``concurrency`` requests at most at a time."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._breaker = Breaker(concurrency)
        self._stopping = False
        # A signal handler may put into it whatever the thread it interrupts is doing; an Event has
        # a lock that this thread may be holding.
        self._wake: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._ahead = outbox.Ahead(2 * concurrency)
        self._in_flight: set[Future[outbox.Outcome]] = set()
        self._unrecorded: list[outbox.Outcome] = []
        self._next_sweep = 0.0
        self._next_beat = 0.0

    def stop(self) -> None:
        """Claim nothing more. May be called from a signal handler or another thread."""
        self._stopping = True
        self._wake.put(None)

    def run(self, *, once: bool = False) -> None:
        """Work until stopped, or with ``once`` until nothing more is due or 9bits seems to be down.

        What is in flight is always finished and recorded before this returns. With ``once``, raises
        what keeps it from working; without, it waits for that to pass. Raises
        ``ImproperlyConfigured`` where so many threads cannot be started.
        """
        with ThreadPoolExecutor(self.concurrency, "ninebits") as threads:
            _start_all(threads, self.concurrency)
            try:
                while not self._stopping:
                    more = self._round(threads, patient=not once)
                    if self._in_flight:
                        self._pause(POLL_EVERY)
                        # What completes within milliseconds is recorded and replaced together.
                        time.sleep(GROUP)
                    elif once and (not more or self._breaker.is_open):
                        break
                    elif not more or self._breaker.is_open:
                        self._pause(POLL_EVERY)
            finally:
                self._finish()

    def _round(self, threads: ThreadPoolExecutor, *, patient: bool) -> bool:
        """Do what there is to do; return whether there is more of it already."""
        try:
            self._record()
            more_to_sweep = self._sweep()
            # An idle worker asks only this; a busy one claims, which asks the same.
            more = bool(self._in_flight) or outbox.is_any_due()
            claims = self._claim() if more else []
        except (ImproperlyConfigured, Error) as problem:
            if not patient:
                raise
            self._complain(problem)
            self._pause(RECOVER_AFTER)
            return True
        for claim in claims:
            future = threads.submit(outbox.attempt, claim)
            future.add_done_callback(self._wake.put)
            self._in_flight.add(future)
        self._beat()
        return more or more_to_sweep

    def _claim(self) -> list[outbox.Claim]:
        slots = self._breaker.slots(len(self._in_flight))
        if not slots:
            return []
        last = self._breaker.last_message
        return outbox.claim_due(slots, rather_than=last, ahead=self._ahead)

    def _record(self) -> None:
        self._collect()
        if self._unrecorded:
            self._unrecorded = outbox.record_together(self._unrecorded)
        while self._unrecorded:
            try:
                outbox.record(self._unrecorded[0])
            except (DataError, IntegrityError) as error:
                # The others need not wait for this one, which will never be written.
                self._complain(error)
            except Error:
                # Tried again when the database is back, or takes writes again.
                raise
            except Exception as error:  # noqa: BLE001 - the others need not wait for this one
                self._complain(error)
            del self._unrecorded[0]

    def _collect(self) -> None:
        """Take the outcomes of the attempts that have ended."""
        done = {future for future in self._in_flight if future.done()}
        self._in_flight -= done
        ended = []
        for future in done:
            error = future.exception()
            if error is None:
                ended.append(future.result())
            else:
                # Its message stays as it is until the sweep makes it uncertain.
                logger.error("An attempt broke off.\n%s", traceback_without_values(error))
        # An early success that is noted late would make failures in a row look like none.
        for outcome in sorted(ended, key=attrgetter("ended_at")):
            self._breaker.note(outcome)
        self._unrecorded += ended

    def _sweep(self) -> bool:
        """Whether there is more of it: receivers take their time, and outcomes must be recorded."""
        if time.monotonic() < self._next_sweep:
            return False
        lost, expired = outbox.settle_lost(), outbox.end_expired()
        announced = inbox.announce_overdue()
        if lost or expired or announced:
            logger.warning(
                "%s messages became uncertain, %s expired, %s texts were announced",
                lost,
                expired,
                announced,
            )
        if max(lost, expired) >= outbox.SWEEP or announced >= inbox.SWEEP:
            return True
        self._next_sweep = time.monotonic() + SWEEP_EVERY
        return False

    def _beat(self) -> None:
        """After a round that went well, show that a worker is there which is able to send."""
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_EVERY
        try:
            outbox.call_settings()
            Heartbeat.beat()
        except (ImproperlyConfigured, Error) as problem:
            self._complain(problem)

    def _complain(self, problem: Exception) -> None:
        if isinstance(problem, ImproperlyConfigured):
            logger.error("Nothing can be sent: %s", problem)
        else:
            logger.error("The database failed.\n%s", traceback_without_values(problem))
            connections[database()].close_if_unusable_or_obsolete()

    def _pause(self, seconds: float) -> None:
        """Until an attempt ends or ``stop`` is called, but not for longer."""
        with suppress(queue.Empty):
            self._wake.get(timeout=seconds)
            while True:
                self._wake.get_nowait()

    def _finish(self) -> None:
        """Wait for what is in flight, and for the database if it must be."""
        wait(self._in_flight)
        for _try in range(FINISHING_TRIES):
            try:
                self._record()
            except Error as error:
                self._complain(error)
                time.sleep(RECOVER_AFTER)
            else:
                return
        logger.error("%s outcomes could not be recorded", len(self._unrecorded))


def _start_all(threads: ThreadPoolExecutor, number: int) -> None:
    """Now, while nothing is claimed that could not be sent."""
    all_of_them = threading.Barrier(number + 1)
    try:
        for _ in range(number):
            threads.submit(all_of_them.wait)
    except RuntimeError as problem:
        all_of_them.abort()
        raise ImproperlyConfigured(
            f"This machine does not start {number} threads for one process: lower"
            ' NINEBITS["CONCURRENCY"], or allow more processes.'
        ) from problem
    all_of_them.wait()
