"""Our own English sentences, in the language of whoever reads them.

What is raised, stored, logged or sent is English: a log reads the same everywhere, a row does not
depend on who was logged in, and a stored sentence is all that is left of its cause. So where a
person reads one, it is known again by its shape. What 9bits, the host or a library said is not
ours, and stays as it is.

A sentence about what an argument *must* be is for developers and is not here.
"""

import re
from collections.abc import Callable

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _

from django_ninebits.models import Message

# Of two that fit, the first counts.
_SENTENCES = [
    # Of one message among many.
    _(
        "Message %(position)s: its ref_id %(ref_id)s was given before in this batch, with another"
        " recipient, sender or text."
    ),
    _("Message %(position)s: %(reason)s"),
    # Of a message that was refused, or is in no state for what was asked.
    _("The text is empty."),
    _("The text has characters that cannot be stored: NUL, or half a pair."),
    _("Only a conversation or an inbound message can be replied to."),
    _("expires_at is not later than now and send_at: nothing would leave."),
    _(
        "%(written)s is not a phone number that can be sent to."
        " Write it as 0802 000 0000 or +234 802 000 0000."
    ),
    _("%(written)s is not an international phone number."),
    _("%(written)s is not a short code or sender ID: 1 to 32 letters and digits of ASCII."),
    _(
        "ref_id %(ref_id)s belongs to message %(id)s, which has another recipient, sender or text."
        " Use a new ref_id for a new message."
    ),
    _("Message %(id)s has expired: write a new one."),
    _("The subscriber has opted out, and only they can opt in again."),
    _("Message %(id)s is %(status)s, not %(one)s or %(other)s."),
    _("Message %(id)s is %(status)s, not %(one)s."),
    _("Somebody else has just changed message %(id)s: look at it again."),
    # Of a message that did not leave, or of which that is not known.
    _("Cancelled before it was sent again."),
    _("The process that was sending it did not report what became of it."),
    _("Expired before it could be sent."),
    _("Given up: it could not be sent in time."),
    _("Given up: it could not be sent in time. %(reason)s"),
    _("not in ONLY_TO"),
    _("opted out"),
    _("9bits answered %(http)s with status_code %(code)s: %(words)s"),
    _("9bits answered %(http)s: %(words)s"),
    _("%(error)s: no answer before the deadline"),
    _("%(error)s: the look-up of the name took too long"),
    _("%(error)s: the clock was put forward, or the machine slept"),
    _("%(error)s: only http and https proxies are supported"),
    _("%(error)s on the way to 9bits"),
    # Of a delivery that is no text.
    _("The body is nested too deeply."),
    _("The body is not JSON."),
    _("The body is not a JSON object."),
    _("type: %(written)s is not %(wanted)s."),
    _("%(field)s: missing."),
    _("%(field)s: not a string."),
    _("%(field)s: has characters that cannot be stored as text."),
    _("%(field)s: longer than %(longest)s characters."),
    _("%(field)s: %(written)s is not a number that can be kept."),
    _("It could not be stored: %(error)s."),
    _("This delivery has been taken in already."),
]


def shown(sentence: str) -> str:
    """``sentence`` as its reader should see it; as it is, where it is none of ours."""
    for shape, template in _SHAPES:
        if said := shape.fullmatch(sentence):
            return gettext(template) % {
                name: _READ.get(name, str)(value) for name, value in said.groupdict().items()
            }
    return sentence


def _status(value: str) -> str:
    return str(_STATUSES.get(value, value))


_STATUSES = dict(Message.Status.choices)

#: What in a sentence has words of ours in turn.
_READ: dict[str, Callable[[str], str]] = {
    "reason": shown,
    "status": _status,
    "one": _status,
    "other": _status,
}


#: What in a sentence may have spaces and colons, and so may look like more of the sentence.
_FREE = {"reason", "ref_id", "wanted", "words", "written"}


def _shape(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"%\\\((\w+)\\\)s", _group, re.escape(template)), re.DOTALL)


def _group(placeholder: re.Match[str]) -> str:
    name = placeholder[1]
    return f"(?P<{name}>{'.*' if name in _FREE else '[^ :]+'})"


_SHAPES = [(_shape(template), template) for template in _SENTENCES]
