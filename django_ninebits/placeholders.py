"""The gaps in a canned reply: ``{name}``, or ``{name|there}`` with what stands there otherwise.

A gap for which nothing is known stays as it is, so that it is seen, and no reply is sent with it.
"""

import re
from collections.abc import Mapping

#: Of the subscriber, of the conversation, and of whoever writes.
NAMES = ("name", "number", "short_code", "me")

_GAP = re.compile(rf"\{{({'|'.join(NAMES)})(?:\|([^{{}}]*))?\}}")
_BRACES = re.compile(r"\{[^{}]*\}?|\}")


def filled(text: str, values: Mapping[str, str]) -> str:
    """``text`` with what is known of it."""
    return _GAP.sub(lambda gap: values[gap[1]] or (gap[0] if gap[2] is None else gap[2]), text)


def gaps(text: str) -> list[str]:
    """The gaps that are left."""
    return [gap[0] for gap in _GAP.finditer(text)]


def mistakes(text: str) -> list[str]:
    """What has braces and is no gap, such as ``{nmae}``."""
    return _BRACES.findall(_GAP.sub("…", text))
