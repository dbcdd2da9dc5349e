import re
import uuid
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from django.db import connection
from django.template.loader import render_to_string
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_ninebits import inbox, outbox, services, thread
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown, Refused
from django_ninebits.models import Conversation, Message
from tests.deliveries import body
from tests.staff import client_of, user

INBOX = reverse("admin:django_ninebits_conversation_changelist")

pytestmark = pytest.mark.django_db


@pytest.fixture
def person():
    """A client of staff with exactly these permissions."""
    return lambda *codenames: client_of(user(*codenames))


@pytest.fixture
def viewer(person):
    return person("view_conversation")


@pytest.fixture
def agent(person):
    return person("view_conversation", "reply_conversation")


@pytest.fixture
def conversation():
    received("Where is my order?")
    return Conversation.objects.get()


@pytest.fixture(autouse=True)
def deferred(settings):
    """Where nothing leaves before it is claimed."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


def received(text, **changes):
    return inbox.take_in(body(message=text, ref_id=uuid.uuid4().hex, **changes)).message


def many_messages(conversation, count):
    inbound = {"direction": Message.Direction.INBOUND, "status": Message.Status.RECEIVED}
    return Message.objects.bulk_create(
        Message(conversation=conversation, **inbound, session_id="s", text=f"text {i}")
        for i in range(count)
    )


def outbound():
    return Message.objects.filter(direction=Message.Direction.OUTBOUND)


def attempted(error=None):
    (claim,) = outbox.claim_due(1)
    outbox.record(outbox.Outcome(claim, error))


def page_of(row, name="change", **query):
    name = f"admin:django_ninebits_{row._meta.model_name}_{name}"
    return reverse(name, args=[row.pk], query=query)


def read(client, conversation, **query):
    """The thread, as a browser shows it."""
    response = client.get(page_of(conversation, **query), follow=True)
    assert response.status_code == 200
    return response


def tag_of(client, conversation, **query):
    return read(client, conversation, **query).context["tag"]


def asks(client, conversation, tag='""', **query):
    address = page_of(conversation, "live", **query)
    return client.get(address, headers={"If-None-Match": tag})


def mark_read(client, conversation, seen):
    return client.post(page_of(conversation, "live"), {"seen": seen})


def unread(conversation):
    conversation.refresh_from_db()
    return conversation.unread_count


def shown(response, name="entries"):
    return [entry.message.text for entry in response.context[name]]


# Reading


def test_a_thread_shows_both_directions_the_oldest_first(viewer, conversation):
    services.reply(conversation, "Which one?")
    received("4471")
    assert shown(read(viewer, conversation)) == ["Where is my order?", "Which one?", "4471"]


def test_a_thread_shows_others_nothing_of_this_one(viewer, conversation):
    received("Mine", from_="2348020000001")
    assert "Mine" not in read(viewer, conversation).text


def test_the_newest_messages_are_shown_and_lead_to_older_ones(viewer, conversation):
    many_messages(conversation, 150)
    newest = read(viewer, conversation)
    assert shown(newest) == [f"text {i}" for i in range(50, 150)]
    older = viewer.get(newest.context["older"])
    assert shown(older) == ["Where is my order?", *(f"text {i}" for i in range(50))]
    assert older.context["older"] == ""
    assert shown(viewer.get(older.context["newest"])) == shown(newest)


def test_other_pages_do_not_take_the_key_along(agent, conversation):
    many_messages(conversation, 150)
    newest = read(agent, conversation)
    assert "compose" not in newest.context["older"]
    older = agent.get(f"{newest.context['older']}&compose={uuid.uuid4()}")
    assert "compose" not in older.context["newest"]


def test_a_full_page_leads_to_no_older_one(viewer, conversation):
    many_messages(conversation, 99)
    response = read(viewer, conversation)
    assert (len(shown(response)), response.context["older"]) == (100, "")


@pytest.mark.parametrize("before", ["", "x", "-", "1.5", "9" * 5000])
def test_a_page_of_nonsense_is_the_newest(viewer, conversation, before):
    assert shown(read(viewer, conversation, before=before)) == ["Where is my order?"]


@pytest.mark.parametrize(("before", "count"), [("0", 0), ("-5", 0), (str(10**30), 1)])
def test_a_page_may_lie_outside_of_the_thread(viewer, conversation, before, count):
    assert len(shown(read(viewer, conversation, before=before))) == count


def test_a_thread_costs_the_same_queries_for_ten_and_a_thousand(viewer, conversation):
    many_messages(conversation, 9)
    read(viewer, conversation)
    with CaptureQueriesContext(connection) as ten:
        assert len(shown(read(viewer, conversation))) == 10
    many_messages(conversation, 990)
    with CaptureQueriesContext(connection) as thousand:
        assert len(shown(read(viewer, conversation))) == 100
    assert len(thousand) == len(ten)


def test_a_bubble_says_who_wrote_and_what_became_of_it(viewer, conversation):
    services.reply(conversation, "On its way", author=user(last_name="Obi"))
    outbound().update(status=Message.Status.SENT)
    page = read(viewer, conversation).text
    assert "Ada Obi" in page
    assert "accepted by 9bits" in page
    assert "mtn" in page


@pytest.mark.parametrize(
    ("status", "is_shown"),
    [("failed", True), ("uncertain", True), ("queued", True), ("sending", False), ("sent", False)],
)
def test_the_error_is_shown_where_it_matters(viewer, conversation, status, is_shown):
    message = services.reply(conversation, "On its way")
    Message.objects.filter(pk=message.pk).update(status=status, error="Not <enabled>")
    response = read(viewer, conversation)
    assert message.__class__(status=status).get_status_display() in response.text
    assert ("Not &lt;enabled&gt;" in response.text) is is_shown


def test_a_scheduled_reply_says_when_it_leaves(viewer, conversation):
    services.reply(conversation, "Later", send_at=timezone.now() + timedelta(days=1))
    assert "not before" in read(viewer, conversation).text


def test_a_new_session_is_marked(viewer):
    conversation = received("1", session_id="a").conversation
    for session_id in ("a", "b", "b", "a"):
        received("2", session_id=session_id)
    entries = read(viewer, conversation).context["entries"]
    assert [entry.begins_session for entry in entries] == [True, False, True, False, True]


def test_a_session_that_began_on_an_older_page_is_not_marked(viewer, conversation):
    many_messages(conversation, 101)
    entries = read(viewer, conversation).context["entries"]
    assert not any(entry.begins_session for entry in entries)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("{{ request.user }}{% x %}", "{{ request.user }}{% x %}"),
        ("a\n\n   b\tc  ", "a\n\n   b\tc  "),
        ("مرحبا \u202eabc 🙏🏽", "مرحبا \u202eabc 🙏🏽"),
        ("ẹ" * 5000, "ẹ" * 5000),
    ],
)
def test_a_text_is_shown_exactly_as_it_was_written(viewer, text, html):
    page = read(viewer, received(text).conversation).text
    assert f'<div class="nb-text" dir="auto">{html}</div>' in page
    assert "<script>alert" not in page


def test_an_empty_text_is_shown_as_empty(viewer):
    assert "(empty)" in read(viewer, received("").conversation).text


def test_a_thread_without_messages_can_be_read(agent, conversation):
    Message.objects.all().delete()
    assert "No messages." in read(agent, conversation).text


@pytest.mark.parametrize("codename", ["view_contact", "change_contact"])
def test_a_thread_leads_to_the_contact_for_whoever_may_see_it(
    person, viewer, conversation, codename
):
    address = page_of(conversation.contact)
    assert address in read(person("view_conversation", codename), conversation).text
    assert address not in read(viewer, conversation).text


def test_the_way_back_keeps_the_filters_of_the_inbox(agent, conversation):
    response = read(agent, conversation, _changelist_filters="unread=yes")
    assert f'href="{INBOX}?unread=yes"' in response.text
    assert "_changelist_filters=unread%3Dyes" in response.context["form_address"]


# The read mark


def test_an_agent_who_reads_marks_read(agent, conversation):
    last = received("Hello?")
    read(agent, conversation)
    conversation.refresh_from_db()
    assert (conversation.unread_count, conversation.read_up_to) == (0, last.pk)


def test_a_viewer_who_reads_marks_nothing(viewer, conversation):
    read(viewer, conversation)
    conversation.refresh_from_db()
    assert (conversation.unread_count, conversation.read_up_to) == (1, 0)


def test_reply_without_view_marks_and_shows_nothing(person, conversation):
    assert person("reply_conversation").get(page_of(conversation)).status_code == 403
    conversation.refresh_from_db()
    assert conversation.unread_count == 1


def test_an_older_page_marks_nothing(agent, conversation):
    many_messages(conversation, 150)
    before = conversation.messages.last().pk
    assert len(shown(read(agent, conversation, before=before))) == 100
    conversation.refresh_from_db()
    assert conversation.unread_count == 1


def test_a_look_at_the_headers_marks_nothing(agent, conversation):
    address = page_of(conversation, compose=uuid.uuid4())
    assert agent.head(address).status_code == 200
    conversation.refresh_from_db()
    assert conversation.unread_count == 1


def test_nothing_is_written_when_nothing_is_unread(agent, conversation):
    read(agent, conversation)
    with CaptureQueriesContext(connection) as queries:
        read(agent, conversation)
    assert not [q for q in queries if not q["sql"].startswith("SELECT")]


def test_a_text_that_comes_after_what_was_shown_stays_unread(conversation):
    seen = conversation.messages.last()
    received("Later")
    conversation.refresh_from_db()
    conversation.mark_read_up_to(seen.pk)
    conversation.refresh_from_db()
    assert (conversation.unread_count, conversation.read_up_to) == (1, seen.pk)


def test_reading_starts_by_writing_the_conversation(conversation):
    with CaptureQueriesContext(connection) as queries:
        conversation.mark_read_up_to(conversation.messages.last().pk)
    # The first is the test's own.
    first = [q["sql"] for q in queries if "SAVEPOINT" not in q["sql"]][1]
    assert first.startswith("UPDATE")
    assert "read_up_to" in first


def test_a_page_rendered_earlier_takes_no_mark_back(conversation):
    first, second = conversation.messages.get(), received("Later")
    conversation.refresh_from_db()
    conversation.mark_read_up_to(second.pk)
    conversation.mark_read_up_to(first.pk)
    conversation.refresh_from_db()
    assert (conversation.unread_count, conversation.read_up_to) == (0, second.pk)


def test_replies_are_no_unread_texts(conversation):
    seen = conversation.messages.get()
    services.reply(conversation, "On its way")
    conversation.mark_read_up_to(seen.pk)
    conversation.refresh_from_db()
    assert conversation.unread_count == 0


# An open page asks whether anything has changed


def test_a_page_that_shows_all_there_is_is_told_so(viewer, conversation):
    answer = asks(viewer, conversation, tag_of(viewer, conversation))
    assert (answer.status_code, answer.content) == (304, b"")


def test_an_open_page_is_shown_what_came_in_the_bubbles_of_the_page(viewer, conversation):
    tag = tag_of(viewer, conversation)
    received("Hello <b>?")
    answer = asks(viewer, conversation, tag)
    assert shown(answer) == ["Where is my order?", "Hello <b>?"]
    page = read(viewer, conversation).text
    (bubbles,) = [part for part in answer.text.split("<ol") if "Hello &lt;b&gt;" in part]
    assert bubbles.partition("</ol>")[0] in page
    assert "<html" not in answer.text


def uncertain(message):
    attempted(OutcomeUnknown("No answer"))


def uncertain_and_retried(message):
    uncertain(message)
    services.retry(message)


def opted_out(message):
    received("STOP")


@pytest.mark.parametrize(
    "change",
    [
        lambda message: received("Hello"),
        lambda message: services.reply(message.conversation, "Soon"),
        lambda message: outbox.claim_due(1),
        lambda message: attempted(),
        lambda message: attempted(Refused("No")),
        lambda message: attempted(NotAccepted("Later")),
        uncertain,
        uncertain_and_retried,
        lambda message: services.cancel(message),
        lambda message: message.conversation.close(message.pk),
        opted_out,
    ],
)
def test_whatever_changes_a_thread_changes_the_tag(viewer, conversation, change):
    message = services.reply(conversation, "On its way")
    tag = tag_of(viewer, conversation)
    change(message)
    answer = asks(viewer, conversation, tag)
    assert answer.status_code == 200
    assert answer.context["tag"] == tag_of(viewer, conversation) != tag


def test_what_cannot_be_decided_any_more_changes_the_tag(viewer, conversation):
    message = services.reply(conversation, "On its way")
    uncertain(message)
    tag = tag_of(viewer, conversation)
    Message.objects.filter(pk=message.pk).update(expires_at=timezone.now())
    assert asks(viewer, conversation, tag).status_code == 200


def test_what_somebody_may_decide_changes_the_tag(person, viewer, conversation):
    tag = tag_of(viewer, conversation)
    assert asks(person("view_conversation"), conversation, tag).status_code == 304
    other = person("view_conversation", "resolve_message")
    assert asks(other, conversation, tag).status_code == 200


def test_another_conversation_does_not_change_the_tag(viewer, conversation):
    tag = tag_of(viewer, conversation)
    received("Mine", from_="2348020000001")
    assert asks(viewer, conversation, tag).status_code == 304


def test_an_older_page_asks_for_itself(viewer, conversation):
    message = services.reply(conversation, "On its way")
    before = received("Hello").pk
    page = read(viewer, conversation, before=before)
    assert f"before={before}" in page.context["live"]
    received("Anybody?")
    tag = page.context["tag"]
    assert asks(viewer, conversation, tag, before=before).status_code == 304
    services.cancel(message)
    answer = asks(viewer, conversation, tag, before=before)
    assert shown(answer) == ["Where is my order?", "On its way"]
    assert answer.context["newest"].startswith(page_of(conversation))


def test_a_message_beyond_the_page_is_watched(viewer, conversation, monkeypatch):
    monkeypatch.setattr(thread, "PAGE", 2)
    message = services.reply(conversation, "On its way")
    received("Hello")
    received("Anybody?")
    tag = asks(viewer, conversation, watch=message.pk).context["tag"]
    assert asks(viewer, conversation, tag, watch=message.pk).status_code == 304
    services.cancel(message)
    answer = asks(viewer, conversation, tag, watch=message.pk)
    assert (shown(answer), shown(answer, "watched")) == (["Hello", "Anybody?"], ["On its way"])
    assert "watch" not in answer.context["older"]


def test_no_message_of_another_conversation_is_watched(viewer, conversation):
    other = received("Mine", from_="2348020000001")
    assert "Mine" not in asks(viewer, conversation, watch=other.pk).text


@pytest.mark.parametrize("watch", ["", "x", "-1,1.5,,²", "9" * 5000])
def test_nonsense_is_not_watched(viewer, conversation, watch):
    assert shown(asks(viewer, conversation, watch=watch), "watched") == []


def test_as_many_are_watched_as_may_be(viewer, conversation):
    rows = many_messages(conversation, thread.WATCHED + 1)
    ids = ",".join(str(row.pk) for row in rows)
    assert len(shown(asks(viewer, conversation, watch=ids), "watched")) == thread.WATCHED


def test_the_addresses_that_an_open_page_is_given_are_those_of_the_page(viewer, conversation):
    many_messages(conversation, thread.PAGE)
    page = read(viewer, conversation, _changelist_filters="folder=mine")
    answer = viewer.get(page.context["live"])
    assert answer.context["older"] == page.context["older"]
    assert answer.context["older"].startswith(page_of(conversation))


def test_an_idle_thread_costs_three_queries(viewer, conversation):
    message = services.reply(conversation, "On its way")
    many_messages(conversation, thread.PAGE + 1)
    tag = asks(viewer, conversation, watch=message.pk).context["tag"]
    with CaptureQueriesContext(connection) as captured:
        assert asks(viewer, conversation, tag, watch=message.pk).status_code == 304
    # Before them: the session, the user, and what the user may do, as their own and of groups.
    assert len(captured) == 4 + 3
    assert [q for q in captured if not q["sql"].startswith("SELECT")] == []


def test_a_thread_costs_seven_queries(viewer, conversation):
    many_messages(conversation, thread.PAGE)
    with CaptureQueriesContext(connection) as captured:
        read(viewer, conversation)
    assert len(captured) == 4 + 3


def test_a_page_that_asks_prolongs_no_session(agent, conversation, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    tag = tag_of(agent, conversation)
    seen = conversation.messages.get().pk
    with CaptureQueriesContext(connection) as captured:
        assert asks(agent, conversation, tag).status_code == 304
        assert mark_read(agent, conversation, seen).status_code == 204
    assert [q for q in captured if not q["sql"].startswith("SELECT")] == []


# Who may look, and who marks as read


@pytest.mark.parametrize("codenames", [["reply_conversation"], ["view_contact", "view_message"]])
def test_whoever_may_not_look_is_told_nothing(person, viewer, conversation, codenames):
    stranger, tag = person(*codenames), tag_of(viewer, conversation)
    assert asks(stranger, conversation, tag).status_code == 403
    assert asks(stranger, conversation).status_code == 403
    assert stranger.get(page_of(conversation)).status_code == 403


def test_whoever_is_logged_out_is_sent_to_the_login(client, viewer, conversation):
    answer = asks(client, conversation, tag_of(viewer, conversation))
    assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/admin/login/")
    assert mark_read(client, conversation, 1).status_code == 302


def test_a_thread_that_is_not_there_is_not_found(viewer):
    assert asks(viewer, Conversation(pk=4711)).status_code == 404


def test_an_open_page_that_asks_marks_nothing(agent, conversation):
    tag = tag_of(agent, conversation)
    received("Hello?")
    assert asks(agent, conversation, tag).status_code == 200
    assert unread(conversation) == 1


def test_an_agent_marks_read_what_was_seen_and_nothing_that_came_later(agent, conversation):
    seen = received("Hello?")
    received("Anybody?")
    assert mark_read(agent, conversation, seen.pk).status_code == 204
    assert (unread(conversation), conversation.read_up_to) == (1, seen.pk)


@pytest.mark.parametrize("seen", ["", "x", "-1", "0"])
def test_nonsense_marks_nothing(agent, conversation, seen):
    assert mark_read(agent, conversation, seen).status_code == 204
    assert unread(conversation) == 1


@pytest.mark.parametrize("seen", [2**62, 10**30])
def test_nobody_marks_what_has_not_come_yet(agent, conversation, seen):
    newest = conversation.messages.get().pk
    assert mark_read(agent, conversation, seen).status_code == 204
    assert (unread(conversation), conversation.read_up_to) == (0, newest)


def test_a_viewer_marks_nothing_and_is_not_asked_to(viewer, agent, conversation):
    assert "data-marks-read" not in read(viewer, conversation).text
    assert "data-marks-read" in read(agent, conversation).text
    assert "data-marks-read" not in read(agent, conversation, before=10**6).text
    received("Hello?")
    assert mark_read(viewer, conversation, 10**6).status_code == 403
    assert unread(conversation) == 1


def test_whoever_may_reply_but_not_look_marks_nothing(person, conversation):
    assert mark_read(person("reply_conversation"), conversation, 10**6).status_code == 403
    assert unread(conversation) == 1


def test_a_read_mark_needs_the_token_of_the_page(agent, conversation):
    agent.handler.enforce_csrf_checks = True
    assert mark_read(agent, conversation, 10**6).status_code == 403
    assert unread(conversation) == 1


# Late texts

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def times(client, conversation, zone="UTC"):
    with timezone.override(zone):
        page = read(client, conversation).text
    found = re.findall(r"<time datetime=[^>]*T[^>]*>([^<]*)</time>", page)
    return [" ".join(one.split()) for one in found]


@pytest.mark.parametrize(
    ("took", "said"),
    [
        (timedelta(seconds=60), "noon"),
        (timedelta(seconds=61), "sent 11:58 a.m., arrived noon"),
        (timedelta(hours=11), "sent 1 a.m., arrived noon"),
        (timedelta(hours=13), "sent March 3, 2026, 11 p.m., arrived noon"),
        # Of a clock that is ahead of ours.
        (timedelta(hours=-13), "noon"),
        (None, "noon"),
    ],
)
def test_a_late_text_says_when_it_was_sent_and_when_it_arrived(viewer, conversation, took, said):
    sent_date = took and NOON - took
    Message.objects.update(sent_date=sent_date, created_at=NOON)
    assert times(viewer, conversation) == [said]


def test_a_text_of_the_evening_before_is_late_wherever_that_is_the_day_before(viewer, conversation):
    midnight = datetime(2026, 3, 4, tzinfo=UTC)
    Message.objects.update(sent_date=midnight - timedelta(seconds=2), created_at=midnight)
    assert times(viewer, conversation) == ["sent March 3, 2026, 11:59 p.m., arrived midnight"]
    assert times(viewer, conversation, zone="Africa/Lagos") == ["1 a.m."]


def test_a_reply_that_left_late_says_nothing_of_it(viewer, conversation):
    services.reply(conversation, "On its way")
    Message.objects.filter(direction="inbound").update(sent_date=None)
    Message.objects.update(created_at=NOON)
    Message.objects.filter(direction="outbound").update(sent_date=NOON - timedelta(days=1))
    assert times(viewer, conversation) == ["noon", "noon"]


def test_a_late_text_says_so_on_a_site_without_time_zones(viewer, conversation, settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "UTC"
    noon = NOON.replace(tzinfo=None)
    Message.objects.update(sent_date=noon - timedelta(hours=1), created_at=noon)
    assert times(viewer, conversation) == ["sent 11 a.m., arrived noon"]


# Links in texts


class Elements(HTMLParser):
    """The elements of a text's bubble, and what is written in it."""

    def __init__(self, html):
        super().__init__()
        self.found, self.written = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.written += data


def elements(text):
    """Of a text's bubble, as whoever looks at the thread gets it."""
    entry = thread.Entry(Message(pk=1, direction="inbound", status="received", text=text))
    context = {"entries": [entry], "original": Conversation()}
    html = render_to_string("admin/django_ninebits/conversation/messages.html", context)
    end = html.rindex("</div>", 0, html.index('<div class="nb-fate">'))
    return Elements(html[html.index('<div class="nb-text"') : end])


def test_a_link_says_where_it_leads_before_it_can_be_followed(viewer):
    message = received("See https://Éxample.com/a?b=1&c=<b>.")
    page = " ".join(read(viewer, message.conversation).text.split())
    assert '<summary><bdi dir="ltr">https://Éxample.com/a?b=1&amp;c=</bdi></summary>' in page
    assert 'leads to <strong><bdi dir="ltr">xn--xample-9ua.com</bdi></strong>' in page
    assert (
        '<a href="https://xn--xample-9ua.com/a?b=1&amp;c=" target="_blank"'
        ' rel="noopener noreferrer nofollow">Open in a new window</a>'
    ) in page
    assert "It was written by the subscriber" in page


def test_a_link_of_ours_is_not_said_to_be_of_the_subscriber(viewer, conversation):
    services.reply(conversation, "https://shop.ng")
    page = read(viewer, conversation).text
    assert '<a href="https://shop.ng"' in page
    assert "It was written by the subscriber" not in page


#: What ends an attribute or an element, begins a script, or looks like an address.
HOSTILE = [
    *("https://shop.ng/", "www.", "javascript:alert(1)", "<script>", "</div>", "</summary>", "<a"),
    *(' href="', " onclick='", '"', "'", ">", "<", "&", "&#x27;", "{{", "{%", "\\", "`", " ", "\n"),
]


#: The first of them compiles the templates.
unhurried = hypothesis_settings(deadline=None)


@unhurried
@given(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=3), min_size=1, max_size=12))
def test_no_text_is_more_than_text_and_links(pieces):
    found = elements(f"a{''.join(pieces)}").found
    tags = {tag for tag, _attributes in found}
    assert tags <= {"div", "details", "summary", "bdi", "span", "strong", "a"}
    names = {name for _tag, attributes in found for name in attributes}
    assert names <= {"class", "dir", "href", "target", "rel"}
    assert all(re.match("https?://", at.get("href", "http://")) for _tag, at in found)


@unhurried
@given(st.text(min_size=1))
def test_a_text_without_links_is_shown_as_it_is(text):
    assert elements(f"a{text}").written == f"a{text}"
