"""How much of what 9bits could take a worker hands to it.

``make throughput`` runs it, on the database of ``NINEBITS_TEST_DATABASE``. The ceiling is what so
many requests in flight allow where each is answered after so long. The baseline of the same run is
this app's client alone: the same calls from as many threads, without a database.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import django
from django.db import connection

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.utils import timezone  # noqa: E402

from django_ninebits import client, services  # noqa: E402
from django_ninebits.models import Message  # noqa: E402
from django_ninebits.wire import write_call  # noqa: E402
from tests.databases import url_of_the_test_database  # noqa: E402


class Provider:
    """The 9bits of ``benchmarks.provider``, in a process of its own."""

    def __init__(self, answer_after: float) -> None:
        command = [sys.executable, "-m", "benchmarks.provider", str(answer_after)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.url = f"http://127.0.0.1:{self._line().strip()}/"

    def rate(self) -> float:
        """Calls accepted a second since this was asked last."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        return float(self._line().split()[1])

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def queue(number: int) -> None:
    services.send_many(
        {"to": f"+23480{n:08}", "text": f"Hello {n}, your parcel is on its way."}
        for n in range(number)
    )


@contextmanager
def outbox(number: int) -> Iterator[None]:
    """So many messages that are due, to as many subscribers, on a database made for this."""
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        queue(number)
        yield
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)


def by_the_client(provider: Provider, number: int, in_flight: int) -> float:
    def send(n: int) -> None:
        call = write_call(
            sender="48974",
            to=f"+23480{n:08}",
            text=f"Hello {n}, your parcel is on its way.",
            session_id="1",
            ref_id=str(n),
            sent_date=timezone.now(),
        )
        client.send(call, url=provider.url, token="t", deadline=time.monotonic() + 10)  # noqa: S106

    with ThreadPoolExecutor(in_flight) as threads:
        list(threads.map(send, range(number)))
    return provider.rate()


def by_workers(provider: Provider, workers: int, in_flight: int, core: int | None) -> float:
    told = {"API_URL": provider.url}
    command = [] if core is None else ["taskset", "--cpu-list", str(core)]
    command += [sys.executable, "-m", "django", "ninebits_worker", "--once"]
    command += [f"--concurrency={in_flight // workers}"]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ
            | {
                "NINEBITS_TEST_DATABASE": url_of_the_test_database(),
                "NINEBITS_TEST_SETTINGS": json.dumps(told),
            },
            stdout=subprocess.DEVNULL,
        )
        for _ in range(workers)
    ]
    assert {process.wait() for process in processes} == {0}
    assert not Message.objects.exclude(status="sent").exists()
    return provider.rate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--core", type=int, help="bind the workers to this core, on Linux")
    parser.add_argument("--answer-after", type=float, default=0.05, metavar="SECONDS")
    options = parser.parse_args()
    ceiling = options.in_flight / options.answer_after
    provider = Provider(options.answer_after)
    with outbox(options.messages):
        alone = by_the_client(provider, options.messages, options.in_flight)
        worked = by_workers(provider, options.workers, options.in_flight, options.core)
    print(f"{connection.vendor}, {options.in_flight} in flight, {options.workers} worker(s)")
    print(f"ceiling          {ceiling:7.0f} a second")
    print(f"the client alone {alone:7.0f} a second, {alone / ceiling:.2f} of the ceiling")
    print(f"the worker       {worked:7.0f} a second, {worked / ceiling:.2f} of the ceiling")


if __name__ == "__main__":
    main()
