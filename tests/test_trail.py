"""Who took, handed over, closed and noted what, and when: in the thread, and nowhere else."""

import re
import uuid
from datetime import UTC, datetime

import pytest
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_ninebits import inbox, services, thread, trail
from django_ninebits.models import Contact, Conversation, ConversationChange, Message
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
def bola():
    return user(*RIGHTS, first_name="Bola")


@pytest.fixture
def client(ada):
    return client_of(ada)


@pytest.fixture
def conversation():
    return received().conversation


def received(text="Hello"):
    return inbox.take_in(body(message=text, ref_id=uuid.uuid4().hex)).message


def changes():
    fields = ("kind", "author_name", "assignee_name", "note")
    return list(ConversationChange.objects.values_list(*fields))


def page_of(conversation, name="change", **query):
    name = f"admin:django_ninebits_conversation_{name}"
    return reverse(name, args=[conversation.pk], query=query)


def read(client, conversation, **query):
    response = client.get(page_of(conversation, **query), follow=True)
    assert response.status_code == 200
    return response


def trail_of(response):
    """For each message of the page, what staff did while it was the newest."""
    return {
        entry.message.text: [change.kind for change in entry.changes]
        for entry in response.context["entries"]
    }


def note(client, conversation, text):
    return client.post(page_of(conversation, compose=uuid.uuid4()), {"note": text})


# What is recorded


def test_each_change_names_who_and_when(ada, bola, conversation):
    before = timezone.now()
    conversation.assign(ada, author=ada)
    conversation.assign(bola, author=ada, note="She asks for a refund.")
    conversation.assign(None, author=bola)
    conversation.close(conversation.messages.get().pk, author=bola)
    conversation.reopen(author=ada)
    conversation.note("VIP", author=ada)
    assert changes() == [
        ("taken", "Ada", "Ada", ""),
        ("assigned", "Ada", "Bola", "She asks for a refund."),
        ("released", "Bola", "", ""),
        ("closed", "Bola", "", ""),
        ("reopened", "Ada", "", ""),
        ("noted", "Ada", "", "VIP"),
    ]
    when = ConversationChange.objects.values_list("changed_at", flat=True)
    assert before <= min(when) <= max(when) <= timezone.now()
    assert [str(change) for change in ConversationChange.objects.all()][:2] == ["taken", "assigned"]


def test_what_changes_nothing_leaves_no_trace(ada, conversation):
    conversation.assign(None, author=ada)
    conversation.reopen(author=ada)
    conversation.close(0, author=ada)
    assert changes() == []


def test_a_note_is_kept_where_the_colleague_has_it_already(ada, bola, conversation):
    conversation.assign(bola)
    assert not conversation.assign(bola, author=ada, note="Look at the second text.")
    assert changes()[1:] == [("noted", "Ada", "", "Look at the second text.")]


def test_a_change_whose_trace_cannot_be_kept_is_not_made(ada, conversation, monkeypatch):
    monkeypatch.setattr(Conversation, "_newest_id", lambda _self: None)
    with pytest.raises(IntegrityError):
        conversation.assign(ada)
    assert Conversation.objects.get().assignee is None


def test_the_names_stay_when_the_users_go(ada, bola, conversation):
    conversation.assign(bola, author=ada)
    for one in (ada, bola):
        one.delete()
    assert changes() == [("assigned", "Ada", "Bola", "")]


def test_who_took_it_is_said_when_they_are_gone(client, bola, conversation):
    conversation.assign(bola, author=bola)
    bola.delete()
    assert "<bdi>Bola</bdi> took it" in read(client, conversation).text


def test_bulk_actions_are_in_the_trail(client, bola, conversation):
    given = {"action": "assign_to_colleague", "index": "0", "_selected_action": [conversation.pk]}
    client.post(INBOX, {**given, "assignee": bola.pk, "note": "Yours?"})
    client.post(INBOX, {**given, "action": "assign_to_nobody"})
    seen = f"{conversation.pk}:{conversation.messages.get().pk}"
    client.post(INBOX, {**given, "action": "close_selected", "seen": seen})
    client.post(INBOX, {**given, "action": "reopen_selected"})
    assert changes() == [
        ("assigned", "Ada", "Bola", "Yours?"),
        ("released", "Ada", "", ""),
        ("closed", "Ada", "", ""),
        ("reopened", "Ada", "", ""),
    ]


# Where it is shown


def test_a_change_stands_below_the_message_that_was_the_newest(client, ada, conversation):
    conversation.assign(ada, author=ada)
    received("Are you there?")
    conversation.note("Be kind.", author=ada)
    response = read(client, conversation)
    assert trail_of(response) == {"Hello": ["taken"], "Are you there?": ["noted"]}
    assert response.text.index("took it") < response.text.index("Are you there?")
    assert response.text.index("Are you there?") < response.text.index("Be kind.")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda one, ada, bola: one.assign(ada, author=ada), "<bdi>Ada</bdi> took it"),
        (
            lambda one, ada, bola: one.assign(bola, author=ada),
            "<bdi>Ada</bdi> handed it over to <bdi>Bola</bdi>",
        ),
        (
            lambda one, ada, bola: one.assign(bola),
            "<bdi>The site</bdi> handed it over to <bdi>Bola</bdi>",
        ),
        (
            lambda one, ada, bola: one.assign(bola) and one.assign(None, author=ada),
            "<bdi>Ada</bdi> released it",
        ),
        (
            lambda one, ada, bola: one.close(one.messages.get().pk, author=ada),
            "<bdi>Ada</bdi> closed it",
        ),
        (
            lambda one, ada, bola: one.close(one.messages.get().pk) and one.reopen(author=ada),
            "<bdi>Ada</bdi> reopened it",
        ),
        (lambda one, ada, bola: one.note("VIP", author=ada), "<bdi>Ada</bdi> noted"),
    ],
)
def test_it_is_said_who_did_what(client, ada, bola, conversation, make, said):
    make(conversation, ada, bola)
    assert said in read(client, conversation).text


def test_a_change_of_another_day_says_which(client, ada, conversation):
    conversation.note("VIP", author=ada)
    ConversationChange.objects.update(changed_at=datetime(2027, 1, 5, 8, 30, tzinfo=UTC))
    (shown,) = re.findall("noted.*?</time>", read(client, conversation).text, re.DOTALL)
    assert ">Jan. 5, 2027, 2:30 a.m.<" in shown


def test_a_note_is_text_and_nothing_else(client, ada, conversation):
    conversation.note("<script>alert(1)</script>", author=ada)
    assert "&lt;script&gt;alert(1)" in read(client, conversation).text


def test_a_page_shows_the_changes_among_its_own_messages(client, ada, conversation, monkeypatch):
    monkeypatch.setattr(thread, "PAGE", 2)
    for text in ("two", "three", "four"):
        conversation.note(f"before {text}", author=ada)
        received(text)
    newest, oldest = read(client, conversation), conversation.messages.get(text="three").pk
    assert trail_of(newest) == {"three": ["noted"], "four": []}
    assert trail_of(read(client, conversation, before=oldest)) == {
        "Hello": ["noted"],
        "two": ["noted"],
    }


def test_what_was_done_before_any_message_stands_above_them(client, ada):
    contact = Contact.objects.create(phone_number="+2348020000000")
    conversation = Conversation.objects.create(contact=contact, short_code="48974")
    conversation.note("She will text today.", author=ada)
    assert "She will text today." in read(client, conversation).text
    received()
    response = read(client, conversation)
    assert [change.note for change in response.context["first_changes"]] == ["She will text today."]
    assert trail_of(response) == {"Hello": []}


def test_where_a_host_deleted_the_message_a_change_stands_below_the_one_before(
    client, ada, conversation
):
    spam = received("spam")
    conversation.note("Spam", author=ada)
    Message.objects.filter(pk=spam.pk).delete()
    assert trail_of(read(client, conversation)) == {"Hello": ["noted"]}


def test_an_open_page_hears_of_a_change(client, bola, conversation):
    page = read(client, conversation)
    address = page.context["live"].partition("#")[0]
    headers = {"If-None-Match": page.context["tag"]}
    assert client.get(address, headers=headers).status_code == 304
    conversation.note("Look here.", author=bola)
    assert "Look here." in client.get(address, headers=headers).text


def test_where_nothing_has_changed_the_trail_is_not_asked_for(
    client, ada, conversation, django_assert_num_queries
):
    conversation.note("VIP", author=ada)
    page = read(client, conversation)
    address, watched = page.context["live"].partition("#")[0], received("2").pk
    tag = client.get(address, {"watch": watched}).context["tag"]
    # The session, the user, two for what they may; the conversation, its messages, those watched.
    with django_assert_num_queries(4 + 3):
        answer = client.get(address, {"watch": watched}, headers={"If-None-Match": tag})
    assert answer.status_code == 304


# Notes


def test_a_note_is_kept_with_its_author_and_is_sent_to_nobody(client, provider, conversation):
    response = note(client, conversation, "Line one\r\nline two")
    assert response.status_code == 302
    assert changes() == [("noted", "Ada", "", "Line one\nline two")]
    assert not Message.objects.filter(direction="outbound").exists()
    assert provider.calls == []


def test_after_a_note_the_reply_is_still_the_same(client, conversation):
    compose = uuid.uuid4()
    response = client.post(page_of(conversation, compose=compose), {"note": "VIP"})
    assert f"compose={compose}" in response["Location"]


@pytest.mark.parametrize(
    ("text", "said"), [(" ", "Write a note first."), ("n" * 2001, "at most 2000 characters")]
)
def test_a_note_that_cannot_be_kept_is_shown_again(client, conversation, text, said):
    response = note(client, conversation, text)
    assert response.status_code == 200
    assert said in response.text
    assert response.context["note_form"]["note"].value() == text
    assert '<details class="nb-noting" open>' in response.text
    assert changes() == []


def test_a_note_to_an_address_without_a_key_is_shown_again_as_well(client, conversation):
    response = client.post(page_of(conversation), {"note": "n" * 2001})
    assert response.context["note_form"]["note"].value() == "n" * 2001
    assert response.context["form"]["ref_id"].value()


def test_a_note_of_the_longest_is_kept(client, conversation):
    note(client, conversation, "₦" * trail.LONGEST_NOTE)
    assert ConversationChange.objects.get().note == "₦" * trail.LONGEST_NOTE


def test_a_note_is_as_long_as_its_writer_was_told_also_in_several_lines(client, conversation):
    half = "n" * (trail.LONGEST_NOTE // 2)
    note(client, conversation, f"{half}\r\n{half[1:]}")
    assert ConversationChange.objects.get().note == f"{half}\n{half[1:]}"


def test_a_note_whose_author_was_logged_out_is_shown_to_be_copied(conversation):
    given = {"note": "Call her on Monday", "keep": "1"}
    response = Client().post(page_of(conversation), given)
    assert response.status_code == 403
    assert "Call her on Monday" in response.text
    assert changes() == []


@pytest.mark.parametrize(
    ("rights", "status"),
    [
        (["view_conversation"], 403),
        (["view_conversation", "reply_conversation"], 302),
        (["view_conversation", "assign_conversation"], 302),
        (["reply_conversation", "assign_conversation"], 403),
    ],
)
def test_notes_are_written_by_whoever_does_anything_here(conversation, rights, status):
    client = client_of(user(*rights))
    assert note(client, conversation, "VIP").status_code == status
    assert len(changes()) == (status == 302)
    if "view_conversation" in rights:
        assert ("nb-noting" in read(client, conversation).text) == (status == 302)


def test_whoever_may_look_sees_the_trail(ada, conversation):
    conversation.note("VIP", author=ada)
    assert "VIP" in read(client_of(user("view_conversation")), conversation).text


def test_an_older_page_takes_no_notes(client, conversation):
    before = conversation.messages.get().pk + 1
    assert "nb-noting" not in read(client, conversation, before=before).text


# Handing over


def asked(client, conversation, **more):
    return client.post(HANDLE, {"_selected_action": conversation.pk, "do": "hand_over", **more})


def test_to_hand_over_asks_to_whom_and_leads_back(client, bola, conversation):
    page = asked(client, conversation)
    assert (str(bola.pk), "Bola") in page.context["colleagues"]
    assert f'href="{page_of(conversation)}"' in page.text
    assert '<input type="hidden" name="do" value="hand_over">' in page.text
    assert changes() == []


def test_it_is_handed_over_with_a_note(client, bola, conversation):
    response = asked(client, conversation, assignee=bola.pk, note="She waits since Monday.")
    assert response["Location"] == page_of(conversation)
    assert Conversation.objects.get().assignee == bola
    assert changes() == [("assigned", "Ada", "Bola", "She waits since Monday.")]


def test_it_is_handed_over_without_one(client, bola, conversation):
    asked(client, conversation, assignee=bola.pk, note="")
    assert changes() == [("assigned", "Ada", "Bola", "")]


def test_a_note_that_is_too_long_hands_nothing_over_and_is_shown_again(client, bola, conversation):
    page = asked(client, conversation, assignee=bola.pk, note="n" * 2001)
    assert "at most 2000 characters" in page.text
    assert f'<option value="{bola.pk}" selected>' in page.text
    assert page.context["form"]["note"].value() == "n" * 2001
    assert changes() == []


def test_what_is_closed_is_handed_over_and_stays_in_sight(client, bola, conversation):
    conversation.close(conversation.messages.get().pk)
    response = asked(client, conversation, assignee=bola.pk, note="")
    assert response["Location"] == page_of(conversation)


def test_no_reply_is_sent_by_a_form_that_is_a_note(client, conversation):
    client.post(page_of(conversation), {"note": "Not for her", "text": "For her"})
    assert not Message.objects.filter(direction="outbound").exists()


def test_the_trail_leaves_the_replies_alone(client, ada, conversation):
    services.reply(conversation, "Hello Ngozi", author=ada)
    conversation.note("VIP", author=ada)
    conversation.refresh_from_db()
    assert conversation.last_message_text == "Hello Ngozi"
