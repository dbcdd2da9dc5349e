"""What a host can listen to. Every signal gives ``message`` and fires after commit.

Those of opting out and in give the ``contact``, too.

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

#: A message will not leave: refused, given up, expired, to somebody who opted out, or to nobody in
#: ``ONLY_TO``. At most once.
message_failed = Signal()

#: A message may or may not have reached 9bits; a person decides. At most once for each attempt.
message_uncertain = Signal()


#: A subscriber opted out: ``message`` is the text that said so, ``contact`` is who. At *least*
#: once, as ``message_received``, and after the confirmation was queued.
contact_opted_out = Signal()

#: A subscriber who had opted out opted in again. At *least* once; gives the same.
contact_opted_in = Signal()


def announce(signal: Signal, message: Any, **more: Any) -> None:
    """Send ``signal`` to every receiver, whatever the others do."""
    signal.send_robust(sender=type(message), message=message, **more)
