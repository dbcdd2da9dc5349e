"""The ``ninebits_worker`` command."""

import signal
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from django_ninebits.conf import conf
from django_ninebits.worker import Worker


@contextmanager
def _stopped_by_signals(worker: Worker) -> Iterator[None]:
    """SIGTERM and Ctrl-C stop ``worker``; afterwards they do again what they did before."""
    before = {
        number: signal.signal(number, lambda *_args: worker.stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Command(BaseCommand):
    """Parses, starts, stops."""

    help = "Sends queued messages until SIGTERM, then finishes what is in flight."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="Send what is due, then exit, instead of waiting."
        )
        parser.add_argument(
            "--concurrency",
            type=int,
            metavar="N",
            help='Requests in flight at most. The default is NINEBITS["CONCURRENCY"].',
        )

    def handle(self, *args: Any, **options: Any) -> None:
        concurrency = options["concurrency"]
        if concurrency is not None and not 1 <= concurrency <= 1000:
            raise CommandError("--concurrency must be from 1 to 1000.")
        try:
            worker = Worker(conf.concurrency if concurrency is None else concurrency)
            self.stdout.write(f"Sending, {worker.concurrency} at a time. Stop with Ctrl-C.")
            # Into a pipe or a log, too.
            self.stdout.flush()
            with _stopped_by_signals(worker):
                worker.run(once=options["once"])
        except ImproperlyConfigured as mistake:
            raise CommandError(str(mistake)) from mistake
        except Error as error:
            raise CommandError(
                f"The database failed ({type(error).__name__}). Can it be reached, and has"
                " `migrate` been run?"
            ) from error
