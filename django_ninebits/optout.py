"""What answers a text that opts out, and tells the host of it.

Storing the text has changed the contact already; this comes after commit, with
``message_received``, and like that at least once.
"""

from contextlib import suppress
from typing import Any

from django_ninebits import consent, services
from django_ninebits.conf import conf
from django_ninebits.exceptions import RefIdConflict
from django_ninebits.models import ConsentChange, Message, database
from django_ninebits.signals import announce, contact_opted_in, contact_opted_out

_SIGNALS = {
    ConsentChange.Became.OPTED_OUT: contact_opted_out,
    ConsentChange.Became.OPTED_IN: contact_opted_in,
}


def answer(message: Message, **kwargs: Any) -> None:
    """Confirm that the subscriber opted out, if this text did it, and announce either change."""
    became = consent.meaning(message.text)
    if became is None:
        return
    changes = ConsentChange.objects.using(database()).select_related("contact")
    change = changes.filter(message=message).first()
    if change is None:
        return
    try:
        # They may have come back before a text is announced again, and then gone again: then it
        # is not this one that keeps them out.
        if became == ConsentChange.Became.OPTED_OUT and _still_counts(change):
            _confirm(message)
    finally:
        announce(_SIGNALS[became], message, contact=change.contact)


def _still_counts(change: ConsentChange) -> bool:
    return change.contact.opted_out_at == change.changed_at


def _confirm(message: Message) -> None:
    text = conf.opt_out_confirmation
    if not text:
        return
    # Where the text is announced again, the first confirmation is found, maybe in other words.
    with suppress(RefIdConflict):
        services.reply(
            message, text, ref_id=f"ninebits-opt-out-{message.pk}", override_opt_out=True
        )
