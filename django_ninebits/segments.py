"""The parts that one text is sent and charged in: its segments.

The tables and the numbers are those of 3GPP TS 23.038 and 23.040, which every network follows; how
9bits itself splits a text is described nowhere, only that it charges for each part.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: The GSM 7-bit default alphabet. It has no ₦, ẹ, ọ or ṣ, and no curly quotes.
GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)

#: Its extension: each of these takes two places.
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")


@dataclass(frozen=True)
class Segments:
    """How a text travels: ``encoding`` is ``"GSM-7"`` or ``"UCS-2"``, ``parts`` at least one."""

    encoding: str
    parts: tuple[str, ...]
    #: The characters of the text that force UCS-2, each once, in the order of the text.
    forcing: str


def segments(text: str) -> Segments:
    """Split ``text`` as a network does; no character is cut in two.

    160 places make one part of GSM-7, 70 one of UCS-2. A longer text is split into parts of 153
    or 67, because each then says where it belongs.
    """
    forcing = "".join(dict.fromkeys(char for char in text if char not in GSM | GSM_EXTENSION))
    if forcing:
        return Segments("UCS-2", tuple(_split(text, _ucs2_places, 70, 67)), forcing)
    return Segments("GSM-7", tuple(_split(text, _gsm_places, 160, 153)), "")


def _split(text: str, places: Callable[[str], int], single: int, multiple: int) -> Iterator[str]:
    if sum(map(places, text)) <= single:
        yield text
        return
    part, taken = "", 0
    for char in text:
        if taken + places(char) > multiple:
            yield part
            part, taken = "", 0
        part, taken = part + char, taken + places(char)
    yield part


def _gsm_places(char: str) -> int:
    return 2 if char in GSM_EXTENSION else 1


def _ucs2_places(char: str) -> int:
    return 2 if ord(char) > 0xFFFF else 1
