import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from django_ninebits import bulk, inbox, outbox, services
from django_ninebits.exceptions import Refused
from django_ninebits.models import Contact, Conversation, Message
from tests.deliveries import body
from tests.staff import client_of, user

INBOX = reverse("admin:django_ninebits_conversation_changelist")
REPLY = ["close_selected", "reopen_selected", "mark_read_selected"]
ASSIGN = ["assign_to_me", "assign_to_colleague", "assign_to_nobody"]

pytestmark = pytest.mark.django_db


@pytest.fixture
def agent():
    return client_of(user("view_conversation", "reply_conversation"))


@pytest.fixture
def lead():
    return client_of(user("view_conversation", "assign_conversation"))


def received(number=0, text="Hello"):
    given = {"from_": f"23480200{number:05}", "ref_id": uuid.uuid4().hex}
    return inbox.take_in(body(message=text, **given)).message


def waiting(number=0):
    return received(number).conversation


def seen_of(rows):
    return [f"{row.pk}:{row.messages.latest('id').pk}" for row in rows]


def act(client, action, *rows, seen=None, **more):
    given = {
        "action": action,
        "index": "0",
        "_selected_action": [row.pk for row in rows],
        "seen": seen_of(rows) if seen is None else seen,
        **more,
    }
    return client.post(INBOX, given, follow=True)


def said(response):
    return [str(message) for message in response.context["messages"]]


def fresh(row):
    return type(row).objects.get(pk=row.pk)


# Who may


def offered(client):
    waiting()
    form = client.get(INBOX).context["action_form"]
    return [name for name, _label in form.fields["action"].choices if name] if form else []


def test_each_action_is_offered_to_whoever_may(agent, lead):
    assert offered(agent) == REPLY
    assert offered(lead) == ASSIGN
    assert offered(client_of(user("view_conversation"))) == []


@pytest.mark.parametrize("action", [*REPLY, *ASSIGN])
def test_an_action_is_refused_to_whoever_may_not(agent, lead, action):
    conversation = waiting()
    Conversation.objects.update(assignee=user())
    before = Conversation.objects.values().get()
    client = lead if action in REPLY else agent
    act(client, action, conversation, assignee=user("view_conversation").pk)
    act(client_of(user("view_conversation")), action, conversation)
    assert Conversation.objects.values().get() == before


@pytest.mark.parametrize("action", [*REPLY, *ASSIGN])
def test_nobody_acts_who_may_not_look(action):
    conversation = waiting()
    before = Conversation.objects.values().get()
    client = client_of(user("reply_conversation", "assign_conversation"))
    assert act(client, action, conversation).status_code == 403
    assert Conversation.objects.values().get() == before


# Close


def test_those_that_are_selected_are_closed_and_counted(agent):
    first, second, third = waiting(1), waiting(2), waiting(3)
    response = act(agent, "close_selected", first, second)
    assert said(response) == ["Closed 2 conversations."]
    assert [fresh(row).status for row in (first, second, third)] == ["closed", "closed", "open"]
    assert fresh(first).waiting_since is None


def test_one_in_which_a_text_came_since_is_not_closed(agent):
    conversation = waiting()
    seen = seen_of([conversation])
    received(text="One more thing")
    response = act(agent, "close_selected", conversation, seen=seen)
    assert "a text has come or a message failed since" in said(response)[0]
    assert (fresh(conversation).status, fresh(conversation).unread_count) == ("open", 2)


def test_one_in_which_we_wrote_since_is_closed(agent):
    conversation = waiting()
    seen = seen_of([conversation])
    services.reply(conversation, "On its way")
    act(agent, "close_selected", conversation, seen=seen)
    assert fresh(conversation).status == "closed"


def test_one_in_which_what_we_wrote_since_failed_is_not_closed(agent, settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}
    conversation = waiting()
    seen = seen_of([conversation])
    services.reply(conversation, "On its way")
    [claim] = outbox.claim_due(1)
    outbox.record(outbox.Outcome(claim, Refused("no")))
    response = act(agent, "close_selected", conversation, seen=seen)
    assert "a message failed since you looked" in said(response)[0]
    assert (fresh(conversation).status, bool(fresh(conversation).undecided_since)) == ("open", True)


@pytest.mark.parametrize("seen", [[], ["x"], ["x:y"], ["1:"], [f"1:{10**20}"], [f"{10**20}:1"]])
def test_what_nobody_says_to_have_seen_is_not_closed(agent, seen):
    conversation = waiting()
    act(agent, "close_selected", conversation, seen=seen)
    assert fresh(conversation).status == "open"


def test_closing_what_is_closed_changes_nothing_and_says_so(agent):
    conversation = waiting()
    act(agent, "close_selected", conversation)
    before = Conversation.objects.values().get()
    assert "was left alone" in said(act(agent, "close_selected", conversation))[0]
    assert Conversation.objects.values().get() == before


def test_after_closing_nothing_needs_a_decision(agent, settings):
    conversation = waiting()
    message = failed(conversation, settings)
    assert message.needs_decision
    act(agent, "close_selected", conversation)
    assert not fresh(message).needs_decision
    assert fresh(conversation).undecided_since is None


def failed(conversation, settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}
    message = services.reply(conversation, "On its way")
    fail()
    return fresh(message)


def fail():
    for claim in outbox.claim_due(1):
        outbox.record(outbox.Outcome(claim, Refused("no", http_status=422)))


def test_what_fails_after_closing_needs_a_decision(agent, settings):
    conversation = waiting()
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}
    services.reply(conversation, "On its way")
    act(agent, "close_selected", conversation)
    fail()
    assert fresh(conversation).undecided_since is not None
    assert (fresh(conversation).status, fresh(conversation).waiting_since) == ("closed", None)


def test_what_is_sent_again_after_closing_and_fails_needs_a_decision(agent, settings):
    conversation = waiting()
    message = failed(conversation, settings)
    act(agent, "close_selected", conversation)
    services.retry(message)
    fail()
    assert fresh(message).needs_decision
    assert fresh(conversation).undecided_since == message.created_at


def test_a_text_opens_what_was_closed_and_waits_from_then_on(agent):
    conversation = waiting()
    act(agent, "close_selected", conversation)
    text = received(text="One more thing")
    assert fresh(conversation).status == "open"
    assert fresh(conversation).waiting_since == text.created_at == fresh(conversation).waits_since()


# Reopen


def test_reopening_takes_the_closing_back(agent, settings):
    conversation = waiting()
    message = failed(conversation, settings)
    before = Conversation.objects.values().get()
    act(agent, "close_selected", conversation)
    response = act(agent, "reopen_selected", conversation)
    assert said(response) == ["Reopened 1 conversation."]
    assert Conversation.objects.values().get() | {"trail_up_to": 0} == before
    assert fresh(message).needs_decision


def test_reopening_what_is_open_changes_nothing_and_says_so(agent):
    conversation = waiting()
    response = act(agent, "reopen_selected", conversation)
    assert said(response) == ["1 conversation was open already."]


# Mark as read


def test_what_was_seen_is_marked_as_read_and_what_came_since_is_not(agent):
    first, second = waiting(1), waiting(2)
    seen = seen_of([first, second])
    received(2, "One more thing")
    response = act(agent, "mark_read_selected", first, second, seen=seen)
    assert said(response) == ["Marked 2 conversations as read."]
    assert (fresh(first).unread_count, fresh(second).unread_count) == (0, 1)
    assert fresh(first).waiting_since is not None


def test_marking_what_is_read_changes_nothing_and_says_so(agent):
    conversation = waiting()
    act(agent, "mark_read_selected", conversation)
    response = act(agent, "mark_read_selected", conversation)
    assert said(response) == ["1 conversation was read already."]


def test_marking_again_what_was_seen_before_changes_nothing(agent):
    conversation = waiting()
    seen = seen_of([conversation])
    act(agent, "mark_read_selected", conversation)
    received()
    response = act(agent, "mark_read_selected", conversation, seen=seen)
    assert said(response) == ["1 conversation was read already."]
    assert fresh(conversation).unread_count == 1


# Assign


def test_whoever_takes_some_has_them(lead):
    rows = [waiting(number) for number in range(2)]
    response = act(lead, "assign_to_me", *rows)
    assert said(response) == ["Assigned 2 conversations."]
    me = int(lead.session["_auth_user_id"])
    assert {fresh(row).assignee_id for row in rows} == {me}


def test_what_is_assigned_so_already_is_counted_apart(lead):
    first, second = waiting(1), waiting(2)
    act(lead, "assign_to_me", first)
    Conversation.objects.filter(pk=second.pk).update(assignee=user())
    response = act(lead, "assign_to_me", first, second)
    assert said(response) == [
        "Assigned 1 conversation.",
        "1 conversation was assigned so already.",
    ]


def test_what_is_assigned_can_be_given_back(lead):
    conversation = waiting()
    Conversation.objects.update(assignee=user())
    response = act(lead, "assign_to_nobody", conversation)
    assert said(response) == ["1 conversation is assigned to nobody now."]
    assert fresh(conversation).assignee is None


def test_a_colleague_is_asked_for_and_gets_them(lead):
    bola = user("view_conversation", first_name="Bola")
    conversation = waiting()
    page = act(lead, "assign_to_colleague", conversation)
    assert (str(bola.pk), "Bola") in page.context["colleagues"]
    assert fresh(conversation).assignee is None
    response = act(lead, "assign_to_colleague", conversation, assignee=bola.pk)
    assert said(response) == ["Assigned 1 conversation."]
    assert fresh(conversation).assignee == bola


def test_whoever_is_handed_over_is_named_without_the_signs_of_a_language(lead, settings):
    settings.USE_THOUSAND_SEPARATOR = True
    contact = Contact.objects.create(phone_number="+2348020000000")
    conversation = Conversation.objects.create(pk=1234567, contact=contact, short_code="48974")
    page = act(lead, "assign_to_colleague", conversation, seen=[])
    assert 'name="_selected_action" value="1234567"' in page.text


@pytest.mark.parametrize(
    "fields", [{"is_staff": False}, {"is_active": False}, {"first_name": "Who may not look"}]
)
def test_a_colleague_is_staff_who_may_look(lead, fields):
    may = [] if "first_name" in fields else ["view_conversation"]
    other = user(*may, **fields)
    conversation = waiting()
    page = act(lead, "assign_to_colleague", conversation, assignee=other.pk)
    assert str(other.pk) not in dict(page.context["colleagues"])
    assert fresh(conversation).assignee is None


# What is selected


def test_who_did_it_is_in_the_history(agent, lead):
    conversation = waiting()
    act(agent, "close_selected", conversation)
    act(agent, "close_selected", conversation)
    act(lead, "assign_to_me", conversation)
    act(agent, "reopen_selected", conversation)
    log = LogEntry.objects.filter(object_id=str(conversation.pk)).order_by("id")
    assert [entry.get_change_message() for entry in log] == [
        "Changed status: closed.",
        "Changed assignee.",
        "Changed status: reopened.",
    ]


def test_what_has_left_the_folder_since_is_still_acted_upon(agent):
    conversation = waiting()
    services.reply(conversation, "On its way")
    given = {
        "action": "close_selected",
        "index": "0",
        "_selected_action": [conversation.pk],
        "seen": seen_of([conversation]),
    }
    agent.post(f"{INBOX}?folder=waiting", given)
    assert fresh(conversation).status == "closed"


def test_never_is_more_acted_upon_than_what_was_selected(agent):
    first, second = waiting(1), waiting(2)
    act(agent, "close_selected", first, seen=seen_of([first, second]), select_across="1")
    assert [fresh(row).status for row in (first, second)] == ["closed", "open"]


def test_never_is_more_acted_upon_than_a_page_has(agent, monkeypatch):
    monkeypatch.setattr("django_ninebits.admin.ConversationAdmin.list_per_page", 1)
    first, second = waiting(1), waiting(2)
    act(agent, "close_selected", first, second)
    assert [fresh(row).status for row in (first, second)] == ["closed", "open"]


def test_what_is_there_no_more_is_passed_over(agent):
    conversation = waiting()
    given = {"action": "reopen_selected", "index": "0", "_selected_action": ["999999"]}
    assert said(agent.post(INBOX, given, follow=True)) == []
    assert fresh(conversation).status == "open"


def test_the_page_says_what_was_seen_of_each_row(agent):
    conversation = waiting()
    newest = Message.objects.latest("id").pk
    page = agent.get(INBOX).text
    assert f'<input type="hidden" name="seen" value="{conversation.pk}:{newest}">' in page


def test_so_many_colleagues_are_offered(lead, monkeypatch):
    monkeypatch.setattr(bulk, "COLLEAGUES", 1)
    for _number in range(3):
        user("view_conversation")
    page = act(lead, "assign_to_colleague", waiting())
    assert len(page.context["colleagues"]) == 1
