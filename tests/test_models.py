from datetime import UTC, datetime, timedelta
from io import StringIO

import phonenumbers
import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError
from django.forms import modelform_factory
from django.test import override_settings
from django.utils import timezone
from phonenumber_field.phonenumber import PhoneNumber

from django_ninebits.models import (
    Attempt,
    Contact,
    Conversation,
    Heartbeat,
    Message,
    QuarantinedDelivery,
    SubscriberNumber,
    after_commit,
    atomic,
    aware_time,
    database,
    draw_session_id,
    stored_time,
)

LAGOS = "+2348020000000"
NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

pytestmark = pytest.mark.django_db

ContactForm = modelform_factory(Contact, fields=["phone_number"])


@pytest.fixture
def conversation():
    return Conversation.objects.between(LAGOS, "48974")


@pytest.fixture
def add(conversation):
    """Add a message to the conversation, due at noon unless said otherwise."""

    def add(direction="outbound", status="queued", **fields):
        fields = {"due_at": NOON, "session_id": "s", "ref_id": "r", "text": "x"} | fields
        return conversation.messages.create(direction=direction, status=status, **fields)

    return add


# Numbers of subscribers


@pytest.mark.parametrize(
    "given",
    [
        LAGOS,
        "0802 000 0000",
        "2348020000000",
        phonenumbers.parse(LAGOS),
        PhoneNumber.from_string("08020000000", region="NG"),
        SubscriberNumber.read(LAGOS),
    ],
)
def test_a_number_is_e164_however_it_was_given(given):
    contact = Contact.objects.create(phone_number=given)
    assert str(contact.phone_number) == LAGOS
    assert str(Contact.objects.get(phone_number=given).phone_number) == LAGOS


def test_a_number_is_e164_where_it_is_assigned():
    contact = Contact()
    contact.phone_number = "0802 000 0000"
    assert (str(contact.phone_number), contact.phone_number.country_code) == (LAGOS, 234)


def test_a_number_is_e164_in_the_database():
    Contact.objects.create(phone_number="0802 000 0000")
    with connection.cursor() as cursor:
        cursor.execute("SELECT phone_number FROM django_ninebits_contact")
        assert cursor.fetchone() == (LAGOS,)


def test_numbers_are_equal_however_they_are_written():
    number = SubscriberNumber.read(LAGOS)
    assert number == "0802 000 0000"
    assert number == PhoneNumber.from_string(LAGOS)
    assert number != "08020000001"
    assert number != "no number"
    assert number != 2348020000000
    assert number != None  # noqa: E711


def test_numbers_are_found_in_sets():
    assert SubscriberNumber.read("08020000000") in {SubscriberNumber.read(LAGOS)}
    assert SubscriberNumber.read("08020000000") in {LAGOS}


@pytest.mark.parametrize("written", ["no number", "", "+", "48974"])
def test_what_is_no_number_keeps_its_writing(written):
    assert str(SubscriberNumber.read(written)) == written


def test_an_unlisted_country_keeps_its_number():
    contact = Contact.objects.create(phone_number="+999123456789")
    contact.refresh_from_db()
    assert str(contact.phone_number) == "+999123456789"


def test_no_number_is_none():
    contact = Contact(phone_number=LAGOS)
    contact.phone_number = None
    assert contact.phone_number is None
    assert not Contact.objects.filter(phone_number=None).exists()


def test_a_subscriber_is_one_contact():
    Contact.objects.create(phone_number="08020000000")
    with pytest.raises(IntegrityError), transaction.atomic():
        Contact.objects.create(phone_number="2348020000000")


@pytest.mark.parametrize("written", ["0802 000 0000", "+14155552671", "09210000000"])
def test_a_form_takes_what_can_be_sent_to(written):
    form = ContactForm({"phone_number": written})
    assert form.is_valid()
    assert str(form.save().phone_number).startswith("+")


@pytest.mark.parametrize(
    "written", ["", "MTN", "48974", "0802000", "+1 555 0100", "+999123456789", "0" * 33, "\0"]
)
def test_a_form_refuses_what_cannot_be_sent_to(written):
    assert list(ContactForm({"phone_number": written}).errors) == ["phone_number"]


def test_a_form_finds_a_subscriber_that_is_there():
    Contact.objects.create(phone_number=LAGOS)
    assert "already exists" in str(ContactForm({"phone_number": "08020000000"}).errors)


def test_validation_names_the_way_to_write_one():
    with pytest.raises(ValidationError, match="0802 000 0000"):
        Contact(phone_number="MTN").full_clean()


# What they are called


def test_a_contact_is_called_by_name_or_number():
    assert str(Contact(phone_number=LAGOS, name="Ada")) == "Ada"
    assert str(Contact(phone_number=LAGOS)) == LAGOS


def test_rows_have_names_without_texts(conversation, add):
    message = add(text="secret")
    assert str(conversation) == f"{LAGOS} · 48974"
    assert str(Attempt(number=2, outcome="not_accepted")) == "2: not accepted"
    assert str(message) == f"outbound {message.pk}"
    assert str(QuarantinedDelivery(pk=7, body=b"secret")) == "quarantined delivery 7"


def test_a_message_knows_its_direction(add):
    assert add("inbound", "received").is_inbound
    assert not add().is_inbound


# Conversations


def test_a_conversation_is_opened_once(conversation):
    assert Conversation.objects.between(LAGOS, "48974") == conversation
    assert Conversation.objects.between(LAGOS, "48975") != conversation
    assert Contact.objects.count() == 1


def test_a_contact_that_is_there_is_used():
    contact = Contact.objects.create(phone_number=LAGOS)
    assert Conversation.objects.between(LAGOS, "48974").contact == contact


def test_a_conversation_is_found_with_its_contact(conversation, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert str(Conversation.objects.between(LAGOS, "48974").contact) == LAGOS


@pytest.mark.parametrize("written", ["myshop", "MYSHOP", "MyShop"])
def test_a_sender_id_is_one_in_any_case(written):
    first = Conversation.objects.between(LAGOS, "MyShop")
    assert Conversation.objects.between(LAGOS, written) == first


def test_a_subscriber_has_one_conversation_with_a_short_code(conversation):
    with pytest.raises(IntegrityError), transaction.atomic():
        Conversation.objects.create(contact=conversation.contact, short_code="48974")


def test_a_new_conversation_has_a_session_of_its_own(conversation):
    assert len(conversation.session_id) == 16
    assert draw_session_id() != draw_session_id()


def test_holding_changes_nothing(conversation):
    before = Conversation.objects.values().get()
    assert Conversation.objects.filter(pk=conversation.pk).hold() == 1
    assert Conversation.objects.values().get() == before


def test_nothing_that_was_said_can_be_deleted(conversation, add):
    add()
    with pytest.raises(ProtectedError):
        conversation.delete()
    with pytest.raises(ProtectedError):
        conversation.contact.delete()


def test_a_message_outlives_its_author_and_keeps_the_name(conversation, add):
    ada = get_user_model().objects.create(username="ada")
    Conversation.objects.update(assignee=ada)
    message = add(author=ada, author_name="Ada")
    ada.delete()
    message.refresh_from_db()
    conversation.refresh_from_db()
    assert (message.author, message.author_name, conversation.assignee) == (None, "Ada", None)


@pytest.mark.parametrize("status", ["queued", "sending", "sent", "uncertain"])
def test_an_outbound_message_answers_what_came_before_it(conversation, add, status):
    add("inbound", "received")
    add(status=status)
    assert conversation.waits_since() is None


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_will_not_leave_answers_nothing(conversation, add, status):
    first = add("inbound", "received")
    add(status=status)
    assert conversation.waits_since() == first.created_at


def test_the_oldest_text_after_the_answer_waits(conversation, add):
    add("inbound", "received", created_at=NOON)
    add(status="sent")
    add("inbound", "received", created_at=NOON + timedelta(hours=1))
    add("inbound", "received", created_at=NOON + timedelta(hours=2))
    assert conversation.waits_since() == NOON + timedelta(hours=1)


# Messages


def test_an_identity_is_taken_once(add):
    add(identity="a" * 64)
    with pytest.raises(IntegrityError), transaction.atomic():
        add(identity="a" * 64)


def test_messages_without_an_identity_are_all_kept(add):
    assert add().pk != add().pk


def test_what_is_queued_and_whose_time_has_come_is_due(add):
    bulk, single = add(priority=Message.BULK), add()
    add(due_at=NOON + timedelta(seconds=1))
    add(status="sent")
    assert set(Message.objects.due(NOON)) == {bulk, single}


def test_what_is_more_urgent_and_due_longer_is_first_in_turn(add):
    bulk = add(priority=Message.BULK, due_at=NOON - timedelta(hours=2))
    late, early = add(), add(due_at=NOON - timedelta(hours=1))
    add(due_at=NOON + timedelta(seconds=1))
    add(status="sent")
    assert list(Message.objects.in_turn(NOON)) == [early, late, bulk]


def test_a_priority_that_no_worker_looks_for_is_refused(add):
    with pytest.raises(IntegrityError), transaction.atomic():
        add(priority=5)


@pytest.mark.parametrize(
    ("earlier", "holds_back"),
    [
        ({"status": "sending"}, True),
        ({"status": "queued"}, True),
        ({"status": "queued", "due_at": NOON + HOUR, "attempts": 1}, True),
        # A clock was put back since, or another one is late.
        ({"status": "queued", "due_at": NOON + HOUR}, True),
        ({"status": "queued", "due_at": NOON + HOUR, "send_at": NOON + HOUR}, False),
        ({"status": "queued", "due_at": NOON, "send_at": NOON}, True),
        ({"status": "sent"}, False),
        ({"status": "uncertain"}, False),
        ({"status": "failed"}, False),
        ({"status": "cancelled"}, False),
        ({"status": "received", "direction": "inbound", "due_at": None}, False),
    ],
)
def test_an_earlier_message_of_the_conversation_may_hold_back(add, earlier, holds_back):
    add(**earlier)
    later = add()
    free = Message.objects.filter(pk=later.pk).next_in_conversation(NOON)
    assert free.exists() is not holds_back


def test_other_conversations_hold_nothing_back(add):
    add(status="sending")
    other = Conversation.objects.between(LAGOS, "48975")
    free = Message.objects.create(conversation=other, direction="outbound", status="queued")
    assert list(Message.objects.filter(status="queued").next_in_conversation(NOON)) == [free]


def test_bytes_come_back_as_they_were():
    raw = bytes(range(256))
    row = QuarantinedDelivery.objects.create(body=raw, errors="x")
    row.refresh_from_db()
    assert bytes(row.body) == raw


# The database


def test_rows_are_written_where_the_router_says():
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.Elsewhere"]):
        assert database() == "elsewhere"
    assert database() == "default"


class Elsewhere:
    def db_for_write(self, model, **hints):
        return "elsewhere"


@pytest.mark.django_db(transaction=True)
def test_a_durable_transaction_is_part_of_no_other():
    with atomic(), pytest.raises(RuntimeError, match="durable"):
        atomic(durable=True).__enter__()


@pytest.mark.django_db(transaction=True)
def test_what_is_called_after_commit_harms_nobody(caplog):
    def broken():
        raise ZeroDivisionError

    called = []
    with atomic():
        after_commit(broken)
        after_commit(lambda: called.append(connection.in_atomic_block))
        assert called == []
    assert called == [False]
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("use_tz", "stored"),
    [(True, NOON), (False, datetime(2024, 1, 2, 13))],  # noqa: DTZ001
)
def test_a_time_is_stored_as_the_host_stores_times(use_tz, stored):
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Africa/Lagos"):
        assert stored_time(NOON) == stored
        assert aware_time(stored) == NOON


def test_a_default_time_is_now():
    assert abs(Contact.objects.create(phone_number=LAGOS).created_at - timezone.now()) < timedelta(
        minutes=1
    )


def test_the_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True, stdout=(out := StringIO()))
    assert out.getvalue() == "No changes detected\n"


# What was read


def test_what_was_seen_is_no_longer_unread(conversation, add):
    seen, later = add("inbound", "received"), add("inbound", "received")
    Conversation.objects.update(unread_count=2)
    conversation.refresh_from_db()
    conversation.mark_read_up_to(seen.pk)
    conversation.refresh_from_db()
    assert (conversation.unread_count, conversation.read_up_to) == (1, seen.pk)
    conversation.mark_read_up_to(later.pk)
    conversation.refresh_from_db()
    assert (conversation.unread_count, conversation.read_up_to) == (0, later.pk)


def test_who_saw_less_marks_nothing_unread_again(conversation, add):
    seen, later = add("inbound", "received"), add("inbound", "received")
    Conversation.objects.update(unread_count=1, read_up_to=later.pk)
    conversation.refresh_from_db()
    conversation.mark_read_up_to(seen.pk)
    conversation.refresh_from_db()
    assert (conversation.unread_count, conversation.read_up_to) == (1, later.pk)


def test_where_nothing_is_unread_nothing_is_written(conversation, django_assert_num_queries):
    with django_assert_num_queries(0):
        conversation.mark_read_up_to(7)


# Heartbeats


def test_a_heartbeat_is_one_row_however_often_it_beats():
    assert Heartbeat.last() is None
    Heartbeat.beat()
    first = Heartbeat.objects.get()
    Heartbeat.beat()
    second = Heartbeat.objects.get()
    assert Heartbeat.last() == second.beat_at > first.beat_at
    assert str(second) == str(second.beat_at)
