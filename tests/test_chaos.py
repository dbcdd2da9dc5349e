"""Everything goes wrong at once, and afterwards 9bits' ledger and the table must agree.

``make chaos`` runs it for long. The name of the test has the seed. The environment can say

``NINEBITS_CHAOS_SECONDS``  how long everything goes wrong
``NINEBITS_CHAOS_SEED``     the seed of another run, to repeat its actions
``NINEBITS_CHAOS_WORKERS``  how many workers there are
``NINEBITS_CHAOS_RESTART``  a shell command that restarts the database server
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from itertools import accumulate

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from django_ninebits import services
from django_ninebits.models import Attempt, Message
from django_ninebits.simulator import Behaviour
from tests.test_worker import eventually, start_worker

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

SECONDS = float(os.environ.get("NINEBITS_CHAOS_SECONDS", "2"))
SEED = int(os.environ.get("NINEBITS_CHAOS_SEED", "0")) or random.randrange(1, 10**9)

WORKERS = int(os.environ.get("NINEBITS_CHAOS_WORKERS", "3"))
RESTART = os.environ.get("NINEBITS_CHAOS_RESTART", "")
CONCURRENCY = 4
TIMEOUT = 1

#: How long 9bits hangs in the middle of it all.
HANG = max(3.0, SECONDS / 4)
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

#: Between two probes of a worker that finds 9bits down, by ``worker.FIRST_PROBE`` and chance.
SHORTEST_PAUSES = [2.5, 5, 10, 20, *[30] * 100]

#: The answers after which nobody knows whether it was accepted: at one second nobody waits longer.
VAGUE = {"cut", "reset", "silent", "slow", "status 500"}

#: What a worker finds that sends on a connection which 9bits is just closing.
ENDED = {
    "BrokenPipeError: Broken pipe",
    "ConnectionResetError: Connection reset by peer",
    "RemoteDisconnected on the way to 9bits",
}


class Chaos:
    """Workers, a 9bits, a database, and whatever can happen to them."""

    def __init__(self, provider, seed):
        self.provider = provider
        self.random = random.Random(seed)
        self.workers = []
        self.kills = 0
        self.freezes = 0
        self.restarts = 0
        self.queued = 0
        self.settling = 0.0
        self.hung = []
        self.stack = ExitStack()

    def __enter__(self):
        self.start_workers()
        return self

    def __exit__(self, *exc_info):
        for process in self.workers:
            process.kill()
        self.stack.close()
        self.report()

    def start_workers(self):
        for _ in range(WORKERS):
            self.start()

    def stop_workers(self):
        for process in self.workers:
            process.terminate()
        eventually(lambda: all(process.poll() is not None for process in self.workers), 60)
        self.workers.clear()

    def start(self):
        process = start_worker(
            self.provider, f"--concurrency={CONCURRENCY}", TIMEOUT=TIMEOUT, quiet=True
        )
        self.workers.append(self.stack.enter_context(process))

    def go_on(self, seconds):
        """Do everything once, in any order, and again until the time is over."""
        self.provider.wait_for_calls(1, timeout=60)
        ends = time.monotonic() + seconds
        actions = self.random.sample(ACTIONS, len(ACTIONS))
        while actions or time.monotonic() < ends:
            actions = actions or self.random.sample(ACTIONS, len(ACTIONS))
            actions.pop()(self)
            time.sleep(self.random.uniform(0.05, 0.3))

    def queue(self):
        services.send_sms(**self.message())
        services.send_many(self.message() for _ in range(self.random.choice([1, 5, 60])))

    def message(self, subscriber=None):
        self.queued += 1
        if subscriber is None:
            subscriber = self.random.randrange(CONVERSATIONS)
        text = str(self.queued)
        return {"to": f"080200{subscriber:05}", "text": text, "ref_id": f"chaos-{text}"}

    def change_mood(self):
        self.provider.behave(self.random.choice(MOODS))

    def let_them_work(self):
        """For a while, or there would be little in flight that the rest could break."""
        self.provider.behave(Behaviour.slow(0.02))
        seen = len(self.provider.calls)
        with suppress(TimeoutError):
            self.provider.wait_for_calls(seen + 40, timeout=5)

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
        self.freezes += 1

    def go_away(self):
        with self.provider.down():
            time.sleep(self.random.uniform(0.05, 0.4))

    def hang_up_the_database(self):
        """On the workers; this process keeps its connection."""
        with connection.cursor() as cursor, suppress(OperationalError):
            CUT.get(connection.vendor, do_nothing)(cursor)

    def restart_the_database(self):
        """While a host queues: it makes its call again until that is through, and once more."""
        batch = [self.message() for _ in range(20)]
        with subprocess.Popen(RESTART, shell=True) as restarting:  # noqa: S602
            eventually(lambda: is_through(batch) and restarting.poll() is not None, 60)
        assert restarting.returncode == 0
        self.restarts += bool(RESTART)

    def hang(self):
        """9bits takes what comes and answers nothing, for longer than anybody waits."""
        self.stop_workers()
        before = len(self.provider.calls)
        self.provider.behave(Behaviour.silent())
        # Of subscribers who got nothing yet: no earlier message holds any of it back.
        services.send_many(self.message(CONVERSATIONS + n) for n in range(100))
        self.start_workers()
        self.provider.wait_for_calls(before + 1, timeout=60)
        time.sleep(HANG)
        self.provider.behave(Behaviour.slow(0.02))
        calls = self.provider.calls[before:]
        self.hung = [call for call in calls if call.answered == "silent"]

    def calm_down(self):
        """Let new workers send what is left, and not wait for pauses that are long."""
        self.provider.behave(Behaviour.slow(0.01))
        began = time.monotonic()
        self.stop_workers()
        self.start_workers()
        # What is lost takes half a minute, and a machine that is busy sends some ten a second.
        eventually(self.is_all_settled, 120 + self.queued / 5)
        self.settling = time.monotonic() - began

    def report(self):
        """For ``make chaos``, which shows it, and for a test that failed."""
        figures = {
            "messages": self.queued,
            "calls": len(self.provider.calls),
            "kills": self.kills,
            "restarts of the database": self.restarts,
            "calls into a silence": len(self.hung),
            "seconds to settle": round(self.settling),
            "uncertain without a vague answer": dict(without_a_vague_answer(self.provider)),
        }
        statuses = Counter(Message.objects.order_by().values_list("status", flat=True))
        sys.stdout.write(f"\n{figures | statuses}\n")

    def is_all_settled(self):
        # Not all the time: workers wait for what it locks.
        time.sleep(0.2)
        now = timezone.now()
        # Many rows at once, in any order: a worker may be at some of them.
        with suppress(OperationalError):
            Message.objects.filter(status="queued", due_at__gt=now).update(due_at=now)
        return not Message.objects.filter(status__in=["queued", "sending"]).exists()


ACTIONS = [
    Chaos.queue,
    Chaos.change_mood,
    Chaos.change_mood,
    Chaos.let_them_work,
    Chaos.kill,
    Chaos.freeze,
    Chaos.hang_up_the_database,
    Chaos.restart_the_database,
    Chaos.go_away,
]


def is_through(batch):
    """Whether all of it is stored now, be it by this call or by one before."""
    connection.close_if_unusable_or_obsolete()
    through = []
    with suppress(InterfaceError, OperationalError):
        through.append(services.send_many(batch))
    return bool(through)


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
        chaos.go_on(SECONDS / 2)
        chaos.hang()
        chaos.go_on(SECONDS / 2)
        chaos.calm_down()
    assert CONCURRENCY <= len(chaos.hung) <= WORKERS * (CONCURRENCY + most_probes(HANG))
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


def most_probes(seconds):
    """Of one worker, if its pauses are all the shortest."""
    return sum(pause <= seconds for pause in accumulate(SHORTEST_PAUSES))


def assert_what_is_uncertain_may_have_arrived(provider, chaos):
    """9bits was vague about it, or ended the connection on which it left.

    Or it was in flight in a worker that was killed or frozen, or a server was restarted when it had
    stored a claim and had not said so yet.
    """
    stopped = chaos.kills + chaos.freezes + chaos.restarts * WORKERS
    reasons = without_a_vague_answer(provider)
    assert sum(reasons[reason] for reason in reasons.keys() - ENDED) <= stopped * CONCURRENCY


def without_a_vague_answer(provider):
    """Why messages are uncertain about which 9bits was not vague → how many of them."""
    vague = [call.body["ref_id"] for call in provider.calls if call.answered in VAGUE]
    uncertain = Message.objects.filter(status="uncertain").exclude(ref_id__in=vague)
    return Counter(uncertain.order_by().values_list("error", flat=True))


def assert_the_order_was_kept(provider):
    """But for what was once uncertain: that holds back nobody."""
    unknown = Attempt.objects.filter(outcome="unknown").values_list("message__ref_id", flat=True)
    apart = set(unknown)
    numbers = defaultdict(list)
    for call in provider.accepted:
        if call.body["ref_id"] not in apart:
            numbers[call.body["to"]].append(int(call.body["message"]))
    assert [found for found in numbers.values() if found != sorted(found)] == []
