"""Numbers, in whatever way they are written.

The subscriber's side is a phone number, kept in E.164 (``+2348020000000``). The service's side is a
short code or a sender ID: text, never a phone number. The host's ``PHONENUMBER_*`` settings have no
say here.
"""

import re

import phonenumbers

from django_ninebits.exceptions import InvalidPhoneNumber

HOME_REGION = "NG"

# E.164 allows fifteen digits; the shortest subscriber numbers in use have seven with their country
# code. What is shorter is a short code or a word.
_INTERNATIONAL = re.compile(r"\+[1-9][0-9]{6,14}")
_SEPARATORS = re.compile(r"[\s\-.()/\u00a0\u2010-\u2015\u202a-\u202e\u2066-\u2069]+")
_SENDER = re.compile(r"[!-~](?:[ -~]{0,30}[!-~])?")


def inbound_number(written: str) -> str:
    """The subscriber's number as 9bits gave it → E.164.

    9bits gives international numbers with or without ``+`` (documented). They are never judged by
    validity: whoever texted has a phone. Raises ``InvalidPhoneNumber`` for what is no number.
    """
    number = _international(_bare(written))
    settled = _settled(number) if _INTERNATIONAL.fullmatch(number) else ""
    if not _INTERNATIONAL.fullmatch(settled):
        raise InvalidPhoneNumber(f"{written!r} is not an international phone number.")
    return settled


def subscriber_number(written: str) -> str:
    """A recipient as people write it → E.164.

    ``0802…``, ``802…``, ``234802…``, ``+234802…`` and ``00234802…``, with spaces or dashes, are one
    number. Digits without ``0`` or ``+`` in front are read as international and as Nigerian; a
    reading that is in use wins over one that is only possible, because ``810 345 6789`` is an MTN
    number and only the shape of a Japanese one. Raises ``InvalidPhoneNumber`` where neither reading
    is possible; possible but unknown is accepted, since new blocks take months to be listed.
    """
    bare = _bare(written)
    readings = [number for number in map(_parsed, _readings(bare)) if number is not None]
    for fits in (phonenumbers.is_valid_number, is_possible):
        for number in readings:
            settled = _settled(_e164(number))
            if fits(number) and _INTERNATIONAL.fullmatch(settled):
                return settled
    raise InvalidPhoneNumber(
        f"{written!r} is not a phone number that can be sent to."
        " Write it as 0802 000 0000 or +234 802 000 0000."
    )


def service_number(written: str) -> str:
    """A short code or sender ID, in the one way it is stored: ``+48974`` → ``48974``.

    Raises ``InvalidPhoneNumber`` for what cannot be one: nothing, more than 32 characters, or
    others than those of printable ASCII.
    """
    code = written.strip()
    if re.fullmatch(r"\+[0-9]+", code):
        code = code[1:]
    if not _SENDER.fullmatch(code):
        raise InvalidPhoneNumber(
            f"{written!r} is not a short code or sender ID: 1 to 32 letters and digits of ASCII."
        )
    return code


def is_possible(number: phonenumbers.PhoneNumber) -> bool:
    """Whether it can be dialled from abroad: not a short code, nor a number without its area."""
    reason = phonenumbers.is_possible_number_with_reason(number)
    return bool(reason == phonenumbers.ValidationResult.IS_POSSIBLE)


def masked(number: object) -> str:
    """``+2348020000000`` → ``…0000``, for logs."""
    return f"…{str(number)[-4:]}"


def _bare(written: str) -> str:
    return _SEPARATORS.sub("", written)


def _international(bare: str) -> str:
    if bare.startswith("00"):
        return f"+{bare[2:]}"
    return bare if bare.startswith("+") else f"+{bare}"


def _readings(bare: str) -> list[str]:
    """Every way to read what was written, the likelier first, as E.164 or nearly so."""
    if not re.fullmatch(r"\+?[0-9]{3,20}", bare):
        return []
    if bare.startswith(("+", "00")):
        return [_international(bare)]
    if bare.startswith("0"):
        return [f"+234{bare[1:]}"]
    return [f"+{bare}", f"+234{bare}"]


def _parsed(number: str) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return None


def _e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _settled(number: str) -> str:
    """``number`` without what parsing takes off it, as of ``+234 0802…``, until nothing goes."""
    parsed = _parsed(number)
    again = number if parsed is None else _e164(parsed)
    return number if again == number else _settled(again)
