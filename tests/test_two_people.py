"""Two people, one subscriber: whoever replies second is told to look first."""

import threading
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_ninebits import inbox, services
from django_ninebits.models import Message
from tests.deliveries import body

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def deferred(settings):
    """Where nothing leaves before a worker comes."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


@pytest.fixture
def conversation():
    return received("Where is my order?").conversation


@pytest.fixture
def ada():
    return client_of("Ada")


@pytest.fixture
def bola():
    return client_of("Bola")


def received(text, **changes):
    return inbox.take_in(body(message=text, **changes)).message


def client_of(name):
    client = Client()
    client.force_login(User.objects.create_superuser(name.lower(), first_name=name))
    return client


def begun(client, conversation):
    """What the form of a page that was just opened sends, but for a text."""
    page = reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])
    response = client.get(page, follow=True)
    return {"address": response.context["form_address"], **hidden(response)}


def hidden(response):
    form = response.context["form"]
    return {name: form[name].value() for name in ("ref_id", "seen")}


def send(client, form, text="On its way", **changes):
    given = {"text": text, "ref_id": form["ref_id"], "seen": form["seen"], **changes}
    return client.post(form["address"], given, follow=True)


def problems(response):
    return response.context["form"].non_field_errors()


def texts():
    return list(Message.objects.filter(direction="outbound").values_list("text", flat=True))


def test_the_second_reply_is_not_sent_and_told_to_look_first(ada, bola, conversation):
    one, other = begun(ada, conversation), begun(bola, conversation)
    send(ada, one, "It left on Monday")
    Message.objects.update(created_at=timezone.now() - timedelta(seconds=20))
    response = send(bola, other, "It leaves tomorrow")
    assert problems(response) == [
        "Not sent: Ada replied 20 seconds ago. Look first, and press Send if your reply is still"
        " needed."
    ]
    assert texts() == ["It left on Monday"]
    assert response.context["form"]["text"].value() == "It leaves tomorrow"
    assert "It left on Monday" in response.text


def test_whoever_has_looked_sends(ada, bola, conversation):
    form = begun(bola, conversation)
    send(ada, begun(ada, conversation), "It left on Monday")
    looked = {"address": form["address"], **hidden(send(bola, form))}
    assert looked["ref_id"] == str(form["ref_id"])
    send(bola, looked, "See above")
    assert texts() == ["It left on Monday", "See above"]


def test_a_third_reply_meanwhile_is_to_be_looked_at_too(ada, bola, conversation):
    form = begun(bola, conversation)
    send(ada, begun(ada, conversation), "One")
    looked = {"address": form["address"], **hidden(send(bola, form))}
    send(ada, begun(ada, conversation), "Two")
    assert "Ada replied" in problems(send(bola, looked))[0]
    assert texts() == ["One", "Two"]


def test_what_was_there_when_one_began_is_not_asked_about(ada, bola, conversation):
    send(ada, begun(ada, conversation))
    send(bola, begun(bola, conversation), "And thank you")
    assert texts() == ["On its way", "And thank you"]


def test_the_same_words_from_another_tab_of_ones_own_are_asked_about(ada, conversation):
    form = begun(ada, conversation)
    send(ada, begun(ada, conversation))
    response = send(ada, form)
    assert "Not sent: Ada replied" in problems(response)[0]
    assert texts() == ["On its way"]
    send(ada, {"address": form["address"], **hidden(response)})
    assert texts() == ["On its way"] * 2


def test_ones_own_replies_and_texts_are_not_asked_about(ada, conversation):
    form = begun(ada, conversation)
    send(ada, begun(ada, conversation), "One")
    received("Hello?", ref_id="again")
    send(ada, form, "Two")
    assert texts() == ["One", "Two"]


def test_the_same_reply_that_was_sent_before_is_not_asked_about(ada, conversation):
    form = begun(ada, conversation)
    services.reply(conversation, "On its way", ref_id=str(form["ref_id"]))
    assert "is not sent a second time" in send(ada, form).text


def test_an_automatic_message_is_to_be_looked_at(ada, conversation):
    form = begun(ada, conversation)
    services.reply(conversation, "We are closed.")
    (problem,) = problems(send(ada, form))
    assert problem.startswith("Not sent: an automatic message left ")
    assert texts() == ["We are closed."]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_answered_nobody_is_not_asked_about(ada, bola, conversation, status):
    form = begun(bola, conversation)
    send(ada, begun(ada, conversation), "One")
    Message.objects.filter(text="One").update(status=status)
    send(bola, form, "Two")
    assert texts() == ["One", "Two"]


@pytest.mark.parametrize(
    ("ago", "shown"), [(1, "1 second"), (59, "59 seconds"), (60, "1\xa0minute"), (-5, "0 seconds")]
)
def test_it_says_when_the_other_replied(ada, bola, conversation, ago, shown):
    form = begun(bola, conversation)
    send(ada, begun(ada, conversation))
    Message.objects.update(created_at=timezone.now() - timedelta(seconds=ago))
    assert f"Ada replied {shown} ago." in problems(send(bola, form))[0]


@pytest.mark.parametrize("seen", ["", "x", "-1", "1" * 30])
def test_whoever_says_not_what_was_seen_is_told_to_look(ada, bola, conversation, seen):
    send(ada, begun(ada, conversation))
    form = begun(bola, conversation)
    assert "Ada replied" in problems(send(bola, form, seen=seen))[0]


def test_a_button_that_only_asks_is_no_look(ada, bola, conversation):
    form = begun(bola, conversation)
    send(ada, begun(ada, conversation))
    counted = send(bola, form, count="1")
    assert hidden(counted)["seen"] == form["seen"]


def test_a_reply_that_was_refused_for_something_else_is_no_look(ada, bola, conversation):
    form = begun(bola, conversation)
    send(ada, begun(ada, conversation))
    refused = send(bola, form, "", ref_id="")
    assert refused.context["form"]["seen"].value() == str(form["seen"])


@pytest.mark.django_db(transaction=True)
def test_of_two_who_reply_at_the_same_instant_one_is_told_to_look(conversation):
    clients = [client_of(name) for name in ("Ada", "Bola", "Chi")]
    forms = [begun(client, conversation) for client in clients]
    start = threading.Barrier(len(clients))

    def press(client, form):
        start.wait()
        send(client, form, uuid.uuid4().hex)
        connection.close()

    threads = [
        threading.Thread(target=press, args=pair) for pair in zip(clients, forms, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts()) == 1
