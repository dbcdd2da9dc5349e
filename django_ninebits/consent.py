"""Whether a subscriber wants messages: STOP opts out, START opts in again.

Only a text that is exactly one of the words says so, and it counts from the moment it is stored.
"""

import logging
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
    """Those that opt out and those that opt in; the defaults where the settings are wrong."""
    try:
        return conf.opt_out_words, conf.opt_in_words
    except ImproperlyConfigured as problem:
        # Neither a text nor an opt-out may be lost by a mistake in the settings.
        logger.error("STOP and START are read by their default words: %s", problem)
        default, opposite = DEFAULTS["OPT_OUT_WORDS"], DEFAULTS["OPT_IN_WORDS"]
        return frozenset(map(normal, default)), frozenset(map(normal, opposite))


def heed(message: Message, said_at: datetime) -> None:
    """Do what an inbound text says, if it is one of the words, in the transaction that stores it.

    ``said_at`` is when it was sent: what was sent before the latest word does not undo it, however
    late it comes.
    """
    became = meaning(message.text)
    if became is None:
        return
    is_out = became == ConsentChange.Became.OPTED_OUT
    contact = message.conversation.contact
    mine = Contact.objects.filter(Q(consent_at=None) | Q(consent_at__lte=said_at), pk=contact.pk)
    change = {"opted_out_at": message.created_at if is_out else None, "consent_at": said_at}
    if mine.filter(opted_out_at__isnull=is_out).update(**change):
        ConsentChange.objects.create(
            contact=contact, message=message, became=became, changed_at=message.created_at
        )
        # Receivers get this instance: what they save of it must not undo the change.
        contact.opted_out_at, contact.consent_at = change["opted_out_at"], said_at
    else:
        # Said once more: that changes nothing, but is the latest word.
        mine.update(consent_at=said_at)
