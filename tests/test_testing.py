import os
import subprocess
import sys
import textwrap
from datetime import timedelta
from functools import partial

import pytest
from django.conf import settings as django_settings
from django.db import transaction
from django.test import TestCase
from django.utils import timezone

from django_ninebits import client, services, testing
from django_ninebits.models import Contact, Conversation, Message, QuarantinedDelivery
from django_ninebits.signals import message_received, message_sent

TO = "+2348020000000"
TEXT = "When was the last time you went to the cinema?"

either_way = pytest.mark.parametrize(
    "commits",
    [
        pytest.param(False, marks=pytest.mark.django_db, id="TestCase"),
        pytest.param(True, marks=pytest.mark.django_db(transaction=True), id="TransactionTestCase"),
    ],
)


@pytest.fixture
def sent(db):
    with testing.outbox() as sent:
        yield sent


@pytest.fixture
def heard():
    """The messages that a signal was heard of, as they came."""
    heard = []

    def listen(message, signal, **kwargs):
        heard.append((signal, message.pk))

    for signal in (message_received, message_sent):
        signal.connect(listen)
    yield heard
    for signal in (message_received, message_sent):
        signal.disconnect(listen)


@pytest.fixture
def answering():
    def answer(message, **kwargs):
        services.reply(message, "Thank you.", ref_id=f"thanks-{message.pk}")

    message_received.connect(answer)
    yield
    message_received.disconnect(answer)


def status_of(message):
    return Message.objects.get(pk=message.pk).status


@either_way
def test_a_message_is_in_the_outbox_once_it_is_sent(commits):
    with testing.outbox() as sent:
        message = services.send_sms("0802 000 0000", TEXT, session_id="s", ref_id="r")
        assert sent == [testing.Call(TO, TEXT, "48974", "s", "r", accepted=True)]
        assert status_of(message) == "sent"


@either_way
def test_a_text_arrives_and_its_receivers_have_run(commits, heard):
    message = testing.receive(TEXT, sender=TO, telco="glo")
    assert (message.text, message.telco, message.conversation.short_code) == (TEXT, "glo", "48974")
    assert heard == [(message_received, message.pk)]
    assert Message.objects.get().announce_at is None


@either_way
def test_a_receiver_that_replies_is_in_the_outbox(commits, heard, answering):
    with testing.outbox() as sent:
        message = testing.receive(TEXT, session_id="the session")
    assert [(call.text, call.session_id) for call in sent] == [("Thank you.", "the session")]
    assert [signal for signal, _pk in heard] == [message_received, message_sent]
    assert status_of(Message.objects.get(ref_id=f"thanks-{message.pk}")) == "sent"


@either_way
def test_nothing_of_what_is_rolled_back_is_sent(commits, heard):
    with testing.outbox() as sent:
        with transaction.atomic():
            services.send_sms(TO, TEXT)
            transaction.set_rollback(True)
        services.send_sms(TO, "The only one")
    assert [call.text for call in sent] == ["The only one"]
    assert len(heard) == 1


@either_way
def test_nothing_is_sent_before_the_transaction_of_the_host_commits(commits):
    with testing.outbox() as sent:
        with transaction.atomic():
            message = services.send_sms(TO, TEXT)
            assert (sent, status_of(message)) == ([], "queued")
        assert (len(sent), status_of(message)) == (1, "sent")


def test_without_an_outbox_what_receivers_send_goes_nowhere(db, answering):
    testing.receive(TEXT)
    assert status_of(Message.objects.get(direction="outbound")) == "sent"


def test_capturing_callbacks_too_does_nothing_twice(
    sent, heard, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        services.send_sms(TO, TEXT)
        transaction.on_commit(lambda: services.send_sms(TO, "From a callback of the host"))
    assert [call.text for call in sent] == [TEXT, "From a callback of the host"]
    assert len(heard) == 2


def test_callbacks_of_the_host_are_left_to_the_host(sent):
    called: list[str] = []
    transaction.on_commit(partial(called.append, "the host's"))
    services.send_sms(TO, TEXT)
    assert (called, len(sent)) == ([], 1)


def test_a_repeated_ref_id_sends_once(sent):
    first = services.send_sms(TO, TEXT, ref_id="once")
    assert services.send_sms(TO, TEXT, ref_id="once") == first
    assert len(sent) == 1


def test_the_next_call_is_refused_in_these_words(sent):
    sent.refuse("No credit left")
    first, second = services.send_sms(TO, TEXT), services.send_sms(TO, TEXT)
    first.refresh_from_db()
    assert (first.status, first.error) == ("failed", "9bits answered 422: No credit left")
    assert status_of(second) == "sent"
    assert [call.accepted for call in sent] == [False, True]


def test_the_next_call_is_told_to_come_later(sent):
    sent.try_later(retry_after=3600)
    before = timezone.now()
    message = services.send_sms(TO, TEXT)
    message.refresh_from_db()
    assert (message.status, message.attempts) == ("queued", 1)
    assert message.due_at is not None
    assert message.due_at >= before + timedelta(hours=1)
    assert sent.run_worker() == 0


def test_the_next_call_gets_no_answer(sent):
    sent.uncertain()
    message = services.send_sms(TO, TEXT)
    assert status_of(message) == "uncertain"
    services.retry(Message.objects.get())
    assert sent.run_worker() == 1
    assert (status_of(message), len(sent)) == ("sent", 2)


def test_failures_come_in_the_order_they_were_planned(sent):
    sent.uncertain()
    sent.refuse()
    messages = [services.send_sms(TO, TEXT) for _ in range(3)]
    assert [status_of(message) for message in messages] == ["uncertain", "failed", "sent"]


def test_bulk_waits_for_the_worker(sent):
    numbers = [f"+23480200000{number:02}" for number in range(3)]
    services.send_many([{"to": to, "text": str(n)} for to in numbers for n in range(2)])
    assert sent == []
    assert sent.run_worker() == 6
    assert [call.text for call in sent if call.to == numbers[0]] == ["0", "1"]
    assert set(Message.objects.values_list("status", flat=True)) == {"sent"}


def test_what_may_not_be_sent_does_not_stop_the_worker(sent, settings, monkeypatch):
    settings.NINEBITS = settings.NINEBITS | {"ONLY_TO": [TO]}
    monkeypatch.setattr(testing, "_BATCH", 1)
    services.send_many([{"to": to, "text": TEXT} for to in ("+2348020000001", TO)])
    assert sent.run_worker() == 1
    assert sorted(Message.objects.values_list("status", flat=True)) == ["failed", "sent"]


def test_deferred_messages_wait_for_the_worker(sent, settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}
    services.send_sms(TO, TEXT)
    assert sent == []
    assert sent.run_worker() == 1


def test_the_inner_outbox_has_the_calls(sent):
    with testing.outbox() as inner:
        services.send_sms(TO, "inner")
    services.send_sms(TO, "outer")
    assert ([call.text for call in inner], [call.text for call in sent]) == (["inner"], ["outer"])


def test_the_outbox_leaves_nothing_behind(db):
    real = client.send
    connection = transaction.get_connection()
    with pytest.raises(KeyError), testing.outbox():
        raise KeyError
    assert client.send is real
    assert "savepoint_commit" not in vars(connection)


@pytest.mark.parametrize("keys", [{}, {"API_TOKEN": ""}, {"API_TOKEN": lambda: 1 / 0}])
def test_no_token_is_needed_and_none_is_fetched(db, settings, keys):
    settings.NINEBITS = before = {"SHORT_CODE": "48974", **keys}
    with testing.outbox() as sent:
        services.send_sms(TO, TEXT)
    assert len(sent) == 1
    assert settings.NINEBITS is before


def test_a_redelivery_is_the_first_row_again(db, heard):
    same = {"session_id": "s", "ref_id": "r", "sent_date": "2024-01-02T23:50:37.000000Z"}
    assert testing.receive(TEXT, **same) == testing.receive(TEXT, **same)
    assert len(heard) == 1


def test_the_same_text_twice_is_two(db, heard):
    assert testing.receive("1") != testing.receive("1")
    assert Conversation.objects.get().unread_count == 2


def test_a_text_can_come_from_anybody_to_any_short_code(db):
    testing.receive(TEXT, sender="2347030000000", short_code="5502")
    conversation = Conversation.objects.get()
    assert (str(conversation.contact.phone_number), conversation.short_code) == (
        "+2347030000000",
        "5502",
    )


def test_a_text_that_is_quarantined_says_why(db):
    with pytest.raises(AssertionError, match="from: 'MTN' is not a number"):
        testing.receive(TEXT, sender="MTN")
    assert QuarantinedDelivery.objects.count() == 1


def test_without_a_transaction_savepoints_are_none_of_ours(transactional_db):
    connection = transaction.get_connection()
    with testing.outbox():
        transaction.set_autocommit(False)
        Contact.objects.create(phone_number=TO)
        transaction.savepoint_commit(connection.savepoint())
        transaction.rollback()
        transaction.set_autocommit(True)
    assert not Contact.objects.exists()


class InATestCase(TestCase):
    @classmethod
    def setUpTestData(cls):
        with testing.outbox() as sent:
            services.send_sms(TO, "of the class")
        assert [call.text for call in sent] == ["of the class"]

    def setUp(self):
        self.sent = self.enterContext(testing.outbox())

    def test_the_outbox_begins_empty(self):
        assert self.sent == []
        services.send_sms(TO, TEXT)
        assert [call.text for call in self.sent] == [TEXT]


def test_the_examples_in_the_docstring_pass(tmp_path):
    blocks = testing.__doc__.split("::\n\n")[1:]
    examples = [
        textwrap.dedent(block.split("\n\nWith ")[0].split("\n\nOnly ")[0]) for block in blocks
    ]
    for number, example in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(example)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", tmp_path, "-W", "error", tmp_path],
        cwd=django_settings.BASE_DIR,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "NINEBITS_TEST_DATABASE": f"sqlite:///{tmp_path / 'test.sqlite3'}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in run.stdout, run.stdout + run.stderr
