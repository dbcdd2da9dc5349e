"""Everything goes wrong at once, and afterwards 9bits' ledger and the table must agree.

``make chaos`` runs it for long: ``NINEBITS_CHAOS_SECONDS`` says how long. The name of the test has
the seed; ``NINEBITS_CHAOS_SEED`` repeats the actions of another run.
"""

import os
import random
import signal
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from django_ninebits import services
from django_ninebits.models import Attempt, Message
from django_ninebits.simulator import Behaviour
from tests.test_worker import eventually, start_worker

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = float(os.environ.get("NINEBITS_CHAOS_SECONDS", "4"))
SEED = int(os.environ.get("NINEBITS_CHAOS_SEED", "0")) or random.randrange(1, 10**9)

WORKERS = 3
CONCURRENCY = 4
CONVERSATIONS = 50

#: What 9bits does with a call, the good more often than each of the bad.
MOODS = [
    *[Behaviour.slow(0.02)] * 6,
    Behaviour.accept(),
    Behaviour.close_idle(0.01),
    Behaviour.cut(),
    Behaviour.not_json(),
    Behaviour.reset(),
    Behaviour.silent(),
    Behaviour.slow(0.9),
    Behaviour.slow(1.5),
    Behaviour.status(422, b"No"),
    Behaviour.status(429, headers={"Retry-After": "1"}),
    Behaviour.status(500),
    Behaviour.status(503),
]

#: The answers after which nobody knows whether it was accepted: at one second nobody waits longer.
VAGUE = {"cut", "reset", "silent", "slow", "status 500"}


class Chaos:
    """Workers, a 9bits, a database, and whatever can happen to them."""

    def __init__(self, provider, seed):
        self.provider = provider
        self.random = random.Random(seed)
        self.workers = []
        self.kills = 0
        self.queued = 0
        self.stack = ExitStack()

    def __enter__(self):
        for _ in range(WORKERS):
            self.start()
        return self

    def __exit__(self, *exc_info):
        for process in self.workers:
            process.kill()
        self.stack.close()

    def start(self):
        process = start_worker(self.provider, f"--concurrency={CONCURRENCY}", TIMEOUT=1, quiet=True)
        self.workers.append(self.stack.enter_context(process))

    def go_on(self, seconds):
        """Do everything once, in any order, and again until the time is over."""
        self.provider.wait_for_calls(1, timeout=60)
        ends = time.monotonic() + seconds
        while True:
            for action in self.random.sample(ACTIONS, len(ACTIONS)):
                action(self)
                time.sleep(self.random.uniform(0.05, 0.3))
            if time.monotonic() > ends:
                break

    def queue(self):
        services.send_sms(**self.message())
        services.send_many(self.message() for _ in range(self.random.choice([1, 5, 60])))

    def message(self):
        self.queued += 1
        subscriber = self.random.randrange(CONVERSATIONS)
        return {"to": f"080200{subscriber:05}", "text": str(self.queued)}

    def change_mood(self):
        self.provider.behave(self.random.choice(MOODS))

    def kill(self):
        process = self.workers.pop(self.random.randrange(len(self.workers)))
        process.kill()
        self.kills += 1
        self.start()

    def freeze(self):
        process = self.random.choice(self.workers)
        process.send_signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.1, 0.8))
        process.send_signal(signal.SIGCONT)

    def go_away(self):
        with self.provider.down():
            time.sleep(self.random.uniform(0.05, 0.4))

    def hang_up_the_database(self):
        """On the workers; this process keeps its connection."""
        with connection.cursor() as cursor, suppress(OperationalError):
            CUT.get(connection.vendor, do_nothing)(cursor)

    def calm_down(self):
        """Let new workers send what is left, and not wait for pauses that are long."""
        self.provider.behave(Behaviour.slow(0.01))
        for process in self.workers:
            process.terminate()
        eventually(lambda: all(process.poll() is not None for process in self.workers), 60)
        self.workers.clear()
        for _ in range(WORKERS):
            self.start()
        eventually(self.is_all_settled, 120)

    def is_all_settled(self):
        now = timezone.now()
        # Many rows at once, in any order: a worker may be at some of them.
        with suppress(OperationalError):
            Message.objects.filter(status="queued", due_at__gt=now).update(due_at=now)
        return not Message.objects.filter(status__in=["queued", "sending"]).exists()


ACTIONS = [
    Chaos.queue,
    Chaos.change_mood,
    Chaos.change_mood,
    Chaos.kill,
    Chaos.freeze,
    Chaos.hang_up_the_database,
    Chaos.go_away,
]


def do_nothing(cursor):
    """SQLite has no connection that could be cut."""


def cut_postgresql(cursor):
    cursor.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def cut_mariadb(cursor):
    cursor.execute(
        "SELECT id FROM information_schema.processlist"
        " WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    )
    for (number,) in cursor.fetchall():
        with suppress(OperationalError):
            cursor.execute(f"KILL {number}")


CUT = {"postgresql": cut_postgresql, "mysql": cut_mariadb}


@pytest.mark.parametrize("seed", [SEED])
def test_whatever_happens_nothing_is_lost_doubled_or_out_of_order(provider, seed):
    with Chaos(provider, seed) as chaos:
        chaos.queue()
        chaos.go_on(SECONDS)
        chaos.calm_down()
    assert Message.objects.count() == chaos.queued
    assert_nothing_was_doubled(provider)
    assert_the_ledger_agrees(provider)
    assert_what_is_uncertain_may_have_arrived(provider, chaos)
    assert_the_order_was_kept(provider)


def assert_nothing_was_doubled(provider):
    received = Counter(call.body["ref_id"] for call in provider.accepted)
    assert [ref_id for ref_id, times in received.items() if times > 1] == []


def assert_the_ledger_agrees(provider):
    received = {call.body["ref_id"] for call in provider.accepted}
    by_status = defaultdict(set)
    for ref_id, status in Message.objects.values_list("ref_id", "status"):
        by_status[status].add(ref_id)
    assert by_status["sent"] <= received <= by_status["sent"] | by_status["uncertain"]
    assert by_status.keys() <= {"sent", "failed", "uncertain"}


def assert_what_is_uncertain_may_have_arrived(provider, chaos):
    """9bits has got it and was vague about it, or it was in flight in a worker that was killed."""
    vague = {call.body["ref_id"] for call in provider.calls if call.answered in VAGUE}
    uncertain = set(Message.objects.filter(status="uncertain").values_list("ref_id", flat=True))
    assert len(uncertain - vague) <= chaos.kills * CONCURRENCY


def assert_the_order_was_kept(provider):
    """But for what was once uncertain: that holds back nobody."""
    unknown = Attempt.objects.filter(outcome="unknown").values_list("message__ref_id", flat=True)
    apart = set(unknown)
    numbers = defaultdict(list)
    for call in provider.accepted:
        if call.body["ref_id"] not in apart:
            numbers[call.body["to"]].append(int(call.body["message"]))
    assert [found for found in numbers.values() if found != sorted(found)] == []
