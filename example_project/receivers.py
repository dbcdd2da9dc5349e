"""Answers to texts: the part of this site to copy and make your own.

A receiver runs after the text is stored and committed, so whatever goes wrong here loses nothing.
It is imported in ``apps.py``: a receiver that nobody imports is never connected.
"""

from contextlib import suppress
from typing import Any

from django.dispatch import receiver

from django_ninebits import services
from django_ninebits.exceptions import OptedOut
from django_ninebits.models import Message
from django_ninebits.signals import message_received

HELP = "This is the demo of django-ninebits. Text anything, and somebody will answer."


@receiver(message_received)
def answer_help(message: Message, **kwargs: Any) -> None:
    """Answer whoever texts the keyword HELP.

    A text is announced at least once, so this may run twice for the same one. The second reply
    has the same ``ref_id`` as the first and is therefore not sent again. Whoever has texted STOP
    gets no answer.
    """
    if message.text.strip().upper() == "HELP":
        with suppress(OptedOut):
            services.reply(message, HELP, ref_id=f"help-{message.pk}")
