"""What the webhook promises when everything comes at once: real processes, a real database."""

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import chain
from typing import Any

import pytest
import requests
from django.conf import settings

from django_ninebits.models import Contact, Conversation, Message, QuarantinedDelivery
from tests.databases import url_of_the_test_database

PROCESSES = 3
THREADS = 24

pytestmark = pytest.mark.django_db(transaction=True)


class Host:
    """Several processes that serve the webhook on the database of the tests."""

    def __init__(self, ports, heard):
        self.ports = ports
        self.heard_file = heard

    def post_all(self, bodies, threads=THREADS):
        """Deliver them all at once → how often each answer came.

        Each thread speaks to one of the processes, over a connection that it keeps.
        """
        waiting = deque(bodies)
        start = threading.Barrier(threads)

        def post(number):
            with requests.Session() as session:
                url = f"http://127.0.0.1:{self.ports[number % PROCESSES]}/hooks/9bits/webhook/"
                session.headers["Authorization"] = "Bearer test-token"
                session.trust_env = False
                start.wait()
                answers = []
                with suppress(IndexError):
                    while True:
                        answers.append(session.post(url, data=waiting.popleft(), timeout=60))
            return [(answer.status_code, answer.json()["status"]) for answer in answers]

        with ThreadPoolExecutor(threads) as pool:
            return Counter(chain.from_iterable(pool.map(post, range(threads))))

    def heard(self):
        """The ids that receivers heard of, in all processes."""
        return [int(line) for line in self.heard_file.read_text().split()]


@pytest.fixture(scope="module")
def processes(tmp_path_factory, django_db_setup):
    heard = tmp_path_factory.mktemp("host") / "heard"
    # One process is enough to be measured: that takes more time than all the rest.
    coverage = {name: os.environ[name] for name in os.environ if name.startswith("COVERAGE_")}
    environment = {name: os.environ[name] for name in os.environ.keys() - coverage.keys()} | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "NINEBITS_TEST_DATABASE": url_of_the_test_database(),
        "NINEBITS_TEST_HEARD": str(heard),
    }
    with ExitStack() as stack:
        servers: list[Any] = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.webhook_server"],
                    cwd=settings.BASE_DIR,
                    env=environment | (coverage if number == 0 else {}),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(PROCESSES)
        ]
        yield Host([int(server.stdout.readline()) for server in servers], heard)


@pytest.fixture
def host(processes):
    processes.heard_file.write_text("")
    return processes


def delivery(number, sender="2348020000000"):
    return json.dumps(
        {
            "type": "two-way sms",
            "telco": "mtn",
            "from": sender,
            "to": "48974",
            "message": f"Text {number}",
            "session_id": "67543uhn3",
            "sent_date": f"2024-01-02T23:50:37.{number:06}Z",
            "ref_id": f"reference-{number}",
        }
    )


def test_a_delivery_that_comes_forty_times_at_once_is_one_message_and_one_signal(host):
    answers = host.post_all([delivery(1)] * 40, threads=40)
    assert answers == {(200, "stored"): 1, (200, "repeated"): 39}
    message = Message.objects.get()
    assert host.heard() == [message.pk]
    assert Conversation.objects.get().unread_count == 1
    assert not QuarantinedDelivery.objects.exists()


def test_a_hundred_texts_eight_times_each_are_a_hundred_unread(host):
    bodies = [delivery(number) for number in range(100) for _ in range(8)]
    answers = host.post_all(bodies)
    assert answers == {(200, "stored"): 100, (200, "repeated"): 700}
    assert Conversation.objects.get().unread_count == 100
    ids = set(Message.objects.values_list("id", flat=True))
    assert len(ids) == 100
    assert sorted(host.heard()) == sorted(ids)


def test_texts_of_a_new_subscriber_at_once_are_one_thread_whose_ids_follow_commits(host):
    bodies = [delivery(number) for number in range(200)]
    random.shuffle(bodies)
    with ThreadPoolExecutor(1) as background:
        answers = background.submit(host.post_all, bodies)
        seen, looks = watch_ids(until=answers.done)
    assert answers.result() == {(200, "stored"): 200}
    assert (Contact.objects.count(), Conversation.objects.count(), len(seen)) == (1, 1, 200)
    assert seen == sorted(seen)
    assert looks > 10


def watch_ids(until):
    """The ids of messages in the order in which they came to be seen, and how many looks had any.

    Whatever is committed together is seen together; among those, ids say nothing of the order.
    """
    seen: list[int] = []
    looks = 0
    is_last = False
    while not is_last:
        is_last = until()
        new = sorted(set(Message.objects.values_list("id", flat=True)) - set(seen))
        looks += bool(new)
        seen += new
    return seen, looks
