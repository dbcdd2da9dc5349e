"""What is kept: who texts us, their conversations, every message, and what was not understood.

The row is the truth. A message moves between statuses by conditional updates only (``outbox`` and
``services``), never by ``save()``. Nothing of it can be deleted in the admin: a deleted text would
be taken again when it is redelivered.
"""

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Self

import phonenumbers
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, router, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Lower, Now, Right
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext, pgettext_lazy
from phonenumber_field.modelfields import PhoneNumberDescriptor, PhoneNumberField
from phonenumber_field.phonenumber import PhoneNumber

from django_ninebits import placeholders
from django_ninebits.exceptions import InvalidPhoneNumber
from django_ninebits.phone import HOME_REGION, is_possible, subscriber_number
from django_ninebits.wire import MAX_ID, MAX_TELCO

#: How much of the last message the inbox shows, in characters.
PREVIEW_LENGTH = 160

#: Of a person's name, in characters.
MAX_NAME = 200


class SubscriberNumber(PhoneNumber):
    """A phone number that is E.164 wherever it is read, compared or written."""

    @classmethod
    def read(cls, value: object) -> Self:
        """Whatever is given, as a number; what cannot be one keeps its writing."""
        if isinstance(value, cls):
            return value
        if isinstance(value, phonenumbers.PhoneNumber):
            value = phonenumbers.format_number(value, phonenumbers.PhoneNumberFormat.E164)
        written = str(value)
        try:
            e164 = written if written.startswith("+") else subscriber_number(written)
            number: Self = cls.from_string(e164, region=HOME_REGION)  # type: ignore[no-untyped-call]
        except (InvalidPhoneNumber, phonenumbers.NumberParseException):
            number = cls(raw_input=written)
        return number

    def __str__(self) -> str:
        return str(self.as_e164 if self.country_code else self.raw_input)

    def __eq__(self, other: object) -> bool:
        # Not ``NotImplemented``: what this inherits takes that for equal in ``!=``.
        return isinstance(other, str | phonenumbers.PhoneNumber) and str(self) == str(
            self.read(other)
        )

    def __hash__(self) -> int:
        return hash(str(self))


def validate_possible_number(value: object) -> None:
    """For forms. Possible is enough: new blocks take months to be listed as valid."""
    number = SubscriberNumber.read(value)
    if not number.country_code or not is_possible(number):
        raise ValidationError(
            _("Enter a phone number, such as 0802 000 0000 or +234 802 000 0000."), code="invalid"
        )


class _NumberDescriptor(PhoneNumberDescriptor):
    def __set__(self, instance: models.Model, value: object) -> None:
        instance.__dict__[self.field.name] = self.field.to_python(value)


class SubscriberNumberField(PhoneNumberField):
    """A phone number stored as E.164, whatever the host's ``PHONENUMBER_*`` settings say."""

    default_validators = [validate_possible_number]
    descriptor_class = _NumberDescriptor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("region", HOME_REGION)
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]

    def to_python(self, value: object) -> SubscriberNumber | None:
        return None if value is None else SubscriberNumber.read(value)

    def from_db_value(self, value: str | None, *args: object) -> SubscriberNumber | None:
        return self.to_python(value)

    def get_prep_value(self, value: object) -> str | None:
        number = self.to_python(value)
        return None if number is None else str(number)

    def formfield(self, *args: Any, **kwargs: Any) -> Any:
        return models.CharField.formfield(self, *args, **kwargs)


class Contact(models.Model):
    """A subscriber: a person with a phone."""

    phone_number = SubscriberNumberField(_("phone number"), max_length=32, unique=True)
    name = models.CharField(_("name"), max_length=MAX_NAME, blank=True)
    notes = models.TextField(_("notes"), blank=True)
    opted_out_at = models.DateTimeField(
        _("opted out at"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("Nothing is sent to them from then on. Only a text of theirs clears it."),
    )
    consent_at = models.DateTimeField(
        _("consent's latest text"),
        null=True,
        editable=False,
        help_text=_("When the latest text was sent that opts out or in, whatever it changed."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    # What the inbox is searched by. The database itself keeps them right, however rows are written.
    last_digits = models.GeneratedField(
        expression=Right("phone_number", 4),
        output_field=models.CharField(max_length=4),
        db_persist=True,
        db_index=True,
    )
    name_key = models.GeneratedField(
        expression=Lower("name"),
        # In small letters some are two.
        output_field=models.CharField(max_length=400),
        db_persist=True,
        db_index=True,
    )

    class Meta:
        verbose_name = _("contact")
        verbose_name_plural = _("contacts")

    def __str__(self) -> str:
        return self.name or str(self.phone_number)


def draw_session_id() -> str:
    """For a conversation that we start: which session 9bits wants there is unknown."""
    return secrets.token_hex(8)


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """What the inbox and the services ask of conversations."""

    def between(self, phone_number: str, short_code: str) -> "Conversation":
        """The conversation of this subscriber (E.164) with this short code, opened if need be.

        Writes only when there is none, and then contact and conversation are each written at once:
        many callers at the same instant all get the same rows.
        """
        found = self.found_between(phone_number, short_code)
        return self.open_between(phone_number, short_code) if found is None else found

    def found_between(self, phone_number: str, short_code: str) -> "Conversation | None":
        """The same with its contact, if there is one; writes nothing."""
        # Sender IDs are compared like this because one of the databases cannot do otherwise.
        found = self.select_related("contact").filter(
            contact__phone_number=phone_number, short_code__iexact=short_code
        )
        return found.first()

    def open_between(self, phone_number: str, short_code: str) -> "Conversation":
        """The same where none was found."""
        contact, _created = Contact.objects.using(self.db).get_or_create(phone_number=phone_number)
        conversation, _created = self.get_or_create(contact=contact, short_code=short_code)
        return conversation

    def hold(self) -> int:
        """Keep others from writing to these until the end of the transaction, on every database.

        By a write that changes nothing: a lock that is a read comes too late on SQLite.
        """
        return self.update(unread_count=F("unread_count"))


class Conversation(models.Model):
    """One subscriber on one short code. Sessions are marks in it."""

    class Status(models.TextChoices):
        OPEN = "open", pgettext_lazy("conversation", "open")
        CLOSED = "closed", pgettext_lazy("conversation", "closed")

    contact = models.ForeignKey(
        Contact,
        on_delete=models.PROTECT,
        related_name="conversations",
        verbose_name=_("contact"),
        db_index=False,
    )
    short_code = models.CharField(_("short code"), max_length=32)
    session_id = models.CharField(
        _("session"),
        max_length=MAX_ID,
        default=draw_session_id,
        help_text=_("Of the latest text from the subscriber; replies use it."),
    )
    session_at = models.DateTimeField(_("session's latest text"), null=True, editable=False)
    status = models.CharField(
        _("status"), max_length=10, choices=Status.choices, default=Status.OPEN
    )
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("assignee"),
        db_index=False,
    )
    telco = models.CharField(
        _("telco"),
        max_length=MAX_TELCO,
        blank=True,
        editable=False,
        help_text=_("The network that 9bits named last."),
    )
    unread_count = models.PositiveIntegerField(pgettext_lazy("count", "unread"), default=0)
    read_up_to = models.BigIntegerField(
        _("read up to"),
        default=0,
        editable=False,
        help_text=_("The id of the newest message that somebody who may reply has seen."),
    )
    waiting_since = models.DateTimeField(_("waiting since"), null=True, blank=True)
    undecided_since = models.DateTimeField(
        _("undecided since"),
        null=True,
        blank=True,
        help_text=_("When the oldest message was written that needs a decision."),
    )
    settled_up_to = models.BigIntegerField(
        _("settled up to"),
        default=0,
        editable=False,
        help_text=_(
            "The id of the newest message when it was closed: what came until then waits no more."
        ),
    )
    trail_up_to = models.BigIntegerField(
        _("trail up to"),
        default=0,
        editable=False,
        help_text=_("The id of the newest change that staff made, or noted."),
    )
    last_message_at = models.DateTimeField(
        _("last message at"),
        null=True,
        blank=True,
        help_text=_("Empty as long as there were only bulk messages: those are not listed."),
    )
    last_message_text = models.CharField(
        _("last message"), max_length=PREVIEW_LENGTH, blank=True, editable=False
    )
    last_message_direction = models.CharField(max_length=10, blank=True, editable=False)
    last_message_identity = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text=_("Of an outbound one, whose status is looked up by it."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        constraints = [
            models.UniqueConstraint(
                fields=["contact", "short_code"], name="ninebits_conversation_once"
            )
        ]
        # What the list of the inbox walks along: see ``folders``.
        indexes = [
            models.Index(fields=["last_message_at", "id"], name="ninebits_newest"),
            models.Index(fields=["status", "last_message_at", "id"], name="ninebits_status_newest"),
            models.Index(
                fields=["assignee", "status", "last_message_at", "id"],
                name="ninebits_assignee_newest",
            ),
            models.Index(fields=["waiting_since", "id"], name="ninebits_waiting"),
            models.Index(fields=["assignee", "waiting_since", "id"], name="ninebits_assignee_wait"),
            models.Index(fields=["undecided_since", "id"], name="ninebits_undecided"),
            models.Index(
                fields=["short_code", "last_message_at", "id"], name="ninebits_code_newest"
            ),
            models.Index(fields=["telco", "last_message_at", "id"], name="ninebits_telco_newest"),
        ]
        # Not translated: Django stores these names when it migrates.
        permissions = [
            ("reply_conversation", "Can reply in conversations"),
            ("assign_conversation", "Can assign conversations"),
            ("resolve_message", "Can decide about uncertain and failed messages"),
        ]

    def __str__(self) -> str:
        return f"{self.contact} · {self.short_code}"

    def recount(self) -> None:
        """Write down since when it waits, and needs a decision. Whoever calls it holds the row."""
        Conversation.objects.filter(pk=self.pk).update(
            waiting_since=self.waits_since(), undecided_since=self.needs_decision_since()
        )

    def waits_since(self) -> datetime | None:
        """What ``waiting_since`` should be: when the oldest text came that nothing has answered.

        An outbound message that is queued, sending, sent or uncertain answers what came before it,
        and so does whoever closes the conversation.
        """
        messages = self.messages.using(database())
        answers = messages.filter(status__in=Message.ANSWERING)
        answered = answers.order_by("-id").values_list("id", flat=True).first() or 0
        unanswered = messages.filter(
            direction=Message.Direction.INBOUND,
            id__gt=answered,
            # As it is now, whatever was read before.
            conversation__settled_up_to__lt=F("id"),
        )
        return unanswered.order_by("id").values_list("created_at", flat=True).first()

    def needs_decision_since(self) -> datetime | None:
        """What ``undecided_since`` should be."""
        undecided = self.messages.using(database()).filter(needs_decision=True)
        return undecided.order_by("id").values_list("created_at", flat=True).first()

    def close(self, seen: int, *, author: Any = None) -> bool:
        """There is nothing to do here, as far as the message ``seen``: nobody waits any more, and
        no message needs a decision.

        Returns whether it was done. It is not where a text came after that message, or one that
        was written after it needs a decision. ``author`` is the user who did it, or ``None`` for
        code; the thread shows this, as it does all of these.
        """
        mine = Conversation.objects.filter(pk=self.pk)
        messages = Message.objects.using(database()).filter(conversation=self)
        is_news = Q(direction=Message.Direction.INBOUND) | Q(needs_decision=True)
        news = messages.filter(is_news, id__gt=seen)
        with atomic():
            # Nobody stores a text in it from here on.
            if not mine.filter(status=self.Status.OPEN).hold() or news.exists():
                return False
            mine.update(
                status=self.Status.CLOSED,
                settled_up_to=self._newest_id(),
                waiting_since=None,
                undecided_since=None,
            )
            messages.filter(needs_decision=True).update(needs_decision=False)
            self._record(ConversationChange.Kind.CLOSED, author)
        return True

    def reopen(self, *, author: Any = None) -> bool:
        """Take the closing back: whatever was not answered or decided counts again.

        Returns whether it was done.
        """
        mine = Conversation.objects.filter(pk=self.pk, status=self.Status.CLOSED)
        with atomic():
            if not mine.update(status=self.Status.OPEN, settled_up_to=0):
                return False
            Message.objects.filter(conversation=self, status__in=Message.UNDECIDED).update(
                needs_decision=True
            )
            self.recount()
            self._record(ConversationChange.Kind.REOPENED, author)
        return True

    def assign(self, user: Any, *, author: Any = None, note: str = "") -> bool:
        """To this user, or to nobody, with a note for colleagues.

        Returns whether it was assigned otherwise before; if not, the note is kept all the same.
        """
        kinds = ConversationChange.Kind
        mine = Conversation.objects.filter(pk=self.pk)
        other = ~Q(assignee=user) | Q(assignee=None) if user else Q(assignee__isnull=False)
        with atomic():
            is_changed = bool(mine.filter(other).update(assignee=user))
            if is_changed:
                kind = kinds.ASSIGNED if user else kinds.RELEASED
                if user and user == author:
                    kind = kinds.TAKEN
                self._record(kind, author, assignee=user, note=note)
            elif note:
                self.note(note, author=author)
        return is_changed

    def note(self, text: str, *, author: Any = None) -> None:
        """For colleagues, in the thread. No subscriber ever sees it."""
        with atomic():
            Conversation.objects.filter(pk=self.pk).hold()
            self._record(ConversationChange.Kind.NOTED, author, note=text)

    def _record(self, kind: str, author: Any, *, assignee: Any = None, note: str = "") -> None:
        """Whoever calls it holds the row."""
        change = ConversationChange.objects.using(database()).create(
            conversation=self,
            kind=kind,
            after=self._newest_id(),
            author=author,
            author_name=name_of(author),
            assignee=assignee,
            assignee_name=name_of(assignee),
            note=note,
        )
        Conversation.objects.filter(pk=self.pk).update(trail_up_to=change.pk)

    def _newest_id(self) -> int:
        newest = self.messages.using(database()).order_by("-id")
        return newest.values_list("id", flat=True).first() or 0

    def mark_read_up_to(self, message_id: int) -> bool:
        """Somebody who may reply has seen the messages up to this one.

        Later texts stay unread. Writes nothing where nothing is unread; returns whether it did.
        """
        if not self.unread_count:
            return False
        mine = Conversation.objects.filter(pk=self.pk)
        with atomic():
            # Nobody stores a text in it from here on, so the count is right when it is written.
            if not mine.filter(read_up_to__lt=message_id).update(read_up_to=message_id):
                return False
            unread = Message.objects.using(database()).filter(
                conversation=self, direction=Message.Direction.INBOUND, id__gt=message_id
            )
            mine.update(unread_count=unread.count())
        return True


class MessageQuerySet(models.QuerySet["Message"]):
    """What the outbox and the sweeps ask of messages, in words."""

    def due(self, now: datetime) -> Self:
        """Queued messages whose time has come, in no order."""
        # All priorities there are, so that each is a range of the index.
        priorities = Message.PRIORITIES
        return self.filter(status=Message.Status.QUEUED, priority__in=priorities, due_at__lte=now)

    def in_turn(self, now: datetime) -> Self:
        """The same, the more urgent first, then what is due the longest."""
        # In this order the index has them, so that the first are found however many there are.
        waiting = self.filter(status=Message.Status.QUEUED, due_at__lte=now)
        return waiting.order_by("-priority", "due_at", "id")

    def next_in_conversation(self, now: datetime) -> Self:
        """Without those that an earlier message of their conversation holds back.

        That is one being sent, or one queued that is due or was tried before. What is scheduled
        and untried holds back nobody. What is not scheduled was due when it was written, whatever
        the clock has shown since.
        """
        earlier = Message.objects.filter(
            conversation=OuterRef("conversation"), id__lt=OuterRef("id")
        ).filter(
            Q(status=Message.Status.SENDING)
            | Q(status=Message.Status.QUEUED)
            & (Q(send_at=None) | Q(due_at__lte=now) | Q(attempts__gt=0))
        )
        return self.filter(~Exists(earlier))


class Message(models.Model):
    """One text, from a subscriber or to one."""

    class Direction(models.TextChoices):
        INBOUND = "inbound", pgettext_lazy("message", "inbound")
        OUTBOUND = "outbound", pgettext_lazy("message", "outbound")

    class Status(models.TextChoices):
        RECEIVED = "received", pgettext_lazy("message", "received")
        # Waits for its time, or to be tried again.
        QUEUED = "queued", pgettext_lazy("message", "queued")
        # The request may have left. Committed before its first byte.
        SENDING = "sending", pgettext_lazy("message", "sending")
        # Two-way SMS has no delivery reports: that it reached the phone is never known.
        SENT = "sent", pgettext_lazy("message", "accepted by 9bits")
        # 9bits refused it, or it was given up, expired or not allowed.
        FAILED = "failed", pgettext_lazy("message", "failed")
        # It may have reached 9bits. Only a person decides whether it is sent again.
        UNCERTAIN = "uncertain", pgettext_lazy("message", "uncertain")
        CANCELLED = "cancelled", pgettext_lazy("message", "cancelled")

    #: What counts as an answer to the texts before it.
    ANSWERING = (Status.QUEUED, Status.SENDING, Status.SENT, Status.UNCERTAIN)

    #: What a person decides about: whether it arrived, or is sent again.
    UNDECIDED = (Status.FAILED, Status.UNCERTAIN)

    #: ``priority`` of what ``send_many`` queues, and of single messages: higher leaves first.
    BULK = 0
    SINGLE = 10
    PRIORITIES = (SINGLE, BULK)

    conversation = models.ForeignKey(
        Conversation,
        on_delete=models.PROTECT,
        related_name="messages",
        verbose_name=_("conversation"),
        db_index=False,
    )
    direction = models.CharField(_("direction"), max_length=10, choices=Direction.choices)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices)
    identity = models.CharField(  # noqa: DJ001 - unique where there is one
        _("identity"),
        max_length=64,
        null=True,
        unique=True,
        editable=False,
        help_text=_("A SHA-256 over what identifies the message; empty where nothing does."),
    )
    session_id = models.CharField(_("session"), max_length=MAX_ID)
    ref_id = models.CharField(_("reference"), max_length=MAX_ID)
    text = models.TextField(_("text"))
    telco = models.CharField(_("telco"), max_length=MAX_TELCO, blank=True)
    sent_date = models.DateTimeField(
        _("sent date"),
        null=True,
        help_text=_("As 9bits gave it where it can be believed, or as it was given to 9bits."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("author"),
    )
    author_name = models.CharField(_("author's name then"), max_length=MAX_NAME, blank=True)
    priority = models.SmallIntegerField(_("priority"), default=SINGLE)
    send_at = models.DateTimeField(_("send at"), null=True)
    due_at = models.DateTimeField(_("due at"), null=True)
    expires_at = models.DateTimeField(_("expires at"), null=True)
    give_up_at = models.DateTimeField(_("give up at"), null=True)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    claimed_at = models.DateTimeField(
        _("claimed at"),
        null=True,
        help_text=_("When the latest attempt was begun, by the database's clock, in UTC."),
    )
    claim_token = models.BigIntegerField(
        _("claim token"),
        null=True,
        help_text=_("Drawn anew for the latest attempt, by the process that made it."),
    )
    was_uncertain = models.BooleanField(
        _("was uncertain"),
        default=False,
        help_text=_("Sent again although an attempt may have arrived: it cannot end as failed."),
    )
    needs_decision = models.BooleanField(
        _("needs a decision"),
        default=False,
        help_text=_(
            "Failed or uncertain, and nobody has decided or closed the conversation since."
        ),
    )
    error = models.TextField(_("error"), blank=True)
    override_opt_out = models.BooleanField(
        _("in spite of opt-out"),
        default=False,
        help_text=_("Also to somebody who opted out, such as a legal notice."),
    )
    delivery = models.BinaryField(
        _("delivery"), null=True, help_text=_("An inbound text's bytes, as they came.")
    )
    announce_at = models.DateTimeField(
        _("announce at"),
        null=True,
        help_text=_("When a worker sends the signal of an inbound text that nobody has sent yet."),
    )

    objects = MessageQuerySet.as_manager()

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering = ["id"]
        constraints = [
            # Those of ``PRIORITIES``: no worker would ever find another.
            models.CheckConstraint(condition=Q(priority__in=[0, 10]), name="ninebits_priority")
        ]
        indexes = [
            models.Index(fields=["conversation", "id"], name="ninebits_thread"),
            models.Index(fields=["session_id"], name="ninebits_session"),
            models.Index(fields=["ref_id"], name="ninebits_reference"),
            models.Index(fields=["status", "-priority", "due_at", "id"], name="ninebits_due"),
            models.Index(fields=["status", "expires_at"], name="ninebits_expiry"),
            models.Index(fields=["announce_at"], name="ninebits_announce"),
        ]

    def __str__(self) -> str:
        named = pgettext("message", "%(direction)s %(id)s")
        return named % {"direction": self.get_direction_display(), "id": self.pk}

    @property
    def is_inbound(self) -> bool:
        return self.direction == self.Direction.INBOUND


class Attempt(models.Model):
    """One request with a message that may have left, and what was learnt of it."""

    class Outcome(models.TextChoices):
        ACCEPTED = "accepted", pgettext_lazy("attempt", "accepted")
        # 9bits looked at the message and will not take it.
        REFUSED = "refused", pgettext_lazy("attempt", "refused")
        # 9bits surely did not take it, and may later.
        NOT_ACCEPTED = "not_accepted", pgettext_lazy("attempt", "not accepted")
        # It may have been accepted.
        UNKNOWN = "unknown", pgettext_lazy("attempt", "unknown")

    message = models.ForeignKey(
        Message,
        on_delete=models.PROTECT,
        related_name="tries",
        verbose_name=_("message"),
        db_index=False,
    )
    number = models.PositiveIntegerField(_("number"))
    began_at = models.DateTimeField(_("began at"))
    seconds = models.FloatField(
        _("seconds"), null=True, help_text=_("How long it took; empty where nobody could tell.")
    )
    outcome = models.CharField(_("outcome"), max_length=12, choices=Outcome.choices)
    http_status = models.PositiveSmallIntegerField(_("HTTP status"), null=True)
    answer = models.TextField(
        _("answer"),
        blank=True,
        help_text=_("The start of what 9bits answered, or why there is no answer."),
    )

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["message", "number"], name="ninebits_attempt_once")
        ]

    def __str__(self) -> str:
        return f"{self.number}: {self.get_outcome_display()}"


class ConsentChange(models.Model):
    """A subscriber opted out, or in again, and the text that said so. Kept for ever."""

    class Became(models.TextChoices):
        OPTED_OUT = "opted_out", pgettext_lazy("contact", "opted out")
        OPTED_IN = "opted_in", pgettext_lazy("contact", "opted in again")

    contact = models.ForeignKey(
        Contact,
        on_delete=models.PROTECT,
        related_name="consent_changes",
        verbose_name=_("contact"),
    )
    message = models.OneToOneField(
        Message,
        on_delete=models.PROTECT,
        related_name="consent_change",
        verbose_name=_("message"),
    )
    became = models.CharField(
        pgettext_lazy("contact", "became"), max_length=10, choices=Became.choices
    )
    changed_at = models.DateTimeField(_("changed at"))

    class Meta:
        verbose_name = _("change of consent")
        verbose_name_plural = _("changes of consent")
        ordering = ["id"]

    def __str__(self) -> str:
        return self.get_became_display()


class ConversationChange(models.Model):
    """What somebody did with a conversation, or noted for colleagues. Kept for ever, never sent."""

    class Kind(models.TextChoices):
        TAKEN = "taken", pgettext_lazy("conversation", "taken")
        ASSIGNED = "assigned", pgettext_lazy("conversation", "assigned")
        RELEASED = "released", pgettext_lazy("conversation", "released")
        CLOSED = "closed", pgettext_lazy("conversation", "closed")
        REOPENED = "reopened", pgettext_lazy("conversation", "reopened")
        NOTED = "noted", pgettext_lazy("conversation", "noted")

    conversation = models.ForeignKey(
        Conversation,
        on_delete=models.PROTECT,
        related_name="changes",
        verbose_name=_("conversation"),
        db_index=False,
    )
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    after = models.BigIntegerField(
        _("after"),
        help_text=_("The id of the newest message then: below it the thread shows this."),
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("author"),
    )
    author_name = models.CharField(_("author's name then"), max_length=MAX_NAME, blank=True)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("assignee"),
    )
    assignee_name = models.CharField(_("assignee's name then"), max_length=MAX_NAME, blank=True)
    note = models.TextField(_("note"), blank=True)
    changed_at = models.DateTimeField(_("changed at"), default=timezone.now)

    class Meta:
        verbose_name = _("change of a conversation")
        verbose_name_plural = _("changes of conversations")
        ordering = ["id"]
        indexes = [models.Index(fields=["conversation", "after"], name="ninebits_trail")]

    def __str__(self) -> str:
        return self.get_kind_display()


def validate_placeholders(text: str) -> None:
    """For forms. What looks like a gap must be one."""
    if found := placeholders.mistakes(text):
        known = ", ".join(f"{{{name}}}" for name in placeholders.NAMES)
        raise ValidationError(
            _("There is no %(found)s. There are %(known)s, and each as in {name|there}."),
            code="invalid",
            params={"found": found[0], "known": known},
        )


class CannedReply(models.Model):
    """A text that staff insert into a reply: everybody's, or one person's own."""

    title = models.CharField(
        _("title"), max_length=80, help_text=_("What it is found by, such as after a /.")
    )
    text = models.TextField(
        _("text"),
        validators=[validate_placeholders],
        help_text=_(
            "{name}, {number} and {short_code} are the subscriber's, {me} is your name. What stands"
            " behind a bar, as in {name|there}, is inserted where nothing is known."
        ),
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        verbose_name=_("owner"),
        help_text=_("Empty for one that is everybody's."),
    )

    class Meta:
        verbose_name = _("canned reply")
        verbose_name_plural = _("canned replies")

    def __str__(self) -> str:
        return self.title


class QuarantinedDelivery(models.Model):
    """An authentic delivery that was not understood, or could not be stored. Each is a row."""

    body = models.BinaryField(_("body"), help_text=_("The bytes, as they came."))
    errors = models.TextField(_("errors"), help_text=_("A line each."))
    received_at = models.DateTimeField(_("received at"), default=timezone.now)
    message = models.ForeignKey(
        Message,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        verbose_name=_("message"),
        help_text=_("What became of it when it was taken in again."),
    )
    taken_in_at = models.DateTimeField(_("taken in at"), null=True)

    class Meta:
        verbose_name = _("quarantined delivery")
        verbose_name_plural = _("quarantined deliveries")

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} {self.pk}"


class Heartbeat(models.Model):
    """When a worker last showed that it is there and able to send. All of them share one row."""

    beat_at = models.DateTimeField(_("beat at"))

    class Meta:
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")

    def __str__(self) -> str:
        return str(self.beat_at)

    @staticmethod
    def beat() -> None:
        """Be seen now."""
        beats, now = Heartbeat.objects.using(database()), timezone.now()
        if not beats.filter(pk=1).update(beat_at=now):
            beats.bulk_create([Heartbeat(pk=1, beat_at=now)], ignore_conflicts=True)

    @staticmethod
    def last() -> datetime | None:
        """When that was."""
        return Heartbeat.objects.using(database()).values_list("beat_at", flat=True).first()


def name_of(user: Any) -> str:
    """A user as colleagues know them, whatever user model the host has. Empty for nobody."""
    if user is None:
        return ""
    full_name = getattr(user, "get_full_name", str)
    return str(full_name() or user.get_username())[:MAX_NAME]


def database() -> str:
    """The alias that all of this is written to, and read from where it must be fresh."""
    return router.db_for_write(Message)


def atomic(*, durable: bool = False) -> AbstractContextManager[None]:
    """A transaction on that database. Its first statement is to be a write, for SQLite's sake.

    A ``durable`` one refuses to be part of another: what it wrote is committed when it ends.
    """
    return transaction.atomic(using=database(), durable=durable)


def after_commit(callback: Callable[[], None]) -> None:
    """Call back once what was written is there for everybody; what it raises harms nobody."""
    transaction.on_commit(callback, using=database(), robust=True)


class DatabaseNow(Now):
    """What time it is for the database, in UTC: the one clock that all processes share."""

    def as_mysql(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        # Django's own is in the time zone of the server, which may be set forward and back.
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra_context)


def stored_time(moment: datetime) -> datetime:
    """An aware datetime in the way that the host's ``USE_TZ`` stores times."""
    if settings.USE_TZ:
        return moment
    return timezone.make_naive(moment, timezone.get_default_timezone())


def aware_time(moment: datetime) -> datetime:
    """The other way round."""
    if timezone.is_aware(moment):
        return moment
    return timezone.make_aware(moment, timezone.get_default_timezone())
