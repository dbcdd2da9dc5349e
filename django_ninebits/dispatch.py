"""Dispatchers: told, after commit, that messages were queued. Only a hint: the row is the truth.

A host's own is any callable that takes a list of message ids, such as one that wakes a task queue::

    def enqueue(message_ids: list[int]) -> None:
        for message_id in message_ids:
            send_message.delay(message_id)  # a task that calls outbox.send_now(message_id)
"""

import logging

from django.core.exceptions import ImproperlyConfigured

from django_ninebits.conf import conf
from django_ninebits.exceptions import traceback_without_values
from django_ninebits.models import after_commit
from django_ninebits.outbox import send_now

logger = logging.getLogger(__name__)


def inline(message_ids: list[int]) -> None:
    """Send in the caller's thread, after commit. What 9bits does not take is left to a worker."""
    for message_id in message_ids:
        send_now(message_id)


def defer(message_ids: list[int]) -> None:
    """Leave them to a worker."""


def hint_after_commit(message_ids: list[int]) -> None:
    """Call the dispatcher of the settings once the messages are there for everybody."""
    after_commit(lambda: _hint(message_ids))


def _hint(message_ids: list[int]) -> None:
    try:
        conf.dispatcher(message_ids)
    except Exception as error:  # noqa: BLE001 - the messages are stored, and a worker finds them
        why = str(error) if isinstance(error, ImproperlyConfigured) else ""
        logger.error(
            "The dispatcher failed; a worker will send what was queued. %s\n%s",
            why,
            traceback_without_values(error),
        )
