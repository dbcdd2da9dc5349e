"""The ``ninebits_status`` command."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from django_ninebits.status import Status, measure

#: Exit codes, as Nagios and Icinga read them.
CRITICAL = 2
UNKNOWN = 3


@dataclass(frozen=True)
class Threshold:
    """A number that may not be passed, and what to do when it is."""

    name: str
    unit: str
    what: str
    measured: Callable[[Status], float]
    advice: str
    never: str = ""
    """What it says where what is measured never happened."""

    def problem(self, status: Status, limit: float) -> str:
        measured, allowed = self._written(self.measured(status)), self._written(limit)
        return f"{self.what}: {measured}; {allowed} is allowed. {self.advice}"

    def _written(self, number: float) -> str:
        if number == inf:
            return self.never
        return _duration(number) if self.unit == "SECONDS" else str(number)


def _age(status: Status, moment: datetime | None) -> float:
    # The clocks of several machines differ.
    return max((status.measured_at - moment).total_seconds(), 0.0) if moment else 0.0


def _since(status: Status, moment: datetime | None) -> float:
    return _age(status, moment) if moment else inf


THRESHOLDS = [
    Threshold(
        "max_queued",
        "N",
        "Queued messages",
        lambda status: status.queued,
        "Is a worker running, and does it keep up?",
    ),
    Threshold(
        "max_due_age",
        "SECONDS",
        "Longest wait of a due message",
        lambda status: _age(status, status.oldest_due_at),
        "Is a worker running? Its log says what it waits for.",
    ),
    Threshold(
        "max_uncertain",
        "N",
        "Uncertain messages that nobody has decided about",
        lambda status: status.undecided,
        "Decide about each: in the admin, they are under Messages.",
    ),
    Threshold(
        "max_quarantined",
        "N",
        "Quarantined deliveries",
        lambda status: status.quarantined,
        "Read them in the admin, mend what is wrong, and take them in again.",
    ),
    Threshold(
        "max_unannounced_age",
        "SECONDS",
        "Longest wait of an unannounced text",
        lambda status: _age(status, status.oldest_unannounced_at),
        "Is a worker running? It announces what a process that died has left.",
    ),
    Threshold(
        "max_silence",
        "SECONDS",
        "Silence from 9bits",
        lambda status: _since(status, status.last_text_at),
        "Does 9bits reach the webhook? The log says who was turned away.",
        never="no text ever came",
    ),
    Threshold(
        "max_worker_silence",
        "SECONDS",
        "Silence of the workers",
        lambda status: _since(status, status.last_worker_at),
        "Is a worker running? Its log says what keeps it from sending.",
        never="none was ever there",
    ),
]


class Command(BaseCommand):
    """Measures, prints, judges."""

    help = "Says what waits and why. With thresholds, its exit code is for monitoring."

    # A setting that is wrong is what one may want to see the effects of.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")
        for threshold in THRESHOLDS:
            parser.add_argument(
                f"--{threshold.name.replace('_', '-')}",
                type=_limit,
                metavar=threshold.unit,
                help=f"{threshold.what}: above this, the exit code is {CRITICAL}.",
            )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            status = measure()
        except ImproperlyConfigured as mistake:
            raise CommandError(str(mistake), returncode=UNKNOWN) from mistake
        except Error as error:
            raise CommandError(
                f"The database failed ({type(error).__name__}). Can it be reached, and has"
                " `migrate` been run?",
                returncode=UNKNOWN,
            ) from error
        passed = list(_passed(status, options))
        lines = [_as_json(status, passed)] if options["json"] else _in_words(status)
        self.stdout.write("\n".join(lines))
        if passed:
            problems = [one.problem(status, options[one.name]) for one in passed]
            raise CommandError("\n".join(problems), returncode=CRITICAL)


def _limit(written: str) -> int:
    if not (written.isascii() and written.isdigit()):
        raise ArgumentTypeError(f"{written!r} is not a whole number from 0")
    return int(written)


def _passed(status: Status, options: dict[str, Any]) -> Iterator[Threshold]:
    for threshold in THRESHOLDS:
        limit = options[threshold.name]
        if limit is not None and threshold.measured(status) > limit:
            yield threshold


def _as_json(status: Status, passed: Iterable[Threshold]) -> str:
    facts: dict[str, Any] = {}
    for name, value in asdict(status).items():
        facts[name] = value
        if name.endswith("_at") and name != "measured_at":
            seconds = None if value is None else int(_age(status, value))
            facts[f"{name.removesuffix('_at')}_seconds"] = seconds
    facts["passed"] = [threshold.name for threshold in passed]
    return json.dumps(facts, default=_iso)


def _in_words(status: Status) -> list[str]:
    def ago(moment: datetime | None, before: str = "") -> str:
        if moment is None:
            return ""
        return f"{before}{_duration(_age(status, moment))} ago, at {_iso(moment)}"

    rows: list[tuple[str, object, str]] = [
        ("queued", status.queued, ""),
        ("due", status.due, ago(status.oldest_due_at, "the oldest ")),
        ("tried before", status.tried, ""),
        *(("", one.count, f"{one.reason}, {ago(one.newest_at)}") for one in status.reasons),
        ("sending", status.sending, ""),
        ("uncertain", status.uncertain, f"{status.undecided} to decide about"),
        ("quarantined", status.quarantined, ago(status.last_quarantined_at, "the last ")),
        ("unannounced", status.unannounced, ago(status.oldest_unannounced_at, "the oldest ")),
        ("last text heard", "", ago(status.last_text_at) or "never"),
        ("last message accepted", "", ago(status.last_accepted_at) or "never"),
        ("last sign of a worker", "", ago(status.last_worker_at) or "never"),
    ]
    return [f"{what:21}  {count:>7}  {more}".rstrip() for what, count, more in rows]


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
