"""What staff do with the conversation that they look at."""

import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from django_ninebits import inbox
from django_ninebits.models import Conversation
from tests.deliveries import body
from tests.staff import client_of, user

HANDLE = reverse("admin:django_ninebits_conversation_handle")
INBOX = reverse("admin:django_ninebits_conversation_changelist")
RIGHTS = ["view_conversation", "reply_conversation", "assign_conversation"]

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    return user(*RIGHTS)


@pytest.fixture
def client(ada):
    return client_of(ada)


@pytest.fixture
def conversation():
    return waiting(1)


def received(number, text="Hello"):
    given = {"from_": f"23480200{number:05}", "ref_id": uuid.uuid4().hex}
    return inbox.take_in(body(message=text, **given)).message


def waiting(number):
    return received(number).conversation


def page_of(conversation):
    return reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])


def shown(client, conversation):
    return client.get(page_of(conversation), follow=True)


def offered(client, conversation):
    return [handling.name for handling in shown(client, conversation).context["handlings"]]


def handle(client, conversation, do):
    """What the buttons of a page that was just opened send."""
    newest = shown(client, conversation).context["handled_up_to"]
    return post(client, conversation, do, seen=f"{conversation.pk}:{newest}")


def post(client, conversation, do, **more):
    return client.post(HANDLE, {"_selected_action": conversation.pk, "do": do, **more})


def told(response):
    return list(map(str, get_messages(response.wsgi_request)))


def fresh(conversation):
    return Conversation.objects.get(pk=conversation.pk)


def test_what_is_nobodys_is_taken(client, ada, conversation):
    response = handle(client, conversation, "take")
    assert response["Location"] == page_of(conversation)
    assert fresh(conversation).assignee == ada
    assert told(response) == ["Assigned 1 conversation."]


def test_what_is_a_colleagues_is_taken_over(client, ada, conversation):
    conversation.assign(user())
    handle(client, conversation, "take")
    assert fresh(conversation).assignee == ada


def test_what_was_taken_is_released(client, ada, conversation):
    conversation.assign(ada)
    response = handle(client, conversation, "release")
    assert response["Location"] == page_of(conversation)
    assert fresh(conversation).assignee is None


def test_closing_leads_to_whoever_waits_longest(client, conversation):
    first, _second = waiting(2), waiting(3)
    response = handle(client, conversation, "close")
    assert fresh(conversation).status == "closed"
    assert response["Location"] == page_of(first)
    assert told(response) == ["Closed 1 conversation."]


def test_the_next_is_nobody_whom_a_colleague_has(client, ada, conversation):
    theirs, mine = waiting(2), waiting(3)
    theirs.assign(user())
    mine.assign(ada)
    assert handle(client, conversation, "close")["Location"] == page_of(mine)


def test_where_nobody_waits_closing_leads_to_the_list(client, conversation):
    assert handle(client, conversation, "close")["Location"] == INBOX


def test_what_has_news_is_not_closed_and_shown_again(client, conversation):
    page = shown(client, conversation)
    seen = f"{conversation.pk}:{page.context['handled_up_to']}"
    received(1, "One more thing")
    response = post(client, conversation, "close", seen=seen)
    assert fresh(conversation).status == "open"
    assert response["Location"] == page_of(conversation)
    assert "left alone" in told(response)[0]


@pytest.mark.parametrize("pk", ["abc", "", 10**20])
def test_what_is_no_conversation_is_not_found(client, conversation, pk):
    assert post(client, conversation, "close", _selected_action=pk).status_code == 404


def test_what_is_closed_is_reopened(client, conversation):
    conversation.close(conversation.messages.get().pk)
    handle(client, conversation, "reopen")
    assert fresh(conversation).status == "open"


def test_the_buttons_are_those_that_change_anything(client, ada, conversation):
    assert offered(client, conversation) == ["take", "hand_over", "close"]
    conversation.assign(ada)
    assert offered(client, conversation) == ["release", "hand_over", "close"]
    conversation.assign(user())
    conversation.close(conversation.messages.get().pk)
    assert offered(client, conversation) == ["take", "release", "hand_over", "reopen"]


def test_a_thread_says_whose_it_is(client, conversation):
    assert "Assigned to nobody" in shown(client, conversation).text
    conversation.assign(user(first_name="Bola"))
    assert "Assigned to <bdi>Bola</bdi>" in shown(client, conversation).text


def test_an_older_page_has_no_buttons(client, conversation):
    assert "nb-handling" in shown(client, conversation).text
    page = client.get(page_of(conversation), {"before": conversation.messages.get().pk})
    assert 'class="nb-handling"' not in page.text


@pytest.mark.parametrize(
    ("rights", "may"),
    [
        (["view_conversation"], []),
        (["view_conversation", "reply_conversation"], ["close"]),
        (["view_conversation", "assign_conversation"], ["take", "hand_over"]),
        (["reply_conversation", "assign_conversation"], []),
    ],
)
def test_each_takes_its_permission(conversation, rights, may):
    client = client_of(user(*rights))
    if "view_conversation" in rights:
        assert offered(client, conversation) == may
    newest = conversation.messages.get().pk
    for do, done in (("take", 302), ("hand_over", 200), ("close", 302)):
        response = post(client, conversation, do, seen=f"{conversation.pk}:{newest}")
        assert response.status_code == (done if do in may else 403)
    assert fresh(conversation).status == ("closed" if "close" in may else "open")
    assert (fresh(conversation).assignee is not None) == ("take" in may)


def test_whoever_is_not_logged_in_is_sent_to_the_login(conversation):
    response = post(Client(), conversation, "close")
    assert response["Location"].startswith("/admin/login/")
    assert fresh(conversation).status == "open"


def test_it_takes_a_post(client):
    assert client.get(HANDLE).status_code == 405


@pytest.mark.parametrize("do", ["", "delete_selected"])
def test_what_there_is_not_is_not_done(client, conversation, do):
    assert post(client, conversation, do).status_code == 404


def test_a_conversation_that_is_not_there_is_not_found(client, conversation):
    conversation.pk = 4711
    assert post(client, conversation, "close").status_code == 404


def test_who_did_it_and_when_is_in_the_history(client, ada, conversation):
    handle(client, conversation, "take")
    handle(client, conversation, "close")
    entries = LogEntry.objects.filter(object_id=conversation.pk, user=ada).order_by("pk")
    said = [entry.get_change_message() for entry in entries]
    assert said == ["Changed assignee.", "Changed status: closed."]


def test_an_open_page_hears_whose_it_became(client, conversation):
    page = shown(client, conversation)
    headers = {"If-None-Match": page.context["tag"]}
    address = page.context["live"].partition("#")[0]
    assert client.get(address, headers=headers).status_code == 304
    conversation.assign(user(first_name="Bola"))
    assert "Assigned to <bdi>Bola</bdi>" in client.get(address, headers=headers).text
