"""The parts that one text is sent and charged in: its segments.

The tables and the numbers are those of 3GPP TS 23.038 and 23.040, which every network follows; how
9bits itself splits a text is described nowhere, only that it charges for each part.
"""

from collections.abc import Iterator
from dataclasses import dataclass

#: The GSM 7-bit default alphabet. It has no ₦, ẹ, ọ or ṣ, and no curly quotes.
GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)

#: Its extension: each of these takes two places.
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")

#: The places of a text that is one part, and of each part of a longer one: it also says where it
#: belongs.
PLACES = {"GSM-7": (160, 153), "UCS-2": (70, 67)}

#: The most parts that a text can have: they are numbered in eight bits.
MOST = 255


@dataclass(frozen=True)
class Segments:
    """How a text travels: ``encoding`` is a key of ``PLACES``, ``parts`` at least one."""

    encoding: str
    parts: tuple[str, ...]
    #: The characters of the text that force UCS-2, each once, in the order of the text.
    forcing: str

    @property
    def left(self) -> int:
        """The places that are free in the last part."""
        places = PLACES[self.encoding][len(self.parts) > 1]
        return places - sum(_places(char, self.encoding) for char in self.parts[-1])


def segments(text: str) -> Segments:
    """Split ``text`` as a network does; no character is cut in two.

    ``segments.js`` does the same in the browser, with these tables.
    """
    forcing = "".join(dict.fromkeys(char for char in text if char not in GSM | GSM_EXTENSION))
    encoding = "UCS-2" if forcing else "GSM-7"
    return Segments(encoding, tuple(_split(text, encoding)), forcing)


def _split(text: str, encoding: str) -> Iterator[str]:
    single, multiple = PLACES[encoding]
    if sum(_places(char, encoding) for char in text) <= single:
        yield text
        return
    part, taken = "", 0
    for char in text:
        places = _places(char, encoding)
        if taken + places > multiple:
            yield part
            part, taken = "", 0
        part, taken = part + char, taken + places
    yield part


def _places(char: str, encoding: str) -> int:
    takes_two = char in GSM_EXTENSION if encoding == "GSM-7" else ord(char) > 0xFFFF
    return 2 if takes_two else 1
