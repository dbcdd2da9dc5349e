"""Several worker processes on one outbox: each message leaves once, in its order."""

import os
import signal
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import pytest
from django.utils import timezone

from django_ninebits import outbox, services
from django_ninebits.models import Message
from django_ninebits.simulator import Behaviour
from tests.test_worker import eventually, start_worker

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

WORKERS = 3
CONVERSATIONS = 40
EACH = 5


@pytest.fixture
def quick(provider):
    provider.behave(Behaviour.slow(0.01))
    return provider


def queue():
    """``EACH`` messages to each of so many subscribers, one after the other in turn."""
    services.send_many(
        {"to": f"080200{subscriber:05}", "text": str(number)}
        for number in range(EACH)
        for subscriber in range(CONVERSATIONS)
    )


@contextmanager
def workers(provider, number=WORKERS):
    """So many processes, which all end well when they are told to."""
    with ExitStack() as stack:
        started = [start_worker(provider, "--concurrency=4") for _ in range(number)]
        for process in started:
            stack.enter_context(process)
            stack.callback(process.kill)
        for process in started:
            # It says so once it can be stopped.
            assert process.stdout.readline().startswith("Sending")
        yield started
        for process in started:
            process.terminate()
        said = [process.communicate(timeout=30)[1] for process in started]
        assert [process.returncode for process in started] == [0] * number, said


def statuses():
    return Counter(Message.objects.values_list("status", flat=True))


def test_each_message_is_sent_once_and_in_its_order(quick):
    queue()
    with workers(quick):
        eventually(lambda: statuses() == {"sent": CONVERSATIONS * EACH}, 60)
    texts = defaultdict(list)
    for call in quick.accepted:
        texts[call.body["to"]].append(call.body["message"])
    assert list(texts.values()) == [[str(number) for number in range(EACH)]] * CONVERSATIONS


def test_no_worker_is_idle_while_there_is_enough_to_do(quick):
    queue()
    with workers(quick):
        eventually(lambda: statuses()["sent"] == CONVERSATIONS * EACH, 60)
    connections = {call.connection for call in quick.accepted}
    assert len(connections) >= WORKERS * 2


def test_a_reply_leaves_before_the_bulk_whichever_worker_takes_it(quick):
    queue()
    with workers(quick):
        eventually(lambda: len(quick.accepted) > 20, 60)
        sent = services.send_sms("0803 111 2222", "reply")
        eventually(lambda: Message.objects.get(pk=sent.pk).status == "sent", 60)
        eventually(lambda: statuses()["sent"] == CONVERSATIONS * EACH + 1, 60)
    texts = [call.body["message"] for call in quick.accepted]
    assert texts.index("reply") < len(texts) - 1


def test_what_a_frozen_worker_had_in_flight_is_uncertain_until_it_wakes_up(provider):
    provider.behave(Behaviour.slow(1.0))
    message = services.send_sms("0803 111 2222", "Hello")
    with workers(provider, 1) as [frozen]:
        provider.wait_for_calls(1)
        os.kill(frozen.pid, signal.SIGSTOP)
        Message.objects.update(claimed_at=long_ago())
        assert outbox.settle_lost() == 1
        os.kill(frozen.pid, signal.SIGCONT)
        eventually(lambda: Message.objects.get(pk=message.pk).status == "sent", 20)
    assert len(provider.calls) == 1


def test_what_was_in_flight_when_a_worker_froze_is_not_sent_by_another(provider):
    provider.behave(Behaviour.slow(1.0))
    queue()
    with workers(provider, 2) as [frozen, _other]:
        # All that both can send at a time: now neither has anything to write.
        provider.wait_for_calls(8, timeout=30)
        os.kill(frozen.pid, signal.SIGSTOP)
        provider.behave(Behaviour.slow(0.01))
        Message.objects.filter(status="sending").update(claimed_at=long_ago())
        outbox.settle_lost()
        eventually(lambda: statuses()["queued"] == 0, 60)
        os.kill(frozen.pid, signal.SIGCONT)
        eventually(lambda: statuses() == {"sent": CONVERSATIONS * EACH}, 60)
    assert set(Counter(call.body["ref_id"] for call in provider.calls).values()) == {1}


def long_ago():
    return timezone.now() - timedelta(minutes=5)
