"""What the inbox finds, by looks that end: each follows an index, or is over so many rows at most.

Numbers, sessions and references are found however long ago they were used. A name is found by its
beginning, and by any part of it among the conversations that spoke last. Texts are looked through
from the newest on, and what is found says how far back that was.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import and_

from django.db.models import OuterRef, Q, QuerySet, Subquery, Value

from django_ninebits.exceptions import InvalidPhoneNumber
from django_ninebits.models import Contact, Conversation, Message, database
from django_ninebits.phone import subscriber_number

#: Messages whose texts one search looks through.
TEXTS = 50_000

#: Conversations among which a name is looked for by any part of it: those that spoke last.
RECENT = 10_000

#: What one way of looking finds at most.
MOST = 500


@dataclass
class Found:
    """The conversations that a search found, and how far it looked."""

    ids: set[int] = field(default_factory=set)
    #: Of those whose texts fit, the newest text that does.
    texts: dict[int, str] = field(default_factory=dict)
    #: There are more of them.
    is_cut: bool = False
    #: When the oldest text was stored that was looked at.
    back_to: datetime | None = None
    #: The message from which the next search goes on, where there are older ones.
    further: int | None = None

    def add(self, conversations: Iterable[int]) -> None:
        found = list(conversations)
        self.is_cut |= len(found) > MOST
        self.ids.update(found[:MOST])


def find(term: str, before: int | None = None) -> Found:
    """All that fits; or, where a search goes on ``before`` a message, the older texts that do."""
    found = Found()
    if before is None:
        found.add(conversations_with(term))
        if any(character.isalpha() for character in term):
            found.add(_by_recent_names(term))
            found.add(_of_contacts(_named(term.lower()).order_by("name_key")))
        found.add(_by(session_id=term))
        found.add(_by(ref_id=term))
    _find_texts(found, term, before)
    return found


def conversations_with(number: str) -> list[int]:
    """Those of subscribers with that number, or with one that begins or ends so."""
    return _of_contacts(_contacts().filter(_numbers(number)).order_by("phone_number"))


def fits(term: str) -> Q:
    """Whether it is such a number of a contact, or every word of it is in the name."""
    return _numbers(term) | _every_word("name", term)


def _contacts() -> QuerySet[Contact]:
    return Contact.objects.using(database())


def _conversations() -> QuerySet[Conversation]:
    return Conversation.objects.using(database())


def _messages() -> QuerySet[Message]:
    return Message.objects.using(database())


def _of_contacts(contacts: QuerySet[Contact]) -> list[int]:
    ids = list(contacts.values_list("pk", flat=True)[: MOST + 1])
    rows = _conversations().filter(contact__in=ids) if ids else _conversations().none()
    return list(rows.values_list("pk", flat=True))


def _by(**whole: str) -> list[int]:
    rows = _messages().filter(**whole).order_by("-id")
    return list(rows.values_list("conversation_id", flat=True)[: MOST + 1])


def _numbers(term: str) -> Q:
    """A whole number in any way of writing it, how it begins, or how it ends."""
    digits = re.sub(r"[^0-9]", "", term)
    nothing = Q(pk=None)
    if len(digits) < 3 or any(character.isalpha() for character in term):
        return nothing
    fits = reduce(Q.__or__, map(_beginning, _beginnings(term, digits)), nothing)
    if len(digits) >= 4:
        fits |= Q(last_digits=digits[-4:], phone_number__endswith=digits)
    with suppress(InvalidPhoneNumber):
        fits |= Q(phone_number=subscriber_number(term))
    return fits


def _beginnings(term: str, digits: str) -> list[str]:
    """As E.164: of a number at home or abroad, with or without what is dialled before it."""
    if digits.startswith("00"):
        return [digits[2:]]
    if digits.startswith("0"):
        return [f"234{digits[1:]}"]
    return [digits] if "+" in term else [digits, f"234{digits}"]


def _beginning(digits: str) -> Q:
    """As a range, which is in the order of the index whatever the collation is."""
    # As values, since what is no number yet must not be read as one.
    begins = Q(phone_number__gte=Value(f"+{digits}"))
    to_count_up = digits.rstrip("9")
    if not to_count_up:
        return begins
    return begins & Q(phone_number__lt=Value(f"+{int(to_count_up) + 1}"))


def _named(key: str) -> QuerySet[Contact]:
    # The second is implied: it is where an index in another order than that of bytes begins.
    return _contacts().filter(name_key__startswith=key, name_key__gte=key)


def _by_recent_names(term: str) -> list[int]:
    listed = _conversations().filter(last_message_at__isnull=False)
    newest_first = listed.order_by("-last_message_at", "-id")
    oldest = newest_first.values_list("last_message_at", flat=True)[RECENT : RECENT + 1].first()
    if oldest is not None:
        newest_first = newest_first.filter(last_message_at__gte=oldest)
    # Looked up for each of them: a join is worked out from the other side, which is all contacts.
    name = Contact.objects.filter(pk=OuterRef("contact")).values("name")
    fitting = newest_first.annotate(name=Subquery(name)).filter(_every_word("name", term))
    return list(fitting.values_list("pk", flat=True)[: MOST + 1])


def _find_texts(found: Found, term: str, before: int | None) -> None:
    ids = _messages().values_list("id", flat=True)
    newest = ids.order_by("-id").first() or 0
    end = newest + 1 if before is None else min(before, newest + 1)
    window = _messages().filter(id__lt=end, id__gte=end - TEXTS)
    fitting = window.filter(_every_word("text", term)).order_by("-id")
    hits = list(fitting.values_list("id", "conversation_id", "created_at", "text")[: MOST + 1])
    if len(hits) > MOST:
        # The last one of them is where the next search begins.
        *hits, (found.further, _conversation, found.back_to, _text) = hits
        found.further += 1
    else:
        oldest = window.order_by("id").values_list("id", "created_at").first()
        if oldest is not None:
            found.further = oldest[0] if oldest[0] != ids.order_by("id").first() else None
            found.back_to = oldest[1]
    for _id, conversation, _at, text in hits:
        found.texts.setdefault(conversation, text)
    found.ids.update(found.texts)


def _every_word(column: str, term: str) -> Q:
    return reduce(and_, (Q(**{f"{column}__icontains": word}) for word in term.split()), Q())
