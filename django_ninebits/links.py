"""Links in what strangers write: what is one, and where it really leads.

Whatever could lead elsewhere than it seems to is left as text: an address with a user's name in it,
with a host that browsers read as a number, or with characters that they read as others.
"""

import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import quote

#: Longer ones are no links that somebody sent by SMS.
LONGEST = 2000

_CANDIDATE = re.compile(
    r"(?:(?<!\w)https?://|(?<![\w@/.-])www\.)[^\s<>\"]+",
    re.IGNORECASE,
)

_ADDRESS = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>[^/?#:@\\]+)(?P<port>:[0-9]{1,5})?(?P<rest>[/?#].*)?",
    re.IGNORECASE | re.DOTALL,
)

#: What a browser is asked for. The last part is no number: browsers read those as an IP address.
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")

_ENDS_A_SENTENCE = ".,:;!?…'\u2019\u201d"

_BRACKETS = {")": "(", "]": "[", "}": "{", "»": "«"}

#: What an address is written with. A percent sign is kept, as what follows it is encoded already.
_SAFE = "/#%[]=:;$&()+,!?*@'~"


@dataclass(frozen=True)
class Link:
    """An address as it was written, and as a browser is given it."""

    written: str
    #: All of it in ASCII, the host as it is looked up.
    address: str
    host: str


def parts(text: str) -> list[str | Link]:
    """The text in pieces, of which some are links."""
    found: list[str | Link] = []
    end = 0
    for candidate in _CANDIDATE.finditer(text):
        written = _without_what_follows(candidate[0])
        if link := _link(written):
            found += [text[end : candidate.start()], link]
            end = candidate.start() + len(written)
    return [part for part in [*found, text[end:]] if part]


def _without_what_follows(written: str) -> str:
    """Without what ends the sentence, or closes a bracket that was opened before."""
    surplus = {close: written.count(close) - written.count(_BRACKETS[close]) for close in _BRACKETS}
    end = len(written)
    while end and (written[end - 1] in _ENDS_A_SENTENCE or surplus.get(written[end - 1], 0) > 0):
        end -= 1
        if written[end] in surplus:
            surplus[written[end]] -= 1
    return written[:end]


def _link(written: str) -> Link | None:
    match = _ADDRESS.fullmatch(written) if len(written) <= LONGEST else None
    host = match and _asked_for(match["host"])
    if not match or not host or not _is_plain(written):
        return None
    scheme, port, rest = (match[name] or "" for name in ("scheme", "port", "rest"))
    address = f"{scheme.lower() or 'http'}://{host}{port}{quote(rest, safe=_SAFE)}"
    return Link(written, address, host)


def _asked_for(host: str) -> str:
    """The host that is looked up, in ASCII; empty where that is not certain."""
    with suppress(AddressValueError):
        return str(IPv4Address(host))
    asked = host.lower() if host.isascii() else _encoded(host)
    return asked if len(asked) < 254 and _HOST.fullmatch(asked) else ""


def _encoded(host: str) -> str:
    """Only where it reads the same when it is decoded again: of others, browsers differ."""
    if not all(unicodedata.category(one)[0] in "LMN" for one in host if one not in ".-"):
        return ""
    try:
        asked = host.encode("idna")
        is_same = asked.decode("idna") == unicodedata.normalize("NFC", host.lower())
    except UnicodeError:
        return ""
    return asked.decode() if is_same else ""


def _is_plain(written: str) -> bool:
    """Nothing in it is invisible or changes the direction in which it is read."""
    return all(unicodedata.category(character)[0] not in "CZ" for character in written)
