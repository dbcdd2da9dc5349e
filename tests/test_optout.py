import threading
import uuid
from datetime import timedelta
from unittest.mock import patch

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.utils import timezone

from django_ninebits import inbox, optout, outbox, services, testing
from django_ninebits.conf import DEFAULTS
from django_ninebits.exceptions import OptedOut
from django_ninebits.models import Contact, Message
from django_ninebits.segments import segments
from django_ninebits.signals import contact_opted_in, contact_opted_out, message_received
from tests.deliveries import body

pytestmark = pytest.mark.django_db

CONFIRMATION = DEFAULTS["OPT_OUT_CONFIRMATION"]


@pytest.fixture
def sent():
    with testing.outbox() as sent:
        yield sent


@pytest.fixture
def heard():
    """What the signals of opting out and in gave: which, who, and which text."""
    heard = []

    def hear(signal, contact, message, **_):
        heard.append((signal, contact, message))

    for signal in (contact_opted_out, contact_opted_in):
        signal.connect(hear)
    yield heard
    for signal in (contact_opted_out, contact_opted_in):
        signal.disconnect(hear)


def texts(sent):
    return [call.text for call in sent]


def stored(text="STOP"):
    """A text that is stored and not announced: the process dies in between."""
    with patch.object(inbox, "_announce"):
        return inbox.take_in(body(message=text, ref_id=uuid.uuid4().hex)).message


def announced(message):
    """A worker finds that nobody has announced it."""
    long_ago = timezone.now() - timedelta(hours=1)
    Message.objects.filter(pk=message.pk).update(announce_at=long_ago)
    assert inbox.announce_overdue() == 1


# The confirmation


def test_the_default_confirmation_is_one_segment_that_names_the_way_back():
    counted = segments(CONFIRMATION)
    assert (counted.encoding, len(counted.parts)) == ("GSM-7", 1)
    assert DEFAULTS["OPT_IN_WORDS"][0] in CONFIRMATION


def test_a_word_is_confirmed_in_its_session_in_spite_of_it(sent):
    message = testing.receive("STOP", short_code="5502")
    (call,) = sent
    assert (call.text, call.session_id) == (CONFIRMATION, message.session_id)
    assert (call.to, call.sender) == ("+2348020000000", "5502")
    assert Message.objects.get(direction="outbound").override_opt_out


def test_a_word_said_again_is_not_confirmed_again(sent):
    for _again in range(3):
        testing.receive("STOP")
    assert texts(sent) == [CONFIRMATION]


def test_each_time_that_somebody_opts_out_is_confirmed(sent):
    for text in ("STOP", "START", "STOP"):
        testing.receive(text)
    assert texts(sent) == [CONFIRMATION] * 2


def test_opting_in_is_not_confirmed(sent):
    testing.receive("START")
    assert sent == []


def test_the_confirmation_is_a_setting(sent, settings):
    settings.NINEBITS = settings.NINEBITS | {"OPT_OUT_CONFIRMATION": "C'est noté."}
    testing.receive("STOP")
    assert texts(sent) == ["C'est noté."]


def test_an_empty_confirmation_is_none(sent, heard, settings):
    settings.NINEBITS = settings.NINEBITS | {"OPT_OUT_CONFIRMATION": ""}
    testing.receive("STOP")
    assert (sent, len(heard)) == ([], 1)


def test_a_confirmation_that_is_malformed_keeps_nobody_from_opting_out(
    sent, heard, settings, caplog
):
    settings.NINEBITS = settings.NINEBITS | {"OPT_OUT_CONFIRMATION": None}
    message = testing.receive("STOP")
    assert Contact.objects.get().opted_out_at == message.created_at
    assert (sent, len(heard)) == ([], 1)
    assert caplog.records[0].exc_info[0] is ImproperlyConfigured


def test_a_confirmation_goes_to_nobody_who_may_get_nothing(sent, settings):
    settings.NINEBITS = settings.NINEBITS | {"ONLY_TO": []}
    testing.receive("STOP")
    assert sent == []
    assert Message.objects.get(direction="outbound").error == outbox.NOT_IN_ONLY_TO


def test_a_text_that_is_no_word_asks_the_database_nothing(django_assert_num_queries):
    message = stored("Hello")
    with django_assert_num_queries(0):
        optout.answer(message=message)


# The signals


def test_who_opted_out_and_in_is_told_with_the_text(heard, sent):
    messages = [testing.receive(text) for text in ("STOP", "STOP", "START", "START")]
    contact = Contact.objects.get()
    assert heard == [
        (contact_opted_out, contact, messages[0]),
        (contact_opted_in, contact, messages[2]),
    ]


def test_the_confirmation_is_there_when_receivers_hear_of_it(sent):
    counts = []

    def count(**_):
        counts.append(len(sent))

    contact_opted_out.connect(count)
    testing.receive("STOP")
    contact_opted_out.disconnect(count)
    assert counts == [1]


def test_a_receiver_that_answers_every_text_is_refused_and_harms_nothing(sent, caplog):
    def answer(message, **_):
        services.reply(message, "Thank you.", ref_id=f"thanks-{message.pk}")

    message_received.connect(answer)
    testing.receive("STOP")
    message_received.disconnect(answer)
    assert texts(sent) == [CONFIRMATION]
    assert caplog.records[0].exc_info[0] is OptedOut


def test_it_is_connected_once_however_often_the_app_is_readied(sent, heard):
    apps.get_app_config("django_ninebits").ready()
    testing.receive("STOP")
    assert (len(sent), len(heard)) == (1, 1)


# After a crash


def test_a_word_whose_process_died_is_confirmed_by_a_worker(sent, heard):
    message = stored()
    assert (sent, heard) == ([], [])
    announced(message)
    assert texts(sent) == [CONFIRMATION]
    assert heard == [(contact_opted_out, Contact.objects.get(), message)]


def test_a_word_that_is_announced_again_is_confirmed_once(sent, heard):
    message = testing.receive("STOP")
    announced(message)
    assert (texts(sent), len(heard)) == ([CONFIRMATION], 2)


def test_a_word_that_is_announced_again_after_the_words_of_it_changed_is_confirmed_once(
    sent, heard, settings, caplog
):
    message = testing.receive("STOP")
    settings.NINEBITS = settings.NINEBITS | {"OPT_OUT_CONFIRMATION": "Bye."}
    announced(message)
    assert (texts(sent), len(heard), caplog.records) == ([CONFIRMATION], 2, [])


def test_what_is_not_true_any_more_is_not_confirmed(sent, heard):
    message = stored()
    testing.receive("START")
    announced(message)
    assert sent == []
    assert [signal for signal, *_ in heard] == [contact_opted_in, contact_opted_out]


def test_what_a_later_word_has_confirmed_is_not_confirmed_again(sent):
    message = stored()
    testing.receive("START")
    testing.receive("STOP")
    announced(message)
    assert texts(sent) == [CONFIRMATION]


@pytest.mark.django_db(transaction=True)
def test_a_word_that_is_announced_by_eight_at_once_is_confirmed_once(settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}
    message = stored()
    barrier = threading.Barrier(8)

    def announce():
        barrier.wait()
        optout.answer(message=Message.objects.get(pk=message.pk))
        connection.close()

    threads = [threading.Thread(target=announce) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Message.objects.filter(direction="outbound").count() == 1
