"""Databases that will not."""

from contextlib import contextmanager

from django.db import OperationalError
from django.db.models.signals import pre_save

from django_ninebits.models import Message


class Locked(Exception):
    pass


def locked():
    """What each driver says of a deadlock or a lock."""
    said = [OperationalError(errno, "locked") for errno in (1205, 1213)]
    for attribute, value in [
        ("sqlstate", "40001"),
        ("sqlstate", "40P01"),
        ("pgcode", "55P03"),
        ("sqlite_errorcode", 5),
        ("sqlite_errorcode", 6 | 1 << 8),
    ]:
        driver = Locked()
        setattr(driver, attribute, value)
        error = OperationalError("locked")
        error.__cause__ = driver
        said.append(error)
    return said


@contextmanager
def failing(error, sender=Message, times=100):
    """The first ``times`` saves of a row of ``sender`` raise ``error``."""
    raised: list[Exception] = []

    def fail(**_):
        if len(raised) < times:
            raised.append(error)
            raise error

    pre_save.connect(fail, sender=sender)
    try:
        yield raised
    finally:
        pre_save.disconnect(fail, sender=sender)


def once(monkeypatch, module, name, error):
    """Let a function fail the first time → how often it was called."""
    real, calls = getattr(module, name), []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) == 1:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(module, name, failing)
    return calls
