import threading
import tracemalloc
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import phonenumbers
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone as django_timezone
from django.utils.functional import SimpleLazyObject

from django_ninebits import contention, dispatch, outbox, services
from django_ninebits.exceptions import (
    InvalidPhoneNumber,
    MessageRefused,
    NinebitsError,
    OptedOut,
    RefIdConflict,
    WrongStatus,
)
from django_ninebits.models import Contact, Conversation, Message
from django_ninebits.services import cancel, confirm, reply, retry, send_many, send_sms
from tests.faults import failing, locked

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("provider")]

NUMBER = "+2348020000000"
HOUR = timedelta(hours=1)


def now():
    return django_timezone.now()


def fresh(message):
    return Message.objects.get(pk=message.pk)


def changed(message, **changes):
    Message.objects.filter(pk=message.pk).update(**changes)
    return fresh(message)


def inbound(conversation, text="Hi", **fields):
    return Message.objects.create(
        conversation=conversation, direction="inbound", status="received", text=text, **fields
    )


def opened(number=NUMBER, short_code="48974"):
    return Conversation.objects.between(number, short_code)


def nothing_stored():
    return not (Message.objects.exists() or Conversation.objects.exists())


def at_once(*calls):
    """Run them in threads that start together → what each returned or raised."""
    results: list[object] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(index, call):
        barrier.wait()
        try:
            results[index] = call()
        except Exception as error:  # noqa: BLE001
            results[index] = error
        connection.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def author():
    return User.objects.create_user("ada", first_name="Ada", last_name="Obi")


@pytest.fixture
def hinted(monkeypatch):
    """What the dispatcher was told, a list each time."""
    hints: list[list[int]] = []
    monkeypatch.setattr(dispatch, "defer", hints.append)
    return hints


# Queueing one


def test_a_message_is_queued():
    message = fresh(send_sms("0802 000 0000", "Hello"))
    assert (message.status, message.direction, message.text) == ("queued", "outbound", "Hello")
    assert (message.conversation.contact.phone_number, message.attempts) == (NUMBER, 0)
    assert message.conversation.short_code == "48974"
    assert (message.priority, message.author, message.author_name) == (Message.SINGLE, None, "")
    assert message.ref_id


def test_the_conversation_shows_the_message():
    message = send_sms(NUMBER, "x" * 200)
    conversation = Conversation.objects.get()
    assert conversation.last_message_text == "x" * 160
    assert conversation.last_message_direction == "outbound"
    assert conversation.last_message_at == fresh(message).created_at


def test_it_is_due_now_and_given_up_in_a_day():
    message = send_sms(NUMBER, "Hello")
    assert message.due_at == message.created_at
    assert message.give_up_at == message.due_at + 24 * HOUR


def test_a_scheduled_message_is_given_up_a_day_after_it_was_due(settings):
    settings.NINEBITS = settings.NINEBITS | {"GIVE_UP_AFTER": HOUR}
    send_at = now() + HOUR
    message = send_sms(NUMBER, "Hello", send_at=send_at)
    assert (message.send_at, message.due_at) == (send_at, send_at)
    assert message.give_up_at == send_at + HOUR


def test_it_has_the_conversations_session():
    assert send_sms(NUMBER, "Hello").session_id == Conversation.objects.get().session_id


def test_it_has_the_session_that_is_named():
    assert send_sms(NUMBER, "Hello", session_id="s1").session_id == "s1"


@pytest.mark.parametrize(("sender", "stored"), [("+55020", "55020"), (" Shop ", "Shop")])
def test_it_has_the_sender_that_is_named(sender, stored):
    assert send_sms(NUMBER, "Hello", sender=sender).conversation.short_code == stored


def test_a_sender_is_the_same_in_any_case():
    first, second = (send_sms(NUMBER, "Hello", sender=sender) for sender in ("Shop", "SHOP"))
    assert first.conversation == second.conversation


@pytest.mark.parametrize(
    "to",
    [
        "08020000000",
        "802 000 0000",
        phonenumbers.parse("+2348020000000"),
        phonenumbers.parse("0802 000 0000", "NG", keep_raw_input=True),
    ],
)
def test_a_number_is_one_however_it_is_given(to):
    send_sms(to, "Hello")
    assert str(Contact.objects.get().phone_number) == NUMBER


def test_the_number_of_a_contact_can_be_given():
    contact = send_sms(NUMBER, "Hello").conversation.contact
    assert send_sms(contact.phone_number, "Hello").conversation.contact == contact


def test_an_authors_name_is_kept_as_it_was(author):
    message = send_sms(NUMBER, "Hello", author=author)
    User.objects.filter(pk=author.pk).update(first_name="Eve")
    assert (fresh(message).author, fresh(message).author_name) == (author, "Ada Obi")


def test_an_author_without_a_full_name_has_a_username():
    author = User.objects.create_user("ada")
    assert send_sms(NUMBER, "Hello", author=author).author_name == "ada"


def test_a_lazy_user_is_an_author(author):
    lazy: Any = SimpleLazyObject(lambda: author)
    assert send_sms(NUMBER, "Hello", author=lazy).author == author


def test_a_long_name_is_cut():
    author = User.objects.create_user("ada", first_name="A" * 150, last_name="B" * 150)
    assert len(fresh(send_sms(NUMBER, "Hello", author=author)).author_name) == 200


@pytest.mark.parametrize("text", ["  Hello ", "a\nb\rc", "Ẹ káàbọ̀ 🎉", "\u200b", "x" * 70_000])
def test_a_text_is_stored_exactly(text):
    assert fresh(send_sms(NUMBER, text)).text == text


def test_line_ends_of_a_browser_are_one_character():
    assert fresh(send_sms(NUMBER, "a\r\nb\r\n")).text == "a\nb\n"


# What is refused


def unsaved_user():
    return User(username="nobody")


BAD = [
    {"to": ""},
    {"to": "MTN"},
    {"to": "48974"},
    {"to": "0802"},
    {"to": "\x00"},
    {"to": None},
    {"to": 2348020000000},
    {"to": b"08020000000"},
    {"to": ["08020000000"]},
    {"to": phonenumbers.PhoneNumber()},
    {"text": ""},
    {"text": " \n"},
    {"text": "\x00"},
    {"text": "a\ud800"},
    {"text": None},
    {"text": b"Hello"},
    {"text": 1},
    {"sender": ""},
    {"sender": "ọ"},
    {"sender": "x" * 33},
    {"sender": 48974},
    {"sender": b"48974"},
    {"session_id": ""},
    {"session_id": " "},
    {"session_id": "x" * 256},
    {"session_id": "\x00"},
    {"session_id": 1},
    {"ref_id": ""},
    {"ref_id": "x" * 256},
    {"ref_id": "\ud800"},
    {"ref_id": 1},
    {"author": "ada"},
    {"author": 1},
    {"author": AnonymousUser()},
    {"author": unsaved_user()},
    {"override_opt_out": None},
    {"override_opt_out": 1},
    {"send_at": "now"},
    {"send_at": date(2026, 1, 1)},
    {"send_at": 1.0},
    {"send_at": datetime(2030, 1, 1)},  # noqa: DTZ001
    {"send_at": datetime.max.replace(tzinfo=UTC)},
    {"send_at": datetime.min.replace(tzinfo=UTC)},
    {"send_at": datetime.max.replace(tzinfo=timezone(-23 * HOUR))},
    {"expires_at": "never"},
    {"expires_at": datetime.max.replace(tzinfo=UTC)},
    {"expires_at": datetime(2030, 1, 1)},  # noqa: DTZ001
    {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
    {
        "send_at": datetime(2090, 1, 2, tzinfo=UTC),
        "expires_at": datetime(2090, 1, 1, tzinfo=UTC),
    },
    {
        "send_at": datetime(2090, 1, 1, tzinfo=UTC),
        "expires_at": datetime(2090, 1, 1, tzinfo=UTC),
    },
]


@pytest.mark.parametrize("arguments", BAD)
def test_what_cannot_be_sent_is_refused_and_not_stored(arguments):
    with pytest.raises(MessageRefused):
        send_sms(**{"to": NUMBER, "text": "Hello"} | arguments)
    assert nothing_stored()


@pytest.mark.parametrize("arguments", BAD)
def test_a_batch_with_what_cannot_be_sent_is_refused_whole(arguments):
    good = {"to": NUMBER, "text": "Hello"}
    with pytest.raises(MessageRefused, match=r"^Message 1: "):
        send_many([good, good | arguments, good])
    assert nothing_stored()


def test_a_bad_number_is_an_error_of_its_own():
    with pytest.raises(InvalidPhoneNumber):
        send_sms("MTN", "Hello")


def test_without_a_short_code_the_settings_are_wrong(settings):
    del settings.NINEBITS["SHORT_CODE"]
    with pytest.raises(ImproperlyConfigured, match="SHORT_CODE") as caught:
        send_sms(NUMBER, "Hello")
    assert not isinstance(caught.value, NinebitsError)
    assert send_sms(NUMBER, "Hello", sender="1").pk


# Times


@pytest.mark.parametrize("name", ["send_at", "expires_at"])
def test_an_aware_time_is_stored(name):
    moment = datetime(2090, 1, 1, 12, tzinfo=timezone(HOUR))
    times: dict[str, Any] = {name: moment}
    assert getattr(fresh(send_sms(NUMBER, "Hello", **times)), name) == moment


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2090, 1, 1, 12),  # noqa: DTZ001
        datetime(2090, 1, 1, 11, tzinfo=UTC),
        datetime(2090, 1, 1, 11, tzinfo=ZoneInfo("Europe/London")),
    ],
)
@pytest.mark.parametrize("name", ["send_at", "expires_at"])
def test_without_use_tz_times_are_local(settings, name, moment):
    settings.USE_TZ, settings.TIME_ZONE = False, "Africa/Lagos"
    stored = fresh(send_sms(NUMBER, "Hello", **{name: moment}))
    assert getattr(stored, name) == datetime(2090, 1, 1, 12)  # noqa: DTZ001


# The same reference


def test_the_same_reference_again_returns_the_first():
    first = send_sms(NUMBER, "a\nb", ref_id="r", session_id="s")
    again = send_sms("0802 000 0000", "a\r\nb", ref_id="r", send_at=now() + HOUR)
    assert (again, again.session_id, again.send_at) == (first, "s", None)
    assert Message.objects.count() == 1


def test_the_same_reference_again_hints_at_nothing(hinted, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        first = send_sms(NUMBER, "Hello", ref_id="r")
        send_sms(NUMBER, "Hello", ref_id="r")
    assert hinted == [[first.pk]]


@pytest.mark.parametrize("status", ["failed", "cancelled", "uncertain", "sent"])
def test_a_first_that_has_ended_is_still_returned(status):
    changed(send_sms(NUMBER, "Hello", ref_id="r"), status=status)
    assert send_sms(NUMBER, "Hello", ref_id="r").status == status


@pytest.mark.parametrize(
    "other", [{"to": "08020000001"}, {"text": "Bye"}, {"text": "hello"}, {"sender": "1"}]
)
def test_the_same_reference_for_something_else_is_an_error(other):
    first = send_sms(NUMBER, "Hello", ref_id="r")
    with pytest.raises(RefIdConflict, match=f"message {first.pk}") as caught:
        send_sms(**{"to": NUMBER, "text": "Hello", "ref_id": "r"} | other)
    assert caught.value.first == first
    assert Message.objects.count() == 1


@pytest.mark.parametrize("other", ["R", "r ", "ŕ"])
def test_references_are_told_apart_exactly(other):
    first, second = (send_sms(NUMBER, "Hello", ref_id=ref_id) for ref_id in ("r", other))
    assert first != second


def test_a_reference_of_an_inbound_text_is_no_outbound_one():
    inbound(opened(), ref_id="r")
    assert send_sms(NUMBER, "Hello", ref_id="r").direction == "outbound"


def test_a_reference_that_is_stored_meanwhile_is_found(monkeypatch):
    first = send_sms(NUMBER, "Hello", ref_id="r")
    monkeypatch.setattr(services, "_first_with", blind_once(services._first_with))
    assert send_sms(NUMBER, "Hello", ref_id="r") == first


def blind_once(real, times=1):
    """``_first_with`` as it is when somebody stores what it looks for just after it looked."""
    calls = count()
    return lambda drafts: {} if next(calls) < times else real(drafts)


def test_a_reference_for_something_else_that_is_stored_meanwhile_is_an_error(monkeypatch):
    send_sms(NUMBER, "Hello", ref_id="r")
    monkeypatch.setattr(services, "_first_with", blind_once(services._first_with))
    with pytest.raises(RefIdConflict):
        send_sms(NUMBER, "Bye", ref_id="r")


def test_another_violation_is_not_taken_for_a_repeat(monkeypatch):
    send_sms(NUMBER, "Hello", ref_id="r")
    monkeypatch.setattr(services, "_first_with", lambda drafts: {})
    with pytest.raises(IntegrityError), transaction.atomic():
        send_sms(NUMBER, "Hello", ref_id="r")


@pytest.mark.django_db(transaction=True)
def test_the_same_reference_at_once_is_stored_once():
    results = at_once(*[lambda: send_sms(NUMBER, "Hello", ref_id="r")] * 6)
    assert {getattr(result, "pk", result) for result in results} == {Message.objects.get().pk}


@pytest.mark.django_db(transaction=True)
def test_the_same_reference_for_two_texts_at_once_is_an_error_for_one():
    results = at_once(*[lambda text=text: send_sms(NUMBER, text, ref_id="r") for text in "ab"])
    assert {type(result) for result in results} == {Message, RefIdConflict}
    assert Message.objects.count() == 1


# Commit


@pytest.mark.django_db(transaction=True)
def test_it_is_sent_after_commit_and_not_before(provider, settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.inline"}
    with transaction.atomic():
        message = send_sms(NUMBER, "Hello")
        assert provider.calls == []
    assert [call.body["ref_id"] for call in provider.calls] == [message.ref_id]
    assert fresh(message).status == "sent"


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_never_sent(provider, settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.inline"}
    with transaction.atomic():
        send_sms(NUMBER, "Hello")
        transaction.set_rollback(True)
    assert provider.calls == []
    assert nothing_stored()


def test_what_is_scheduled_is_hinted_at_only_if_due(hinted, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        send_sms(NUMBER, "Later", send_at=now() + HOUR)
        message = send_sms(NUMBER, "Now", send_at=now() - HOUR)
    assert hinted == [[message.pk]]


# Replies


def test_a_reply_has_the_latest_session():
    conversation = opened()
    Conversation.objects.update(session_id="latest")
    message = reply(conversation, "Yes")
    assert (message.session_id, message.conversation) == ("latest", conversation)


def test_a_reply_to_a_text_has_its_session():
    text = inbound(opened(), session_id="its own")
    Conversation.objects.update(session_id="latest")
    assert reply(text, "Yes").session_id == "its own"


def test_a_reply_to_a_text_without_a_session_has_the_latest():
    text = inbound(opened(), session_id="")
    Conversation.objects.update(session_id="latest")
    assert reply(text, "Yes").session_id == "latest"


def test_a_reply_leaves_from_the_code_that_was_texted():
    assert reply(opened(short_code="55020"), "Yes").conversation.short_code == "55020"


@pytest.mark.parametrize("number", ["+2348", "+99912345678901", "+1234567"])
def test_a_number_that_is_not_possible_can_be_replied_to(number):
    conversation = opened(number)
    message = reply(conversation, "Yes")
    assert message.conversation == conversation
    claim = outbox.claim_due(1)[0]
    assert claim.call["to"] == number[1:]


def test_a_reply_takes_what_a_message_takes(author):
    send_at, expires_at = now() + HOUR, now() + 2 * HOUR
    message = reply(
        opened(), "a\r\nb", ref_id="r", author=author, send_at=send_at, expires_at=expires_at
    )
    assert (message.text, message.ref_id, message.author_name) == ("a\nb", "r", "Ada Obi")
    assert (message.send_at, message.expires_at) == (send_at, expires_at)


def test_a_reply_to_a_redelivered_text_is_queued_once():
    text = inbound(opened(), session_id="s")
    first, second = (reply(text, "Yes", ref_id=f"reply-{text.pk}") for _ in range(2))
    assert first == second


def test_only_what_came_in_can_be_replied_to():
    message = send_sms(NUMBER, "Hello")
    with pytest.raises(MessageRefused):
        reply(message, "Yes")
    assert Message.objects.count() == 1


@pytest.mark.parametrize("to", [None, NUMBER, 1])
def test_a_reply_to_something_else_is_refused(to):
    with pytest.raises(MessageRefused):
        reply(to, "Yes")


def test_a_reply_ends_the_waiting():
    conversation = opened()
    Conversation.objects.update(waiting_since=now())
    reply(conversation, "Yes", send_at=now() + HOUR)
    assert Conversation.objects.get().waiting_since is None


# Many


def many(number, **changes):
    return [{"to": f"080200{n:05}", "text": f"Hello {n}"} | changes for n in range(number)]


def test_many_are_queued_as_bulk():
    assert send_many(many(3)) == 3
    assert list(Message.objects.values_list("text", "priority", "status")) == [
        (f"Hello {n}", Message.BULK, "queued") for n in range(3)
    ]


def test_nothing_is_queued_of_nothing():
    assert send_many([]) == 0


def test_many_are_left_to_a_worker(hinted, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        send_many(many(2))
    assert hinted == []


def test_many_list_no_conversation():
    send_many(many(1))
    assert Conversation.objects.get().last_message_at is None


def test_a_conversation_that_staff_starts_after_many_is_listed(author):
    send_many(many(1))
    message = send_sms(NUMBER, "Hello", author=author)
    assert Conversation.objects.get().last_message_at == message.created_at


def test_many_do_not_take_a_conversation_off_the_list():
    listed = send_sms(NUMBER, "Hello").created_at
    send_many(many(1))
    assert Conversation.objects.get().last_message_at == listed


def test_many_end_the_waiting():
    conversation = opened("+2348020000000")
    Conversation.objects.update(waiting_since=now())
    send_many([{"to": NUMBER, "text": "Hello"}])
    conversation.refresh_from_db()
    assert conversation.waiting_since is None


def test_many_to_one_subscriber_keep_their_order():
    send_many([{"to": NUMBER, "text": str(n)} for n in range(20)], batch_size=7)
    texts = Message.objects.order_by("id").values_list("text", flat=True)
    assert list(texts) == [str(n) for n in range(20)]
    assert Conversation.objects.count() == 1


def test_many_take_what_one_takes(author):
    send_at, expires_at = now() + HOUR, now() + 2 * HOUR
    options = {"sender": "55020", "session_id": "s", "ref_id": "r", "author": author}
    send_many(many(1, send_at=send_at, expires_at=expires_at, **options))
    message = Message.objects.get()
    assert (message.conversation.short_code, message.session_id) == ("55020", "s")
    assert (message.ref_id, message.author_name) == ("r", "Ada Obi")
    assert (message.send_at, message.due_at, message.expires_at) == (send_at, send_at, expires_at)


def test_the_sender_of_many_is_the_same_in_any_case():
    send_many([{"to": NUMBER, "text": "1", "sender": sender} for sender in ("Shop", "SHOP")])
    assert Conversation.objects.count() == 1


def test_many_are_read_a_batch_at_a_time():
    def generate():
        for n in range(2000):
            unstored.append(n - Message.objects.count() if n % 200 == 199 else 0)
            yield {"to": f"080200000{n % 50:02}", "text": "Hello"}

    unstored: list[int] = []
    assert send_many(generate(), batch_size=200) == 2000
    assert max(unstored) == 199


def test_many_more_take_no_more_memory():
    def peak(batches):
        tracemalloc.start()
        send_many(generate(batches * 50), batch_size=50)
        _now, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    def generate(number):
        for n in range(number):
            yield {"to": f"080200000{n % 100:02}", "text": f"{n:05000}"}

    # What is read once and kept, such as how numbers are made, is there after the first call.
    send_many(generate(100))
    assert peak(20) < 2 * peak(4)


def test_progress_is_told_after_each_batch():
    told: list[int] = []
    send_many(many(5), batch_size=2, progress=told.append)
    assert told == [2, 4, 5]


def test_batches_before_a_bad_one_are_stored():
    with pytest.raises(MessageRefused, match=r"^Message 3: "):
        send_many([*many(3), {"to": "MTN", "text": "x"}], batch_size=2)
    assert Message.objects.count() == 2


@pytest.mark.parametrize("arguments", [{}, {"to": NUMBER}, {"nonsense": 1}, "to", None, 1])
def test_what_is_no_message_is_named(arguments):
    with pytest.raises(MessageRefused, match=r"^Message 0: "):
        send_many([arguments])


@pytest.mark.parametrize("size", [0, -1, 10_001])
def test_a_batch_has_a_size(size):
    with pytest.raises(ValueError, match="batch_size"):
        send_many(many(1), batch_size=size)


def test_a_repeat_within_a_batch_is_stored_once():
    assert send_many(many(1, ref_id="r") * 3) == 1
    assert Message.objects.count() == 1


def test_a_repeat_across_batches_is_stored_once():
    assert send_many(many(1, ref_id="r") * 3, batch_size=1) == 1
    assert Message.objects.count() == 1


def test_a_call_that_was_cut_off_can_be_made_again():
    messages = [message | {"ref_id": f"campaign-{n}"} for n, message in enumerate(many(5))]
    assert send_many(messages[:3]) == 3
    assert send_many(messages) == 2


def test_another_text_for_a_reference_within_a_batch_is_refused():
    with pytest.raises(MessageRefused, match=r"^Message 1: "):
        send_many(many(2, ref_id="r"))
    assert nothing_stored()


def test_another_text_for_a_stored_reference_is_refused():
    first = send_sms(NUMBER, "Hello", ref_id="r")
    with pytest.raises(MessageRefused, match=rf"^Message 1: .*message {first.pk}"):
        send_many([*many(1), {"to": NUMBER, "text": "Bye", "ref_id": "r"}])
    assert Message.objects.count() == 1


def test_a_repeat_that_is_stored_meanwhile_is_not_stored_again(monkeypatch):
    send_sms("08020000000", "Hello 0", ref_id="r")
    monkeypatch.setattr(services, "_first_with", blind_once(services._first_with))
    assert send_many(many(1, ref_id="r")) == 0
    assert Message.objects.count() == 1


def test_another_violation_in_many_is_not_taken_for_a_repeat(monkeypatch):
    send_sms("08020000000", "Hello 0", ref_id="r")
    monkeypatch.setattr(services, "_first_with", lambda drafts: {})
    with pytest.raises(IntegrityError):
        send_many(many(1, ref_id="r"))


@pytest.mark.django_db(transaction=True)
def test_overlapping_batches_at_once_neither_deadlock_nor_repeat():
    messages = [message | {"ref_id": f"r{n}"} for n, message in enumerate(many(60))]
    backwards = messages[::-1]
    calls = [
        lambda batch=batch: send_many(batch, batch_size=20)
        for batch in (messages, backwards, messages, backwards)
    ]
    results = at_once(*calls)
    assert sum(results) == 60
    assert Message.objects.count() == Conversation.objects.count() == 60


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", locked(), ids=repr)
def test_what_others_hold_is_stored_a_moment_later(error, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda *_: 0)
    with failing(error, times=contention.TRIES - 1) as raised:
        message = send_sms("08020000000", "Hello")
    assert len(raised) == contention.TRIES - 1
    assert Message.objects.get() == message


@pytest.mark.django_db(transaction=True)
def test_what_others_hold_for_too_long_is_the_callers_to_know(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda *_: 0)
    with failing(OperationalError(1213, "Deadlock")), pytest.raises(OperationalError):
        send_sms("08020000000", "Hello")
    assert Message.objects.count() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [OperationalError(2013, "Lost"), InterfaceError("closed")])
def test_what_may_have_been_stored_is_not_stored_again(error):
    with failing(error, times=1), pytest.raises(type(error)):
        send_sms("08020000000", "Hello")


def test_within_a_transaction_a_deadlock_is_for_its_owner():
    with failing(OperationalError(1213, "Deadlock"), times=1), pytest.raises(OperationalError):
        send_sms("08020000000", "Hello")


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_meets_a_deadlock_is_stored_a_moment_later():
    answers = iter([OperationalError(1213, "Deadlock")])

    def deadlock(execute, sql, *more):
        if "INSERT INTO" in sql and (error := next(answers, None)):
            raise error
        return execute(sql, *more)

    with connection.execute_wrapper(deadlock):
        assert send_many(many(3)) == 3
    assert Message.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_batches_to_the_same_subscribers_at_once_do_not_deadlock():
    singles = [lambda: [send_sms(m["to"], "Single") for m in many(20)]]
    batches = [lambda: send_many(many(20), batch_size=10), lambda: send_many(many(20)[::-1])]
    results = at_once(*batches, *singles, *batches)
    assert [result for result in results if isinstance(result, Exception)] == []
    assert Message.objects.count() == 100


# Retry, confirm, cancel


@pytest.mark.parametrize(("status", "was_uncertain"), [("failed", False), ("uncertain", True)])
def test_a_retry_queues_it_again(status, was_uncertain):
    past = now() - 48 * HOUR
    message = changed(send_sms(NUMBER, "Hello"), status=status, attempts=3, give_up_at=past)
    row = fresh(retry(message))
    assert (row.status, row.attempts, row.was_uncertain) == ("queued", 3, was_uncertain)
    assert now() - HOUR < row.due_at <= now()
    assert row.give_up_at == row.due_at + 24 * HOUR


def test_a_second_retry_does_not_forget_that_it_was_uncertain():
    message = changed(send_sms(NUMBER, "Hello"), status="failed", was_uncertain=True)
    assert fresh(retry(message)).was_uncertain


def test_a_retry_is_left_to_a_worker(hinted, django_capture_on_commit_callbacks):
    message = changed(send_sms(NUMBER, "Hello"), status="failed")
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        retry(message)
    assert (hinted, callbacks) == ([], [])


def test_a_retry_of_what_has_expired_is_refused():
    message = send_sms(NUMBER, "Hello", expires_at=now() + HOUR)
    changed(message, status="failed", expires_at=now() - HOUR)
    with pytest.raises(WrongStatus, match="expired"):
        retry(message)
    assert fresh(message).status == "failed"


def test_a_retry_before_it_expires_is_made():
    message = send_sms(NUMBER, "Hello", expires_at=now() + HOUR)
    changed(message, status="failed")
    assert retry(message).status == "queued"


def test_a_confirmed_message_is_sent(django_capture_on_commit_callbacks):
    message = changed(send_sms(NUMBER, "Hello"), status="uncertain", error="reset")
    row = fresh(confirm(message))
    assert (row.status, row.error) == ("sent", "")


def test_a_cancelled_message_is_not_sent():
    row = fresh(cancel(send_sms(NUMBER, "Hello")))
    assert row.status == "cancelled"
    assert outbox.claim_due(1) == []


def test_what_may_have_arrived_is_uncertain_when_cancelled():
    message = changed(send_sms(NUMBER, "Hello"), was_uncertain=True)
    row = fresh(cancel(message))
    assert row.status == "uncertain"
    assert row.error


ALLOWED = {
    retry: {"failed", "uncertain"},
    confirm: {"uncertain"},
    cancel: {"queued"},
}


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        (verb, status)
        for verb, allowed in ALLOWED.items()
        for status in sorted(set(Message.Status.values) - allowed)
    ],
)
def test_a_verb_is_refused_in_another_status(verb, status):
    message = changed(send_sms(NUMBER, "Hello"), status=status)
    with pytest.raises(WrongStatus, match=status):
        verb(message)
    assert fresh(message).status == status


@pytest.mark.parametrize(
    ("verb", "status"), [(retry, "failed"), (confirm, "uncertain"), (cancel, "queued")]
)
def test_a_verb_that_somebody_forestalled_changes_nothing(monkeypatch, verb, status):
    def require(message, *statuses):
        changed(message, status="sending")

    message = changed(send_sms(NUMBER, "Hello"), status=status)
    monkeypatch.setattr(services, "_require", require)
    with pytest.raises(WrongStatus, match="just changed"):
        verb(message)
    assert fresh(message).status == "sending"


@pytest.mark.parametrize(
    ("verb", "status"), [(retry, "failed"), (confirm, "uncertain"), (cancel, "queued")]
)
def test_a_stale_instance_is_read_again(verb, status):
    stale = send_sms(NUMBER, "Hello")
    changed(stale, status=status)
    stale.status = "received"
    assert verb(stale) is stale


@pytest.mark.django_db(transaction=True)
def test_two_people_who_retry_at_once_retry_once():
    message = changed(send_sms(NUMBER, "Hello"), status="uncertain")
    results = at_once(*[lambda: retry(fresh(message))] * 4)
    assert sorted(type(result).__name__ for result in results) == ["Message"] + ["WrongStatus"] * 3


def test_a_cancelled_answer_was_none():
    conversation = opened()
    text = inbound(conversation, session_id="s")
    cancel(reply(text, "Yes"))
    assert Conversation.objects.get().waiting_since == fresh(text).created_at


def test_a_retried_answer_is_one_again():
    text = inbound(opened(), session_id="s")
    answer = reply(text, "Yes")
    outbox.end(answer, "no")
    retry(answer)
    assert Conversation.objects.get().waiting_since is None


# Who opted out


def opted_out(number=NUMBER):
    """Their contact, without any conversation."""
    return Contact.objects.create(phone_number=number, opted_out_at=now())


def test_who_opted_out_is_sent_nothing_and_nothing_is_stored():
    contact = opted_out()
    with pytest.raises(OptedOut) as error:
        send_sms(NUMBER, "Hello")
    assert error.value.opted_out_at == contact.opted_out_at
    assert "802" not in str(error.value)
    assert nothing_stored()


def test_who_opted_out_is_not_replied_to():
    conversation = opened()
    message = inbound(conversation, session_id="s", ref_id="r")
    Contact.objects.update(opted_out_at=now())
    for to in (conversation, message):
        with pytest.raises(OptedOut):
            reply(to, "Hello")
    assert list(Message.objects.all()) == [message]


def test_who_opted_in_again_is_sent_to():
    opted_out()
    Contact.objects.update(opted_out_at=None)
    assert send_sms(NUMBER, "Hello").pk


def test_a_contact_without_a_conversation_is_sent_to():
    Contact.objects.create(phone_number=NUMBER)
    assert send_sms(NUMBER, "Hello").pk


@pytest.mark.parametrize("override", [False, True])
def test_an_override_is_recorded_whoever_gets_it(override):
    assert fresh(send_sms(NUMBER, "Terms", override_opt_out=override)).override_opt_out is override


def test_an_override_reaches_who_opted_out():
    opted_out()
    assert fresh(send_sms(NUMBER, "Terms", override_opt_out=True)).override_opt_out
    assert fresh(reply(opened(), "Terms", override_opt_out=True)).override_opt_out
    assert send_many(many(1, override_opt_out=True)) == 1


def test_a_reference_of_before_they_opted_out_returns_the_first():
    first = send_sms(NUMBER, "Hello", ref_id="r")
    Contact.objects.update(opted_out_at=now())
    assert send_sms(NUMBER, "Hello", ref_id="r") == first
    assert reply(first.conversation, "Hello", ref_id="r") == first


def test_whether_they_opted_out_costs_no_query_in_a_conversation(django_assert_num_queries):
    send_sms(NUMBER, "Hello")
    with django_assert_num_queries(1 + 2 + 3):  # the conversation, the transaction, three writes
        send_sms(NUMBER, "Hello")


def test_a_retry_to_who_opted_out_is_refused():
    message = changed(send_sms(NUMBER, "Hello"), status="failed")
    Contact.objects.update(opted_out_at=now())
    with pytest.raises(OptedOut):
        retry(message)
    assert fresh(message).status == "failed"


def test_a_retry_of_what_overrides_is_made():
    message = changed(send_sms(NUMBER, "Terms", override_opt_out=True), status="failed")
    Contact.objects.update(opted_out_at=now())
    assert retry(message).status == "queued"


def many_of_which_three_opted_out():
    """Seven messages, of which those at 0, 3 and 4 are to subscribers who opted out."""
    messages = [{"to": f"+2348020000{n:03}", "text": "x", "ref_id": f"r{n}"} for n in range(7)]
    for position in (0, 3, 4):
        opted_out(messages[position]["to"])
    return messages


def test_many_leave_out_who_opted_out_and_name_the_positions():
    told: list[services.Progress] = []
    messages = many_of_which_three_opted_out()
    assert send_many(messages, batch_size=2, progress=told.append) == 4
    assert told == [2, 4, 6, 7]
    assert [progress.opted_out for progress in told] == [(0,), (3,), (4,), ()]
    assert set(Message.objects.values_list("ref_id", flat=True)) == {"r1", "r2", "r5", "r6"}
    assert Conversation.objects.count() == 4


def test_many_without_progress_log_how_many_were_left_out(caplog):
    caplog.set_level("INFO")
    assert send_many(many_of_which_three_opted_out(), batch_size=2) == 4
    assert caplog.messages == ["3 of 7 messages were left out: subscribers opted out"]


def test_many_of_which_all_were_left_out_store_nothing():
    opted_out()
    told: list[services.Progress] = []
    assert send_many(many(1), progress=told.append) == 0
    assert (told[0], told[0].opted_out, nothing_stored()) == (1, (0,), True)


def test_of_many_only_what_overrides_reaches_who_opted_out():
    opted_out("+2348020000000")
    told: list[services.Progress] = []
    messages = many(1, ref_id="r") + many(1, ref_id="r", override_opt_out=True)
    assert send_many(messages, progress=told.append) == 1
    assert told[0].opted_out == (0,)
    assert Message.objects.get().override_opt_out


def test_many_that_were_stored_before_they_opted_out_are_not_left_out():
    messages = many(2, ref_id="r")[:1]
    send_many(messages)
    Contact.objects.update(opted_out_at=now())
    told: list[services.Progress] = []
    assert send_many(messages, progress=told.append) == 0
    assert told[0].opted_out == ()


def test_whether_they_opted_out_costs_many_one_query_a_batch(django_assert_num_queries):
    send_many(many(20))
    # What is stored, who opted out, the conversations, the transaction, and its writes.
    locks = connection.features.has_select_for_update
    with django_assert_num_queries(1 + 1 + 1 + 2 + 2 + locks):
        send_many(many(20))


# A reply and the bulk before it


def test_a_reply_takes_along_what_must_leave_before_it(provider):
    send_many([{"to": NUMBER, "text": "bulk"}, {"to": "+2348020000001", "text": "bulk"}])
    send_sms(NUMBER, "reply")
    with_reply, other, reply = Message.objects.order_by("id")
    assert with_reply.priority == reply.priority == Message.SINGLE
    assert other.priority == Message.BULK


def test_bulk_that_has_left_keeps_its_priority(provider):
    send_many([{"to": NUMBER, "text": "bulk"}])
    Message.objects.update(status="sent")
    send_sms(NUMBER, "reply")
    assert Message.objects.order_by("id")[0].priority == Message.BULK
