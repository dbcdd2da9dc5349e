"""A text in characters that GSM-7 has, for whoever would rather pay for fewer segments.

Nobody's text is changed by itself: this is what the composer offers. ``segments.js`` does the same
in the browser, with this table.
"""

import unicodedata

from django_ninebits.segments import GSM, GSM_EXTENSION

_LIKE = {
    "'": "‘’‚‛′ʼʻ`´",
    '"': "“”„‟″«»",
    "-": "‐‑‒–—―−",
    "...": "…",
    " ": "\t\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000",
    "": "\u00ad\u200b\u2060\ufeff",
    "*": "•·",
    "<": "‹",
    ">": "›",
    "/": "÷⁄",
    "x": "×",
    "->": "→",
    "<-": "←",
    "|": "¦",
    "1/2": "½",
    "1/4": "¼",
    "3/4": "¾",
    "(c)": "©",
    "(R)": "®",
    "TM": "™",
    "No": "№",
    "1": "¹",
    "2": "²",
    "3": "³",
    # Currencies.
    "N": "₦",
    "c": "¢",
    # Letters of Hausa, Ewe, Twi and others that are none with a mark.
    "b": "ɓ",
    "B": "Ɓ",
    "d": "ɗɖđ",
    "D": "ƊƉĐ",
    "f": "ƒ",
    "F": "Ƒ",
    "g": "ɣ",
    "G": "Ɣ",
    "h": "ħ",
    "H": "Ħ",
    "i": "ı",
    "k": "ƙ",
    "K": "Ƙ",
    "l": "ł",
    "L": "Ł",
    "e": "ɛǝə",
    "E": "ƐƎƏ",
    "o": "ɔ",
    "O": "Ɔ",
    "ng": "ŋ",
    "Ng": "Ŋ",
    "oe": "œ",
    "OE": "Œ",
    "v": "ʋ",
    "V": "Ʋ",
    "y": "ƴ",
    "Y": "Ƴ",
}

#: What stands for a character that GSM-7 lacks. Of others, the letter without its marks does.
PLAIN = {char: plain for plain, chars in _LIKE.items() for char in chars}

#: Marks above and below letters, as they are written behind them.
MARKS = ("\u0300", "\u036f")


def plain(text: str) -> str:
    """``text`` where each character that GSM-7 lacks is the nearest that it has, if there is one.

    A letter and a mark that GSM-7 has as one, such as ``ò``, stay what they are.
    """
    return "".join(map(_plain, unicodedata.normalize("NFC", text)))


def _plain(char: str) -> str:
    if char in GSM | GSM_EXTENSION:
        return char
    if char in PLAIN:
        return PLAIN[char]
    bare = "".join(part for part in unicodedata.normalize("NFD", char) if not _is_mark(part))
    return bare if set(bare) <= GSM else char


def _is_mark(char: str) -> bool:
    return MARKS[0] <= char <= MARKS[1]
