import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import uniform

import pytest
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_ninebits import contention, inbox
from django_ninebits.exceptions import DeliveryNotUnderstood, WrongStatus
from django_ninebits.inbox import CannotStoreNow, announce_overdue, take_in, take_in_again
from django_ninebits.models import Contact, Conversation, Message, QuarantinedDelivery
from django_ninebits.services import cancel, reply, send_sms
from django_ninebits.signals import message_received
from tests.deliveries import DOCUMENTED, body
from tests.faults import failing, locked

TEXT, NUMBER = DOCUMENTED["message"], DOCUMENTED["from"]

pytestmark = pytest.mark.django_db

committing = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_is_sent(settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda *_: 0)


@pytest.fixture
def heard():
    messages = []

    def receiver(message, **_):
        messages.append(message)

    message_received.connect(receiver)
    yield messages
    message_received.disconnect(receiver)


@contextmanager
def received_by(receiver):
    message_received.connect(receiver)
    try:
        yield
    finally:
        message_received.disconnect(receiver)


def message_of(delivery):
    return take_in(delivery).message


def quarantined(delivery):
    return take_in(delivery).quarantined


def raw(message):
    return bytes(message.delivery)


def conversation():
    return Conversation.objects.get()


def sent(moment, **changes):
    return body(sent_date=moment.isoformat(), **changes)


def taken_rows():
    return list(Conversation.objects.values()), list(Message.objects.values())


# A text


def test_a_text_becomes_a_message():
    taken = take_in(body())
    message = Message.objects.get()
    assert (taken.message, taken.repeated, taken.quarantined) == (message, False, None)
    assert (message.direction, message.status) == ("inbound", "received")
    assert (message.text, message.telco) == (TEXT, "mtn")
    assert (message.session_id, message.ref_id) == ("67543uhn3", "873ghf8749956778gf5")
    assert message.sent_date == datetime(2024, 1, 2, 23, 50, 37, tzinfo=UTC)
    assert raw(message) == body()


def test_a_text_becomes_a_contact_and_a_conversation():
    take_in(body())
    assert str(Contact.objects.get().phone_number) == "+2348020000000"
    assert (conversation().contact, conversation().short_code) == (Contact.objects.get(), "48974")


@pytest.mark.parametrize("text", ["", " a ", "a\r\nb\tc", "Ẹ káàbọ̀ 🎉\u202e", "x" * 50_000])
def test_a_text_is_stored_exactly(text):
    take_in(body(message=text))
    assert Message.objects.get().text == text
    assert conversation().last_message_text == text[:160]


def test_every_field_of_the_delivery_is_kept_in_its_bytes():
    take_in(body(network={"cell": [1, 2]}))
    assert b'"network": {"cell": [1, 2]}' in raw(Message.objects.get())


@pytest.mark.parametrize("written", ["yesterday", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_date_that_cannot_be_believed_leaves_the_column_empty(written):
    take_in(body(sent_date=written))
    message = Message.objects.get()
    assert (message.sent_date, message.identity) == (None, None)
    assert written.encode() in raw(message)


@override_settings(USE_TZ=False, TIME_ZONE="Africa/Lagos")
def test_a_date_is_stored_in_the_hosts_zone_where_it_stores_no_zones():
    take_in(body())
    message = Message.objects.get()
    assert message.sent_date == datetime(2024, 1, 3, 0, 50, 37)  # noqa: DTZ001
    assert abs(message.created_at - datetime.now()) < timedelta(minutes=1)  # noqa: DTZ005


# A redelivery


@pytest.mark.parametrize("changes", [{}, {"from_": "+2348020000000"}, {"telco": "airtel"}])
def test_a_redelivery_leaves_no_trace(changes):
    first = message_of(body())
    before = taken_rows()
    again = take_in(body(**changes))
    assert (again.message, again.repeated) == (first, True)
    assert taken_rows() == before
    assert QuarantinedDelivery.objects.count() == 0


def test_a_redelivery_after_it_was_read_and_closed_leaves_no_trace():
    take_in(body())
    Conversation.objects.update(unread_count=0, status="closed", waiting_since=None)
    before = taken_rows()
    take_in(body())
    assert taken_rows() == before


@committing
def test_a_redelivery_is_not_announced(heard):
    take_in(body())
    take_in(body())
    assert len(heard) == 1


def test_without_a_date_both_are_kept():
    taken = [take_in(body(message="1", sent_date=None)) for _ in range(2)]
    assert [one.repeated for one in taken] == [False, False]
    assert conversation().unread_count == 2


def test_the_same_reference_with_another_text_is_another_message():
    take_in(body())
    assert not take_in(body(message="Another")).repeated


def test_a_reference_of_ours_that_9bits_echoes_is_no_redelivery():
    outbound = send_sms("08020000000", TEXT, ref_id=DOCUMENTED["ref_id"])
    inbound = message_of(body())
    assert inbound != outbound
    assert inbound.conversation == outbound.conversation


# Two people, two short codes


def test_the_same_session_of_two_subscribers_stays_two_conversations():
    first, second = (message_of(body(from_=number)) for number in (NUMBER, "2348020000001"))
    assert first.conversation != second.conversation
    assert [c.messages.count() for c in Conversation.objects.all()] == [1, 1]


def test_two_short_codes_of_a_subscriber_are_two_conversations():
    for code in ("48974", "48975"):
        take_in(body(to=code))
    assert (Contact.objects.count(), Conversation.objects.count()) == (1, 2)


@pytest.mark.parametrize("written", ["+48974", " 48974", "48974"])
def test_a_short_code_is_one_however_it_is_written(written):
    take_in(body(to="48974"))
    take_in(body(to=written, message="Another"))
    assert conversation().messages.count() == 2


def test_a_sender_id_is_one_in_any_case():
    take_in(body(to="MyShop"))
    take_in(body(to="MYSHOP", message="Another"))
    assert conversation().short_code == "MyShop"
    assert conversation().messages.count() == 2


@pytest.mark.parametrize("wild", ["My%", "My_hop", "My\\"])
def test_a_sender_id_is_no_pattern(wild):
    take_in(body(to="MyShop"))
    take_in(body(to=wild, message="Another"))
    assert Conversation.objects.count() == 2


# Sessions


NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)


def test_the_session_of_the_latest_text_is_the_conversations():
    take_in(sent(NOON, session_id="first"))
    take_in(sent(NOON + timedelta(seconds=1), session_id="second"))
    assert conversation().session_id == "second"
    assert conversation().session_at == NOON + timedelta(seconds=1)


def test_a_late_text_does_not_take_the_session_over():
    take_in(sent(NOON, session_id="later"))
    take_in(sent(NOON - timedelta(hours=1), session_id="earlier"))
    assert (conversation().session_id, conversation().session_at) == ("later", NOON)
    assert conversation().last_message_at > NOON
    assert Message.objects.count() == 2


def test_of_two_texts_of_a_moment_the_second_to_arrive_has_the_session():
    for session in ("first", "second"):
        take_in(sent(NOON, session_id=session))
    assert conversation().session_id == "second"


def test_a_text_from_the_future_does_not_keep_later_sessions_out():
    take_in(sent(timezone.now() + timedelta(days=900), session_id="future"))
    assert conversation().session_id == "future"
    take_in(sent(timezone.now(), session_id="present"))
    assert conversation().session_id == "present"


def test_a_text_without_a_believable_date_counts_by_arrival():
    take_in(sent(NOON, session_id="dated"))
    take_in(body(sent_date="?", session_id="undated"))
    assert conversation().session_id == "undated"
    take_in(sent(NOON + timedelta(hours=1), session_id="late"))
    assert conversation().session_id == "undated"


def test_a_text_without_a_session_leaves_it():
    take_in(sent(NOON, session_id="first"))
    take_in(sent(NOON + timedelta(hours=1), session_id=None))
    assert (conversation().session_id, conversation().session_at) == ("first", NOON)


def test_a_conversation_without_a_session_keeps_the_one_drawn_for_it():
    take_in(body(session_id=None))
    drawn = conversation().session_id
    take_in(body(session_id="", message="Another"))
    assert (conversation().session_id, conversation().session_at) == (drawn, None)
    assert len(drawn) == 16


def test_the_first_session_replaces_the_one_that_was_drawn():
    send_sms("08020000000", "Hello")
    take_in(body())
    assert conversation().session_id == "67543uhn3"


def test_a_text_is_answered_in_its_own_session():
    first = message_of(sent(NOON, session_id="first"))
    take_in(sent(NOON + timedelta(hours=1), session_id="second"))
    assert reply(first, "Answer").session_id == "first"
    assert reply(conversation(), "Answer").session_id == "second"


# What the inbox shows


def test_a_text_marks_its_conversation():
    before = timezone.now()
    take_in(body())
    shown = conversation()
    assert (shown.unread_count, shown.status, shown.last_message_direction) == (
        1,
        "open",
        "inbound",
    )
    assert before <= shown.waiting_since == shown.last_message_at <= timezone.now()
    assert shown.waiting_since == Message.objects.get().created_at == shown.waits_since()


def test_texts_add_up_and_the_oldest_waits():
    first = message_of(body())
    second = message_of(body(message="Another"))
    shown = conversation()
    assert (shown.unread_count, shown.last_message_text) == (2, "Another")
    assert (shown.waiting_since, shown.last_message_at) == (first.created_at, second.created_at)


def test_a_text_opens_a_closed_conversation():
    take_in(body())
    Conversation.objects.update(status="closed")
    take_in(body(message="Another"))
    assert conversation().status == "open"


def test_a_reply_ends_the_waiting_and_the_next_text_begins_it():
    take_in(body())
    reply(conversation(), "Answer")
    assert conversation().waiting_since is None
    second = message_of(body(message="Another"))
    assert conversation().waiting_since == second.created_at == conversation().waits_since()


def test_a_cancelled_reply_was_no_answer():
    first = message_of(body())
    cancel(reply(conversation(), "Answer"))
    assert conversation().waiting_since == first.created_at


# What is not understood


@pytest.mark.parametrize(
    "raw", [b"", b"\0\xff", b"x" * 65_536, body(from_="MTN"), body(message="\0")]
)
def test_what_is_not_understood_is_kept_as_bytes(raw):
    taken = take_in(raw)
    row = QuarantinedDelivery.objects.get()
    assert (taken.message, taken.quarantined) == (None, row)
    assert (bytes(row.body), row.message, row.taken_in_at) == (raw, None, None)
    assert row.errors == "\n".join(taken.errors) != ""
    assert Contact.objects.count() == 0


def test_what_is_not_understood_is_kept_each_time():
    assert [quarantined(b"{").pk for _ in range(2)] == list(
        QuarantinedDelivery.objects.order_by("id").values_list("pk", flat=True)
    )


def test_the_reasons_are_kept_a_line_each():
    errors = quarantined(body(without=["message"], to=[])).errors
    assert errors.split("\n") == ["to: not a string.", "message: missing."]


# A database that fails


LOST = [OperationalError(2013, "Lost connection"), InterfaceError("closed"), OperationalError()]


@committing
@pytest.mark.parametrize("error", [*locked(), *LOST], ids=repr)
def test_what_passes_is_tried_again(error):
    with failing(error, times=contention.TRIES - 1) as raised:
        assert take_in(body()).message == Message.objects.get()
    assert len(raised) == contention.TRIES - 1
    assert conversation().unread_count == 1


@committing
def test_a_moment_passes_before_the_next_try(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("random.uniform", uniform)
    monkeypatch.setattr("time.sleep", pauses.append)
    with failing(OperationalError(), times=contention.TRIES - 1):
        take_in(body())
    assert len(pauses) == contention.TRIES - 1
    assert all(0.02 <= pause <= 0.2 for pause in pauses)


@committing
def test_a_fault_of_the_database_that_says_nothing_is_named_for_what_it_is():
    with failing(OperationalError()):
        assert take_in(body()).errors == ("It could not be stored: OperationalError.",)


@committing
@pytest.mark.parametrize("error", locked(), ids=repr)
def test_what_others_hold_for_too_long_shall_come_again(error):
    with failing(error) as raised, pytest.raises(CannotStoreNow):
        take_in(body())
    assert len(raised) == contention.TRIES
    assert Message.objects.count() + QuarantinedDelivery.objects.count() == 0
    assert take_in(body()).message is not None


def told(kind):
    return kind(f"DETAIL: row contains ({NUMBER}, {TEXT})")


@pytest.mark.parametrize(
    "error",
    [
        told(DataError),
        told(IntegrityError),
        told(DatabaseError),
        told(RuntimeError),
        told(ValueError),
        told(OperationalError),
        told(InterfaceError),
        OperationalError(1290, f"read only {NUMBER} {TEXT}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_stored_is_quarantined(error, caplog):
    with failing(error):
        taken = take_in(body())
    assert taken.errors == (f"It could not be stored: {type(error).__name__}.",)
    assert bytes(QuarantinedDelivery.objects.get().body) == body()
    assert Message.objects.count() == 0
    assert type(error).__name__ in caplog.text
    assert NUMBER not in caplog.text
    assert TEXT not in caplog.text


def test_a_text_that_could_not_be_stored_marks_no_conversation():
    take_in(body())
    before = taken_rows()
    with failing(told(DataError)):
        take_in(body(message="Another"))
    assert taken_rows() == before


def test_an_integrity_error_of_a_first_text_is_no_redelivery():
    with failing(told(IntegrityError)):
        assert take_in(body()).quarantined is not None


def test_an_integrity_error_without_an_identity_is_no_redelivery():
    take_in(body(sent_date=None))
    with failing(told(IntegrityError)):
        assert not take_in(body(sent_date=None)).repeated


@pytest.mark.parametrize("kind", [DataError, IntegrityError, OperationalError, InterfaceError])
def test_where_nothing_can_be_kept_it_shall_come_again(kind, caplog):
    with failing(told(kind)), failing(told(kind), QuarantinedDelivery):
        with pytest.raises(CannotStoreNow):
            take_in(body())
        with pytest.raises(CannotStoreNow):
            take_in(b"{")
    assert TEXT not in caplog.text


def test_a_bug_in_the_quarantine_is_raised():
    with failing(told(RuntimeError), QuarantinedDelivery), pytest.raises(RuntimeError):
        take_in(b"{")


@committing
@pytest.mark.parametrize(
    ("faults", "status"),
    [
        ([(DataError("x"), Message)], 202),
        ([(OperationalError(1213, "x"), Message)], 503),
        ([(DataError("x"), Message), (DataError("x"), QuarantinedDelivery)], 503),
        ([(RuntimeError("x"), Message), (RuntimeError("x"), QuarantinedDelivery)], 503),
    ],
)
def test_the_webhook_answers_a_fault(client, faults, status):
    contexts = [failing(*fault) for fault in faults]
    for context in contexts:
        context.__enter__()
    headers = {"HTTP_AUTHORIZATION": "Bearer test-token"}
    response = client.post("/hooks/9bits/webhook/", body(), "application/json", **headers)
    for context in contexts:
        context.__exit__(None, None, None)
    assert (response.status_code, response["Content-Type"]) == (status, "application/json")
    assert QuarantinedDelivery.objects.count() == (status == 202)


IMPATIENCE = {
    "sqlite": "PRAGMA busy_timeout = 50",
    "postgresql": "SET lock_timeout = '50ms'",
    "mysql": "SET SESSION innodb_lock_wait_timeout = 1",
}


@contextmanager
def held_by_another(statement):
    """Another connection has run ``statement`` and does not commit."""
    other = connection.copy("other")
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            cursor.execute(statement)
        yield
    finally:
        other.rollback()
        other.close()


@pytest.fixture
def impatient():
    with connection.cursor() as cursor:
        cursor.execute(IMPATIENCE[connection.vendor])
    yield
    connection.close()


@committing
def test_a_row_that_another_holds_shall_come_again(impatient, monkeypatch):
    take_in(body())
    monkeypatch.setattr(contention, "TRIES", 1)  # each begins on a fresh, patient connection
    held = held_by_another("UPDATE django_ninebits_conversation SET unread_count = 7")
    with held, pytest.raises(CannotStoreNow):
        take_in(body(message="Another"))
    assert QuarantinedDelivery.objects.count() == 0
    assert message_of(body(message="Another")).pk
    assert conversation().unread_count == 2


@committing
def test_a_row_that_is_let_go_in_time_costs_only_patience():
    take_in(body())
    started = threading.Event()

    def let_go_soon():
        with held_by_another("UPDATE django_ninebits_conversation SET unread_count = 7"):
            started.set()
            time.sleep(0.2)

    thread = threading.Thread(target=let_go_soon)
    thread.start()
    started.wait(20)
    assert message_of(body(message="Another")).text == "Another"
    thread.join()
    assert conversation().unread_count == 2


# Who a connection is to its server, and how another ends it. (SQLite's ends with its process.)
WHO = {
    "sqlite": "SELECT 0",
    "postgresql": "SELECT pg_backend_pid()",
    "mysql": "SELECT connection_id()",
}
END = {
    "sqlite": "SELECT {}",
    "postgresql": "SELECT pg_terminate_backend({})",
    "mysql": "KILL {}",
}


@committing
def test_a_connection_that_the_server_has_ended_is_opened_again():
    take_in(body())
    with connection.cursor() as cursor:
        cursor.execute(WHO[connection.vendor])
        (who,) = cursor.fetchone()
    with held_by_another(END[connection.vendor].format(who)):
        assert message_of(body(message="Another")).text == "Another"
    assert conversation().unread_count == 2


@committing
def test_many_deliveries_at_once_are_each_stored_once():
    deliveries = [body(message=f"{number}") for number in range(4)] * 3
    taken = []

    def deliver(raw):
        taken.append(take_in(raw))
        connections.close_all()

    threads = [threading.Thread(target=deliver, args=[raw]) for raw in deliveries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.repeated for one in taken) == [False] * 4 + [True] * 8
    assert (conversation().unread_count, Message.objects.count()) == (4, 4)


def test_in_a_transaction_of_the_host_nothing_is_tried_again():
    deadlock = failing(OperationalError(1213, "deadlock"))
    with transaction.atomic(), deadlock as raised, pytest.raises(CannotStoreNow):
        take_in(body())
    assert len(raised) == 1


def statements(function):
    with CaptureQueriesContext(connection) as queries:
        function()
    return [query["sql"].split()[0] for query in queries]


@committing
def test_the_conversation_is_written_before_its_message():
    take_in(body())
    run = statements(lambda: take_in(body(message="Another")))
    assert run == ["SELECT", "BEGIN", "UPDATE", "INSERT", "COMMIT", "UPDATE"]


@committing
def test_what_is_taken_in_again_is_written_first():
    with failing(DataError("x")):
        row = quarantined(body())
    run = statements(lambda: take_in_again(row))
    assert run[:2] == ["BEGIN", "UPDATE"]


# Telling the host


@committing
def test_receivers_hear_of_a_text_after_its_commit():
    seen = []

    def receiver(message, **_):
        seen.append((connection.in_atomic_block, Message.objects.get() == message))

    with received_by(receiver):
        take_in(body())
    assert seen == [(False, True)]
    assert Message.objects.get().announce_at is None


def test_receivers_hear_nothing_of_what_is_rolled_back(heard):
    take_in(body())
    assert heard == []


@committing
def test_a_receiver_that_raises_harms_neither_text_nor_others(heard, caplog):
    def broken(**_):
        raise RuntimeError("broken receiver")

    with received_by(broken):
        taken = take_in(body())
    assert heard == [taken.message]
    assert Message.objects.get().announce_at is None
    assert "broken receiver" in caplog.text


@committing
def test_a_receiver_may_reply():
    def receiver(message, **_):
        reply(message, "Thank you", ref_id=f"thanks-{message.pk}")

    with received_by(receiver):
        inbound = message_of(body())
    answer = Message.objects.get(direction="outbound")
    assert (answer.conversation, answer.session_id) == (inbound.conversation, "67543uhn3")
    assert conversation().waiting_since is None


@committing
def test_a_text_whose_process_died_is_announced_again(heard):
    def dies(**_):
        raise SystemExit

    with received_by(dies), pytest.raises(SystemExit):
        take_in(body())
    heard.clear()
    assert announce_overdue() == 0
    row = Message.objects.get()
    assert row.announce_at == row.created_at + inbox.ANNOUNCE_AFTER
    Message.objects.update(announce_at=timezone.now())
    assert announce_overdue() == 1
    assert heard == [Message.objects.get()]
    assert (announce_overdue(), Message.objects.get().announce_at) == (0, None)


@committing
def test_a_text_that_was_announced_needs_no_worker():
    assert message_of(body()).announce_at is None
    assert Message.objects.get().announce_at is None


def test_a_text_whose_second_announcer_dies_too_is_announced_again():
    def dies(**_):
        raise SystemExit

    take_in(body())
    Message.objects.update(announce_at=timezone.now())
    with received_by(dies), pytest.raises(SystemExit):
        announce_overdue()
    assert Message.objects.filter(announce_at__gt=timezone.now()).exists()


def test_overdue_texts_are_announced_in_order(heard):
    messages = [message_of(body(message=f"{number}")) for number in range(3)]
    Message.objects.update(announce_at=timezone.now())
    assert announce_overdue() == 3
    assert heard == messages


def test_an_overdue_text_is_announced_by_one_worker(heard):
    def another_worker(**_):
        announce_overdue()

    take_in(body())
    take_in(body(message="Another"))
    Message.objects.update(announce_at=timezone.now())
    with received_by(another_worker):
        assert announce_overdue() == 1
    assert len(heard) == 2


# Taking in again what was quarantined


@pytest.fixture
def unlucky():
    with failing(DataError("x")):
        return quarantined(body())


def test_what_can_be_understood_now_becomes_a_message(unlucky):
    taken = take_in_again(unlucky)
    unlucky.refresh_from_db()
    assert taken.message == unlucky.message == Message.objects.get()
    assert taken.message.text == TEXT
    assert abs(unlucky.taken_in_at - timezone.now()) < timedelta(minutes=1)


@committing
def test_what_is_taken_in_again_is_announced(unlucky, heard):
    take_in_again(unlucky)
    assert heard == [Message.objects.get()]


def test_what_was_stored_meanwhile_is_found(unlucky):
    first = message_of(body())
    taken = take_in_again(unlucky)
    unlucky.refresh_from_db()
    assert (taken.repeated, taken.message, unlucky.message) == (True, first, first)
    assert conversation().unread_count == 1


def test_what_was_taken_in_is_not_taken_in_twice():
    with failing(DataError("x")):
        undated = quarantined(body(sent_date=None))
    take_in_again(undated)
    with pytest.raises(WrongStatus, match=r"^This delivery has been taken in already\.$"):
        take_in_again(undated)
    assert Message.objects.count() == 1


def test_taking_one_in_again_leaves_the_others(unlucky):
    other = quarantined(b"{")
    take_in_again(unlucky)
    other.refresh_from_db()
    assert (other.message, other.taken_in_at) == (None, None)


def test_what_is_still_not_understood_stays_as_it_was():
    row = quarantined(b"{")
    before = QuarantinedDelivery.objects.values().get()
    with pytest.raises(DeliveryNotUnderstood):
        take_in_again(row)
    assert QuarantinedDelivery.objects.values().get() == before


@pytest.mark.parametrize(
    ("error", "raised"),
    [(DataError("x"), DataError), (OperationalError(1213, "x"), CannotStoreNow)],
)
def test_what_still_cannot_be_stored_stays_as_it_was(unlucky, error, raised):
    with failing(error), pytest.raises(raised):
        take_in_again(unlucky)
    unlucky.refresh_from_db()
    assert (unlucky.message, unlucky.taken_in_at) == (None, None)
