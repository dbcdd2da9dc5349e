"""What a host can listen to. Every signal gives ``message`` and fires after commit.

A receiver that raises is logged (by Django, to ``django.dispatch``) and harms neither the other
receivers nor the message.
"""

from typing import Any

from django.dispatch import Signal

#: A subscriber's text was stored. Comes *at least* once: when the process dies while receivers run,
#: a worker sends it again. So a receiver that replies passes a ``ref_id`` made from the message
#: that it answers.
message_received = Signal()

#: 9bits accepted a message, or a person said that it arrived. At most once: the row is the truth.
message_sent = Signal()

#: A message will not leave: refused, given up, expired, or to nobody in ``ONLY_TO``. At most once.
message_failed = Signal()

#: A message may or may not have reached 9bits; a person decides. At most once for each attempt.
message_uncertain = Signal()


def announce(signal: Signal, message: Any) -> None:
    """Send ``signal`` to every receiver, whatever the others do."""
    signal.send_robust(sender=type(message), message=message)
