"""What people decide about messages in the admin: it arrived, send it again, do not send it."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.db import OperationalError, connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.utils import timezone

from django_ninebits import decisions, inbox, outbox, services
from django_ninebits.admin import ConversationAdmin, MessageAdmin
from django_ninebits.decisions import Seen
from django_ninebits.models import Contact, Conversation, Message
from tests.deliveries import body

LIST = "/admin/django_ninebits/message/"
LABELS = {"confirm": "It arrived", "retry": "Send again", "cancel": "Cancel"}
FITTING = {"uncertain": ["confirm", "retry"], "failed": ["retry"], "queued": ["cancel"]}
CASES = [
    ("confirm", "uncertain", "sent"),
    ("retry", "uncertain", "queued"),
    ("retry", "failed", "queued"),
    ("cancel", "queued", "cancelled"),
]
MAY_NOT = [
    (),
    ("resolve_message",),
    ("view_message", "resolve_message"),
    ("view_conversation", "view_message"),
    ("view_conversation", "reply_conversation", "change_conversation"),
]

pytestmark = pytest.mark.django_db

#: An admin that shows conversations, and neither messages nor contacts.
site = admin.AdminSite()
site.register(Conversation, ConversationAdmin)
urlpatterns = [path("admin/", site.urls)]


@pytest.fixture(autouse=True)
def sent_by_nobody(settings):
    dispatcher = "django_ninebits.dispatch.defer"
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": dispatcher}


@pytest.fixture
def decider():
    return person("view_conversation", "view_message", "resolve_message")


@pytest.fixture
def conversation():
    inbox.take_in(body())
    return Conversation.objects.get()


@pytest.fixture
def message(conversation):
    return reply(conversation)


def person(*codenames):
    """A staff client with exactly these permissions."""
    user = User.objects.create_user(uuid.uuid4().hex, is_staff=True, first_name="Ada")
    found = Permission.objects.filter(codename__in=codenames)
    assert len(found) == len(codenames)
    user.user_permissions.set(found)
    client = Client()
    client.force_login(user)
    return client


def reply(conversation, status="uncertain", text="On its way", **changes):
    """As it is after one attempt."""
    message = services.reply(conversation, text)
    Message.objects.filter(pk=message.pk).update(**{"status": status, "attempts": 1} | changes)
    message.refresh_from_db()
    return message


def opt_out():
    Contact.objects.update(opted_out_at=timezone.now())


def change(message, **changes):
    Message.objects.filter(pk=message.pk).update(**changes)


def address(verb):
    return reverse("admin:django_ninebits_message_decide", args=[verb])


def ask(client, verb, message):
    return client.get(address(verb), {"seen": str(Seen.of(message))})


def press(client, verb, *seen, **more):
    """The button of the page that asked about messages as they were seen."""
    marks = " ".join(str(one if isinstance(one, Seen) else Seen.of(one)) for one in seen)
    return client.post(address(verb), {"seen": marks} | more)


def select(client, verb, *messages, query="", **more):
    """Choose an action in the list."""
    given = {"action": f"{verb}_selected", "_selected_action": [row.pk for row in messages]}
    return client.post(f"{LIST}{query}", given | {"index": 0} | more)


def press_selected(client, page):
    """The button of the page that an action led to."""
    form = page.context
    return client.post(form["form_address"], {"seen": form["seen"], "selected": "1"})


def told(response):
    return [str(said) for said in get_messages(response.wsgi_request)]


def status(message):
    return Message.objects.get(pk=message.pk).status


def thread(client, conversation):
    return client.get(
        reverse("admin:django_ninebits_conversation_change", args=[conversation.pk]), follow=True
    )


def link(verb, message):
    return f'href="{address(verb)}?seen={Seen.of(message)}">{LABELS[verb]}</a>'


def offered(page, message):
    return [verb for verb in LABELS if link(verb, message) in page.text]


def page_of(message):
    return reverse("admin:django_ninebits_message_change", args=[message.pk])


# Who may


@pytest.mark.parametrize("status", [*Message.Status.values])
def test_a_thread_and_the_page_of_a_message_offer_what_fits_its_status(
    decider, conversation, status
):
    message = reply(conversation, status)
    for page in (thread(decider, conversation), decider.get(page_of(message))):
        assert offered(page, message) == FITTING.get(status, [])


def test_an_expired_message_is_not_offered_to_be_sent_again(decider, conversation):
    message = reply(conversation, expires_at=timezone.now())
    for page in (thread(decider, conversation), decider.get(page_of(message))):
        assert offered(page, message) == ["confirm"]


def test_a_message_that_has_not_expired_yet_is_offered_to_be_sent_again(decider, conversation):
    message = reply(conversation, "failed", expires_at=timezone.now() + timedelta(hours=1))
    assert offered(thread(decider, conversation), message) == ["retry"]
    assert ask(decider, "retry", message).status_code == 200


def test_nothing_is_offered_to_whoever_may_only_look_and_reply(message):
    client = person("view_conversation", "reply_conversation", "view_message")
    for page in (thread(client, message.conversation), client.get(page_of(message))):
        assert "nb-verb" not in page.text


@pytest.mark.parametrize("codenames", MAY_NOT)
@pytest.mark.parametrize("verb", LABELS)
def test_deciding_needs_to_resolve_messages_and_to_see_conversations(message, codenames, verb):
    client = person(*codenames)
    assert ask(client, verb, message).status_code == 403
    assert press(client, verb, message).status_code == 403
    assert press(client, verb, message, selected="1").status_code == 403
    assert status(message) == "uncertain"


@pytest.mark.parametrize("look", ["view_conversation", "change_conversation"])
def test_whoever_may_resolve_and_see_conversations_decides(message, look):
    client = person(look, "resolve_message")
    assert ask(client, "confirm", message).status_code == 200
    press(client, "confirm", message)
    assert status(message) == "sent"


def test_whoever_is_no_staff_is_sent_to_the_login(client, message):
    for response in (ask(client, "retry", message), press(client, "retry", message)):
        assert "/login/" in response["Location"]
    assert status(message) == "uncertain"


def test_a_decision_needs_the_token_of_the_form(decider, message):
    decider.handler.enforce_csrf_checks = True
    assert press(decider, "confirm", message).status_code == 403
    assert status(message) == "uncertain"


@pytest.mark.urls("tests.test_decisions")
def test_a_site_of_conversations_alone_shows_its_threads_without_links(admin_client, message):
    page = admin_client.get(
        f"/admin/django_ninebits/conversation/{message.conversation_id}/change/", follow=True
    )
    assert "On its way" in page.text
    assert 'nb-verb"' not in page.text
    assert "/contact/" not in page.text


class OfOneShortCode(ConversationAdmin):
    def get_queryset(self, request):
        return super().get_queryset(request).filter(short_code="5502")


@pytest.fixture
def narrowed(monkeypatch):
    """An inbox that does not show the conversation."""
    narrow = OfOneShortCode(Conversation, admin.site)
    monkeypatch.setitem(admin.site._registry, Conversation, narrow)


@pytest.mark.parametrize(("verb", "before", "after"), CASES)
def test_nobody_decides_in_a_conversation_that_the_inbox_does_not_show(
    decider, conversation, narrowed, verb, before, after
):
    message = reply(conversation, before)
    assert ask(decider, verb, message).status_code == 404
    assert press(decider, verb, message).status_code == 404
    response = press(decider, verb, message, selected="1")
    assert "left alone" in told(response)[0]
    response = select(decider, verb, message)
    assert "1 no longer in this list" in told(response)[-1]
    assert (status(message), LogEntry.objects.count()) == (before, 0)


def test_on_a_site_without_conversations_nobody_decides(decider, message, monkeypatch):
    monkeypatch.delitem(admin.site._registry, Conversation)
    assert ask(decider, "confirm", message).status_code == 403
    assert press(decider, "confirm", message).status_code == 403
    assert status(message) == "uncertain"


# Asking


@pytest.mark.parametrize(("verb", "before", "after"), CASES)
def test_to_ask_changes_nothing(decider, conversation, verb, before, after):
    message = reply(conversation, before)
    row = Message.objects.filter(pk=message.pk).values().get()
    with CaptureQueriesContext(connection) as queries:
        assert ask(decider, verb, message).status_code == 200
    assert not [q for q in queries if not q["sql"].startswith("SELECT")]
    assert Message.objects.filter(pk=message.pk).values().get() == row


def test_the_page_says_what_is_known(decider, conversation):
    conversation.contact.name = "Ngozi <b>"
    conversation.contact.save()
    message = reply(conversation, text="<i>₦500</i>\n x", error=outbox.LOST, attempts=7)
    page = ask(decider, "retry", message).text
    known = ["Ngozi &lt;b&gt;", "+2348020000000", "48974", "&lt;i&gt;₦500&lt;/i&gt;\n x"]
    known += [outbox.LOST, "<dd>7</dd>", "<dd>uncertain</dd>", message.ref_id]
    assert [words for words in known if words not in page] == []


@pytest.mark.parametrize(
    ("verb", "before", "was_uncertain", "words"),
    [
        ("retry", "uncertain", False, "the subscriber may get it twice"),
        ("retry", "failed", True, "the subscriber may get it twice"),
        ("retry", "failed", False, "It has not arrived"),
        ("confirm", "uncertain", False, "cannot be undone"),
        ("cancel", "queued", True, "uncertain again"),
        ("cancel", "queued", False, "is not called back"),
    ],
)
def test_the_page_says_what_the_decision_means(
    decider, conversation, verb, before, was_uncertain, words
):
    message = reply(conversation, before, was_uncertain=was_uncertain)
    assert any(words in meaning for meaning in ask(decider, verb, message).context["meanings"])


def test_what_cannot_have_arrived_is_asked_about_without_the_warning(decider, conversation):
    for verb, before in (("retry", "failed"), ("cancel", "queued")):
        page = ask(decider, verb, reply(conversation, before)).text
        assert "twice" not in page
        assert "uncertain again" not in page


def test_the_page_leads_back_to_the_message_in_its_thread(decider, message):
    back = ask(decider, "retry", message).context["back"]
    page = decider.get(back).text
    anchor = back.partition("#")[2]
    assert f'id="{anchor}"' in page
    assert anchor == f"nb-message-{message.pk}"


def test_a_message_far_up_in_its_thread_is_shown_on_the_page_that_has_it(decider, message):
    Message.objects.bulk_create(
        Message(conversation=message.conversation, direction="inbound", status="received")
        for _number in range(150)
    )
    page = decider.get(press(decider, "confirm", message)["Location"])
    shown = [entry.message for entry in page.context["entries"]]
    assert message in shown
    assert len(shown) > decisions.NEWER
    assert "Noted: it arrived." in page.text


def test_asking_about_what_has_changed_since_it_was_seen_shows_it_instead(decider, message):
    seen = Seen.of(message)
    change(message, attempts=2, error="newer")
    response = decider.get(address("retry"), {"seen": str(seen)})
    assert "Nothing was done" in told(response)[0]
    assert "newer" in decider.get(response["Location"]).text


@pytest.mark.parametrize("status", ["received", "sending", "sent", "cancelled"])
@pytest.mark.parametrize("verb", LABELS)
def test_nothing_is_asked_about_a_message_that_does_not_fit(decider, conversation, verb, status):
    message = reply(conversation, status)
    assert "Nothing was done" in told(ask(decider, verb, message))[0]


def test_what_is_not_there_is_not_found(decider, message):
    assert press(decider, "delete", message).status_code == 404
    gone = Seen(4711, "uncertain", "1", "")
    assert press(decider, "confirm", gone).status_code == 404
    assert decider.get(address("confirm"), {"seen": str(gone)}).status_code == 404


@pytest.mark.parametrize(
    "seen", ["", "1", "x:uncertain:1:", "1:uncertain:1", "1:2:3:4:5", "1:::" * 2]
)
def test_a_form_that_does_not_say_what_was_seen_is_refused(decider, message, seen):
    for send in (decider.get, decider.post):
        assert send(address("confirm"), {"seen": seen}).status_code == 400
    assert decider.post(address("confirm")).status_code == 400
    assert status(message) == "uncertain"


# Deciding


@pytest.mark.parametrize(("verb", "before", "after"), CASES)
def test_what_is_decided_is_done(decider, conversation, verb, before, after):
    message, other = reply(conversation, before), reply(conversation, before)
    response = press(decider, verb, message)
    assert response.status_code == 302
    assert (status(message), status(other)) == (after, before)
    assert f"Its status: {Message(status=after).get_status_display()}." in told(response)[0]


@pytest.mark.parametrize(
    ("verb", "before", "level"),
    [
        ("confirm", "uncertain", "success"),
        ("retry", "failed", "info"),
        ("cancel", "queued", "info"),
    ],
)
def test_what_became_of_it_is_told_in_the_thread(decider, conversation, verb, before, level):
    message = reply(conversation, before)
    page = decider.get(press(decider, verb, message)["Location"]).text
    assert f'<li class="{level}">{decisions.VERBS[verb].told[:10]}' in page


def test_a_cancelled_retry_is_uncertain_again_and_told_as_a_warning(decider, conversation):
    message = reply(conversation, "queued", was_uncertain=True)
    page = decider.get(press(decider, "cancel", message)["Location"]).text
    assert '<li class="warning">It will not be sent. Its status: uncertain.</li>' in page


def test_what_expired_after_it_was_asked_about_is_not_sent_again(decider, conversation):
    message = reply(conversation, "failed", expires_at=timezone.now())
    assert told(press(decider, "retry", message)) == [
        f"Message {message.pk} has expired: write a new one."
    ]
    assert status(message) == "failed"


@pytest.mark.parametrize("more", [{}, {"selected": "1"}])
def test_settings_that_are_wrong_are_told(decider, message, settings, more):
    settings.NINEBITS = settings.NINEBITS | {"GIVE_UP_AFTER": "tomorrow"}
    [said] = told(press(decider, "retry", message, **more))
    assert "the settings of this site are wrong" in said
    assert status(message) == "uncertain"


@pytest.mark.parametrize(("verb", "before", "after"), CASES)
def test_the_same_form_twice_does_it_once_and_says_so(decider, conversation, verb, before, after):
    message = reply(conversation, before)
    press(decider, verb, message)
    said = told(press(decider, verb, message))[-1]
    assert said.startswith("Nothing was done")
    assert f"Its status now: {Message(status=after).get_status_display()}." in said
    assert (status(message), LogEntry.objects.count()) == (after, 1)


@pytest.mark.parametrize("verb", ["confirm", "retry"])
def test_a_decision_about_one_attempt_is_none_about_the_next(decider, message, verb):
    seen = Seen.of(message)
    change(message, attempts=2)
    assert "Nothing was done" in told(press(decider, verb, seen))[0]
    assert status(message) == "uncertain"


def test_a_form_from_before_a_retry_that_was_cancelled_sends_nothing(decider, message):
    seen = Seen.of(message)
    services.retry(message)
    services.cancel(message)
    assert (message.status, str(message.attempts)) == (seen.status, seen.attempts)
    assert "Nothing was done" in told(press(decider, "retry", seen))[0]
    assert status(message) == "uncertain"


def test_a_decision_about_a_message_that_is_gone_is_none(message):
    gone = replace(Seen.of(message), message_id=0)
    with pytest.raises(decisions.Changed):
        decisions.decide(decisions.VERBS["confirm"], gone, record=print)
    assert status(message) == "uncertain"


def test_what_leaves_while_it_is_asked_about_is_not_cancelled(decider, conversation):
    message = reply(conversation, "queued")
    outbox.claim_due(1)
    assert "Its status now: sending." in told(press(decider, "cancel", message))[0]
    assert status(message) == "sending"


def test_send_again_is_left_to_the_worker(
    decider, message, provider, django_capture_on_commit_callbacks, settings
):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.inline"}
    with django_capture_on_commit_callbacks(execute=True):
        press(decider, "retry", message)
    assert (status(message), provider.accepted) == ("queued", [])


@pytest.mark.django_db(transaction=True)
def test_what_is_sent_again_leaves_once(decider, message, provider):
    for _time in range(2):
        press(decider, "retry", message)
        for claim in outbox.claim_due(10):
            outbox.record(outbox.attempt(claim))
    assert [call.body["message"] for call in provider.accepted] == ["On its way"]
    assert status(message) == "sent"


@pytest.mark.django_db(transaction=True)
def test_decisions_stay_outside_of_the_transaction_of_a_request(decider, message, monkeypatch):
    seen = []

    def decide(*args):
        seen.append(connection.in_atomic_block)
        raise decisions.Changed

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    monkeypatch.setattr(decisions, "decide", decide)
    press(decider, "confirm", message)
    press(decider, "confirm", message, selected="1")
    assert seen == [False, False]


# Who and when


@pytest.mark.parametrize(
    ("verb", "before", "words"),
    [
        ("confirm", "uncertain", "Changed status: it arrived."),
        ("retry", "failed", "Changed status: send again."),
        ("cancel", "queued", "Changed status: do not send."),
    ],
)
def test_the_history_of_a_message_says_who_decided_what_and_when(
    decider, conversation, verb, before, words
):
    message = reply(conversation, before)
    began = timezone.now()
    press(decider, verb, message)
    page = decider.get(reverse("admin:django_ninebits_message_history", args=[message.pk]))
    [entry] = page.context["action_list"]
    assert words in page.text
    assert (entry.user.first_name, entry.object_id) == ("Ada", str(message.pk))
    assert began <= entry.action_time <= timezone.now()


def test_whoever_was_slower_is_in_no_history(decider, message):
    slower = person("view_conversation", "resolve_message")
    press(decider, "confirm", message)
    press(slower, "retry", message)
    entry = LogEntry.objects.get()
    assert entry.user_id == int(decider.session["_auth_user_id"])


@pytest.mark.parametrize(("verb", "before", "after"), CASES)
def test_what_cannot_be_recorded_is_not_done(
    decider, conversation, monkeypatch, verb, before, after
):
    message = reply(conversation, before)

    def fail(*args):
        raise OSError("No history")

    monkeypatch.setattr(MessageAdmin, "log_change", fail)
    with pytest.raises(OSError, match="No history"):
        press(decider, verb, message)
    assert status(message) == before


# In bulk


@pytest.mark.parametrize(("verb", "before", "after"), CASES)
def test_several_are_decided_about_at_once(decider, conversation, verb, before, after):
    rows = [reply(conversation, before) for _number in range(3)]
    other = reply(conversation, before)
    page = select(decider, verb, *rows)
    assert {status(row) for row in rows} == {before}
    response = press_selected(decider, page)
    assert [status(row) for row in [*rows, other]] == [after, after, after, before]
    assert told(response) == [decisions.VERBS[verb].counted % {"count": 3}]
    assert LogEntry.objects.count() == 3


def test_the_list_is_shown_again_as_it_was_filtered(decider, message):
    page = select(decider, "confirm", message, query="?status=uncertain&q=0000")
    assert page.context["back"] == f"{LIST}?status=uncertain&q=0000"
    assert press_selected(decider, page)["Location"] == f"{LIST}?status=uncertain&q=0000"


def test_the_list_without_filters_is_shown_again(decider, message):
    page = select(decider, "confirm", message)
    assert press_selected(decider, page)["Location"] == LIST


def test_what_does_not_fit_is_counted_and_left_alone(decider, conversation):
    rows = [reply(conversation, word) for word in ("failed", "sent", "queued", "sent")]
    rows += [reply(conversation, "failed", expires_at=timezone.now())]
    page = select(decider, "retry", *rows)
    assert page.context["left_alone"] == "1 expired, 1 queued, 2 accepted by 9bits"
    assert "Left alone: 1 expired, 1 queued, 2 accepted by 9bits." in page.text
    press_selected(decider, page)
    assert [status(row) for row in rows] == ["queued", "sent", "queued", "sent", "failed"]


def test_a_selection_in_which_nothing_fits_is_told(decider, conversation):
    rows = [reply(conversation, "sent"), conversation.messages.first()]
    response = select(decider, "cancel", *rows, query="?o=1")
    assert told(response) == ["There is nothing to decide about: 1 received, 1 accepted by 9bits."]
    assert response["Location"] == f"{LIST}?o=1"


def test_what_left_the_list_before_the_action_is_counted(decider, conversation):
    first, second = reply(conversation), reply(conversation)
    services.confirm(first)
    page = select(decider, "retry", first, second, query="?status=uncertain")
    assert page.context["left_alone"] == "1 no longer in this list"
    services.confirm(second)
    response = select(decider, "retry", first, second, query="?status=uncertain")
    assert told(response) == ["There is nothing to decide about: 2 no longer in this list."]


def test_what_changed_after_it_was_asked_about_is_counted_and_left_alone(decider, conversation):
    rows = [reply(conversation) for _number in range(3)]
    page = select(decider, "retry", *rows)
    change(rows[0], attempts=2)
    services.confirm(rows[1])
    assert told(press_selected(decider, page)) == [
        "1 message will be sent again, by the worker.",
        "2 messages have changed meanwhile and were left alone: look again.",
    ]
    assert [status(row) for row in rows] == ["uncertain", "sent", "queued"]


def test_a_message_that_never_was_counts_as_changed(decider):
    [said] = told(press(decider, "confirm", Seen(4711, "uncertain", "1", ""), selected="1"))
    assert said == "1 message has changed meanwhile and was left alone: look again."


def test_the_warning_counts_what_may_have_arrived(decider, conversation):
    rows = [reply(conversation), reply(conversation, "failed"), reply(conversation, "failed")]
    meanings = select(decider, "retry", *rows).context["meanings"]
    assert meanings[0].startswith("1 of these may already have arrived")
    assert "arrived" not in select(decider, "retry", *rows[1:]).text


def test_all_that_the_list_has_are_decided_about(decider, conversation):
    rows = [reply(conversation) for _number in range(12)]
    page = select(decider, "confirm", rows[0], select_across="1")
    assert page.context["left_alone"] == "1 received"
    assert (len(page.context["shown"]), page.context["further"]) == (10, 2)
    assert "And 2 further messages." in page.text
    press_selected(decider, page)
    assert {status(row) for row in rows} == {"sent"}


def test_more_than_can_be_decided_about_at_once_are_taken_from_the_oldest(
    decider, conversation, monkeypatch
):
    monkeypatch.setattr(decisions, "LIMIT", 3)
    rows = [reply(conversation) for _number in range(4)]
    page = select(decider, "retry", *rows)
    assert "These are the oldest 3; then do the same with the rest." in page.text
    press_selected(decider, page)
    assert [status(row) for row in rows] == ["queued", "queued", "queued", "uncertain"]
    assert "the oldest" not in select(decider, "retry", *rows).text


def test_a_form_about_more_than_that_is_refused(decider, conversation, monkeypatch):
    monkeypatch.setattr(decisions, "LIMIT", 3)
    rows = [reply(conversation) for _number in range(4)]
    assert press(decider, "retry", *rows, selected="1").status_code == 400
    assert {status(row) for row in rows} == {"uncertain"}


def test_to_ask_about_many_costs_the_queries_of_a_few(decider, conversation):
    costs = []
    for _time in range(2):
        rows = [reply(conversation) for _number in range(15)]
        with CaptureQueriesContext(connection) as queries:
            select(decider, "retry", *rows, select_across="1")
        costs.append(len(queries))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("codenames", MAY_NOT[1:])
def test_the_list_has_no_actions_for_whoever_may_not_decide(message, codenames):
    client = person(*{*codenames, "view_message"})
    assert "_selected_action" not in client.get(LIST).text
    assert "seen" not in (select(client, "confirm", message).context or {})


# Several people at once


def at_once(*presses):
    """What comes of each, when all of them press at the same moment."""
    start = threading.Barrier(len(presses))

    def run(press):
        start.wait()
        try:
            return press()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(presses)) as pool:
        return list(pool.map(run, presses))


def people(count):
    return [person("view_conversation", "resolve_message") for _number in range(count)]


def slower(responses):
    return [one for one in responses if told(one)[0].startswith("Nothing was done")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("verb", "before", "after"), CASES)
def test_of_several_who_press_at_once_one_does_it_and_the_others_are_told(
    conversation, verb, before, after
):
    message = reply(conversation, before)
    responses = at_once(*[partial(press, one, verb, message) for one in people(6)])
    assert len(slower(responses)) == 5
    assert (status(message), LogEntry.objects.count()) == (after, 1)


@pytest.mark.django_db(transaction=True)
def test_of_several_who_decide_differently_at_once_one_does_it(message):
    verbs = ["confirm", "retry", "confirm", "retry"]
    presses = [partial(press, *pair, message) for pair in zip(people(4), verbs, strict=True)]
    assert len(slower(at_once(*presses))) == 3
    assert LogEntry.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_decide_about_the_same_many_at_once_do_each_once(conversation):
    rows = [reply(conversation, "failed") for _number in range(20)]
    forth, back = people(2)
    at_once(
        partial(press, forth, "retry", *rows, selected="1"),
        partial(press, back, "retry", *reversed(rows), selected="1"),
    )
    assert {status(row) for row in rows} == {"queued"}
    logged = LogEntry.objects.values_list("object_id", flat=True)
    assert sorted(map(str, logged)) == sorted(str(row.pk) for row in rows)


#: What makes a connection give up at once where somebody else holds the row.
IMPATIENCE = {
    "sqlite": "PRAGMA busy_timeout = 0",
    "postgresql": "SET lock_timeout = 1",
    "mysql": "SET innodb_lock_wait_timeout = 0",
}


@pytest.mark.django_db(transaction=True)
def test_nobody_else_moves_a_message_between_the_look_at_it_and_the_decision(message):
    def interfere():
        with connection.cursor() as cursor:
            cursor.execute(IMPATIENCE[connection.vendor])
        change(message, attempts=2)

    def decide(_row):
        with pytest.raises(OperationalError):
            at_once(interfere)

    verb = replace(decisions.VERBS["confirm"], do=decide)
    decisions.decide(verb, Seen.of(message), str)
    at_once(partial(change, message, attempts=2))
    message.refresh_from_db()
    assert message.attempts == 2


@pytest.mark.django_db(transaction=True)
def test_a_message_is_either_cancelled_or_claimed(conversation):
    [client] = people(1)
    for _time in range(5):
        message = reply(conversation, "queued")
        cancel, claim = partial(press, client, "cancel", message), partial(outbox.claim_due, 1)
        response, claims = at_once(cancel, claim)
        assert (status(message), len(claims)) in [("cancelled", 0), ("sending", 1)]
        assert told(response)[-1].startswith("Nothing was done") == bool(claims)
        change(message, status="sent")


# Who opted out


def test_nothing_is_sent_again_to_who_opted_out(decider, message):
    opt_out()
    response = press(decider, "retry", message)
    assert response.status_code == 302
    said = [str(one) for one in get_messages(response.wsgi_request)]
    assert said == ["The subscriber has opted out, and only they can opt in again."]
    message.refresh_from_db()
    assert (message.status, LogEntry.objects.count()) == ("uncertain", 0)


def test_of_several_those_to_who_opted_out_are_left_alone_and_counted(decider, conversation):
    left = [reply(conversation), reply(conversation)]
    opt_out()
    inbox.take_in(body(from_="2348030000000"))
    other = reply(Conversation.objects.latest("pk"))
    response = press(decider, "retry", *left, other, selected="1")
    said = [str(one) for one in get_messages(response.wsgi_request)]
    assert said == [
        "1 message will be sent again, by the worker.",
        "2 messages were left alone: the subscribers have opted out, and only they can opt in"
        " again.",
    ]
    statuses = Message.objects.filter(direction="outbound").order_by("pk")
    assert list(statuses.values_list("status", flat=True)) == ["uncertain", "uncertain", "queued"]


def test_what_may_reach_who_opted_out_is_sent_again(decider, message):
    opt_out()
    change(message, override_opt_out=True)
    press(decider, "retry", message)
    message.refresh_from_db()
    assert message.status == "queued"
