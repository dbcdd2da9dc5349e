"""A worker that is killed, again and again: nothing is lost, and nothing is sent twice."""

from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from django_ninebits import outbox, services
from django_ninebits.models import Message
from django_ninebits.simulator import Behaviour
from tests.test_worker import start_worker

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

MESSAGES = 300
CONCURRENCY = 8
KILLS = 5


def test_a_worker_that_is_killed_loses_nothing_and_sends_nothing_twice(provider):
    provider.behave(Behaviour.slow(0.05))
    services.send_many({"to": f"080200{n:05}", "text": str(n)} for n in range(MESSAGES))
    for kill in range(1, KILLS + 1):
        killed_while_sending(provider, kill * MESSAGES // 10)
    process = start_worker(provider, "--once", f"--concurrency={CONCURRENCY}")
    process.communicate(timeout=60)
    assert process.returncode == 0
    settle_the_lost()
    assert_table_and_ledger_agree(provider)


def killed_while_sending(provider, calls):
    process = start_worker(provider, f"--concurrency={CONCURRENCY}")
    provider.wait_for_calls(calls, timeout=30)
    process.kill()
    process.communicate(timeout=30)


def settle_the_lost():
    sending = Message.objects.filter(status="sending")
    sending.update(claimed_at=timezone.now() - timedelta(minutes=5))
    # A few at a time.
    while outbox.settle_lost():
        pass


def assert_table_and_ledger_agree(provider):
    received = Counter(call.body["ref_id"] for call in provider.accepted)
    by_status: dict[str, set[str]] = {"sent": set(), "uncertain": set()}
    for ref_id, status in Message.objects.values_list("ref_id", "status"):
        by_status[status].add(ref_id)
    assert sum(map(len, by_status.values())) == MESSAGES
    assert set(received.values()) == {1}
    assert by_status["sent"] <= received.keys() <= by_status["sent"] | by_status["uncertain"]
    assert 0 < len(by_status["uncertain"]) <= KILLS * CONCURRENCY
