"""Pages of conversations that are found by a key: the first or the 5,000th, it costs the same.

A list is a chain of stretches. In each, rows are in the order of an index, and a page is a piece of
the chain that begins behind a key, or ends before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from django.db.models import Q, QuerySet

from django_ninebits.models import Conversation, aware_time, stored_time

#: Conversations on one page.
PAGE = 50

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Key:
    """Where a row stands in the chain: pages begin behind it, or end before it."""

    stretch: int
    moment: datetime
    pk: int

    @classmethod
    def read(cls, written: str) -> Self | None:
        """``None`` for what no page has written."""
        try:
            stretch, microseconds, pk = map(int, written.split("."))
            moment = stored_time(_EPOCH + microseconds * _MICROSECOND)
        except (ValueError, OverflowError):
            return None
        return cls(stretch, moment, pk) if abs(pk) < 2**63 else None

    def __str__(self) -> str:
        microseconds = (aware_time(self.moment) - _EPOCH) // _MICROSECOND
        return f"{self.stretch}.{microseconds}.{self.pk}"


@dataclass(frozen=True)
class Stretch:
    """Conversations in the order of a column that an index has, with the id to tell apart."""

    condition: Q
    column: str
    is_newest_first: bool
    #: What the index has before the column, where that may be looked for as NULL: PostgreSQL takes
    #: the rest of such an index for sorted only if it is told to sort by this as well.
    lead: tuple[str, ...] = ()

    def rows(
        self, found: QuerySet[Conversation], key: Key | None, *, is_backwards: bool
    ) -> QuerySet[Conversation]:
        """Those behind ``key``, or before it, the nearest first."""
        is_descending = self.is_newest_first != is_backwards
        rows = found.filter(self.condition, **{f"{self.column}__isnull": False})
        if key is not None:
            rows = rows.filter(self._beyond(key, "lt" if is_descending else "gt"))
        sign = "-" if is_descending else ""
        return rows.order_by(*(f"{sign}{name}" for name in (*self.lead, self.column, "pk")))

    def key(self, number: int, row: Conversation) -> Key:
        return Key(number, getattr(row, self.column), row.pk)

    def _beyond(self, key: Key, than: str) -> Q:
        # The first part is what an index can begin at, on every database.
        at_or_beyond = Q(**{f"{self.column}__{than}e": key.moment})
        return at_or_beyond & (
            Q(**{f"{self.column}__{than}": key.moment}) | Q(**{f"pk__{than}": key.pk})
        )


@dataclass(frozen=True)
class Page:
    """Rows that follow each other, and where the pages beside them begin."""

    rows: list[Conversation]
    before: Key | None
    after: Key | None

    @classmethod
    def of(
        cls,
        found: QuerySet[Conversation],
        stretches: list[Stretch],
        *,
        after: Key | None = None,
        before: Key | None = None,
        size: int = PAGE,
    ) -> "Page":
        is_backwards = before is not None
        walked = list(_walk(found, stretches, before or after, is_backwards, size + 1))
        if is_backwards and len(walked) <= size:
            # What has come meanwhile would be left out of a page that ends here.
            return cls.of(found, stretches, size=size)
        has_more = len(walked) > size
        walked = walked[:size]
        if is_backwards:
            walked.reverse()
        if not walked:
            return cls([], None, None)
        keys = [stretches[number].key(number, row) for number, row in (walked[0], walked[-1])]
        return cls(
            [row for _number, row in walked],
            before=keys[0] if after or is_backwards else None,
            after=keys[1] if has_more or is_backwards else None,
        )


def _walk(
    found: QuerySet[Conversation],
    stretches: list[Stretch],
    key: Key | None,
    is_backwards: bool,
    count: int,
) -> Iterable[tuple[int, Conversation]]:
    """So many rows with the numbers of their stretches, from ``key`` on."""
    numbers = range(len(stretches))[:: -1 if is_backwards else 1]
    start = numbers[0] if key is None else key.stretch
    seen: set[int] = set()
    for number in numbers[numbers.index(start) :] if start in numbers else numbers:
        mine = key if key is not None and key.stretch == number else None
        rows = stretches[number].rows(found, mine, is_backwards=is_backwards)
        for row in rows[: count - len(seen)]:
            # One that was answered since the stretch before was read is in this one too.
            if row.pk not in seen:
                seen.add(row.pk)
                yield number, row
        if len(seen) == count:
            return
