import re
import threading
import time
import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from django_ninebits import consent
from django_ninebits.inbox import take_in, take_in_again
from django_ninebits.models import (
    ConsentChange,
    Contact,
    Conversation,
    Message,
    QuarantinedDelivery,
)
from tests.deliveries import body

pytestmark = pytest.mark.django_db

OUT, IN = ConsentChange.Became.OPTED_OUT, ConsentChange.Became.OPTED_IN
NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_is_sent(settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}


def at(minute):
    return NOON + timedelta(minutes=minute)


def delivery(text, minute=0, **changes):
    changes.setdefault("ref_id", uuid.uuid4().hex)
    return body(message=text, sent_date=at(minute).isoformat(), **changes)


def said(text, minute=0, **changes):
    return take_in(delivery(text, minute, **changes)).message


def contact():
    return Contact.objects.get()


def changes():
    return list(ConsentChange.objects.values_list("became", flat=True))


# The words


@given(
    before=st.text(max_size=2),
    word=st.sampled_from(["STOP", "stop", "sToP"]),
    after=st.text(max_size=2),
)
def test_whatever_is_no_space_beside_a_word_makes_it_none(before, word, after):
    is_alone = not (before + after).strip()
    assert (consent.meaning(before + word + after) == OUT) == is_alone


@given(position=st.integers(0, 3), other=st.text(max_size=2))
def test_another_letter_in_a_word_makes_it_none(position, other):
    text = "stop"[:position] + other + "stop"[position + 1 :]
    is_the_word = re.fullmatch(r"\s*stop\s*", text, re.IGNORECASE)
    assert (consent.meaning(text) == OUT) == bool(is_the_word)


@pytest.mark.parametrize("text", ["STOP.", "STOP please", "ST OP", "stopp", "", "START STOP"])
def test_a_text_that_is_more_or_less_than_a_word_changes_nothing(text):
    said(text)
    assert (contact().opted_out_at, contact().consent_at, changes()) == (None, None, [])


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("ARRÊT", "arrêt"),
        ("ARRÊT", unicodedata.normalize("NFD", " Arrêt\n")),
        (unicodedata.normalize("NFD", "Dúró"), "DÚRÓ"),
        ("Straße", "STRASSE"),
        ("توقف", "\u00a0توقف\u2003"),
        ("STOP ALL", " stop all "),
    ],
)
def test_a_word_is_in_any_language_and_writing(settings, word, text):
    settings.NINEBITS = settings.NINEBITS | {"OPT_OUT_WORDS": [word]}
    assert consent.meaning(text) == OUT


def test_words_of_the_settings_are_instead_of_the_defaults(settings):
    settings.NINEBITS = settings.NINEBITS | {
        "OPT_OUT_WORDS": ["ARRET", "FIN"],
        "OPT_IN_WORDS": ["REPRISE"],
    }
    found = [consent.meaning(text) for text in ("arret", "fin", "reprise", "STOP", "START")]
    assert found == [OUT, OUT, IN, None, None]


def test_without_words_nobody_opts_out_by_a_text(settings):
    settings.NINEBITS = settings.NINEBITS | {"OPT_OUT_WORDS": []}
    said("STOP")
    assert (contact().opted_out_at, changes()) == (None, [])


def test_without_words_that_opt_out_somebody_can_still_come_back(settings):
    said("STOP")
    settings.NINEBITS = settings.NINEBITS | {"OPT_OUT_WORDS": []}
    said("START", 1)
    assert contact().opted_out_at is None


@pytest.mark.parametrize("key", ["OPT_OUT_WORDS", "OPT_IN_WORDS"])
def test_with_words_that_are_malformed_the_text_is_kept_and_the_defaults_count(
    settings, caplog, key
):
    settings.NINEBITS = settings.NINEBITS | {key: "HALT"}
    said("STOP")
    assert changes() == [OUT]
    assert f'NINEBITS["{key}"] must be a list' in caplog.text


@pytest.mark.parametrize("opt_in_words", ["REPRISE", [], ["ARRET"]])
def test_words_that_are_sound_count_where_the_others_are_wrong(settings, opt_in_words):
    settings.NINEBITS = settings.NINEBITS | {
        "OPT_OUT_WORDS": ["ARRET"],
        "OPT_IN_WORDS": opt_in_words,
    }
    found = [consent.meaning(text) for text in ("arret", "START", "STOP")]
    assert found == [OUT, IN, None]


# What a word does


def test_a_word_opts_out_and_names_the_text():
    message = said("STOP")
    change = ConsentChange.objects.get()
    assert (change.contact, change.message, change.became) == (contact(), message, OUT)
    assert contact().opted_out_at == change.changed_at == message.created_at
    assert contact().consent_at == NOON


def test_only_the_other_word_opts_in_again():
    for minute, text in enumerate(["STOP", "Hello", "UNSTOP", "STOP"]):
        said(text, minute)
    assert contact().opted_out_at
    message = said("start", 5)
    assert (contact().opted_out_at, changes()) == (None, [OUT, IN])
    assert message.consent_change.became == IN


def test_a_word_for_what_is_so_already_changes_nothing():
    said("START")
    assert (contact().opted_out_at, changes()) == (None, [])
    first = said("STOP", 1)
    said("STOP", 2)
    assert (contact().opted_out_at, changes()) == (first.created_at, [OUT])


def test_a_subscriber_opts_out_of_every_short_code():
    said("STOP")
    said("Hello", to="5502")
    opted_out = Conversation.objects.values_list("contact__opted_out_at", flat=True)
    assert len(opted_out) == 2
    assert all(opted_out)


def test_a_subscriber_opts_out_for_nobody_else():
    said("Hello", from_="2348030000000")
    said("STOP")
    assert Contact.objects.get(phone_number="+2348030000000").opted_out_at is None


def test_a_change_is_seen_on_the_text_that_receivers_get():
    message = said("STOP")
    assert message.conversation.contact.opted_out_at == message.created_at
    message.conversation.contact.save()
    assert contact().opted_out_at == message.created_at


def test_a_word_said_again_is_seen_on_the_text_that_receivers_get():
    said("STOP")
    assert said("STOP", 1).conversation.contact.consent_at == contact().consent_at == at(1)


def test_a_change_reads_as_what_became():
    said("STOP")
    assert str(ConsentChange.objects.get()) == "opted out"


# Late and twice


def test_a_redelivery_changes_nothing():
    again = delivery("STOP")
    take_in(again)
    said("START", 1)
    assert take_in(again).repeated
    assert (contact().opted_out_at, changes()) == (None, [OUT, IN])


@pytest.mark.parametrize(("first", "second"), [("STOP", "START"), ("START", "STOP")])
def test_the_word_that_was_sent_last_counts_in_whatever_order_they_come(first, second):
    said(second, 2)
    said(first, 1)
    assert bool(contact().opted_out_at) == (second == "STOP")


def test_a_word_said_again_outdoes_what_was_said_before_it():
    said("STOP", 1)
    said("STOP", 3)
    said("START", 2)
    assert (bool(contact().opted_out_at), changes()) == (True, [OUT])


def test_of_two_words_at_the_same_moment_the_later_to_come_counts():
    said("STOP")
    said("START")
    assert contact().opted_out_at is None


def test_a_word_without_a_date_counts_as_sent_when_it_comes():
    before = timezone.now()
    take_in(body(message="STOP", without=["sent_date"]))
    assert contact().consent_at >= before


def test_a_word_from_the_future_keeps_no_later_one_out():
    said("START", ref_id="1")
    take_in(body(message="STOP", sent_date="2090-01-01T00:00:00Z"))
    take_in(body(message="START", without=["sent_date"]))
    assert (contact().opted_out_at, changes()) == (None, [OUT, IN])


def test_a_word_in_quarantine_counts_once_it_is_taken_in():
    row = QuarantinedDelivery.objects.create(body=delivery("STOP"), errors="")
    take_in_again(row)
    assert contact().opted_out_at == Message.objects.get().created_at


def test_a_word_without_a_date_counts_as_sent_when_it_was_quarantined():
    undated = body(message="START", without=["sent_date"])
    row = QuarantinedDelivery.objects.create(body=undated, errors="", received_at=at(1))
    said("STOP", 2)
    take_in_again(row)
    assert (bool(contact().opted_out_at), changes()) == (True, [OUT])
    assert Message.objects.latest("id").created_at > at(2)


def test_times_without_zones_are_compared_as_they_are_stored(settings):
    settings.USE_TZ = False
    said("START", 2)
    said("STOP", 1)
    assert contact().opted_out_at is None


# All at once


def at_once(*deliveries):
    """Take them in in threads that start together → what became of each."""
    taken = []
    barrier = threading.Barrier(len(deliveries))

    def take(raw):
        barrier.wait()
        taken.append(take_in(raw))
        connection.close()

    threads = [threading.Thread(target=take, args=[raw]) for raw in deliveries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def confirmations():
    return Message.objects.filter(direction=Message.Direction.OUTBOUND)


@pytest.mark.django_db(transaction=True)
def test_a_word_that_is_delivered_eight_times_at_once_is_one_change_confirmed_once():
    at_once(*[delivery("STOP", ref_id="1")] * 8)
    assert (changes(), confirmations().count()) == ([OUT], 1)


@pytest.mark.django_db(transaction=True)
def test_eight_words_at_once_on_eight_short_codes_are_one_change_confirmed_once():
    taken = at_once(*[delivery("STOP", number, to=str(48970 + number)) for number in range(8)])
    assert len({one.message.pk for one in taken if one.message}) == 8
    assert (changes(), confirmations().count()) == ([OUT], 1)
    assert contact().consent_at == at(7)


@pytest.mark.django_db(transaction=True)
def test_words_at_once_leave_what_was_sent_last():
    said("Hello")
    words = ["STOP", "START"] * 4
    at_once(*[delivery(word, number) for number, word in enumerate(words)])
    assert contact().opted_out_at is None
    assert contact().consent_at == at(7)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("first", "second"), [("STOP", "START"), ("START", "STOP")])
def test_a_word_that_comes_while_another_is_stored_on_another_short_code_counts(first, second):
    said(second)
    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            said(first, 1)
            later = threads.submit(at_once, delivery(second, 2, to="5502"))
            # Until it waits for what is not committed yet.
            time.sleep(0.5)
        later.result()
    assert bool(contact().opted_out_at) == (second == "STOP")
