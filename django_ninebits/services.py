"""The verbs that a host calls.

Each stores first and hints at the dispatcher after commit: what comes back is a row, and whether
it was sent is seen there, or heard from the signals. Called within a transaction, nothing leaves
before it commits, and nothing at all if it does not; until then, texts of that subscriber wait.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, connections
from django.utils import timezone
from phonenumbers import PhoneNumber

from django_ninebits import outbox
from django_ninebits.conf import conf
from django_ninebits.contention import persistently
from django_ninebits.dispatch import hint_after_commit
from django_ninebits.exceptions import MessageRefused, OptedOut, RefIdConflict, WrongStatus
from django_ninebits.models import (
    PREVIEW_LENGTH,
    Contact,
    Conversation,
    Message,
    SubscriberNumber,
    atomic,
    database,
    name_of,
)
from django_ninebits.phone import service_number, subscriber_number
from django_ninebits.wire import MAX_ID, outbound_identity, unstorable

logger = logging.getLogger(__name__)

#: How often a bulk batch is stored again when somebody else stored one of its ``ref_id`` meanwhile.
BULK_TRIES = 3

#: Messages in a batch at most; SQLite takes about three times as many values in a query.
MAX_BATCH = 10_000


class Progress(int):
    """How many messages ``send_many`` has read so far: a number, with what it left out."""

    opted_out: tuple[int, ...]
    """The positions of those in the latest batch that were not stored, because the subscribers
    opted out."""

    def __new__(cls, read: int, opted_out: Iterable[int] = ()) -> "Progress":
        progress = super().__new__(cls, read)
        progress.opted_out = tuple(opted_out)
        return progress


def send_sms(
    to: str | PhoneNumber,
    text: str,
    *,
    sender: str | None = None,
    session_id: str | None = None,
    ref_id: str | None = None,
    author: AbstractBaseUser | None = None,
    send_at: datetime | None = None,
    expires_at: datetime | None = None,
    override_opt_out: bool = False,
) -> Message:
    """Queue a message to anybody → its row.

    ``to``: a number in any way of writing it. ``sender``: a short code or sender ID, by default
    ``SHORT_CODE``. ``session_id``: by default the conversation's. ``ref_id``: the idempotency key,
    by default a new one; used again with the same recipient and text, the first message comes back
    and nothing is sent, even where the first failed. ``send_at``: not before; ``expires_at``: not
    after. ``override_opt_out``: also to somebody who opted out, for legal notices; it is kept at
    the message.

    Raises ``InvalidPhoneNumber``, ``OptedOut``, ``RefIdConflict`` or another ``MessageRefused``;
    then nothing is stored.
    """
    return _queue(
        _draft(
            to,
            text,
            sender=sender,
            session_id=session_id,
            ref_id=ref_id,
            author=author,
            send_at=send_at,
            expires_at=expires_at,
            override_opt_out=override_opt_out,
        )
    )


def reply(
    to: Conversation | Message,
    text: str,
    *,
    ref_id: str | None = None,
    author: AbstractBaseUser | None = None,
    send_at: datetime | None = None,
    expires_at: datetime | None = None,
    override_opt_out: bool = False,
) -> Message:
    """Queue an answer → its row.

    ``to``: a conversation, answered in its latest session, or an inbound message, answered in the
    session it belongs to. A receiver of ``message_received`` passes a ``ref_id`` made from the
    message. The rest is as for ``send_sms``.
    """
    if isinstance(to, Message) and to.is_inbound:
        conversation, session_id = to.conversation, to.session_id or None
    elif isinstance(to, Conversation):
        # Which session is the latest one is read when the message is stored.
        conversation, session_id = to, None
    else:
        raise MessageRefused("Only a conversation or an inbound message can be replied to.")
    return _queue(
        _Draft.of(
            # As it is: whoever texted can be answered, whatever is known of such numbers.
            to=str(conversation.contact.phone_number),
            text=text,
            sender=conversation.short_code,
            session_id=session_id,
            ref_id=ref_id,
            author=author,
            send_at=send_at,
            expires_at=expires_at,
            override_opt_out=override_opt_out,
        )
    )


def send_many(
    messages: Iterable[Mapping[str, Any]],
    *,
    batch_size: int = 1000,
    progress: Callable[[Progress], object] | None = None,
) -> int:
    """Queue any number of messages for a worker → how many are new.

    ``messages``: an iterable of dicts, each the arguments of ``send_sms``. It is read a batch at a
    time, and each batch is stored whole or not at all: one that holds a message that cannot be sent
    raises ``MessageRefused`` with its position (from 0), the batches before it being stored. So a
    call that failed or was cut off can be made again where each message has a ``ref_id``: those
    stored already are not stored again. Messages to subscribers who opted out are left out.
    ``progress`` is called after each batch with the number of messages read so far, which names the
    positions that were left out of it: see ``Progress``.

    Bulk leaves after single messages, and does not by itself list a conversation in the inbox.
    """
    if not 1 <= batch_size <= MAX_BATCH:
        raise ValueError(f"batch_size must be from 1 to {MAX_BATCH}.")
    numbered = enumerate(messages)
    stored = read = left_out = 0
    while batch := [_numbered_draft(*item) for item in islice(numbered, batch_size)]:
        new, opted_out = _store_batch(batch)
        stored += new
        read += len(batch)
        left_out += len(opted_out)
        if progress is not None:
            progress(Progress(read, opted_out))
    if left_out:
        logger.info("%s of %s messages were left out: subscribers opted out", left_out, read)
    return stored


def retry(message: Message) -> Message:
    """Send a failed or uncertain message again; a worker does. It may arrive twice if uncertain.

    Raises ``WrongStatus`` where it is neither, or has expired, and ``OptedOut`` where the
    subscriber has opted out since.
    """
    message.refresh_from_db(using=database())
    _require(message, Message.Status.FAILED, Message.Status.UNCERTAIN)
    now = timezone.now()
    if message.expires_at is not None and message.expires_at <= now:
        raise WrongStatus(f"Message {message.pk} has expired: write a new one.")
    contact = Contact.objects.using(database()).get(conversations=message.conversation_id)
    _require_consent(contact, override_opt_out=message.override_opt_out)
    return _moved(
        message,
        Message.Status.QUEUED,
        due_at=now,
        give_up_at=now + conf.give_up_after,
        was_uncertain=message.was_uncertain or message.status == Message.Status.UNCERTAIN,
    )


def confirm(message: Message) -> Message:
    """Say that an uncertain message arrived. Raises ``WrongStatus`` where it is not uncertain."""
    message.refresh_from_db(using=database())
    _require(message, Message.Status.UNCERTAIN)
    return _moved(message, Message.Status.SENT, error="")


def cancel(message: Message) -> Message:
    """Keep a queued message from being sent. Raises ``WrongStatus`` where it is not queued.

    One of which an earlier attempt may have arrived becomes ``uncertain`` again.
    """
    message.refresh_from_db(using=database())
    _require(message, Message.Status.QUEUED)
    if message.was_uncertain:
        return _moved(
            message, Message.Status.UNCERTAIN, error="Cancelled before it was sent again."
        )
    return _moved(message, Message.Status.CANCELLED)


@dataclass(frozen=True)
class _Draft:
    """A message that can be sent, before there is a row."""

    to: str
    text: str
    sender: str
    session_id: str | None
    ref_id: str
    is_ref_id_given: bool
    author: AbstractBaseUser | None
    send_at: datetime | None
    expires_at: datetime | None
    override_opt_out: bool

    @classmethod
    def of(
        cls,
        *,
        to: str,
        text: str,
        sender: str,
        session_id: str | None = None,
        ref_id: str | None = None,
        author: AbstractBaseUser | None = None,
        send_at: datetime | None = None,
        expires_at: datetime | None = None,
        override_opt_out: bool = False,
    ) -> "_Draft":
        """Checked, and in the one way that things are stored."""
        send_at, expires_at = _moment("send_at", send_at), _moment("expires_at", expires_at)
        now = timezone.now()
        if expires_at is not None and expires_at <= max(now, send_at or now):
            raise MessageRefused(
                "expires_at is not later than now and send_at: nothing would leave."
            )
        return cls(
            to=to,
            text=_text(text),
            sender=sender,
            session_id=None if session_id is None else _id("session_id", session_id),
            ref_id=uuid.uuid4().hex if ref_id is None else _id("ref_id", ref_id),
            is_ref_id_given=ref_id is not None,
            author=_author(author),
            send_at=send_at,
            expires_at=expires_at,
            override_opt_out=_bool("override_opt_out", override_opt_out),
        )

    @property
    def identity(self) -> str:
        return outbound_identity(self.ref_id)

    @property
    def key(self) -> tuple[str, str]:
        """What its conversation is found by."""
        return self.to, self.sender.lower()

    def row(self, conversation: Conversation, now: datetime, *, priority: int) -> Message:
        due_at = self.send_at or now
        return Message(
            conversation=conversation,
            direction=Message.Direction.OUTBOUND,
            status=Message.Status.QUEUED,
            identity=self.identity,
            session_id=self.session_id or conversation.session_id,
            ref_id=self.ref_id,
            text=self.text,
            created_at=now,
            # Whatever user model the host has.
            author=self.author,  # type: ignore[misc]
            author_name=name_of(self.author),
            priority=priority,
            send_at=self.send_at,
            due_at=due_at,
            expires_at=self.expires_at,
            give_up_at=due_at + conf.give_up_after,
            override_opt_out=self.override_opt_out,
        )

    def is_same_as(self, first: Message) -> bool:
        conversation = first.conversation
        key = str(conversation.contact.phone_number), conversation.short_code.lower()
        return (key, first.text) == (self.key, self.text)

    def is_same_as_draft(self, other: "_Draft") -> bool:
        return (other.key, other.text) == (self.key, self.text)


def _queue(draft: _Draft) -> Message:
    first = _first_with([draft]).get(draft.identity) if draft.is_ref_id_given else None
    if first is None:
        try:
            return persistently(lambda: _store(draft))
        except IntegrityError:
            first = _first_with([draft]).get(draft.identity)
            if first is None:
                raise
    return _same(draft, first)


def _store(draft: _Draft) -> Message:
    conversation = _open(draft)
    now = timezone.now()
    message = draft.row(conversation, now, priority=Message.SINGLE)
    with atomic():
        Conversation.objects.filter(pk=conversation.pk).update(
            waiting_since=None,
            last_message_at=now,
            last_message_text=draft.text[:PREVIEW_LENGTH],
            last_message_direction=Message.Direction.OUTBOUND,
            last_message_identity=draft.identity,
        )
        # They leave before it, so they must not wait for the rest of their bulk.
        Message.objects.filter(
            conversation=conversation, status=Message.Status.QUEUED, priority__lt=message.priority
        ).update(priority=message.priority)
        message.save(force_insert=True)
        if draft.send_at is None or draft.send_at <= now:
            hint_after_commit([message.pk])
    return message


def _open(draft: _Draft) -> Conversation:
    """Its conversation, opened if need be; but nothing is written where ``OptedOut`` is raised."""
    conversations = Conversation.objects.using(database())
    found = conversations.found_between(draft.to, draft.sender)
    if found is not None:
        _require_consent(found.contact, override_opt_out=draft.override_opt_out)
        return found
    # They may have opted out on another short code.
    contact = Contact.objects.using(database()).filter(phone_number=draft.to).first()
    if contact is not None:
        _require_consent(contact, override_opt_out=draft.override_opt_out)
    return conversations.open_between(draft.to, draft.sender)


def _require_consent(contact: Contact, *, override_opt_out: bool) -> None:
    if contact.opted_out_at is not None and not override_opt_out:
        raise OptedOut(
            "The subscriber has opted out, and only they can opt in again.", contact.opted_out_at
        )


def _first_with(drafts: list[_Draft]) -> dict[str | None, Message]:
    identities = [draft.identity for draft in drafts]
    firsts = Message.objects.using(database()).filter(identity__in=identities)
    return {first.identity: first for first in firsts.select_related("conversation__contact")}


def _same(draft: _Draft, first: Message) -> Message:
    if not draft.is_same_as(first):
        raise RefIdConflict(
            f"ref_id {draft.ref_id!r} belongs to message {first.pk}, which has another"
            " recipient, sender or text. Use a new ref_id for a new message.",
            first,
        )
    return first


def _store_batch(batch: list[tuple[int, _Draft]]) -> tuple[int, list[int]]:
    """How many are new, and the positions of those whose subscribers opted out."""
    for _try in range(BULK_TRIES - 1):
        # Somebody else may store one of them after it was looked for.
        with suppress(IntegrityError):
            return persistently(lambda: _store_what_is_new(batch))
    return persistently(lambda: _store_what_is_new(batch))


def _store_what_is_new(batch: list[tuple[int, _Draft]]) -> tuple[int, list[int]]:
    unknown = _without_stored(batch)
    opted_out = _opted_out({draft.to for _position, draft in unknown})
    unwanted = {
        position
        for position, draft in unknown
        if draft.to in opted_out and not draft.override_opt_out
    }
    wanted = [(position, draft) for position, draft in unknown if position not in unwanted]
    return _store_all(_each_once(wanted)), sorted(unwanted)


def _without_stored(batch: list[tuple[int, _Draft]]) -> list[tuple[int, _Draft]]:
    firsts = _first_with([draft for _position, draft in batch])
    for position, draft in batch:
        if (first := firsts.get(draft.identity)) is not None:
            with _named(position):
                _same(draft, first)
    return [(position, draft) for position, draft in batch if draft.identity not in firsts]


def _opted_out(numbers: set[str]) -> set[str]:
    """Those of subscribers who opted out."""
    contacts = Contact.objects.using(database()).filter(phone_number__in=numbers)
    opted_out = contacts.filter(opted_out_at__isnull=False)
    return set(map(str, opted_out.values_list("phone_number", flat=True)))


def _each_once(drafts: list[tuple[int, _Draft]]) -> list[_Draft]:
    new: dict[str, _Draft] = {}
    for position, draft in drafts:
        if not draft.is_same_as_draft(new.setdefault(draft.identity, draft)):
            raise MessageRefused(
                f"Message {position}: its ref_id {draft.ref_id!r} was given before in this batch,"
                " with another recipient, sender or text."
            )
    return list(new.values())


def _store_all(drafts: list[_Draft]) -> int:
    if not drafts:
        return 0
    conversations = _conversations(drafts)
    now = timezone.now()
    rows = [draft.row(conversations[draft.key], now, priority=Message.BULK) for draft in drafts]
    mine = Conversation.objects.filter(pk__in={row.conversation_id for row in rows})
    # In one order, so that two batches never wait for each other. Where rows cannot be locked,
    # there is one writer at a time, and it must not read first.
    can_lock = connections[database()].features.has_select_for_update
    in_order = mine.order_by("pk") if can_lock else mine.none()
    with atomic():
        list(in_order.select_for_update().values_list("pk"))
        mine.update(waiting_since=None)
        Message.objects.using(database()).bulk_create(rows)
    return len(rows)


def _conversations(drafts: list[_Draft]) -> dict[tuple[str, str], Conversation]:
    """The conversation of each draft by its ``key``; those that are missing are opened together."""
    senders = {draft.key: draft.sender for draft in drafts}
    found = _existing(senders)
    missing = sorted(senders.keys() - found.keys())
    if not missing:
        return found
    numbers = sorted({number for number, _sender in missing})
    Contact.objects.using(database()).bulk_create(
        [Contact(phone_number=number) for number in numbers], ignore_conflicts=True
    )
    stored = Contact.objects.using(database()).filter(phone_number__in=numbers)
    contacts = {str(contact.phone_number): contact for contact in stored}
    Conversation.objects.using(database()).bulk_create(
        [Conversation(contact=contacts[key[0]], short_code=senders[key]) for key in missing],
        ignore_conflicts=True,
    )
    return _existing(senders)


def _existing(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Conversation]:
    numbers = {number for number, _sender in keys}
    conversations = Conversation.objects.using(database()).select_related("contact")
    return {
        (str(found.contact.phone_number), found.short_code.lower()): found
        for found in conversations.filter(contact__phone_number__in=numbers)
    }


def _numbered_draft(position: int, arguments: Mapping[str, Any]) -> tuple[int, _Draft]:
    with _named(position):
        return position, _draft(**arguments)


@contextmanager
def _named(position: int) -> Iterator[None]:
    """Say which message of a bulk it was that could not be sent."""
    try:
        yield
    except (MessageRefused, TypeError) as error:
        raise MessageRefused(f"Message {position}: {error}") from error


def _draft(to: str | PhoneNumber, text: str, *, sender: str | None = None, **more: Any) -> _Draft:
    """From the arguments of ``send_sms``, as they came."""
    return _Draft.of(to=_recipient(to), text=text, sender=_sender(sender), **more)


def _require(message: Message, *statuses: Message.Status) -> None:
    if message.status not in statuses:
        raise WrongStatus(f"Message {message.pk} is {message.status}, not {' or '.join(statuses)}.")


def _moved(message: Message, to: Message.Status, **changes: Any) -> Message:
    if not outbox.move(message, to, **changes):
        raise WrongStatus(f"Somebody else has just changed message {message.pk}: look at it again.")
    return message


def _recipient(to: str | PhoneNumber) -> str:
    if isinstance(to, PhoneNumber):
        to = str(SubscriberNumber.read(to))
    if not isinstance(to, str):
        raise MessageRefused(f"The recipient must be a string, not {type(to).__name__}.")
    return subscriber_number(to)


def _sender(sender: str | None) -> str:
    if sender is None:
        return conf.short_code
    if not isinstance(sender, str):
        raise MessageRefused(f"The sender must be a string, not {type(sender).__name__}.")
    return service_number(sender)


def _text(text: str) -> str:
    if not isinstance(text, str):
        raise MessageRefused(f"The text must be a string, not {type(text).__name__}.")
    if not text.strip():
        raise MessageRefused("The text is empty.")
    if unstorable(text):
        raise MessageRefused("The text has characters that cannot be stored: NUL, or half a pair.")
    # A browser posts line ends as CRLF; as text they are one character.
    return text.replace("\r\n", "\n")


def _id(name: str, value: str) -> str:
    if not isinstance(value, str) or not value.strip() or unstorable(value) or len(value) > MAX_ID:
        raise MessageRefused(f"{name} must be a string of 1 to {MAX_ID} characters.")
    return value


def _moment(name: str, moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise MessageRefused(f"{name} must be a datetime.")
    if not 2000 <= moment.year < 2100:
        raise MessageRefused(f"{name} must be between the years 2000 and 2100.")
    if settings.USE_TZ and timezone.is_naive(moment):
        raise MessageRefused(f"{name} must have a time zone, since USE_TZ is on.")
    if not settings.USE_TZ and timezone.is_aware(moment):
        return timezone.make_naive(moment, timezone.get_default_timezone())
    return moment


def _bool(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise MessageRefused(f"{name} must be True or False.")
    return value


def _author(author: AbstractBaseUser | None) -> AbstractBaseUser | None:
    if author is not None and (not isinstance(author, get_user_model()) or author.pk is None):
        raise MessageRefused("The author must be a user that is stored, or None.")
    return author
