"""Canned replies: who sees, uses and manages them, and what they put into a text."""

import uuid

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_ninebits import canned, inbox
from django_ninebits.canned import Offers
from django_ninebits.models import CannedReply, Contact, Conversation, Message
from tests.deliveries import body
from tests.staff import client_of, user

pytestmark = pytest.mark.django_db

LIST = reverse("admin:django_ninebits_cannedreply_changelist")
ADD = reverse("admin:django_ninebits_cannedreply_add")
WRITTEN = {"title": "Hours", "text": "From 8 to 5."}


@pytest.fixture
def agent():
    return user("view_conversation", "reply_conversation", first_name="Ada", last_name="Obi")


@pytest.fixture
def conversation():
    inbox.take_in(body(message="Hello?", ref_id=uuid.uuid4().hex))
    return Conversation.objects.get()


@pytest.fixture
def shared():
    return CannedReply.objects.create(title="Greeting", text="Hello {name|there}")


def personal(user, title="Mine"):
    return CannedReply.objects.create(title=title, text="Yours, {me}", owner=user)


def page_of(reply, page="change"):
    return reverse(f"admin:django_ninebits_cannedreply_{page}", args=[reply.pk])


def titles():
    return list(CannedReply.objects.order_by("title").values_list("title", flat=True))


def thread(client, conversation):
    address = reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])
    return client.get(address, follow=True)


# What is offered


def test_those_of_everybody_and_ones_own_are_offered(agent, conversation, shared):
    personal(agent)
    personal(user(), "Another's")
    offered = Offers(conversation, agent).all
    assert [offer.title for offer in offered] == ["Greeting", "Mine"]


def test_they_are_filled_in_for_the_conversation(agent, conversation):
    Contact.objects.update(name=" Ngozi ")
    conversation.contact.refresh_from_db()
    text = "{name}\r\n{number} {short_code} {me}"
    CannedReply.objects.create(title="All", text=text)
    (offer,) = Offers(conversation, agent).all
    assert offer.text == "Ngozi\n+2348020000000 48974 Ada Obi"


def test_whoever_has_no_name_leaves_a_gap(conversation):
    CannedReply.objects.create(title="All", text="{name}: {me}")
    (offer,) = Offers(conversation, user(first_name="")).all
    assert offer.text == "{name}: {me}"


def test_as_many_as_are_said_are_offered(agent, conversation, monkeypatch):
    monkeypatch.setattr(canned, "OFFERED", 2)
    for title in "cab":
        personal(agent, title)
    assert [offer.title for offer in Offers(conversation, agent).all] == ["a", "b"]


def test_a_thread_offers_them_to_whoever_may_reply(agent, conversation, shared):
    assert ">Greeting</option>" in thread(client_of(agent), conversation).text
    viewer = client_of(user("view_conversation"))
    assert "Greeting" not in thread(viewer, conversation).text


def test_a_thread_costs_one_query_for_them_however_many(agent, conversation, shared):
    client = client_of(agent)
    thread(client, conversation)
    counts = []
    for _more in range(2):
        with CaptureQueriesContext(connection) as queries:
            thread(client, conversation)
        counts.append(sum("cannedreply" in query["sql"] for query in queries))
        CannedReply.objects.bulk_create([CannedReply(title="x", text="y") for _one in range(50)])
    assert counts == [1, 1]


# Inserted without a script


def insert(client, conversation, reply, text):
    address = reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])
    given = {"text": text, "ref_id": str(uuid.uuid4()), "insert": "1", "canned": reply.pk}
    return client.post(address, given).context["form"]["text"].value()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "Hello there"), ("Hi.", "Hi. Hello there"), ("Hi\r\n", "Hi\nHello there")],
)
def test_one_is_inserted_behind_the_text_and_nothing_is_sent(
    agent, conversation, shared, text, expected
):
    assert insert(client_of(agent), conversation, shared, text) == expected
    assert Message.objects.count() == 1


def test_that_of_another_is_not_inserted(agent, conversation):
    theirs = personal(user())
    assert insert(client_of(agent), conversation, theirs, "Hi ") == "Hi "


def test_a_reply_with_a_gap_is_not_sent(agent, conversation):
    address = reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])
    given = {"text": "Hello {name}, {me|}", "ref_id": str(uuid.uuid4())}
    response = client_of(agent).post(address, given)
    said = "Not sent: write what belongs in the place of {name} {me|}."
    assert response.context["form"].errors["text"] == [said]
    assert Message.objects.count() == 1


# Who may manage them


def test_a_list_has_those_of_everybody_and_ones_own(agent, shared):
    personal(agent)
    personal(user(), "Another's")
    page = client_of(agent).get(LIST)
    assert [one.title for one in page.context["cl"].result_list] == ["Greeting", "Mine"]
    assert "Yours alone" in page.text
    assert "Another's" not in page.text


@pytest.mark.parametrize(
    ("codenames", "status"),
    [(["view_conversation"], 403), (["view_cannedreply"], 200), (["reply_conversation"], 200)],
)
def test_the_list_is_for_whoever_may_reply_or_view_them(codenames, status):
    client = client_of(user(*codenames))
    assert client.get(LIST).status_code == status
    assert (LIST in client.get(reverse("admin:index")).text) is (status == 200)


def test_whoever_may_reply_adds_their_own_only(agent):
    client = client_of(agent)
    assert "is_shared" not in client.get(ADD).text
    client.post(ADD, WRITTEN | {"is_shared": "on"})
    assert CannedReply.objects.get().owner == agent


def test_whoever_may_add_chooses_whose_it_is():
    manager = user("reply_conversation", "add_cannedreply")
    client = client_of(manager)
    assert "is_shared" in client.get(ADD).text
    client.post(ADD, WRITTEN)
    client.post(ADD, WRITTEN | {"is_shared": "on"})
    assert [one.owner for one in CannedReply.objects.order_by("pk")] == [manager, None]


def test_whoever_may_add_and_not_reply_adds_for_everybody():
    client = client_of(user("add_cannedreply"))
    assert "is_shared" not in client.get(ADD).text
    client.post(ADD, WRITTEN)
    assert CannedReply.objects.get().owner is None


def test_others_add_none():
    client = client_of(user("view_conversation", "change_cannedreply", "delete_cannedreply"))
    assert client.post(ADD, WRITTEN).status_code == 403
    assert titles() == []


def test_ones_own_is_changed_and_deleted(agent):
    client, mine = client_of(agent), personal(agent)
    client.post(page_of(mine), WRITTEN)
    mine.refresh_from_db()
    assert (mine.title, mine.owner) == ("Hours", agent)
    client.post(page_of(mine, "delete"), {"post": "yes"})
    assert titles() == []


@pytest.mark.parametrize("page", ["change", "delete", "history"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_that_of_another_is_there_for_nobody(admin_client, agent, page, method):
    theirs = personal(agent)
    given = WRITTEN | {"post": "yes"}
    response = getattr(admin_client, method)(page_of(theirs, page), given, follow=True)
    assert "doesn’t exist" in response.text
    theirs.refresh_from_db()
    assert theirs.title == "Mine"


@pytest.mark.parametrize(
    ("page", "codename"), [("change", "change_cannedreply"), ("delete", "delete_cannedreply")]
)
def test_that_of_everybody_needs_the_permission(agent, shared, page, codename):
    given = WRITTEN | {"post": "yes"}
    assert client_of(agent).get(page_of(shared)).status_code == 200
    assert client_of(agent).post(page_of(shared, page), given).status_code == 403
    assert titles() == ["Greeting"]
    manager = user(codename, "view_cannedreply")
    assert client_of(manager).post(page_of(shared, page), given).status_code == 302
    assert titles() == {"change": ["Hours"], "delete": []}[page]


def delete_selected(client, *replies):
    given = {"action": "delete_selected", "_selected_action": [one.pk for one in replies]}
    return client.post(LIST, given | {"post": "yes"}, follow=True)


def test_the_action_deletes_only_what_one_may_delete(agent, shared):
    mine, theirs = personal(agent), personal(user(), "Another's")
    delete_selected(client_of(agent), mine, shared)
    delete_selected(client_of(agent), theirs)
    assert titles() == ["Another's", "Greeting", "Mine"]
    delete_selected(client_of(agent), mine)
    delete_selected(client_of(user("view_cannedreply", "delete_cannedreply")), shared)
    assert titles() == ["Another's"]


def test_the_action_needs_a_right(shared):
    delete_selected(client_of(user("view_cannedreply")), shared)
    assert titles() == ["Greeting"]


def test_whoever_may_not_reply_any_more_looks_at_their_own_no_more(agent):
    mine = personal(agent)
    agent.user_permissions.clear()
    assert client_of(agent).get(page_of(mine)).status_code == 403


def test_what_is_ones_own_goes_with_its_owner(admin_client, agent):
    personal(agent)
    admin_client.post(reverse("admin:auth_user_delete", args=[agent.pk]), {"post": "yes"})
    assert titles() == []


# What is saved


def test_an_unknown_placeholder_is_refused_when_it_is_saved(agent):
    response = client_of(agent).post(ADD, WRITTEN | {"text": "Hello {nmae}"})
    assert response.context["adminform"].form.errors["text"] == [
        "There is no {nmae}. There are {name}, {number}, {short_code}, {me},"
        " and each as in {name|there}."
    ]
    assert titles() == []


def test_a_text_is_checked_wherever_it_is_cleaned():
    with pytest.raises(ValidationError):
        CannedReply(title="x", text="{").full_clean()


def test_one_is_named_by_its_title():
    assert str(CannedReply(title="Hours")) == "Hours"
