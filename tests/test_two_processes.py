"""The verbs, called by two real processes at the same instant, or by one that is killed."""

import json
import os
import subprocess
import sys
from contextlib import closing
from typing import Any

import pytest
from django.db import connection

from django_ninebits.models import Contact, Conversation, Message
from tests.databases import url_of_the_test_database
from tests.settings import BASE_DIR

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]

ROUNDS = 40
BATCH = 100


class Calling:
    """A process that calls what it is told."""

    def __enter__(self):
        self.process: Any = subprocess.Popen(
            [sys.executable, "-m", "tests.calling_process"],
            cwd=BASE_DIR,
            env=os.environ
            | {
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "NINEBITS_TEST_DATABASE": url_of_the_test_database(),
                "NINEBITS_TEST_SETTINGS": '{"DISPATCHER": "django_ninebits.dispatch.defer"}',
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.hear() == "ready"
        return self

    def __exit__(self, *exc_info):
        self.process.communicate(timeout=30)

    def tell(self, *what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self):
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def processes(django_db_setup):
    with Calling() as one, Calling() as other:
        yield one, other


@pytest.fixture(autouse=True)
def _what_was_deleted_is_still_there():
    """For whoever began before, as on a busy machine: MariaDB locks more around such rows."""
    with closing(connection.copy()) as earlier, earlier.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        yield


@pytest.fixture
def at_once(processes):
    """Let each process make one of two calls → what came of them."""

    def call(name, one, other):
        for process, arguments in zip(processes, (one, other), strict=True):
            process.tell(name, arguments)
        return [process.hear() for process in processes]

    return call


def hello(number, **changes):
    return {"to": f"080200{number:05}", "text": "Hello", "ref_id": f"r{number}"} | changes


def test_the_same_reference_from_two_processes_at_once_is_one_message(at_once):
    for number in range(ROUNDS):
        one, other = at_once("send_sms", hello(number), hello(number))
        assert one == other == {"message": Message.objects.get(ref_id=f"r{number}").pk}
    assert Contact.objects.count() == Conversation.objects.count() == ROUNDS


@pytest.mark.parametrize("change", [{"text": "Bye"}, {"to": "08031112222"}, {"sender": "55020"}])
def test_the_same_reference_for_something_else_at_once_is_an_error_that_names_the_first(
    at_once, change
):
    for number in range(ROUNDS):
        answers = at_once("send_sms", hello(number), hello(number, **change))
        [conflict] = [answer for answer in answers if "words" in answer]
        first = Message.objects.get(ref_id=f"r{number}").pk
        assert {"message": first} in answers
        assert conflict["first"] == first
        assert f"message {first}" in conflict["words"]


@pytest.mark.parametrize("step", [1, -1])
def test_references_in_two_bulks_at_once_are_stored_once(at_once, step):
    for number in range(0, ROUNDS * 10, 20):
        one = [hello(n) for n in range(number, number + 30)]
        other = [hello(n) for n in range(number + 10, number + 40)][::step]
        answers = at_once(
            "send_many",
            {"messages": one, "batch_size": 10},
            {"messages": other, "batch_size": 10},
        )
        assert sum(answers) == 40 - (20 if number else 0)
        assert Message.objects.count() == number + 40


# Killed


@pytest.mark.parametrize("halts", [1, 3])
def test_a_batch_is_stored_whole_or_not_at_all_though_its_process_is_killed(processes, halts):
    bulk = {"messages": [hello(n) for n in range(3 * BATCH)], "batch_size": BATCH}
    with Calling() as killed:
        killed.tell("send_many_haltingly", bulk)
        for _ in range(halts - 1):
            assert killed.hear() == "halted"
            killed.tell("go on")
        assert killed.hear() == "halted"
        killed.process.kill()
    stored = Message.objects.count()
    assert stored % BATCH == 0
    assert called_again(processes[0], bulk) == 3 * BATCH - stored


def called_again(process, bulk):
    process.tell("send_many_haltingly", bulk)
    while (answer := process.hear()) == "halted":
        process.tell("go on")
    return answer
