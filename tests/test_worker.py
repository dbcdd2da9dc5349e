import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import (
    DataError,
    IntegrityError,
    InternalError,
    OperationalError,
    connection,
    connections,
)
from django.utils import timezone

from django_ninebits import client, inbox, outbox, services, worker
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown, Refused
from django_ninebits.models import Heartbeat, Message
from django_ninebits.signals import message_failed, message_received
from django_ninebits.simulator import Behaviour
from django_ninebits.worker import Worker
from tests.databases import url_of_the_test_database
from tests.faults import once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quickly(provider, monkeypatch):
    """No test waits for a second where a few milliseconds will do."""
    for name in ("POLL_EVERY", "RECOVER_AFTER"):
        monkeypatch.setattr(worker, name, 0.02)


def queue(number, **options):
    """So many messages, to as many subscribers."""
    messages = [{"to": f"080200{n:05}", "text": f"Hello {n}"} | options for n in range(number)]
    services.send_many(messages)


def statuses():
    return list(Message.objects.order_by("id").values_list("status", flat=True))


def drain(concurrency=4):
    Worker(concurrency).run(once=True)


class Running:
    """A worker in a thread, until it is stopped."""

    def __init__(self, concurrency=4):
        self.worker = Worker(concurrency)
        self.thread = threading.Thread(target=self.run)

    def run(self):
        self.worker.run()
        connection.close()

    def __enter__(self):
        self.thread.start()
        return self.worker

    def __exit__(self, *exc_info):
        self.worker.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


def eventually(condition, seconds=15.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.01)


# Sending


def test_what_is_due_is_sent(provider):
    queue(10)
    drain()
    assert statuses() == ["sent"] * 10
    assert len(provider.accepted) == 10


def test_once_ends_where_nothing_is_due(provider):
    queue(1, send_at=timezone.now() + timedelta(hours=1))
    drain()
    assert (statuses(), provider.calls) == (["queued"], [])


def test_once_sends_a_conversation_to_its_end(provider):
    services.send_many([{"to": "08020000000", "text": str(n)} for n in range(5)])
    drain()
    assert [call.body["message"] for call in provider.accepted] == list("01234")


def test_once_does_not_end_at_what_can_only_fail(provider):
    queue(5, expires_at=timezone.now() + timedelta(hours=1))
    Message.objects.update(expires_at=timezone.now())
    services.send_many([{"to": "08031234567", "text": "Hello"}])
    drain(concurrency=2)
    assert statuses() == ["failed"] * 5 + ["sent"]


def test_once_leaves_what_was_told_to_wait(provider):
    provider.behave(Behaviour.status(503))
    queue(2)
    drain()
    assert statuses() == ["queued"] * 2
    assert len(provider.calls) == 2


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_is_in_flight_than_allowed(provider, monkeypatch, concurrency):
    in_flight, most = set[int](), list[int]()
    all_of_them = threading.Barrier(concurrency, timeout=30)
    send = client.send

    def counted(call, **options):
        in_flight.add(threading.get_ident())
        most.append(len(in_flight))
        all_of_them.wait()
        send(call, **options)
        in_flight.discard(threading.get_ident())

    monkeypatch.setattr(client, "send", counted)
    queue(9)
    drain(concurrency)
    assert max(most) == concurrency
    assert len(provider.accepted) == 9


def test_sending_threads_hold_no_database_connection(monkeypatch):
    def send(call, **options):
        held.append(connections.all(initialized_only=True))
        names.add(threading.current_thread().name)

    held: list[object] = []
    names: set[str] = set()
    monkeypatch.setattr(client, "send", send)
    queue(5)
    drain()
    assert held == [[]] * 5
    assert threading.current_thread().name not in names


def test_a_running_worker_sends_what_comes(provider):
    with Running():
        queue(3)
        eventually(lambda: statuses() == ["sent"] * 3)


def test_a_running_worker_sends_while_others_are_in_flight(provider):
    provider.then(Behaviour.slow(1.5))
    queue(1)
    with Running():
        provider.wait_for_calls(1)
        services.send_many([{"to": "08031234567", "text": "Hello"}])
        eventually(lambda: "sent" in statuses())
        assert statuses() == ["sending", "sent"]


def test_what_is_in_flight_is_finished_when_stopped(provider):
    provider.behave(Behaviour.slow(0.3))
    queue(6)
    with Running(concurrency=2) as running:
        provider.wait_for_calls(2)
        running.stop()
    assert sorted(statuses()) == ["queued"] * 4 + ["sent"] * 2
    assert len(provider.calls) == 2


def test_a_worker_that_was_stopped_first_sends_nothing(provider):
    queue(1)
    stopped = Worker(1)
    stopped.stop()
    stopped.run()
    assert provider.calls == []


def test_an_idle_worker_hears_at_once_that_it_is_stopped(monkeypatch):
    monkeypatch.setattr(worker, "POLL_EVERY", 60.0)
    with Running():
        time.sleep(0.1)


# Sweeping


def test_a_lost_claim_becomes_uncertain_and_is_not_sent(provider):
    queue(1)
    outbox.claim_due(1)
    Message.objects.update(claimed_at=timezone.now() - timedelta(minutes=5))
    drain()
    assert (statuses(), provider.calls) == (["uncertain"], [])


def test_a_text_that_nobody_announced_is_announced():
    def hear(message, **_):
        heard.append(message.text)

    heard: list[str] = []
    message = services.send_sms("08020000000", "Hello")
    Message.objects.update(
        direction="inbound", status="received", announce_at=timezone.now() - timedelta(minutes=5)
    )
    message_received.connect(hear)
    drain()
    message_received.disconnect(hear)
    assert heard == [message.text]


def test_what_expires_while_it_is_held_back_is_ended(provider):
    provider.then(Behaviour.status(503))
    queue(1)
    queue(1, text="And more")
    Message.objects.filter(text="And more").update(expires_at=timezone.now())
    with Running():
        eventually(lambda: statuses() == ["queued", "failed"])
    assert len(provider.calls) == 1


def test_an_idle_worker_asks_one_question_a_poll(monkeypatch, django_assert_num_queries):
    idle = Worker(4)
    idle._next_sweep = idle._next_beat = math.inf
    with ThreadPoolExecutor(1) as threads, django_assert_num_queries(1):
        assert not idle._round(threads, patient=False)


def test_sweeps_are_repeated_but_not_each_time(monkeypatch):
    def settle_lost():
        swept.append(1)
        return 0

    swept: list[int] = []
    monkeypatch.setattr(outbox, "settle_lost", settle_lost)
    with Running():
        time.sleep(0.2)
        assert len(swept) == 1
    monkeypatch.setattr(worker, "SWEEP_EVERY", 0.0)
    with Running():
        eventually(lambda: len(swept) > 3)


def test_what_a_sweep_leaves_the_next_ones_take_at_once(monkeypatch):
    monkeypatch.setattr(outbox, "SWEEP", 2)
    queue(5, expires_at=timezone.now() + timedelta(hours=1))
    Message.objects.update(expires_at=timezone.now(), due_at=timezone.now() + timedelta(hours=1))
    drain()
    assert statuses() == ["failed"] * 5


def test_texts_that_a_sweep_leaves_the_next_ones_announce_at_once(monkeypatch):
    monkeypatch.setattr(inbox, "SWEEP", 1)
    queue(3)
    long_ago = timezone.now() - timedelta(minutes=5)
    Message.objects.update(direction="inbound", status="received", announce_at=long_ago)
    drain()
    assert not Message.objects.exclude(announce_at=None).exists()


def test_what_ends_while_a_sweep_goes_on_is_recorded_meanwhile(provider, monkeypatch):
    def hear(message, **_):
        time.sleep(0.1)
        heard.append(Message.objects.get(text="Hello").status)

    heard: list[str] = []
    monkeypatch.setattr(outbox, "SWEEP", 1)
    queue(20, expires_at=timezone.now() + timedelta(hours=1))
    Message.objects.update(expires_at=timezone.now(), due_at=timezone.now() + timedelta(hours=1))
    services.send_many([{"to": "08031234567", "text": "Hello"}])
    message_failed.connect(hear)
    drain()
    message_failed.disconnect(hear)
    assert (heard[0], heard[-1]) == ("queued", "sent")


# Showing that it is there


def test_a_worker_shows_that_it_is_there():
    with Running():
        eventually(Heartbeat.last)


def test_a_worker_shows_it_again_but_not_each_time(monkeypatch):
    beats: list[int] = []
    monkeypatch.setattr(Heartbeat, "beat", lambda: beats.append(1))
    with Running():
        time.sleep(0.2)
    assert beats == [1]
    monkeypatch.setattr(worker, "BEAT_EVERY", 0.0)
    with Running():
        eventually(lambda: len(beats) > 3)


def test_a_worker_that_only_drains_shows_that_it_was_there():
    drain()
    assert Heartbeat.last()


@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_that_could_not_send_does_not_show_itself(settings, caplog, number, monkeypatch):
    monkeypatch.setattr(worker, "BEAT_EVERY", 0.0)
    settings.NINEBITS = settings.NINEBITS | {"API_TOKEN": ""}
    queue(number)
    with Running():
        eventually(lambda: caplog.text.count('NINEBITS["API_TOKEN"]') > 2)
    assert Heartbeat.last() is None


def test_a_worker_that_cannot_show_itself_sends_all_the_same(monkeypatch, caplog):
    once(monkeypatch, Heartbeat, "beat", OperationalError("gone"))
    queue(1)
    drain()
    assert statuses() == ["sent"]
    assert "The database failed" in caplog.text


# When 9bits seems to be down


DOWN = NotAccepted("9bits answered 503: Busy", http_status=503)
SILENT = OutcomeUnknown("TimeoutError: no answer before the deadline")


class Clock:
    """For the pauses of a breaker."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr("random.uniform", lambda low, high: high)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def outcome(error, message_id=1):
    return outbox.Outcome(outbox.Claim(message_id, 1, {}, "", "", 0.0), error)


def breaker(*errors, concurrency=16):
    """One that has learnt of these, one after the other."""
    made = worker.Breaker(concurrency)
    for error in errors:
        made.note(outcome(error))
    return made


def pauses(clock, made, *errors):
    """How long it waits after each of these."""
    return [round(pause_after(clock, made, error)) for error in errors]


def pause_after(clock, made, error):
    made.note(outcome(error))
    began = clock.now
    while not made.slots(0):
        clock.now += 0.5
    return clock.now - began


def test_four_failures_in_a_row_are_none_of_9bits(clock):
    made = breaker(*[DOWN] * 4)
    assert (made.is_open, made.slots(6)) == (False, 10)


def test_after_five_failures_in_a_row_nothing_leaves_for_a_while(clock):
    made = breaker(*[DOWN] * 5)
    assert (made.is_open, made.slots(0)) == (True, 0)


def test_then_one_leaves_at_a_time(clock):
    made = breaker(*[DOWN] * 5)
    clock.now += 5
    assert (made.slots(0), made.slots(1)) == (1, 0)


def test_pauses_between_probes_grow_up_to_a_minute(clock):
    made = breaker(*[DOWN] * 4)
    assert pauses(clock, made, *[DOWN] * 6) == [5, 10, 20, 40, 60, 60]


def test_pauses_between_probes_are_spread(clock, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: low)
    assert pauses(clock, breaker(*[DOWN] * 4), DOWN) == [2]


def test_retry_after_is_honoured_up_to_ten_minutes(clock):
    made = breaker(*[DOWN] * 4)
    asked = [NotAccepted("busy", retry_after=seconds) for seconds in (30, 1, 86400)]
    assert pauses(clock, made, *asked) == [30, 10, 600]


@pytest.mark.parametrize("error", [None, Refused("No")])
def test_a_verdict_on_a_message_ends_it(clock, error):
    made = breaker(*[DOWN] * 7, error)
    assert (made.is_open, made.slots(3), made.last_message) == (False, 13, None)
    assert pauses(clock, breaker(*[DOWN] * 7, error, *[DOWN] * 4), DOWN) == [5]


def test_failures_that_are_not_in_a_row_are_none_of_9bits(clock):
    assert not breaker(*[DOWN] * 4, None, *[DOWN] * 4).is_open


def test_what_leaves_a_message_uncertain_takes_its_slot_away(clock):
    assert breaker(SILENT, SILENT, concurrency=4).slots(1) == 1
    assert breaker(SILENT, SILENT, concurrency=4).slots(4) == 0


def test_as_many_uncertain_ones_as_slots_are_enough(clock):
    assert breaker(SILENT, concurrency=1).is_open
    assert not breaker(DOWN, concurrency=1).is_open


def test_another_message_is_tried_where_there_is_one(clock):
    made = worker.Breaker(16)
    made.note(outcome(DOWN, 7))
    made.note(outcome(SILENT, 8))
    assert made.last_message == 8


def test_it_is_told_when_9bits_goes_and_comes_back(clock, caplog):
    breaker(*[DOWN] * 5, None, None)
    assert [record.getMessage() for record in caplog.records] == [
        "9bits seems to be down (503): one message is tried in 5 s",
        "9bits answers again",
    ]


def test_it_is_told_why_9bits_seems_to_be_down(clock, caplog):
    breaker(*[SILENT] * 5)
    assert "(TimeoutError: no answer before the deadline)" in caplog.text


def test_no_more_messages_become_uncertain_than_fit_in_flight(provider, settings):
    settings.NINEBITS |= {"TIMEOUT": 0.3}
    provider.behave(Behaviour.silent())
    queue(12)
    drain(concurrency=3)
    assert sorted(statuses()) == ["queued"] * 9 + ["uncertain"] * 3


def test_what_is_recorded_together_counts_in_the_order_in_which_it_ended(
    provider, settings, monkeypatch
):
    settings.NINEBITS |= {"TIMEOUT": 0.3}
    slow = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _seconds: time.sleep(0.5))
    monkeypatch.setattr(worker, "time", slow)
    provider.then(Behaviour.slow(0.05))
    provider.behave(Behaviour.silent())
    queue(12)
    drain(concurrency=4)
    assert sorted(statuses()) == ["queued"] * 7 + ["sent"] + ["uncertain"] * 4


def test_a_worker_goes_on_once_9bits_is_back(provider, monkeypatch, caplog):
    monkeypatch.setattr(worker, "FIRST_PROBE", 0.1)
    provider.then(*[Behaviour.status(503)] * 5)
    queue(8)
    with Running(concurrency=1):
        eventually(lambda: statuses() == ["sent"] * 8)
    assert len(provider.calls) == 5 + 8
    assert caplog.text.count("9bits seems to be down") == 1
    assert caplog.text.count("9bits answers again") == 1


def test_a_message_that_9bits_never_takes_does_not_stall_the_rest(provider, monkeypatch):
    monkeypatch.setattr(worker, "FAILURES", 1)
    monkeypatch.setattr(worker, "FIRST_PROBE", 0.05)
    monkeypatch.setattr(outbox, "FIRST_PAUSE", timedelta())
    queue(3)
    provider.then(Behaviour.status(503))
    with Running(concurrency=1):
        eventually(lambda: statuses().count("sent") == 3)
    first, second, *_rest = [call.body["ref_id"] for call in provider.calls]
    assert first != second


# When something fails


@pytest.mark.parametrize(
    "name", ["claim_due", "settle_lost", "end_expired", "record_together", "is_any_due"]
)
def test_a_database_that_fails_is_waited_for(provider, monkeypatch, name):
    calls = once(monkeypatch, outbox, name, OperationalError("gone"))
    queue(3)
    with Running():
        eventually(lambda: statuses() == ["sent"] * 3 and len(calls) > 1)
    assert len(provider.calls) == 3


def test_a_database_that_fails_ends_once(monkeypatch):
    once(monkeypatch, outbox, "claim_due", OperationalError("gone"))
    queue(1)
    with pytest.raises(OperationalError):
        drain()


def test_what_is_in_flight_is_recorded_though_once_fails(provider, monkeypatch):
    provider.behave(Behaviour.slow(0.2))
    claim_due = outbox.claim_due
    answers = iter([None])

    def failing(limit, **options):
        if next(answers, "no more") is None:
            return claim_due(limit, **options)
        raise OperationalError("gone")

    monkeypatch.setattr(outbox, "claim_due", failing)
    queue(2)
    with pytest.raises(OperationalError):
        drain()
    assert statuses() == ["sent"] * 2


def test_recording_is_tried_again_at_the_end(provider, monkeypatch):
    provider.behave(Behaviour.slow(0.2))
    queue(1)
    with Running() as running:
        provider.wait_for_calls(1)
        calls = once(monkeypatch, outbox, "record_together", OperationalError("gone"))
        running.stop()
    assert (statuses(), len(calls)) == (["sent"], 2)


def test_recording_is_given_up_in_the_end(provider, monkeypatch, caplog):
    def record_together(outcomes):
        raise OperationalError("gone")

    monkeypatch.setattr(outbox, "record_together", record_together)
    queue(1)
    with Running():
        provider.wait_for_calls(1)
    assert statuses() == ["sending"]
    assert "could not be recorded" in caplog.text


def one_by_one(monkeypatch):
    """As where the database would not record all of them together."""
    monkeypatch.setattr(outbox, "record_together", list)


@pytest.mark.parametrize("error", [OperationalError("gone"), InternalError("read-only")])
def test_a_database_that_fails_while_one_is_recorded_is_waited_for(provider, monkeypatch, error):
    one_by_one(monkeypatch)
    calls = once(monkeypatch, outbox, "record", error)
    queue(3)
    with Running():
        eventually(lambda: statuses() == ["sent"] * 3)
    assert len(calls) == 4


@pytest.mark.parametrize("error", [DataError("x"), IntegrityError("x"), RuntimeError("x")])
def test_an_outcome_that_cannot_be_recorded_keeps_no_other(provider, monkeypatch, error):
    one_by_one(monkeypatch)
    once(monkeypatch, outbox, "record", error)
    queue(4)
    drain(concurrency=2)
    assert sorted(statuses()) == ["sending"] + ["sent"] * 3


def test_an_attempt_that_breaks_off_keeps_no_other(provider, monkeypatch):
    once(monkeypatch, outbox, "attempt", RuntimeError("bug"))
    queue(4)
    drain(concurrency=2)
    assert sorted(statuses()) == ["sending"] + ["sent"] * 3
    Message.objects.filter(status="sending").update(
        claimed_at=timezone.now() - timedelta(minutes=5)
    )
    drain()
    assert sorted(statuses()) == ["sent"] * 3 + ["uncertain"]
    assert len(provider.calls) == 3


def test_a_message_that_vanishes_keeps_no_other(provider):
    provider.behave(Behaviour.slow(0.2))
    queue(2)
    with Running():
        provider.wait_for_calls(2)
        Message.objects.order_by("id")[:1].get().delete()
        eventually(lambda: statuses() == ["sent"])


class FewThreads(ThreadPoolExecutor):
    """On a machine that starts two and no more."""

    def _adjust_thread_count(self):
        if len(self._threads) == 2:
            raise RuntimeError("can't start new thread")
        super()._adjust_thread_count()


def test_where_threads_cannot_be_started_nothing_is_claimed(provider, monkeypatch):
    monkeypatch.setattr(worker, "ThreadPoolExecutor", FewThreads)
    queue(3)
    with pytest.raises(ImproperlyConfigured, match="CONCURRENCY"):
        drain(concurrency=3)
    assert (statuses(), provider.calls) == (["queued"] * 3, [])


def test_without_a_token_it_waits_for_one(provider, settings, caplog):
    token = settings.NINEBITS["API_TOKEN"]
    settings.NINEBITS = settings.NINEBITS | {"API_TOKEN": ""}
    queue(1)
    with Running():
        eventually(lambda: 'NINEBITS["API_TOKEN"]' in caplog.text)
        settings.NINEBITS = settings.NINEBITS | {"API_TOKEN": token}
        eventually(lambda: statuses() == ["sent"])


def test_without_a_token_once_fails(settings):
    settings.NINEBITS = settings.NINEBITS | {"API_TOKEN": ""}
    queue(1)
    with pytest.raises(ImproperlyConfigured, match="API_TOKEN"):
        drain()
    assert statuses() == ["queued"]


def test_logs_show_no_number_text_or_token(provider, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    provider.then(Behaviour.status(429, b"08020000000 simulator-token"))
    one_by_one(monkeypatch)
    once(monkeypatch, outbox, "record", DataError("0802000000 Hello simulator-token"))
    queue(3)
    drain(1)
    logged = "".join(r.getMessage() for r in caplog.records if r.name != "django.db.backends")
    assert "DataError" in logged
    for secret in ("80200000", "Hello", "simulator-token"):
        assert secret not in logged


# The command


def run(*arguments):
    out = StringIO()
    call_command("ninebits_worker", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_sends_what_is_due(provider):
    queue(2)
    assert "16 at a time" in run("--once")
    assert statuses() == ["sent"] * 2


def test_the_command_takes_a_concurrency():
    assert "3 at a time" in run("--once", "--concurrency=3")


@pytest.mark.parametrize("number", ["0", "-1", "1001", "many"])
def test_the_command_refuses_a_concurrency_that_is_none(number):
    with pytest.raises(CommandError, match="concurrency"):
        run("--once", f"--concurrency={number}")


@pytest.mark.parametrize("key", ["API_TOKEN", "CONCURRENCY"])
def test_the_command_says_which_setting_is_wrong(settings, key):
    settings.NINEBITS = settings.NINEBITS | {key: ""}
    queue(1)
    with pytest.raises(CommandError, match=key):
        run("--once")


def test_the_command_says_that_the_database_failed(monkeypatch):
    once(monkeypatch, outbox, "is_any_due", OperationalError("password s3cret"))
    with pytest.raises(CommandError, match="OperationalError") as caught:
        run("--once")
    assert "s3cret" not in str(caught.value)


def test_the_command_gives_the_signals_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run("--once")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_stop_finishes_what_is_in_flight(provider, number):
    provider.behave(Behaviour.slow(1.0))
    queue(3)
    process = start_worker(provider, "--concurrency=2")
    provider.wait_for_calls(2, timeout=30)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert sorted(statuses()) == ["queued", "sent", "sent"]


def start_worker(provider, *arguments, quiet=False, **settings):
    """A worker in a process of its own, on the database of the tests."""
    told = {"API_URL": provider.url, "API_TOKEN": provider.token, "TIMEOUT": 5} | settings
    output = subprocess.DEVNULL if quiet else subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "django", "ninebits_worker", *arguments],
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "NINEBITS_TEST_DATABASE": url_of_the_test_database(),
            "NINEBITS_TEST_SETTINGS": json.dumps(told),
        },
        stdout=output,
        stderr=output,
        text=True,
    )
