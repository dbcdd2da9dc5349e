"""Writes that fail only because others hold what they need, and so are made again.

Deadlocks are nobody's fault: MariaDB finds some between two inserts of what was deleted before.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import Error, InterfaceError, OperationalError, connections

from django_ninebits.models import database

Written = TypeVar("Written")

#: How often the same is written, at most.
TRIES = 4

# Deadlock, serialization failure and lock timeout, as PostgreSQL and MariaDB number them.
_SQLSTATES = {"40001", "40P01", "55P03"}
_ERRNOS = {1205, 1213}


def is_contention(error: Error) -> bool:
    """Whether others hold what is needed. Then nothing was written, and the same may succeed."""
    driver = error.__cause__
    sqlstate = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
    sqlite_busy_or_locked = getattr(driver, "sqlite_errorcode", 0) & 0xFF in {5, 6}
    errno = error.args[0] if error.args else None
    return sqlstate in _SQLSTATES or errno in _ERRNOS or sqlite_busy_or_locked


def persistently(
    write: Callable[[], Written], *, passes: Callable[[Error], bool] = is_contention
) -> Written:
    """Write, and write again after what ``passes``; within a transaction, only its owner can."""
    connection = connections[database()]
    for _try in range(TRIES - 1):
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            if connection.in_atomic_block or not passes(error):
                raise
            connection.close_if_unusable_or_obsolete()
            time.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - only to spread
    return write()
