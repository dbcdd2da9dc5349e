import random
import re
import uuid
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.formats import date_format

from django_ninebits import folders, inbox, outbox, search, services
from django_ninebits.exceptions import OutcomeUnknown, Refused
from django_ninebits.folders import COUNTED, FOLDERS
from django_ninebits.keyset import Key, Page
from django_ninebits.models import Contact, Conversation, Message
from tests.deliveries import body
from tests.staff import client_of, user

INBOX = reverse("admin:django_ninebits_conversation_changelist")

#: Conversations on one page here.
PAGE = 10

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch):
    monkeypatch.setattr("django_ninebits.admin.ConversationAdmin.list_per_page", PAGE)


@pytest.fixture
def viewer():
    return client_of(user("view_conversation"))


@pytest.fixture
def deferred(settings):
    """Where nothing leaves before it is claimed."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


def received(text="Hello", number=0, **changes):
    given = {"from_": f"23480200{number:05}", "ref_id": uuid.uuid4().hex, **changes}
    return inbox.take_in(body(message=text, **given)).message


def waiting(number=0, **changes):
    return received(number=number, **changes).conversation


def answered(number=0):
    conversation = waiting(number)
    services.reply(conversation, "On its way")
    return conversation


def attempted(*errors):
    """What is due is sent, each with its outcome."""
    for claim, error in zip(outbox.claim_due(len(errors)), errors, strict=True):
        outbox.record(outbox.Outcome(claim, error))


def conversations(count, **fields):
    """As many that differ in nothing but their age, the newest first."""
    now = timezone.now()
    contacts = Contact.objects.bulk_create(
        Contact(phone_number=f"+23480211{number:05}") for number in range(count)
    )
    return Conversation.objects.bulk_create(
        Conversation(
            contact_id=contact.pk,
            short_code="48974",
            last_message_at=now - timedelta(minutes=number),
            **fields,
        )
        for number, contact in enumerate(Contact.objects.filter(pk__in=[c.pk for c in contacts]))
    )


def page(client, **query):
    response = client.get(INBOX, query)
    assert response.status_code == 200
    return response


def listed(client, **query):
    return page(client, **query).context["cl"].result_list


def follow(client, address):
    return page(client, **{name: value for name, (value,) in query_of(address).items()})


def query_of(address):
    return parse_qs(urlsplit(address).query)


def pages(client, way="next", **query):
    """The ids of each page that one comes to, the first one first."""
    response = page(client, **query)
    while True:
        yield [row.pk for row in response.context["cl"].result_list]
        address = getattr(response.context["cl"], way)
        if not address:
            return
        response = follow(client, address)


# Folders


def test_the_first_folder_is_what_is_open_with_who_waits_longest_on_top(viewer):
    done, first, second = answered(1), waiting(2), waiting(3)
    latest = answered(4)
    Conversation.objects.filter(pk=waiting(5).pk).update(status="closed", waiting_since=None)
    assert listed(viewer) == [first, second, latest, done]


def test_newest_first_is_by_the_last_message(viewer):
    done, first, second = answered(1), waiting(2), waiting(3)
    assert listed(viewer, order="newest") == [second, first, done]
    received(number=2)
    assert listed(viewer, order="newest") == [first, second, done]


def test_the_folder_of_who_waits_has_nobody_else(viewer):
    answered(1)
    first, second = waiting(2), waiting(3)
    received(number=2)
    assert listed(viewer, folder="waiting") == [first, second]
    assert listed(viewer, folder="waiting", order="newest") == [second, first]


def test_mine_is_what_is_open_and_assigned_to_me():
    ada, bola = user("view_conversation"), user("view_conversation")
    mine, done, theirs = waiting(1), waiting(2), waiting(3)
    Conversation.objects.filter(pk__in=[mine.pk, done.pk]).update(assignee=ada)
    Conversation.objects.filter(pk=theirs.pk).update(assignee=bola)
    Conversation.objects.filter(pk=done.pk).update(status="closed", waiting_since=None)
    assert listed(client_of(ada), folder="mine") == [mine]
    assert listed(client_of(bola), folder="mine") == [theirs]


def test_unassigned_is_what_is_open_and_nobodys(viewer):
    free, done, theirs = waiting(1), waiting(2), waiting(3)
    Conversation.objects.filter(pk=theirs.pk).update(assignee=user("view_conversation"))
    Conversation.objects.filter(pk=done.pk).update(status="closed", waiting_since=None)
    assert listed(viewer, folder="unassigned") == [free]


def test_the_closed_ones_are_newest_first_and_have_no_other_order(viewer):
    first, second = waiting(1), waiting(2)
    waiting(3)
    Conversation.objects.filter(pk__in=[first.pk, second.pk]).update(
        status="closed", waiting_since=None
    )
    response = page(viewer, folder="closed", order="longest")
    assert response.context["cl"].result_list == [second, first]
    assert response.context["cl"].orders == []


def test_all_has_open_and_closed(viewer):
    first, second = waiting(1), answered(2)
    Conversation.objects.filter(pk=second.pk).update(status="closed")
    assert listed(viewer, folder="all") == [first, second]


@pytest.mark.parametrize("folder", [*FOLDERS, "nonsense"])
def test_bulk_alone_is_in_no_folder(viewer, folder, deferred):
    services.send_many([{"to": "08020000009", "text": "An offer"}])
    attempted(Refused("no", http_status=422))
    assert Conversation.objects.get().undecided_since is not None
    assert listed(viewer, folder=folder) == []


@pytest.mark.parametrize(("folder", "order"), [("nonsense", "newest"), ("open", "nonsense")])
def test_a_folder_or_an_order_that_there_is_not_is_the_first(viewer, folder, order):
    conversation = waiting()
    response = page(viewer, folder=folder, order=order)
    assert response.context["cl"].result_list == [conversation]
    assert [link.label for link in response.context["cl"].folders if link.is_current] == ["Open"]


@pytest.mark.parametrize("name", FOLDERS)
def test_an_empty_folder_says_so(viewer, name):
    assert str(FOLDERS[name].empty) in page(viewer, folder=name).text


# What needs a decision


def undecided(client):
    return listed(client, folder="undecided")


@pytest.mark.parametrize("error", [Refused("no", http_status=422), OutcomeUnknown("reset")])
def test_what_failed_or_is_uncertain_needs_a_decision_until_it_is_decided(viewer, deferred, error):
    conversation = answered()
    assert undecided(viewer) == []
    attempted(error)
    assert undecided(viewer) == [conversation]
    services.retry(Message.objects.get(direction="outbound"))
    assert undecided(viewer) == []


def test_what_arrived_needs_no_decision(viewer, deferred):
    answered()
    attempted(OutcomeUnknown("reset"))
    services.confirm(Message.objects.get(direction="outbound"))
    assert undecided(viewer) == []


def test_the_oldest_that_needs_a_decision_is_first(viewer, deferred):
    first, second = answered(1), answered(2)
    services.reply(first, "Hello?")
    attempted(OutcomeUnknown("reset"), Refused("no"))
    attempted(OutcomeUnknown("reset"))
    assert undecided(viewer) == [first, second]
    services.confirm(Message.objects.filter(direction="outbound", conversation=first)[0])
    assert undecided(viewer) == [second, first]
    assert listed(viewer, folder="undecided", order="newest") == [first, second]


# What the list reads of a conversation, held against its messages


def of_messages(conversation):
    """The same, worked out from all that was said."""
    said = list(conversation.messages.order_by("id"))
    single = [message for message in said if not message.text.startswith("Bulk")]
    inbound = [message for message in said if message.is_inbound]
    answers = [message.pk for message in said if message.status in Message.ANSWERING]
    unanswered = [message.created_at for message in inbound if message.pk > max(answers, default=0)]
    undecided = [message.created_at for message in said if message.status in Message.UNDECIDED]
    last = single[-1]
    return {
        "waiting_since": next(iter(unanswered), None),
        "undecided_since": next(iter(undecided), None),
        "telco": next((message.telco for message in inbound[::-1] if message.telco), ""),
        "last_message_at": last.created_at,
        "last_message_text": last.text,
        "last_message_direction": last.direction,
        "last_message_identity": "" if last.direction != "outbound" else last.identity,
    }


def any_of(dice, *statuses):
    return dice.choice([*Message.objects.filter(status__in=statuses), None])


def decide(verb, message):
    if message is not None:
        verb(message)


def record_all(dice, claims):
    for claim in claims:
        outbox.record(outbox.Outcome(claim, dice.choice(OUTCOMES)))


OUTCOMES = [None, Refused("no", http_status=422), OutcomeUnknown("reset")]

STEPS = [
    lambda dice: received(f"Text {dice.random()}", telco=dice.choice(["mtn", "glo", ""])),
    lambda dice: services.send_sms("+2348020000000", f"Reply {dice.random()}"),
    lambda dice: services.send_many([{"to": "+2348020000000", "text": f"Bulk {dice.random()}"}]),
    lambda dice: record_all(dice, outbox.claim_due(1)),
    lambda dice: decide(services.retry, any_of(dice, *Message.UNDECIDED)),
    lambda dice: decide(services.confirm, any_of(dice, "uncertain")),
    lambda dice: decide(services.cancel, any_of(dice, "queued")),
]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_list_is_told_what_the_messages_say(deferred, seed):
    dice = random.Random(seed)
    received("First")
    for _step in range(60):
        dice.choice(STEPS)(dice)
        conversation = Conversation.objects.get()
        expected = of_messages(conversation)
        assert {name: getattr(conversation, name) for name in expected} == expected


def close_or_reopen(dice):
    newest = Message.objects.latest("id").pk
    conversation = Conversation.objects.get()
    assert conversation.close(newest) or conversation.reopen()


@pytest.mark.parametrize("seed", range(4))
def test_closing_settles_what_was_said_until_then_and_no_more(deferred, seed):
    dice = random.Random(seed)
    received("First")
    for _step in range(60):
        dice.choice([*STEPS, close_or_reopen])(dice)
        conversation = Conversation.objects.get()
        said = list(conversation.messages.order_by("id"))
        news = [message for message in said if message.pk > conversation.settled_up_to]
        asked = [message for message in said if message.needs_decision]
        assert {message.status for message in asked} <= set(Message.UNDECIDED)
        assert conversation.undecided_since == next((one.created_at for one in asked), None)
        answers = [message.pk for message in said if message.status in Message.ANSWERING]
        unanswered = [one for one in news if one.is_inbound and one.pk > max(answers, default=0)]
        assert conversation.waiting_since == next((one.created_at for one in unanswered), None)
        assert conversation.status == "open" or conversation.waiting_since is None


# Pages by key


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pages_of_a_folder_have_each_conversation_once(folder):
    ada = user("view_conversation")
    mine = {"assignee": ada} if folder == "mine" else {}
    rows = conversations(2 * PAGE + 7, **mine)
    ids = [row.pk for row in rows]
    now = timezone.now()
    if folder == "closed":
        Conversation.objects.update(status="closed")
    elif folder == "undecided":
        Conversation.objects.update(undecided_since=now)
        ids.sort()
    elif folder == "waiting":
        Conversation.objects.update(waiting_since=now)
        ids.sort()
    assert flat(pages(client_of(ada), folder=folder)) == ids


def test_those_who_wait_are_followed_by_those_who_do_not_across_pages(viewer):
    rows = conversations(2 * PAGE + 7)
    ids = [row.pk for row in rows]
    Conversation.objects.filter(pk__in=ids[PAGE + 2 :]).update(waiting_since=timezone.now())
    expected = ids[PAGE + 2 :] + ids[: PAGE + 2]
    found = list(pages(viewer))
    assert [len(one) for one in found] == [PAGE, PAGE, 7]
    assert flat(found) == expected


def test_one_comes_back_over_the_same_pages(viewer):
    rows = conversations(3 * PAGE)
    Conversation.objects.filter(pk__in=[row.pk for row in rows[PAGE + 4 :]]).update(
        waiting_since=timezone.now()
    )
    forth = list(pages(viewer))
    last = follow_to_the_last(viewer)
    back = list(pages_from(viewer, last, "previous"))
    assert back == forth[::-1]


def flat(lists):
    return [one for several in lists for one in several]


def follow_to_the_last(client):
    response = page(client)
    while response.context["cl"].next:
        response = follow(client, response.context["cl"].next)
    return response


def pages_from(client, response, way):
    while True:
        yield [row.pk for row in response.context["cl"].result_list]
        address = getattr(response.context["cl"], way)
        if not address:
            return
        response = follow(client, address)


def test_at_the_same_time_the_later_conversation_is_first(viewer):
    rows = conversations(PAGE + 10)
    Conversation.objects.update(last_message_at=timezone.now())
    found = flat(pages(viewer, order="newest"))
    assert found == sorted((row.pk for row in rows), reverse=True)


def test_a_page_has_fifty_unless_the_admin_says_otherwise(viewer, monkeypatch):
    monkeypatch.undo()
    conversations(51)
    assert list(map(len, pages(viewer))) == [50, 1]


def test_a_full_page_leads_to_no_other(viewer):
    conversations(PAGE)
    cl = page(viewer).context["cl"]
    assert (len(cl.result_list), cl.first, cl.previous, cl.next) == (PAGE, "", "", "")


def test_what_comes_while_one_reads_moves_nothing_to_another_page(viewer):
    rows = conversations(PAGE + 10)
    first = page(viewer, order="newest").context["cl"]
    waiting(1)
    rest = follow(viewer, first.next).context["cl"].result_list
    assert [row.pk for row in rest] == [row.pk for row in rows[PAGE:]]


def test_a_page_back_that_is_not_full_is_the_first_page(viewer):
    conversations(PAGE + 10)
    second = follow(viewer, page(viewer, order="newest").context["cl"].next)
    Conversation.objects.filter(pk__in=[row.pk for row in listed(viewer)[:5]]).update(
        status="closed"
    )
    first = follow(viewer, second.context["cl"].previous).context["cl"]
    assert first.result_list == listed(viewer, order="newest")
    assert (len(first.result_list), first.previous) == (PAGE, "")


def test_a_page_of_which_all_is_gone_says_so_and_leads_to_the_first(viewer):
    conversations(PAGE + 1)
    address = page(viewer).context["cl"].next
    Conversation.objects.update(status="closed")
    response = follow(viewer, address)
    assert "There is nothing on this page any more." in response.text
    assert ">First page</a>" in response.text


def test_whoever_is_answered_between_two_looks_is_listed_once(viewer):
    conversation = waiting()
    conversations(3)
    chain = FOLDERS["open"].chain("longest", AnonymousUser())

    class Meanwhile:
        """The conversations, of which one is answered once those who wait have been read."""

        def __init__(self):
            self.reads = 0

        def filter(self, *conditions, **more):
            self.reads += 1
            if self.reads == 2:
                Conversation.objects.filter(pk=conversation.pk).update(waiting_since=None)
            return Conversation.objects.filter(*conditions, **more)

    rows = Page.of(Meanwhile(), chain).rows  # type: ignore[arg-type]
    assert [row.pk for row in rows].count(conversation.pk) == 1
    assert len(rows) == 4


@pytest.mark.parametrize(
    "key",
    ["", "x", "1.2", "1.2.3.4", "0.x.1", "0.1.99999999999999999999", f"0.{10**30}.1", "-1.1.1"],
)
@pytest.mark.parametrize("way", ["after", "before"])
def test_a_key_that_no_page_has_written_is_that_of_the_first(viewer, key, way):
    conversation = waiting()
    assert listed(viewer, **{way: key}) == [conversation]


@pytest.mark.parametrize("use_tz", [True, False])
def test_a_key_is_read_as_it_was_written(settings, use_tz):
    settings.USE_TZ = use_tz
    key = Key(1, timezone.now(), 47)
    assert Key.read(str(key)) == key


def test_another_folder_order_or_search_begins_at_its_first_page(viewer):
    conversations(PAGE + 10)
    response = follow(viewer, page(viewer).context["cl"].next)
    cl = response.context["cl"]
    links = [link.address for link in (*cl.folders, *cl.orders)]
    assert not [link for link in links if {"after", "before"} & query_of(link).keys()]
    assert 'name="after"' not in response.text


def test_a_page_keeps_the_folder_and_the_order(viewer):
    conversations(PAGE + 10)
    query = query_of(page(viewer, folder="all", order="newest").context["cl"].next)
    assert (query["folder"], query["order"]) == (["all"], ["newest"])


# What it costs


def queries(client, **query):
    page(client, **query)
    with CaptureQueriesContext(connection) as captured:
        page(client, **query)
    return [query["sql"] for query in captured]


#: The session, the user, two for their permissions; and the counts of five folders.
AROUND = 4 + 5


@pytest.mark.parametrize(
    ("folder", "cost"),
    [
        ("open", 2),
        ("waiting", 1),
        ("mine", 2),
        ("unassigned", 2),
        ("undecided", 1),
        ("closed", 1),
        ("all", 2),
    ],
)
def test_a_page_costs_a_query_for_each_stretch(viewer, folder, cost):
    conversations(PAGE + 10)
    found = queries(viewer, folder=folder)
    assert len(found) == AROUND + cost
    assert not [sql for sql in found if "OFFSET" in sql]


def test_a_page_of_those_who_wait_does_not_look_for_others(viewer):
    conversations(PAGE + 10, waiting_since=timezone.now())
    assert len(queries(viewer)) == AROUND + 1


def test_a_folder_is_counted_up_to_a_hundred(viewer):
    conversations(COUNTED + 1)
    counts = {link.label: link.count for link in page(viewer).context["cl"].folders}
    assert counts["Open"] == counts["Unassigned"] == "99+"
    assert (counts["Waiting"], counts["All"]) == ("0", "")
    Conversation.objects.filter(pk=listed(viewer)[0].pk).update(status="closed")
    assert page(viewer).context["cl"].folders[0].count == "99"


# Rows


def row(client, **query):
    return page(client, **query).text.split("<tbody>")[1].partition("</tbody>")[0]


def test_a_row_says_how_long_somebody_waits(viewer):
    waiting()
    since = timezone.now() - timedelta(hours=5, minutes=3)
    Conversation.objects.update(waiting_since=since)
    written = timezone.localtime(since).isoformat()
    assert f'<time class="nb-waits" datetime="{written}"' in row(viewer)
    assert ">5\xa0hours</time>" in row(viewer)


def test_a_row_of_a_closed_conversation_says_so(viewer):
    waiting()
    Conversation.objects.update(status="closed", waiting_since=None)
    assert '<span class="nb-quiet">closed</span>' in row(viewer, folder="closed")


def test_a_row_says_the_telco_and_the_assignee(viewer):
    waiting(telco="9mobile")
    Conversation.objects.update(assignee=user("view_conversation"))
    assert '<td class="field-telco">9mobile</td>' in row(viewer)
    assert "<bdi>Ada</bdi>" in row(viewer)


def test_the_telco_is_that_of_the_latest_text_that_names_one(viewer):
    for telco in ("mtn", "glo", ""):
        waiting(telco=telco)
    assert Conversation.objects.get().telco == "glo"


@pytest.mark.parametrize(
    ("outcome", "state", "label"),
    [
        (None, "sent", "accepted by 9bits"),
        (Refused("no", http_status=422), "failed", "failed"),
        (OutcomeUnknown("reset"), "uncertain", "uncertain"),
    ],
)
def test_a_row_says_the_state_of_a_reply(viewer, deferred, outcome, state, label):
    answered()
    assert '<span class="nb-state nb-state-queued">queued</span>' in row(viewer)
    attempted(outcome)
    assert f'<span class="nb-state nb-state-{state}">{label}</span>' in row(viewer)
    assert "needs a decision" not in row(viewer)


def test_a_row_of_a_text_has_no_state(viewer):
    waiting()
    assert "nb-state" not in row(viewer)


def test_a_row_says_that_an_earlier_message_needs_a_decision(viewer, deferred):
    answered()
    attempted(Refused("no", http_status=422))
    received()
    assert ">needs a decision</span>" in row(viewer)


def test_how_often_it_asks_is_written_for_a_script_in_every_language(viewer, settings):
    settings.LANGUAGE_CODE = "fr"
    assert 'data-every="2.0"' in page(viewer).content.decode()


def test_a_row_says_that_somebody_opted_out(viewer):
    received("STOP")
    assert '<span class="nb-state">opted out</span>' in row(viewer)


def test_a_bulk_message_is_not_taken_for_the_last_one(viewer, deferred):
    answered()
    attempted(None)
    services.send_many([{"to": "+2348020000000", "text": "An offer"}])
    assert "On its way" in row(viewer)
    assert "accepted by 9bits" in row(viewer)


# Filters


def narrowed(client, **query):
    return listed(client, folder="all", **query)


def test_a_short_code_or_a_telco_can_be_picked(viewer):
    first, second = waiting(1, to="48974", telco="mtn"), waiting(1, to="32120", telco="glo")
    assert narrowed(viewer, code="32120") == narrowed(viewer, telco="glo") == [second]
    assert narrowed(viewer, code="48974", telco="mtn") == [first]
    assert narrowed(viewer, code="48974", telco="glo") == []


def test_an_assignee_can_be_picked_or_nobody(viewer):
    ada = user("view_conversation")
    theirs, free = waiting(1), waiting(2)
    Conversation.objects.filter(pk=theirs.pk).update(assignee=ada)
    assert narrowed(viewer, assignee=ada.pk) == [theirs]
    assert narrowed(viewer, assignee="nobody") == [free]


@pytest.mark.parametrize("use_tz", [True, False])
def test_the_days_of_the_last_message_can_be_picked(viewer, settings, use_tz):
    settings.USE_TZ = use_tz
    settings.TIME_ZONE = "Africa/Lagos"
    conversation = waiting()
    day = timezone.localdate() if use_tz else timezone.now().date()
    before, after = (f"{day + timedelta(days=days)}" for days in (-1, 1))
    assert narrowed(viewer, since=day, until=day) == [conversation]
    assert narrowed(viewer, since=after) == narrowed(viewer, until=before) == []


@pytest.mark.parametrize("use_tz", [True, False])
def test_days_that_no_clock_has_can_be_picked(viewer, settings, use_tz):
    settings.USE_TZ = use_tz
    settings.TIME_ZONE = "Africa/Lagos"
    conversation = waiting()
    first, last = "0001-01-01", "9999-12-31"
    assert narrowed(viewer, since=first) == narrowed(viewer, until=last) == [conversation]
    assert narrowed(viewer, since=last) == narrowed(viewer, until=first) == []


def test_the_page_says_what_time_it_is_without_the_signs_of_a_language(viewer, settings):
    settings.USE_THOUSAND_SEPARATOR = True
    waiting()
    assert re.search(r'data-now="\d+"', page(viewer).text)


@pytest.mark.parametrize(
    "filters",
    [{"since": "x"}, {"until": "2026-02-30"}, {"assignee": "x"}, {"assignee": "9" * 23}],
)
def test_what_is_no_date_and_nobody_narrows_nothing(viewer, filters):
    conversation = waiting()
    assert narrowed(viewer, **filters) == [conversation]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_can_be_narrowed(folder):
    ada = user("view_conversation")
    rows = [waiting(1, telco="glo"), waiting(2, telco="mtn")]
    changes = {"assignee": ada} if folder == "mine" else {"undecided_since": timezone.now()}
    changes |= {"status": "closed", "waiting_since": None} if folder == "closed" else {}
    Conversation.objects.update(**changes)
    assert listed(client_of(ada), folder=folder, telco="mtn") == [rows[1]]


def options(response, name):
    field = response.context["cl"].filter_form.fields[name]
    return [str(label) for _value, label in field.widget.choices]


def test_the_filters_offer_what_there_is(viewer):
    for code, telco in (("48974", "mtn"), ("32120", ""), ("32120", "glo"), ("48974", "mtn")):
        waiting(1, to=code, telco=telco)
    Conversation.objects.filter(short_code="32120").update(assignee=user("view_conversation"))
    response = page(viewer, filter="yes")
    assert options(response, "code") == ["any", "32120", "48974"]
    assert options(response, "telco") == ["any", "glo", "mtn"]
    assert options(response, "assignee") == ["any", "nobody", "Ada"]


def test_the_filters_offer_no_more_than_can_be_looked_up(viewer, monkeypatch):
    monkeypatch.setattr(folders, "OFFERED", 2)
    for code in ("1", "2", "3"):
        waiting(1, to=code)
    response = page(viewer, filter="yes", code="3")
    assert options(response, "code") == ["any", "3", "1", "2"]
    assert response.context["cl"].filter_form["code"].value() == "3"


def test_the_filters_are_looked_up_only_where_they_are_seen(viewer):
    waiting()
    assert len(queries(viewer)) + 5 == len(queries(viewer, filter="yes"))
    assert '<form class="nb-filters"' not in page(viewer).text
    assert '<form class="nb-filters"' in page(viewer, code="48974").text


def test_a_filter_is_kept_from_page_to_page_and_cleared_by_a_link(viewer):
    conversations(PAGE + 10)
    cl = page(viewer, code="48974", folder="open").context["cl"]
    assert query_of(cl.next)["code"] == ["48974"]
    assert query_of(cl.unfiltered_link) == {"folder": ["open"]}
    assert cl.kept == [("folder", "open")]


def test_a_filter_that_nothing_fits_says_so(viewer):
    waiting()
    assert "No conversation fits." in page(viewer, telco="glo").text


# Search


def test_a_search_is_over_all_folders_the_newest_first(viewer):
    first, second = waiting(1, text="my order"), waiting(2, text="an order")
    Conversation.objects.filter(pk=first.pk).update(status="closed", waiting_since=None)
    response = page(viewer, folder="waiting", order="longest", q="order")
    assert response.context["cl"].result_list == [second, first]
    assert not [link for link in response.context["cl"].folders if link.is_current]
    assert response.context["cl"].orders == []


def test_a_folder_is_opened_without_what_was_searched_for(viewer):
    waiting()
    cl = page(viewer, q="Hello", older="7", code="48974").context["cl"]
    assert [query_of(link.address).keys() for link in cl.folders] == [{"folder", "code"}] * 7


def test_the_next_search_keeps_the_filters_and_begins_at_the_newest_text(viewer):
    waiting()
    cl = page(viewer, q="Hello", older="7", code="48974", folder="open").context["cl"]
    assert cl.kept_by_search == [("code", "48974")]


def test_a_search_can_be_narrowed(viewer):
    waiting(1, text="my order", telco="mtn")
    second = waiting(2, text="an order", telco="glo")
    assert listed(viewer, q="order", telco="glo") == [second]


def test_a_search_shows_the_text_that_fits(viewer):
    waiting(text="Where is my <order>?")
    waiting(text="Hello?")
    assert "<bdi>Where is my &lt;order&gt;?</bdi>" in row(viewer, q="my order")
    assert "nb-found" not in row(viewer, q="08020000000")
    assert "nb-found" not in row(viewer, q="Hello")


def test_a_search_says_how_far_back_it_looked_and_leads_further(viewer, monkeypatch):
    monkeypatch.setattr(search, "TEXTS", 1)
    old, new = received("my order", 1), received("an order", 2)
    response = page(viewer, q="order")
    shown = date_format(timezone.localtime(new.created_at), "DATETIME_FORMAT")
    assert f"Texts were looked through back to {shown}" in response.text
    further = follow(viewer, response.context["cl"].further)
    assert further.context["cl"].result_list == [old.conversation]
    assert further.context["cl"].further == ""


@pytest.mark.parametrize("older", ["x", "-1", "", "9" * 5000])
def test_a_search_that_goes_on_from_nonsense_begins_at_the_newest_text(viewer, older):
    conversation = waiting(text="my order")
    assert listed(viewer, q="order", older=older) == [conversation]


def test_a_search_that_found_too_much_says_so(viewer, monkeypatch):
    monkeypatch.setattr(search, "MOST", 1)
    waiting(1)
    waiting(2)
    assert "Not all that fits is listed" in page(viewer, q="0802000").text


def test_the_pages_of_a_search_have_each_conversation_once(viewer):
    rows = conversations(PAGE + 7)
    assert flat(pages(viewer, q="08021")) == [row.pk for row in rows]


# An open page asks whether anything has changed


def asks(client, tag, **query):
    return client.get(INBOX, query, headers={"If-None-Match": tag})


def tag_of(client, **query):
    return page(client, **query).context["cl"].tag


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_page_that_shows_all_there_is_is_told_so(viewer, folder):
    waiting()
    answer = asks(viewer, tag_of(viewer, folder=folder), folder=folder)
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_tag_that_was_made_weak_on_its_way_is_known(viewer):
    waiting()
    assert asks(viewer, f"W/{tag_of(viewer)}").status_code == 304


@pytest.mark.parametrize(
    "change",
    [
        lambda row: received(number=1),
        lambda row: received(number=2),
        lambda row: services.reply(row, "On its way"),
        lambda row: services.send_many([{"to": "+2348020000001", "text": "An offer"}]),
        lambda row: row.mark_read_up_to(row.messages.latest("id").pk),
        lambda row: row.close(row.messages.latest("id").pk),
        lambda row: row.assign(user("view_conversation")),
        lambda row: Contact.objects.update(name="Ngozi"),
    ],
)
def test_whatever_changes_a_row_changes_the_tag(viewer, change, deferred):
    waiting(1)
    tag = tag_of(viewer)
    change(Conversation.objects.get())
    answer = asks(viewer, tag)
    assert answer.status_code == 200
    assert answer.context["cl"].tag != tag


def test_what_becomes_of_a_reply_changes_the_tag(viewer, deferred):
    answered()
    tag = tag_of(viewer)
    attempted(None)
    assert asks(viewer, tag).status_code == 200


def test_somebody_who_waits_elsewhere_changes_the_tag():
    ada = client_of(user("view_conversation"))
    tag = tag_of(ada, folder="mine")
    waiting()
    assert asks(ada, tag, folder="mine").status_code == 200


def test_the_language_changes_the_tag(viewer):
    tag = tag_of(viewer)
    headers = {"If-None-Match": tag, "Accept-Language": "fr"}
    with translation.override("fr"):
        assert viewer.get(INBOX, headers=headers).status_code == 200


@pytest.mark.parametrize("codename", ["view_contact", "view_message"])
def test_whoever_may_not_look_is_told_nothing(viewer, codename):
    waiting()
    other = User.objects.create_user("other", is_staff=True)
    other.user_permissions.set(Permission.objects.filter(codename=codename))
    assert asks(client_of(other), tag_of(viewer)).status_code == 403
    assert asks(Client(), tag_of(viewer)).status_code == 302


def test_nonsense_is_answered_as_ever(viewer):
    assert asks(viewer, '"x"', nonsense="1").status_code == 302
    assert viewer.post(INBOX, headers={"If-None-Match": tag_of(viewer)}).status_code == 200


def test_an_idle_page_costs_three_queries(viewer):
    conversations(PAGE - 2)
    tag = tag_of(viewer)
    with CaptureQueriesContext(connection) as captured:
        assert asks(viewer, tag).status_code == 304
    # Before them: the session, the user, and what the user may do, as their own and of groups.
    assert len(captured) == 4 + 3


def test_a_page_that_has_changed_is_looked_up_once(viewer):
    conversations(10)
    page(viewer)
    with CaptureQueriesContext(connection) as loaded:
        page(viewer)
    with CaptureQueriesContext(connection) as captured:
        assert asks(viewer, '"another"').status_code == 200
    assert len(captured) == len(loaded)


def test_a_search_does_not_ask(viewer):
    waiting()
    assert 'id="nb-live"' in page(viewer).text
    assert "nb-live" not in page(viewer, q="Hello").text
    assert "inbox.js" not in page(viewer, q="Hello").text
