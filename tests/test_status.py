import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_ninebits import inbox, outbox, services, status
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown
from django_ninebits.management.commands import ninebits_status
from django_ninebits.models import Attempt, Heartbeat, Message, QuarantinedDelivery
from tests.deliveries import body
from tests.settings import BASE_DIR
from tests.test_replicas import ReadsFromAReplica

INBOX = reverse("admin:django_ninebits_conversation_changelist")

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _left_to_a_worker(settings):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}


def ago(**time):
    return timezone.now() - timedelta(**time)


def change(message, **fields):
    Message.objects.filter(pk=message.pk).update(**fields)


def queued(**fields):
    """A message to somebody new, with these fields."""
    message = services.send_sms(f"080200{Message.objects.count():05}", "Hello")
    change(message, **fields)
    return message


def told_to_wait(error="9bits answered 503: busy", **fields):
    """A message that is queued again after an attempt."""
    again = {"attempts": 1, "sent_date": ago(minutes=5), "due_at": ago(minutes=-5)}
    return queued(error=error, **again | fields)


def attempted(began_at, error=None):
    """What is kept of an attempt that began then and ended so."""
    message = queued(status="sending", attempts=1)
    outbox.record(outbox.Outcome(outbox.Claim(message.pk, 1, {}, "", "", 0.0), error))
    attempt = Attempt.objects.get(message=message)
    Attempt.objects.filter(pk=attempt.pk).update(began_at=began_at)
    return attempt


def claimed(message):
    [claim] = [claim for claim in outbox.claim_due(9) if claim.message_id == message.pk]
    return claim


def seen(**time):
    """A worker showed that it is there so long ago."""
    Heartbeat.beat()
    Heartbeat.objects.update(beat_at=ago(**time))


def heard(**fields):
    message = inbox.take_in(body(ref_id=str(Message.objects.count()))).message
    change(message, **fields)


def seconds_since(moment):
    return round((timezone.now() - moment).total_seconds())


# What is measured


def test_where_nothing_happened_nothing_waits():
    measured = status.measure()
    assert measured == status.Status(
        measured.measured_at, 0, 0, None, 0, (), 0, 0, 0, 0, None, 0, None, None, None, None
    )


def test_what_is_scheduled_is_queued_and_not_due():
    queued(due_at=ago(hours=-1))
    queued(due_at=ago(hours=1))
    measured = status.measure()
    assert (measured.queued, measured.due) == (2, 1)


def test_the_oldest_is_what_has_been_due_for_longest():
    for minutes in (3, 12, 5):
        queued(due_at=ago(minutes=minutes))
    assert seconds_since(status.measure().oldest_due_at) == 12 * 60


def test_a_pause_does_not_make_a_message_younger():
    queued(created_at=ago(hours=1), due_at=ago(hours=1), give_up_at=ago(hours=-23))
    [claim] = outbox.claim_due(1)
    outbox.record(outbox.Outcome(claim, NotAccepted("busy")))
    measured = status.measure()
    assert (measured.queued, measured.due, measured.tried) == (1, 0, 1)
    assert seconds_since(measured.oldest_due_at) == 3600


def test_a_longer_time_to_give_up_does_not_make_a_message_older(settings):
    told_to_wait(created_at=ago(hours=1), give_up_at=ago(hours=-23))
    settings.NINEBITS = settings.NINEBITS | {"GIVE_UP_AFTER": timedelta(hours=48)}
    assert seconds_since(status.measure().oldest_due_at) == 3600


def test_a_retry_waits_since_it_was_asked_for():
    message = queued(status=Message.Status.FAILED, created_at=ago(days=3), attempts=1)
    change(message, sent_date=ago(days=3))
    message.refresh_from_db()
    services.retry(message)
    assert seconds_since(status.measure().oldest_due_at) < 10


def test_what_is_never_given_up_is_as_old_as_it_has_been_due():
    told_to_wait(due_at=ago(minutes=1), give_up_at=None)
    assert seconds_since(status.measure().oldest_due_at) == 60


def test_reasons_are_counted_the_newest_first():
    told_to_wait("9bits answered 503: a", sent_date=ago(minutes=9))
    told_to_wait("9bits answered 503: b", sent_date=ago(minutes=2))
    told_to_wait("gaierror: unknown", sent_date=ago(minutes=1))
    queued()
    measured = status.measure()
    counted = [(one.reason, one.count) for one in measured.reasons]
    assert counted == [("gaierror: unknown", 1), ("9bits answered 503", 2)]
    assert [seconds_since(one.newest_at) for one in measured.reasons] == [60, 120]
    assert measured.tried == 3


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("9bits answered 503: for 08020000000:\nHello", "9bits answered 503"),
        (
            "9bits answered 200 with status_code 429: Hello",
            "9bits answered 200 with status_code 429",
        ),
        (f"{outbox.GIVEN_UP} 9bits answered 401: Hello", f"{outbox.GIVEN_UP} 9bits answered 401"),
        ("SSLError on the way to 9bits", "SSLError on the way to 9bits"),
    ],
)
def test_a_reason_has_no_words_of_9bits(error, shown):
    told_to_wait(error)
    assert [one.reason for one in status.measure().reasons] == [shown]


def test_what_is_being_sent_and_what_is_undecided_are_counted():
    for name in ["sending", "uncertain", "uncertain", "sent", "failed", "cancelled"]:
        queued(status=name, due_at=ago(hours=1))
    measured = status.measure()
    assert (measured.queued, measured.sending, measured.uncertain) == (0, 1, 2)
    assert (measured.due, measured.oldest_due_at) == (0, None)


def test_what_somebody_decided_about_or_closed_is_decided():
    for _again in range(2):
        outbox.record(outbox.Outcome(claimed(queued()), OutcomeUnknown("reset")))
    measured = status.measure()
    assert (measured.uncertain, measured.undecided) == (2, 2)
    first, second = Message.objects.all()
    services.confirm(first)
    second.conversation.close(second.pk)
    measured = status.measure()
    assert (measured.uncertain, measured.undecided) == (1, 0)


def test_a_delivery_is_quarantined_until_it_is_taken_in():
    row = QuarantinedDelivery.objects.create(body=body(), errors="Once.")
    inbox.take_in(b"{}")
    QuarantinedDelivery.objects.update(received_at=ago(minutes=7))
    assert status.measure().quarantined == 2
    inbox.take_in_again(row)
    measured = status.measure()
    assert (measured.quarantined, seconds_since(measured.last_quarantined_at)) == (1, 7 * 60)


def test_a_text_is_unannounced_once_its_receivers_are_overdue():
    heard(announce_at=None)
    heard(announce_at=ago(minutes=-1))
    heard(announce_at=ago(seconds=1), created_at=ago(seconds=61))
    measured = status.measure()
    assert measured.unannounced == 1
    assert seconds_since(measured.oldest_unannounced_at) == 61


def test_the_last_text_is_the_newest_that_came():
    heard(created_at=ago(hours=1))
    heard(created_at=ago(minutes=5))
    queued()
    assert seconds_since(status.measure().last_text_at) == 5 * 60


def test_the_last_message_accepted_is_that_of_the_last_attempt_that_was():
    attempted(ago(minutes=8))
    attempted(ago(minutes=3))
    attempted(ago(minutes=2), NotAccepted("busy"))
    assert seconds_since(status.measure().last_accepted_at) == 3 * 60


def test_the_last_sign_of_a_worker_is_its_heartbeat():
    assert status.measure().last_worker_at is None
    seen(seconds=40)
    assert seconds_since(status.measure().last_worker_at) == 40


@pytest.mark.parametrize("rows", [0, 12])
def test_measuring_takes_eight_queries_however_much_there_is(django_assert_num_queries, rows):
    for number in range(rows):
        told_to_wait(f"Error{number}: x")
        heard()
        inbox.take_in(b"{}")
    with django_assert_num_queries(8):
        status.measure()


def test_times_are_aware_where_the_host_stores_naive_ones(settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "Africa/Lagos"
    long_ago = datetime(2026, 1, 2, 12)  # noqa: DTZ001 - as this host stores it
    told_to_wait(due_at=long_ago, sent_date=long_ago)
    attempted(long_ago)
    heard(created_at=long_ago, announce_at=long_ago)
    inbox.take_in(b"{}")
    QuarantinedDelivery.objects.update(received_at=long_ago)
    Heartbeat.objects.create(beat_at=long_ago)
    measured = status.measure()
    assert abs(measured.measured_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert {
        measured.oldest_due_at,
        measured.reasons[0].newest_at,
        measured.last_quarantined_at,
        measured.oldest_unannounced_at,
        measured.last_text_at,
        measured.last_accepted_at,
        measured.last_worker_at,
    } == {datetime(2026, 1, 2, 11, tzinfo=UTC)}


def test_what_is_measured_is_where_it_was_written(settings):
    queued(due_at=ago(minutes=12))
    settings.DATABASE_ROUTERS = [ReadsFromAReplica()]
    assert status.measure().queued == status.unattended().count == 1  # type: ignore[union-attr]


# Whether anybody sends


def test_what_is_due_and_not_sent_is_unattended():
    for minutes in (3, 12):
        queued(due_at=ago(minutes=minutes))
    queued()
    backlog = status.unattended()
    assert backlog
    assert (backlog.count, seconds_since(backlog.since)) == (2, 12 * 60)


def test_where_nothing_is_due_for_long_one_query_says_so(django_assert_num_queries):
    queued(due_at=ago(seconds=50))
    queued(due_at=ago(hours=-1))
    with django_assert_num_queries(1):
        assert status.unattended() is None


def test_where_a_worker_is_there_nothing_is_unattended():
    queued(due_at=ago(minutes=30))
    seen(seconds=50)
    assert status.unattended() is None
    seen(seconds=61)
    assert status.unattended()


def test_what_a_web_process_sends_shows_no_worker():
    queued(due_at=ago(minutes=30))
    outbox.send_now(queued().pk)
    assert Attempt.objects.count() == 1
    assert status.unattended()


def test_what_waits_behind_a_claim_that_nobody_settles_is_unattended():
    lost = queued(status="sending", claimed_at=ago(days=1))
    queued(due_at=ago(minutes=4), conversation=lost.conversation)
    assert status.unattended()


def test_a_clock_that_is_slow_sees_a_worker_too():
    queued(due_at=ago(minutes=30))
    seen(minutes=-5)
    assert status.unattended() is None


@pytest.mark.parametrize("rows", [1, 12])
def test_a_backlog_takes_two_queries_however_long_it_is(django_assert_num_queries, rows):
    for _number in range(rows):
        queued(due_at=ago(minutes=12))
    with django_assert_num_queries(2):
        assert status.unattended()


# The command

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
FINE = status.Status(NOON, 0, 0, None, 0, (), 0, 0, 0, 0, None, 0, None, NOON, None, NOON)
BAD = status.Status(
    measured_at=NOON,
    queued=1204,
    due=5,
    oldest_due_at=NOON - timedelta(minutes=12),
    tried=2,
    reasons=(status.Reason("9bits answered 503", 2, NOON - timedelta(seconds=40)),),
    sending=1,
    uncertain=5,
    undecided=3,
    quarantined=4,
    last_quarantined_at=NOON - timedelta(hours=2),
    unannounced=6,
    oldest_unannounced_at=NOON - timedelta(seconds=70),
    last_text_at=NOON - timedelta(days=1, seconds=1),
    last_accepted_at=None,
    last_worker_at=NOON - timedelta(seconds=90),
)


@pytest.fixture
def told(monkeypatch):
    """What the command prints when this was measured; its error, where it ends with one."""

    def told(measured, *arguments):
        monkeypatch.setattr(ninebits_status, "measure", lambda: measured)
        printed = StringIO()
        try:
            call_command("ninebits_status", *arguments, stdout=printed)
        except CommandError as error:
            return printed.getvalue(), error
        return printed.getvalue(), None

    return told


def test_it_is_told_in_words(told):
    assert told(BAD) == (
        """\
queued                    1204
due                          5  the oldest 0:12:00 ago, at 2026-01-02T11:48:00Z
tried before                 2
                             2  9bits answered 503, 0:00:40 ago, at 2026-01-02T11:59:20Z
sending                      1
uncertain                    5  3 to decide about
quarantined                  4  the last 2:00:00 ago, at 2026-01-02T10:00:00Z
unannounced                  6  the oldest 0:01:10 ago, at 2026-01-02T11:58:50Z
last text heard                 1 day, 0:00:01 ago, at 2026-01-01T11:59:59Z
last message accepted           never
last sign of a worker           0:01:30 ago, at 2026-01-02T11:58:30Z
""",
        None,
    )


def test_it_is_told_as_json(told):
    printed, error = told(BAD, "--json")
    assert (json.loads(printed), error) == (
        {
            "measured_at": "2026-01-02T12:00:00Z",
            "queued": 1204,
            "due": 5,
            "oldest_due_at": "2026-01-02T11:48:00Z",
            "oldest_due_seconds": 720,
            "tried": 2,
            "reasons": [
                {
                    "reason": "9bits answered 503",
                    "count": 2,
                    "newest_at": "2026-01-02T11:59:20Z",
                }
            ],
            "sending": 1,
            "uncertain": 5,
            "undecided": 3,
            "quarantined": 4,
            "last_quarantined_at": "2026-01-02T10:00:00Z",
            "last_quarantined_seconds": 7200,
            "unannounced": 6,
            "oldest_unannounced_at": "2026-01-02T11:58:50Z",
            "oldest_unannounced_seconds": 70,
            "last_text_at": "2026-01-01T11:59:59Z",
            "last_text_seconds": 86401,
            "last_accepted_at": None,
            "last_accepted_seconds": None,
            "last_worker_at": "2026-01-02T11:58:30Z",
            "last_worker_seconds": 90,
            "passed": [],
        },
        None,
    )


def test_json_has_the_same_keys_whatever_happened(told):
    fine, bad = (json.loads(told(measured, "--json")[0]) for measured in (FINE, BAD))
    assert list(fine) == list(bad)


def test_what_is_measured_is_printed():
    printed = StringIO()
    queued(due_at=ago(minutes=12))
    call_command("ninebits_status", json=True, stdout=printed)
    assert json.loads(printed.getvalue())["due"] == 1


PASSED = [
    ("--max-queued", 1203, "Queued messages: 1204; 1203 is allowed."),
    ("--max-due-age", 719, "Longest wait of a due message: 0:12:00; 0:11:59 is allowed."),
    (
        "--max-uncertain",
        2,
        "Uncertain messages that nobody has decided about: 3; 2 is allowed.",
    ),
    ("--max-quarantined", 3, "Quarantined deliveries: 4; 3 is allowed."),
    (
        "--max-unannounced-age",
        69,
        "Longest wait of an unannounced text: 0:01:10; 0:01:09 is allowed.",
    ),
    ("--max-silence", 86400, "Silence from 9bits: 1 day, 0:00:01; 1 day, 0:00:00 is allowed."),
    ("--max-worker-silence", 89, "Silence of the workers: 0:01:30; 0:01:29 is allowed."),
]


@pytest.mark.parametrize(("option", "limit", "said"), PASSED)
def test_a_threshold_that_is_passed_is_named_with_what_to_do(told, option, limit, said):
    _printed, error = told(BAD, f"{option}={limit}")
    assert re.fullmatch(rf"{re.escape(said)} \w.+[.?]", str(error))
    assert error.returncode == 2


@pytest.mark.parametrize(("option", "limit"), [row[:2] for row in PASSED])
def test_what_is_at_a_threshold_does_not_pass_it(told, option, limit):
    assert told(BAD, f"{option}={limit + 1}")[1] is None
    assert told(FINE, f"{option}=0")[1] is None


def test_what_it_says_is_what_the_guide_shows(told):
    guide = (BASE_DIR / "docs/howto/monitor.md").read_text()
    printed, error = told(BAD, "--max-due-age=300", "--max-uncertain=0")
    assert f"```text\n{printed}```" in guide
    assert f"```text\nCommandError: {error}\n```" in guide


def test_every_threshold_that_is_passed_is_named(told):
    printed, error = told(BAD, "--json", "--max-uncertain=0", "--max-queued=0", "--max-silence=1")
    assert json.loads(printed)["passed"] == ["max_queued", "max_uncertain", "max_silence"]
    assert len(str(error).splitlines()) == 3


def test_it_is_told_also_where_a_threshold_is_passed(told):
    assert told(BAD, "--max-queued=0")[0] == told(BAD)[0]


def test_where_no_text_ever_came_it_is_silent(told):
    never = replace(FINE, last_text_at=None)
    said = "Silence from 9bits: no text ever came; 1:00:00 is allowed."
    assert said in str(told(never, "--max-silence=3600")[1])


def test_what_a_faster_clock_wrote_has_no_negative_age(told):
    later = replace(FINE, last_text_at=NOON + timedelta(minutes=1))
    assert json.loads(told(later, "--json")[0])["last_text_seconds"] == 0


def test_where_no_worker_was_ever_there_they_are_silent(told):
    never = replace(FINE, last_worker_at=None)
    said = "Silence of the workers: none was ever there; 0:01:00 is allowed."
    assert said in str(told(never, "--max-worker-silence=60")[1])


@pytest.mark.parametrize("limit", ["-1", "1.5", "x", "²", ""])
def test_a_limit_that_is_no_number_is_refused(told, limit):
    assert "--max-queued" in str(told(FINE, f"--max-queued={limit}")[1])


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (OperationalError("text and number"), "The database failed (OperationalError)."),
        (ImproperlyConfigured("GIVE_UP_AFTER is wrong"), "GIVE_UP_AFTER is wrong"),
    ],
)
def test_what_cannot_be_measured_is_unknown(monkeypatch, problem, said):
    def fail():
        raise problem

    monkeypatch.setattr(ninebits_status, "measure", fail)
    with pytest.raises(CommandError) as raised:
        call_command("ninebits_status")
    assert raised.value.returncode == 3
    assert str(raised.value).startswith(said)
    assert "text and number" not in str(raised.value)


def test_a_database_without_tables_makes_the_process_exit_with_3(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "django", "ninebits_status", "--settings", "tests.settings"],
        cwd=BASE_DIR,
        env=os.environ | {"NINEBITS_TEST_DATABASE": f"sqlite:///{tmp_path}/empty"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "has `migrate` been run?" in ended.stderr


# The inbox


@pytest.fixture
def agent(client):
    """A member of staff with the permission to reply, and these."""

    def with_permissions(*codenames):
        user = User.objects.create_user("ada", is_staff=True)
        wanted = ["view_conversation", *codenames]
        user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
        client.force_login(user)
        return client

    return with_permissions


def warnings(response):
    return [str(said) for said in response.context["messages"]]


def test_whoever_may_reply_is_warned_of_a_backlog(agent):
    for minutes in (3, 12):
        queued(due_at=ago(minutes=minutes))
    assert warnings(agent("reply_conversation").get(INBOX)) == [
        "2 messages wait to be sent, the oldest for 12\xa0minutes: is a worker running?"
    ]


def test_a_backlog_of_one_is_one_message(agent, settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "Africa/Lagos"
    queued(due_at=ago(minutes=3))
    assert warnings(agent("reply_conversation").get(INBOX)) == [
        "1 message waits to be sent, for 3\xa0minutes: is a worker running?"
    ]


def test_a_backlog_is_told_in_french(agent, settings):
    settings.LANGUAGE_CODE = "fr"
    queued(due_at=ago(minutes=3))
    assert warnings(agent("reply_conversation").get(INBOX)) == [
        "1 message attend d’être envoyé depuis 3\xa0minutes\xa0: un worker tourne-t-il\xa0?"
    ]


def test_the_warning_leads_to_the_messages_that_wait(agent):
    waiting = queued(due_at=ago(minutes=3))
    queued(status="sent")
    client = agent("reply_conversation", "view_message")
    [said] = warnings(client.get(INBOX))
    [address] = re.findall(r'<a href="([^"]+)">.+</a>', said)
    assert list(client.get(address).context["cl"].result_list) == [waiting]


def test_the_warning_leads_nowhere_where_messages_are_not_registered(agent, monkeypatch):
    client = agent("reply_conversation", "view_message")
    queued(due_at=ago(minutes=3))
    monkeypatch.delitem(admin.site._registry, Message)
    [said] = warnings(client.get(INBOX))
    assert "<a" not in said


def test_whoever_may_not_reply_is_not_warned(agent):
    queued(due_at=ago(minutes=3))
    assert warnings(agent("view_message").get(INBOX)) == []


def test_where_nothing_waits_the_inbox_has_no_warning_and_one_more_query(agent):
    queued()
    client = agent("reply_conversation")
    with CaptureQueriesContext(connection) as queries:
        assert warnings(client.get(INBOX)) == []
    assert len([query for query in queries if "due_at" in query["sql"]]) == 1


def test_a_page_that_leads_elsewhere_keeps_the_warning_for_the_next(agent):
    queued(due_at=ago(minutes=3))
    response = agent("reply_conversation").get(INBOX, {"no_such_field": "1"}, follow=True)
    assert response.redirect_chain
    assert len(warnings(response)) == 1
