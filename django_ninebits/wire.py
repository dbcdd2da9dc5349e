"""The provider's words to ours, and back.

What 9bits posts and expects is its documentation's; what that leaves open is read so that either
answer is safe. Nothing here knows of a database.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django_ninebits.exceptions import DeliveryNotUnderstood, InvalidPhoneNumber
from django_ninebits.phone import inbound_number, service_number

#: No text is so long that its delivery needs more bytes than this.
MAX_DELIVERY = 64 * 1024

#: The longest ``session_id`` and ``ref_id`` that can be kept as such, in characters: PostgreSQL and
#: MariaDB both limit what an index can hold.
MAX_ID = 255
MAX_TELCO = 64

TWO_WAY_SMS = "two-way sms"

_EARLIEST_BELIEVED = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST_BELIEVED = datetime(2100, 1, 1, tzinfo=UTC)
_TO_THE_SECOND = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Delivery:
    """One text of a subscriber, understood."""

    subscriber: str
    """E.164."""
    short_code: str
    text: str
    session_id: str
    """Empty where 9bits gave none."""
    ref_id: str
    """Empty where 9bits gave none, as for older accounts (documented)."""
    telco: str
    sent_date: str
    """As written."""
    sent_at: datetime | None
    """``sent_date`` in UTC, where it can be believed."""

    @property
    def identity(self) -> str | None:
        """What a redelivery of the same text has in common with it; ``None`` if nothing proves one.

        A ``ref_id`` alone proves nothing: whether it is unique is documented nowhere. Without a
        date, the same text twice may be somebody who texted "1" twice.
        """
        if self.sent_at is None:
            return None
        return _digest(
            "inbound",
            self.session_id,
            self.ref_id,
            self.subscriber,
            self.short_code,
            self.sent_date,
            self.text,
        )


def outbound_identity(ref_id: str) -> str:
    """The outbound message's: its ``ref_id`` is the idempotency key."""
    return _digest("outbound", ref_id)


def read_delivery(body: bytes) -> Delivery:
    """The bytes of a delivery → what they say, or ``DeliveryNotUnderstood`` with every reason."""
    fields = _Fields(_read_object(body))
    fields.require_two_way_sms()
    sent_date = fields.optional("sent_date")
    delivery = Delivery(
        subscriber=fields.number("from", inbound_number),
        short_code=fields.number("to", service_number),
        text=fields.required("message"),
        session_id=fields.optional("session_id", MAX_ID),
        ref_id=fields.optional("ref_id", MAX_ID),
        telco=fields.optional("telco", MAX_TELCO),
        sent_date=sent_date,
        sent_at=_believed_date(sent_date),
    )
    if fields.errors:
        raise DeliveryNotUnderstood(fields.errors)
    return delivery


def write_call(
    *, sender: str, to: str, text: str, session_id: str, ref_id: str, sent_date: datetime
) -> dict[str, str]:
    """The JSON body of the documented ``sendsms`` call. ``to`` is E.164, ``sent_date`` is aware."""
    return {
        "from": sender,
        "to": to.removeprefix("+"),
        "message": text,
        "session_id": session_id,
        "sent_date": write_date(sent_date),
        "ref_id": ref_id,
    }


def write_date(moment: datetime) -> str:
    """An aware datetime as 9bits writes it: UTC with six decimals and a ``Z`` (documented)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def body_status(body: bytes) -> int | None:
    """The ``status_code`` inside an answer: one public integration saw it differ from HTTP's.

    ``None`` where the body is no JSON object, or has no whole number there.
    """
    try:
        answer = json.loads(body, parse_int=_Number)
    except (ValueError, RecursionError):
        return None
    code = answer.get("status_code") if isinstance(answer, dict) else None
    # No status has more digits than these, and with them it is as large as it needs to be.
    return int(code[:9]) if isinstance(code, _Number) else None


def unstorable(text: str) -> bool:
    """Whether no database can hold this as text: it has a NUL or half of a surrogate pair."""
    return _UNSTORABLE.search(text) is not None


class _Text(str):
    """A number with decimals, kept as it was written."""

    __slots__ = ()


class _Number(_Text):
    """A whole number, kept as it was written: ``int`` refuses to read ten thousand digits."""

    __slots__ = ()


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        # Some JSON writers leave the quotes off; digits are kept as they stand.
        fields = json.loads(body, parse_int=_Number, parse_float=_Text, parse_constant=_refuse)
    except RecursionError:
        raise DeliveryNotUnderstood(["The body is nested too deeply."]) from None
    except ValueError:
        raise DeliveryNotUnderstood(["The body is not JSON."]) from None
    if not isinstance(fields, dict):
        raise DeliveryNotUnderstood(["The body is not a JSON object."])
    return fields


def _refuse(constant: str) -> None:
    """``NaN`` and ``Infinity`` are Python's, not JSON's."""
    raise ValueError


class _Fields:
    """The fields of a delivery, and what is wrong with them so far."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.errors: list[str] = []

    def require_two_way_sms(self) -> None:
        kind = self.optional("type")
        if kind and kind.strip().casefold() != TWO_WAY_SMS:
            self.errors.append(f"type: {kind[:40]!a} is not {TWO_WAY_SMS!r}.")

    def optional(self, name: str, longest: int | None = None) -> str:
        value = self.fields.get(name)
        return "" if value is None else self._string(name, value, longest)

    def required(self, name: str) -> str:
        if self.fields.get(name) is None:
            self.errors.append(f"{name}: missing.")
            return ""
        return self._string(name, self.fields[name])

    def number(self, name: str, read: Callable[[str], str]) -> str:
        errors_before = len(self.errors)
        written = self.required(name)
        if len(self.errors) > errors_before:
            return ""
        try:
            return read(written)
        except InvalidPhoneNumber:
            self.errors.append(f"{name}: {written[:40]!a} is not a number that can be kept.")
            return ""

    def _string(self, name: str, value: Any, longest: int | None = None) -> str:
        if not isinstance(value, str):
            self.errors.append(f"{name}: not a string.")
        elif unstorable(value):
            self.errors.append(f"{name}: has characters that cannot be stored as text.")
        elif longest is not None and len(value) > longest:
            self.errors.append(f"{name}: longer than {longest} characters.")
        else:
            return str(value)
        return ""


def _believed_date(written: str) -> datetime | None:
    """The moment in UTC; a day alone is none, because one may well text "1" twice on a day."""
    if not _TO_THE_SECOND.match(written):
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC) if _EARLIEST_BELIEVED <= moment < _LATEST_BELIEVED else None


def _digest(*parts: str) -> str:
    # Each part's length goes before it, so that no two lists of parts give the same bytes.
    recipe = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(recipe.encode()).hexdigest()
