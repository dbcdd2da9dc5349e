"""Whether a subscriber wants messages: STOP opts out, START opts in again.

Only a text that is exactly one of the words says so, and it counts from the moment it is stored.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Q

from django_ninebits.conf import DEFAULTS, conf, normal
from django_ninebits.models import ConsentChange, Contact, Message

logger = logging.getLogger(__name__)


def meaning(text: str) -> ConsentChange.Became | None:
    """What a subscriber becomes who texts this; ``None`` where it is none of the words."""
    opt_out_words, opt_in_words = words()
    word = normal(text)
    if word in opt_out_words:
        return ConsentChange.Became.OPTED_OUT
    return ConsentChange.Became.OPTED_IN if word in opt_in_words else None


def words() -> tuple[frozenset[str], frozenset[str]]:
    """Those that opt out and those that opt in; of a list that is wrong, the defaults."""
    return (
        _or_defaults("OPT_OUT_WORDS", lambda: conf.opt_out_words),
        _or_defaults("OPT_IN_WORDS", lambda: conf.opt_in_words),
    )


def _or_defaults(key: str, read: Callable[[], frozenset[str]]) -> frozenset[str]:
    try:
        return read()
    except ImproperlyConfigured as problem:
        # Neither a text nor an opt-out may be lost by a mistake in the settings.
        logger.error("The default words are read instead: %s", problem)
        return frozenset(map(normal, DEFAULTS[key]))


def heed(message: Message, said_at: datetime) -> None:
    """Do what an inbound text says, if it is one of the words, in the transaction that stores it.

    ``said_at`` is when it was sent: what was sent before the latest word does not undo it, however
    late it comes.
    """
    became = meaning(message.text)
    if became is None:
        return
    contact = message.conversation.contact
    mine = Contact.objects.filter(pk=contact.pk)
    # Written first, even where it changes nothing more, so that a word which comes at the same
    # instant on another short code is waited for before anybody looks what is so already.
    if not mine.filter(Q(consent_at=None) | Q(consent_at__lte=said_at)).update(consent_at=said_at):
        return
    # Receivers get this instance: what they save of it must not undo the change.
    contact.consent_at = said_at
    is_out = became == ConsentChange.Became.OPTED_OUT
    opted_out_at = message.created_at if is_out else None
    if mine.filter(opted_out_at__isnull=is_out).update(opted_out_at=opted_out_at):
        ConsentChange.objects.create(
            contact=contact, message=message, became=became, changed_at=message.created_at
        )
        contact.opted_out_at = opted_out_at
