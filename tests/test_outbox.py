import random
import re
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, OperationalError, connection, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_ninebits import client, outbox, services
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown, Refused
from django_ninebits.models import Attempt, Contact, Conversation, Message
from django_ninebits.signals import message_failed, message_sent, message_uncertain
from django_ninebits.simulator import Behaviour
from tests.faults import once

pytestmark = pytest.mark.django_db

NUMBER = "+2348020000000"
OTHER = "+2348020000001"
MINUTE = timedelta(minutes=1)
Status = Message.Status


def queued(text="Hello", to=NUMBER, **changes):
    """A queued message; ``changes`` are made to its row."""
    message = services.send_sms(to, text)
    return changed(message, **changes) if changes else message


def changed(message, **changes):
    Message.objects.filter(pk=message.pk).update(**changes)
    return fresh(message)


def opt_out(message):
    Contact.objects.filter(conversations=message.conversation).update(opted_out_at=timezone.now())


def fresh(message):
    return Message.objects.get(pk=message.pk)


def claimed(message):
    claims = [claim for claim in outbox.claim_due(10) if claim.message_id == message.pk]
    return claims[0]


def attempted(message, error=None):
    """The message after an attempt that ended so."""
    outbox.record(outbox.Outcome(claimed(message), error))
    return fresh(message)


def inbound(conversation, text="Hi", **fields):
    return Message.objects.create(
        conversation=conversation, direction="inbound", status="received", text=text, **fields
    )


@pytest.fixture
def heard():
    """Every signal about an outbound message."""
    heard: list[tuple[str, str]] = []

    def receiver(name):
        return lambda message, **_: heard.append((name, message.status))

    receivers = {
        signal: receiver(name)
        for signal, name in [
            (message_sent, "sent"),
            (message_failed, "failed"),
            (message_uncertain, "uncertain"),
        ]
    }
    for signal, hear in receivers.items():
        signal.connect(hear)
    yield heard
    for signal, hear in receivers.items():
        signal.disconnect(hear)


@pytest.fixture(autouse=True)
def settled(provider):
    """Nothing here goes to the network but through the simulator."""
    return provider


# Claiming


def test_a_claim_makes_the_message_sending():
    message = queued()
    claimed(message)
    row = fresh(message)
    assert (row.status, row.attempts) == ("sending", 1)
    assert timezone.now() - MINUTE < row.claimed_at <= timezone.now()


def test_a_claim_has_the_documented_call():
    message = queued("Ẹ káàbọ̀")
    call = claimed(message).call
    sent_date = fresh(message).sent_date.astimezone(UTC)
    assert call == {
        "from": "48974",
        "to": "2348020000000",
        "message": "Ẹ káàbọ̀",
        "session_id": message.session_id,
        "sent_date": sent_date.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "ref_id": message.ref_id,
    }


def test_times_are_utc_for_the_provider_whatever_use_tz(settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "Africa/Lagos"
    sent_date = claimed(queued()).call["sent_date"]
    written = datetime.fromisoformat(sent_date)
    assert abs(datetime.now(UTC) - written) < MINUTE


def test_a_claim_ends_with_its_timeout(settings):
    settings.NINEBITS = settings.NINEBITS | {"TIMEOUT": 7}
    assert 0 < claimed(queued()).deadline - time.monotonic() <= 7


def test_a_claim_shows_no_secret_text_or_number():
    shown = repr(claimed(queued("Private")))
    assert "simulator-token" not in shown
    assert "Private" not in shown
    assert "8020000000" not in shown


def test_a_message_is_claimed_once():
    queued()
    assert len(outbox.claim_due(10)) == 1
    assert outbox.claim_due(10) == []


def test_no_more_is_claimed_than_asked_for():
    for number in (NUMBER, OTHER):
        queued(to=number)
    assert outbox.claim_due(0) == []
    assert len(outbox.claim_due(1)) == 1


def test_what_is_not_due_is_not_claimed():
    message = services.send_sms(NUMBER, "Later", send_at=timezone.now() + MINUTE)
    assert outbox.claim_due(10) == []
    changed(message, due_at=timezone.now() - MINUTE)
    assert len(outbox.claim_due(10)) == 1


@pytest.mark.parametrize("status", set(Status) - {Status.QUEUED})
def test_only_what_is_queued_is_claimed(status):
    queued(status=status)
    assert outbox.claim_due(10) == []
    assert not outbox.is_any_due()


def test_singles_leave_before_bulk():
    services.send_many([{"to": NUMBER, "text": "Bulk"}])
    single = queued(to=OTHER)
    assert outbox.claim_due(1)[0].message_id == single.pk


def test_a_loser_claims_nothing(monkeypatch):
    def meanwhile(*args):
        changed(message, attempts=1)

    message = queued()
    monkeypatch.setattr(outbox, "_why_not", meanwhile)
    assert outbox.claim_due(10) == []
    assert fresh(message).status == "queued"


@pytest.mark.django_db(transaction=True)
def test_a_claim_within_a_transaction_is_refused(provider):
    message = queued()
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        outbox.send_now(message.pk)
    assert fresh(message).status == "queued"
    assert provider.calls == []


@pytest.mark.django_db(transaction=True)
def test_a_claim_is_committed_before_anything_leaves(monkeypatch):
    def send(call, **options):
        seen.append((connection.in_atomic_block, fresh(message).status))

    seen: list[tuple[bool, str]] = []
    message = queued()
    monkeypatch.setattr(client, "send", send)
    outbox.send_now(message.pk)
    assert seen == [(False, "sending")]


@pytest.mark.parametrize("key", ["API_TOKEN", "API_URL", "TIMEOUT"])
def test_wrong_settings_are_told_before_a_claim(settings, key):
    settings.NINEBITS = settings.NINEBITS | {key: ""}
    message = queued()
    with pytest.raises(ImproperlyConfigured, match=key):
        outbox.claim_due(10)
    assert (fresh(message).status, fresh(message).attempts) == ("queued", 0)


@pytest.mark.django_db(transaction=True)
def test_two_claimers_at_once_share_what_is_due():
    for tail in range(8):
        queued(to=f"+23480200000{tail:02}")
    claims: list[outbox.Claim] = []

    def claim():
        for _ in range(4):
            claims.extend(outbox.claim_due(2))
        connection.close()

    threads = [threading.Thread(target=claim) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [claim.message_id for claim in claims + outbox.claim_due(10)]
    assert sorted(ids) == sorted(Message.objects.values_list("pk", flat=True))


# In order


def test_a_conversation_sends_one_message_at_a_time():
    first, second = queued("1"), queued("2")
    claims = outbox.claim_due(10)
    assert [claim.message_id for claim in claims] == [first.pk]
    outbox.record(outbox.Outcome(claims[0], None))
    assert [claim.message_id for claim in outbox.claim_due(10)] == [second.pk]


def test_a_message_that_waits_to_be_tried_again_holds_back_the_next():
    first, second = queued("1"), queued("2")
    attempted(first, NotAccepted("busy"))
    outbox.send_now(second.pk)
    assert fresh(second).status == "queued"


def test_a_scheduled_message_holds_back_nobody():
    services.send_sms(NUMBER, "Later", send_at=timezone.now() + MINUTE)
    second = queued()
    assert [claim.message_id for claim in outbox.claim_due(10)] == [second.pk]


@pytest.mark.parametrize("status", ["sent", "failed", "uncertain", "cancelled"])
def test_what_has_ended_holds_back_nobody(status):
    queued("1", status=status, attempts=1)
    second = queued("2")
    assert [claim.message_id for claim in outbox.claim_due(10)] == [second.pk]


def test_another_conversation_is_not_held_back():
    queued("1"), queued("2")
    third = queued("3", to=OTHER)
    assert third.pk in [claim.message_id for claim in outbox.claim_due(10)]


# What may not be sent any more


def test_what_has_expired_fails_unsent(heard, django_capture_on_commit_callbacks):
    message = queued(expires_at=timezone.now() - MINUTE)
    with django_capture_on_commit_callbacks(execute=True):
        assert outbox.claim_due(10) == []
    row = fresh(message)
    assert (row.status, row.error, row.attempts) == ("failed", outbox.EXPIRED, 0)
    assert heard == [("failed", "failed")]


def test_what_was_not_sent_in_time_is_given_up_with_the_last_reason():
    message = queued(give_up_at=timezone.now() - MINUTE, error="busy")
    outbox.claim_due(10)
    assert fresh(message).status == "failed"
    assert fresh(message).error == f"{outbox.GIVEN_UP} busy"


@pytest.mark.parametrize("allowed", [[], ["08020000001"], (OTHER,)])
def test_who_is_not_in_only_to_gets_nothing(settings, allowed, provider):
    settings.NINEBITS = settings.NINEBITS | {"ONLY_TO": allowed}
    message = queued()
    outbox.send_now(message.pk)
    assert (fresh(message).status, fresh(message).error) == ("failed", "not in ONLY_TO")
    assert provider.calls == []


@pytest.mark.parametrize("written", ["0802 000 0000", "2348020000000", NUMBER])
def test_who_is_in_only_to_is_sent_to(settings, written):
    settings.NINEBITS = settings.NINEBITS | {"ONLY_TO": [OTHER, written]}
    message = queued()
    outbox.send_now(message.pk)
    assert fresh(message).status == "sent"


def test_who_opted_out_since_gets_nothing(provider):
    message = queued()
    opt_out(message)
    outbox.send_now(message.pk)
    assert (fresh(message).status, fresh(message).error) == ("failed", "opted out")
    assert provider.calls == []


def test_who_opted_in_again_before_it_is_due_is_sent_to():
    message = queued()
    opt_out(message)
    Contact.objects.update(opted_out_at=None)
    outbox.send_now(message.pk)
    assert fresh(message).status == "sent"


def test_what_overrides_is_sent_to_who_opted_out():
    message = queued(override_opt_out=True)
    opt_out(message)
    outbox.send_now(message.pk)
    assert fresh(message).status == "sent"


def test_what_may_have_arrived_is_uncertain_when_they_opted_out():
    message = queued(was_uncertain=True)
    opt_out(message)
    outbox.claim_due(10)
    assert (fresh(message).status, fresh(message).error) == ("uncertain", "opted out")


def test_what_only_failed_leaves_more_that_is_due():
    for text in "12":
        queued(text, expires_at=timezone.now() - MINUTE)
    assert outbox.claim_due(1) == []
    assert outbox.is_any_due()


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": timezone.now() - MINUTE},
        {"give_up_at": timezone.now() - MINUTE},
    ],
)
def test_what_may_have_arrived_does_not_end_as_failed(changes):
    message = queued(was_uncertain=True, **changes)
    outbox.claim_due(10)
    assert fresh(message).status == "uncertain"
    assert fresh(message).error


def test_what_may_have_arrived_is_uncertain_when_not_in_only_to(settings):
    settings.NINEBITS = settings.NINEBITS | {"ONLY_TO": []}
    message = queued(was_uncertain=True)
    outbox.claim_due(10)
    assert fresh(message).status == "uncertain"


# Outcomes


def test_an_accepted_message_is_sent(heard, django_capture_on_commit_callbacks):
    message = queued(error="busy")
    with django_capture_on_commit_callbacks(execute=True):
        row = attempted(message)
    assert (row.status, row.error) == ("sent", "")
    assert heard == [("sent", "sent")]


def test_a_refused_message_fails_with_the_providers_words(
    heard, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        row = attempted(queued(), Refused("9bits answered 422: no"))
    assert (row.status, row.error) == ("failed", "9bits answered 422: no")
    assert heard == [("failed", "failed")]


def test_an_unknown_outcome_is_uncertain(heard, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        row = attempted(queued(), OutcomeUnknown("reset"))
    assert (row.status, row.error) == ("uncertain", "reset")
    assert heard == [("uncertain", "uncertain")]


def test_a_message_that_was_not_taken_waits(heard, django_capture_on_commit_callbacks):
    message = queued()
    with django_capture_on_commit_callbacks(execute=True):
        row = attempted(message, NotAccepted("busy"))
    assert (row.status, row.error, row.attempts) == ("queued", "busy", 1)
    assert timezone.now() < row.due_at <= timezone.now() + outbox.FIRST_PAUSE
    assert (row.send_at, row.give_up_at, row.was_uncertain) == (None, message.give_up_at, False)
    assert heard == []


def test_every_attempt_has_the_same_reference_and_its_own_date():
    message = queued()
    first = claimed(message)
    outbox.record(outbox.Outcome(first, NotAccepted("busy")))
    changed(message, due_at=timezone.now())
    second = claimed(message)
    assert second.call["ref_id"] == first.call["ref_id"]
    assert second.call["sent_date"] > first.call["sent_date"]


def test_pauses_double(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    pauses = [outbox._pause(attempts).total_seconds() for attempts in (1, 2, 3, 8, 9)]
    assert pauses == [5, 10, 20, 600, 600]


def test_a_pause_that_ends_just_in_time_is_waited_for(monkeypatch):
    moment = timezone.now()
    monkeypatch.setattr("django.utils.timezone.now", lambda: moment)
    row = attempted(queued(give_up_at=moment + MINUTE), NotAccepted("busy", retry_after=60))
    assert (row.status, row.due_at) == ("queued", moment + MINUTE)


@pytest.mark.parametrize("limit", ["expires_at", "give_up_at"])
def test_at_its_limit_a_message_is_not_sent_any_more(monkeypatch, limit):
    moment = timezone.now()
    message = queued(due_at=moment, **{limit: moment})
    monkeypatch.setattr("django.utils.timezone.now", lambda: moment)
    assert outbox.claim_due(1) == []
    assert fresh(message).status == "failed"


def test_what_is_cancelled_while_it_is_being_claimed_is_not_sent(monkeypatch):
    message = queued()

    def cancel_meanwhile(*_):
        services.cancel(message)

    monkeypatch.setattr(outbox, "_why_not", cancel_meanwhile)
    assert outbox.claim_due(1) == []
    assert fresh(message).status == "cancelled"


def test_an_outcome_is_that_of_one_message():
    first, second = queued(), queued(to=OTHER)
    claims = outbox.claim_due(2)
    outbox.record(outbox.Outcome(claims[1], None))
    assert (fresh(first).status, fresh(second).status) == ("sending", "sent")


@pytest.mark.django_db(transaction=True)
def test_a_thousand_messages_cost_110_statements_fifty_at_a_time(
    django_assert_num_queries, monkeypatch
):
    monkeypatch.setattr(outbox, "LOOK_EVERY", 60.0)
    services.send_many({"to": f"080200{n:05}", "text": "Hello"} for n in range(1000))
    ahead = outbox.Ahead(100)
    # What is next, for two claims; the claim, alone; what became of it, in a transaction.
    with django_assert_num_queries(10 + 20 * (1 + 4)):
        for _ in range(20):
            claims = outbox.claim_due(50, ahead=ahead)
            assert outbox.record_together([outbox.Outcome(claim, None) for claim in claims]) == []
    assert not Message.objects.exclude(status="sent").exists()


def test_the_more_urgent_is_claimed_first_then_what_is_due_the_longest():
    moment = timezone.now()
    bulk = queued(priority=Message.BULK, due_at=moment - 3 * MINUTE)
    late = queued(to=OTHER, due_at=moment - MINUTE)
    early = queued(to="+2348020000002", due_at=moment - 2 * MINUTE)
    claims = outbox.claim_due(2) + outbox.claim_due(2)
    assert [claim.message_id for claim in claims] == [early.pk, late.pk, bulk.pk]


#: What a plan says where the rows are sorted, and so all of them are read before the first.
SORTS = {"sqlite": "TEMP B-TREE", "mysql": "filesort", "postgresql": "Sort"}


def plan(captured_query):
    """How the database goes about it where reading all of a table is not worth it."""
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Of a few rows it would do it all the same.
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"{explain} {captured_query}")
        return str(cursor.fetchall())


def test_what_is_next_is_found_without_sorting_all_that_is_due():
    queued()
    with CaptureQueriesContext(connection) as captured:
        outbox.claim_due(1)
    selecting = captured[0]["sql"]
    assert "ORDER BY" in selecting
    assert SORTS[connection.vendor] not in plan(selecting)


def test_what_is_claimed_and_recorded_is_found_by_its_ids():
    """The indexes on the status list for long what had it of late."""
    queued()
    with CaptureQueriesContext(connection) as captured:
        claims = outbox.claim_due(1)
        outbox.record_together([outbox.Outcome(claim, None) for claim in claims])
    updates = [query["sql"] for query in captured if query["sql"].startswith("UPDATE")]
    assert len(updates) == 2
    for update in updates:
        assert not {"ninebits_due", "ninebits_expiry"} & set(re.findall(r"\w+", plan(update)))


def test_what_others_claim_meanwhile_is_left_to_them(monkeypatch):
    first, second = queued(), queued(to=OTHER)

    def claim_the_first(*_):
        changed(first, status="sending", attempts=1)

    monkeypatch.setattr(outbox, "_why_not", claim_the_first)
    assert [claim.message_id for claim in outbox.claim_due(2)] == [second.pk]
    assert (fresh(first).attempts, fresh(second).attempts) == (1, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_done", [False, True])
def test_a_claim_of_which_the_connection_says_nothing_is_looked_for(is_done, monkeypatch):
    message, moved, tries = queued(), outbox._moved, []

    def break_off(*claim):
        tries.append(claim)
        if len(tries) == 1:
            if is_done:
                moved(*claim)
            raise OperationalError("gone")
        return moved(*claim)

    monkeypatch.setattr(outbox, "_moved", break_off)
    assert [(claim.message_id, claim.attempt) for claim in outbox.claim_due(1)] == [(message.pk, 1)]
    assert (fresh(message).status, fresh(message).attempts, len(tries)) == ("sending", 1, 2)


@pytest.mark.django_db(transaction=True)
def test_a_claim_that_others_hold_up_is_made_once_they_let_go(monkeypatch):
    message, moved, tries = queued(), outbox._moved, []

    def deadlock(*claim):
        tries.append(claim)
        if len(tries) == 1:
            raise OperationalError(1213, "Deadlock found when trying to get lock")
        return moved(*claim)

    monkeypatch.setattr(outbox, "_moved", deadlock)
    assert [claim.message_id for claim in outbox.claim_due(1)] == [message.pk]


@pytest.mark.django_db(transaction=True)
def test_nothing_is_claimed_where_nothing_commits_by_itself():
    message = queued()
    connection.set_autocommit(False)
    with pytest.raises(ImproperlyConfigured, match="AUTOCOMMIT"):
        outbox.claim_due(1)
    connection.rollback()
    connection.set_autocommit(True)
    assert fresh(message).status == "queued"


@pytest.mark.django_db(transaction=True)
def test_nothing_is_claimed_within_a_transaction_of_the_hosts():
    message = queued()
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        outbox.claim_due(1)
    assert fresh(message).status == "queued"


def several(number, **kwargs):
    return [queued(to=f"+23480900000{tail:02}", **kwargs) for tail in range(number)]


def ids_of(claims):
    return [claim.message_id for claim in claims]


@pytest.fixture
def far_ahead(monkeypatch):
    """As if no time passed between two claims."""
    monkeypatch.setattr(outbox, "LOOK_EVERY", 60.0)
    monkeypatch.setattr(outbox, "SHARED_FOR", 60.0)
    return outbox.Ahead(4)


def test_a_worker_looks_once_for_several_claims(far_ahead):
    messages = several(4)
    with CaptureQueriesContext(connection) as captured:
        claims = outbox.claim_due(1, ahead=far_ahead) + outbox.claim_due(3, ahead=far_ahead)
    assert ids_of(claims) == [message.pk for message in messages]
    assert len([query for query in captured if "ORDER BY" in query["sql"]]) == 1


def test_a_worker_looks_again_where_it_has_found_too_few(far_ahead):
    several(6)
    assert len(outbox.claim_due(2, ahead=far_ahead)) == 2
    assert len(outbox.claim_due(4, ahead=far_ahead)) == 4


def test_what_comes_meanwhile_waits_for_the_next_look(far_ahead):
    several(3, priority=Message.BULK)
    outbox.claim_due(1, ahead=far_ahead)
    urgent = queued()
    assert urgent.pk not in ids_of(outbox.claim_due(1, ahead=far_ahead))


def test_what_was_found_serves_only_for_a_moment(monkeypatch):
    monkeypatch.setattr(outbox, "LOOK_EVERY", 0.0)
    several(3, priority=Message.BULK)
    ahead = outbox.Ahead(3)
    outbox.claim_due(1, ahead=ahead)
    urgent = queued()
    assert ids_of(outbox.claim_due(1, ahead=ahead)) == [urgent.pk]


@pytest.mark.parametrize(
    "changes", [{"status": "cancelled"}, {"status": "sending", "attempts": 1}, {"attempts": 1}]
)
def test_what_has_changed_since_it_was_found_is_not_claimed(far_ahead, changes):
    _first, second, third = several(3)
    outbox.claim_due(1, ahead=far_ahead)
    changed(second, **changes)
    assert ids_of(outbox.claim_due(2, ahead=far_ahead)) == [third.pk]


def test_what_has_expired_since_it_was_found_is_not_claimed(far_ahead):
    _first, second = several(2, expires_at=timezone.now() + timedelta(seconds=0.3))
    outbox.claim_due(1, ahead=far_ahead)
    time.sleep(0.3)
    assert outbox.claim_due(1, ahead=far_ahead) == []
    assert (fresh(second).status, fresh(second).error) == ("failed", outbox.EXPIRED)


@pytest.mark.parametrize("changes", [{"status": "sent"}, {"attempts": 1}])
def test_what_has_changed_since_it_was_found_does_not_end(far_ahead, changes):
    _first, second = several(2)
    changed(second, give_up_at=timezone.now())
    outbox.claim_due(1, ahead=far_ahead)
    changed(second, **changes)
    assert outbox.claim_due(1, ahead=far_ahead) == []
    assert fresh(second).status == changes.get("status", "queued")


def lose_a_claim(ahead):
    """To another worker → what is left."""
    _first, second, third, fourth = several(4, priority=Message.BULK)
    outbox.claim_due(1, ahead=ahead)
    changed(second, status="sending", attempts=1)
    assert outbox.claim_due(1, ahead=ahead) == []
    return third, fourth


def test_whoever_lost_a_claim_begins_elsewhere_but_with_what_is_urgent(far_ahead, monkeypatch):
    monkeypatch.setattr(random, "shuffle", list.reverse)
    third, fourth = lose_a_claim(far_ahead)
    urgent = queued()
    claims = outbox.claim_due(3, ahead=far_ahead)
    assert ids_of(claims) == [urgent.pk, fourth.pk, third.pk]


def test_a_while_after_a_lost_claim_all_leave_in_their_order_again(far_ahead, monkeypatch):
    monkeypatch.setattr(random, "shuffle", list.reverse)
    monkeypatch.setattr(outbox, "SHARED_FOR", 0.0)
    third, fourth = lose_a_claim(far_ahead)
    assert ids_of(outbox.claim_due(2, ahead=far_ahead)) == [third.pk, fourth.pk]


def test_messages_of_several_attempts_are_claimed_together():
    first, second = queued(), queued(to=OTHER, attempts=3)
    claims = outbox.claim_due(2)
    assert [(claim.message_id, claim.attempt) for claim in claims] == [
        (first.pk, 1),
        (second.pk, 4),
    ]


@pytest.mark.parametrize("error", [Refused("no"), OutcomeUnknown("silence")])
def test_a_conversation_whose_message_went_wrong_needs_a_decision(error):
    message = attempted(queued(), error)
    assert message.conversation.undecided_since == message.created_at


def test_the_conversation_is_written_before_a_message_that_fails():
    message = queued()
    with CaptureQueriesContext(connection) as captured:
        outbox.end(message, "refused")
    updates = [query["sql"] for query in captured if query["sql"].startswith("UPDATE")]
    tables = ["conversation" in sql.split("SET")[0] for sql in updates]
    assert tables == [True, False, True]
    assert f"= {message.conversation_id}" in updates[0]


def test_retry_after_is_honoured():
    row = attempted(queued(), NotAccepted("busy", retry_after=3600))
    assert row.due_at > timezone.now() + 59 * MINUTE


def test_a_short_retry_after_does_not_shorten_the_pause():
    row = attempted(queued(), NotAccepted("busy", retry_after=0.0))
    assert row.due_at > timezone.now() + timedelta(seconds=1)


def test_pauses_grow_up_to_ten_minutes():
    pauses = [max(outbox._pause(n) for _ in range(50)) for n in (1, 3, 5, 7)]
    assert pauses == sorted(pauses)
    for attempts in (1, 20, 10_000):
        pause = outbox._pause(attempts)
        assert timedelta(seconds=2.5) <= pause <= outbox.LONGEST_PAUSE
    assert outbox._pause(10_000) >= outbox.LONGEST_PAUSE / 2


def almost_given_up(**changes):
    """The next pause would be longer than it may wait."""
    return queued(attempts=20, give_up_at=timezone.now() + MINUTE, **changes)


def test_what_would_wait_for_too_long_is_given_up():
    row = attempted(almost_given_up(), NotAccepted("busy"))
    assert (row.status, row.error) == ("failed", f"{outbox.GIVEN_UP} busy")


def test_what_is_asked_to_wait_for_too_long_is_tried_as_if_it_was_not():
    row = attempted(queued(give_up_at=timezone.now() + MINUTE), NotAccepted("busy", retry_after=61))
    assert row.status == "queued"
    assert row.due_at <= timezone.now() + outbox.FIRST_PAUSE


def test_a_pause_ends_when_the_message_expires():
    expires_at = timezone.now() + MINUTE
    row = attempted(queued(expires_at=expires_at), NotAccepted("busy", retry_after=61))
    assert (row.status, row.due_at) == ("queued", fresh(row).expires_at)


@pytest.mark.parametrize("error", [Refused("no"), OutcomeUnknown("reset"), NotAccepted("busy")])
def test_after_an_uncertain_attempt_nothing_ends_as_failed(error):
    row = attempted(almost_given_up(was_uncertain=True), error)
    assert row.status == "uncertain"
    assert error.reason in row.error


def test_after_an_uncertain_attempt_it_can_still_be_sent():
    assert attempted(queued(was_uncertain=True)).status == "sent"


def test_after_an_uncertain_attempt_it_can_still_wait():
    row = attempted(queued(was_uncertain=True), NotAccepted("busy"))
    assert (row.status, row.was_uncertain) == ("queued", True)


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (Behaviour.accept(), "sent"),
        (Behaviour.status(429), "queued"),
        (Behaviour.status(400), "failed"),
        (Behaviour.status(500), "uncertain"),
        (Behaviour.reset(), "uncertain"),
    ],
)
def test_what_became_of_a_call_is_recorded(provider, behaviour, status):
    provider.behave(behaviour)
    message = queued()
    outbox.send_now(message.pk)
    assert fresh(message).status == status
    assert len(provider.calls) == 1


@pytest.mark.django_db(transaction=True)
def test_what_became_of_a_call_is_recorded_though_the_database_fails_once(provider, monkeypatch):
    calls = once(monkeypatch, outbox, "record", OperationalError("gone"))
    message = queued()
    outbox.send_now(message.pk)
    assert (fresh(message).status, len(provider.calls), len(calls)) == ("sent", 1, 2)


def test_sending_now_again_does_nothing(provider):
    message = queued()
    outbox.send_now(message.pk)
    outbox.send_now(message.pk)
    assert len(provider.calls) == 1


def test_a_claim_that_is_too_old_is_not_sent(settings, provider):
    settings.NINEBITS = settings.NINEBITS | {"TIMEOUT": 0.01}
    message = queued()
    claim = claimed(message)
    time.sleep(0.02)
    outbox.record(outbox.attempt(claim))
    assert (provider.calls, fresh(message).status) == ([], "queued")


def test_a_claim_is_too_old_also_where_the_machine_slept_since(monkeypatch, provider):
    message = queued()
    claim = claimed(message)
    later = time.time() + 11
    monkeypatch.setattr(time, "time", lambda: later)
    outbox.record(outbox.attempt(claim))
    assert (provider.calls, fresh(message).status) == ([], "queued")
    assert "slept" in fresh(message).error


# Bulk that is tried again


def bulk():
    services.send_many([{"to": NUMBER, "text": "bulk"}])
    return Message.objects.get()


def test_bulk_that_is_told_to_wait_takes_the_priority_of_a_reply_after_it():
    message = bulk()
    claim = claimed(message)
    queued("reply")
    outbox.record(outbox.Outcome(claim, NotAccepted("busy")))
    assert (fresh(message).status, fresh(message).priority) == ("queued", Message.SINGLE)


def test_bulk_that_a_person_retries_takes_the_priority_of_a_reply_after_it():
    message = attempted(bulk(), Refused("no"))
    queued("reply")
    assert services.retry(message).priority == fresh(message).priority == Message.SINGLE


@pytest.mark.parametrize("changes", [{"status": "sent"}, {"status": "cancelled"}])
def test_bulk_that_nothing_waits_behind_stays_bulk(changes):
    message = bulk()
    claim = claimed(message)
    queued("reply", **changes)
    queued("reply", to=OTHER)
    outbox.record(outbox.Outcome(claim, NotAccepted("busy")))
    assert (fresh(message).status, fresh(message).priority) == ("queued", Message.BULK)


# Late, lost and stale


def lost(message):
    """Its claim ran out with nothing recorded."""
    claim = claimed(message)
    changed(message, claimed_at=timezone.now() - 5 * MINUTE)
    return claim


def test_a_lost_claim_becomes_uncertain(heard, django_capture_on_commit_callbacks):
    message = queued()
    lost(message)
    with django_capture_on_commit_callbacks(execute=True):
        assert outbox.settle_lost() == 1
    assert (fresh(message).status, fresh(message).error) == ("uncertain", outbox.LOST)
    assert heard == [("uncertain", "uncertain")]
    assert outbox.settle_lost() == 0


def test_a_claim_is_not_lost_before_its_deadline_and_grace(settings):
    settings.NINEBITS = settings.NINEBITS | {"TIMEOUT": 100}
    message = queued()
    claimed(message)
    changed(message, claimed_at=timezone.now() - timedelta(seconds=105))
    assert outbox.settle_lost() == 0
    changed(message, claimed_at=timezone.now() - timedelta(seconds=111))
    assert outbox.settle_lost() == 1


def test_a_claim_is_dated_by_the_clock_of_the_database(monkeypatch):
    message, now = queued(), timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now + 60 * MINUTE)
    claimed(message)
    assert outbox.settle_lost() == 0
    monkeypatch.undo()
    age = timezone.now() - fresh(message).claimed_at
    assert timedelta(seconds=-1) < age < MINUTE


def test_a_claim_does_not_run_out_because_a_server_puts_its_clock_forward(settings):
    settings.USE_TZ = False
    settings.TIME_ZONE = "Pacific/Kiritimati"
    claimed(queued())
    assert outbox.settle_lost() == 0


def test_what_expired_is_ended_wherever_it_waits(heard, django_capture_on_commit_callbacks):
    now = timezone.now()
    held_back, scheduled = queued("one"), queued("two", send_at=now + MINUTE)
    changed(held_back, expires_at=now)
    changed(scheduled, expires_at=now)
    with django_capture_on_commit_callbacks(execute=True):
        assert outbox.end_expired() == 2
    assert {(fresh(m).status, fresh(m).error) for m in (held_back, scheduled)} == {
        ("failed", outbox.EXPIRED)
    }
    assert len(heard) == 2


def test_what_has_not_expired_goes_on_waiting():
    queued(expires_at=timezone.now() + MINUTE)
    queued()
    assert outbox.end_expired() == 0


@pytest.mark.parametrize("status", set(Status) - {Status.QUEUED})
def test_only_what_waits_can_expire(status):
    changed(queued(), expires_at=timezone.now(), status=status)
    assert outbox.end_expired() == 0


def test_another_message_is_claimed_where_there_is_one():
    first, second = queued(), queued(to=OTHER)
    [claim] = outbox.claim_due(1, rather_than=first.pk)
    assert claim.message_id == second.pk
    [claim] = outbox.claim_due(1, rather_than=first.pk)
    assert claim.message_id == first.pk


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "sent", ""),
        (NotAccepted("busy"), "queued", "busy"),
        (Refused("no"), "failed", "no"),
        (OutcomeUnknown("reset"), "uncertain", outbox.LOST),
    ],
)
def test_what_a_lost_attempt_learns_late_still_counts(error, status, reason):
    message = queued()
    claim = lost(message)
    outbox.settle_lost()
    outbox.record(outbox.Outcome(claim, error))
    row = fresh(message)
    assert (row.status, row.error, row.was_uncertain) == (status, reason, False)


def test_a_late_refusal_after_an_uncertain_attempt_is_uncertain(
    heard, django_capture_on_commit_callbacks
):
    message = queued(was_uncertain=True)
    claim = lost(message)
    outbox.settle_lost()
    with django_capture_on_commit_callbacks(execute=True):
        outbox.record(outbox.Outcome(claim, Refused("no")))
    assert (fresh(message).status, fresh(message).error) == ("uncertain", "no")
    assert heard == []


def test_what_was_retried_and_cancelled_is_not_set_going_by_what_is_learnt_late():
    message = queued()
    claim = lost(message)
    outbox.settle_lost()
    services.cancel(services.retry(message))
    outbox.record(outbox.Outcome(claim, NotAccepted("busy")))
    assert (fresh(message).status, outbox.claim_due(1)) == ("uncertain", [])
    assert [attempt.answer for attempt in message.tries.all()] == ["busy"]


@pytest.mark.parametrize("error", [NotAccepted("busy"), Refused("no")])
def test_what_is_retried_and_cancelled_just_then_is_not_set_going_either(error):
    message = queued()
    lost(message)
    outbox.settle_lost()
    stale = fresh(message)
    services.cancel(services.retry(message))
    assert not outbox._settle(stale, error)
    assert (fresh(message).status, outbox.claim_due(1)) == ("uncertain", [])


@pytest.mark.parametrize("error", [None, NotAccepted("x"), Refused("x"), OutcomeUnknown("x")])
@pytest.mark.parametrize(
    "changes",
    [
        {"attempts": 2},
        {"attempts": 2, "status": "uncertain"},
        {"status": "queued"},
        {"status": "sent"},
        {"status": "failed"},
        {"status": "cancelled"},
    ],
)
def test_an_outcome_of_what_has_moved_on_changes_nothing(changes, error):
    message = queued()
    claim = claimed(message)
    before = values(changed(message, **changes))
    outbox.record(outbox.Outcome(claim, error))
    assert values(message) == before


def values(message):
    return Message.objects.filter(pk=message.pk).values().get()


def test_an_outcome_of_what_is_gone_changes_nothing():
    message = queued()
    claim = claimed(message)
    Message.objects.filter(pk=message.pk).delete()
    outbox.record(outbox.Outcome(claim, None))
    assert not Message.objects.exists()


@pytest.mark.parametrize("changes", [{"status": "cancelled"}, {"attempts": 1}])
def test_a_stale_move_changes_nothing(heard, changes, django_capture_on_commit_callbacks):
    stale = queued()
    before = values(changed(stale, **changes))
    with django_capture_on_commit_callbacks(execute=True):
        assert not outbox.move(stale, Status.FAILED, error="x")
    assert (values(stale), stale.status, heard) == (before, "queued", [])


def test_a_wait_that_somebody_forestalled_changes_nothing(monkeypatch):
    def pause(*args):
        changed(message, status="sent")
        return timedelta()

    message = queued()
    monkeypatch.setattr(outbox, "_pause", pause)
    assert attempted(message, NotAccepted("busy")).status == "sent"


# Recording together


def together(*errors):
    """So many messages with the outcomes of their attempts."""
    messages = [queued(to=f"+23480200001{n:02}") for n in range(len(errors))]
    claims = sorted(outbox.claim_due(len(errors)), key=lambda claim: claim.message_id)
    outcomes = [outbox.Outcome(*both) for both in zip(claims, errors, strict=True)]
    return messages, outcomes


def test_what_was_accepted_is_recorded_together_and_the_rest_is_left():
    messages, outcomes = together(None, Refused("no"), None)
    assert outbox.record_together(outcomes) == outcomes[1:2]
    assert [fresh(message).status for message in messages] == ["sent", "sending", "sent"]


def test_of_each_that_is_recorded_together_the_attempt_is_kept():
    messages, outcomes = together(None, None)
    outbox.record_together(outcomes)
    kept = Attempt.objects.order_by("message_id").values_list("message_id", "number", "outcome")
    assert list(kept) == [(message.pk, 1, "accepted") for message in messages]


def test_an_earlier_error_goes_with_success():
    messages, outcomes = together(None, None)
    changed(messages[0], error="busy")
    outbox.record_together(outcomes)
    assert fresh(messages[0]).error == ""


def test_where_none_was_accepted_nothing_is_asked(django_assert_num_queries):
    _messages, outcomes = together(Refused("no"), NotAccepted("busy"))
    with django_assert_num_queries(0):
        assert outbox.record_together(outcomes) == outcomes


def test_where_one_was_taken_for_lost_none_is_recorded_together():
    messages, outcomes = together(None, None)
    changed(messages[0], status="uncertain")
    assert outbox.record_together(outcomes) == outcomes
    assert [fresh(message).status for message in messages] == ["uncertain", "sending"]
    assert not Attempt.objects.exists()


@pytest.mark.parametrize("error", [DataError("x"), OperationalError("deadlock")])
def test_where_the_database_will_not_none_is_recorded_together(monkeypatch, error):
    messages, outcomes = together(None, None)

    def bulk_create(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(QuerySet, "bulk_create", bulk_create)
        assert outbox.record_together(outcomes) == outcomes
    assert {fresh(message).status for message in messages} == {"sending"}


def test_receivers_hear_of_each_that_is_recorded_together(
    heard, django_capture_on_commit_callbacks
):
    _messages, outcomes = together(None, Refused("no"), None)
    with django_capture_on_commit_callbacks(execute=True):
        outbox.record_together(outcomes)
    assert heard == [("sent", "sent")] * 2


def test_where_nobody_listens_no_message_is_read_for_them(django_capture_on_commit_callbacks):
    _messages, outcomes = together(None)
    reading = CaptureQueriesContext(connection)
    with reading as captured, django_capture_on_commit_callbacks(execute=True):
        outbox.record_together(outcomes)
    assert not [query for query in captured if query["sql"].startswith("SELECT")]


def test_a_move_changes_the_instance_too():
    message = queued()
    assert outbox.end(message, "no")
    assert (message.status, message.error) == ("failed", "no")


@pytest.mark.django_db(transaction=True)
def test_no_signal_comes_of_what_was_rolled_back(heard):
    message = queued()
    with transaction.atomic():
        outbox.end(message, "no")
        transaction.set_rollback(True)
    assert (fresh(message).status, heard) == ("queued", [])


@pytest.mark.django_db(transaction=True)
def test_two_sweeps_at_once_settle_a_claim_once(heard):
    lost(queued())
    counts: list[int] = []

    def sweep():
        counts.append(outbox.settle_lost())
        connection.close()

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(counts), heard) == (1, [("uncertain", "uncertain")])


# Who is waiting


@pytest.fixture
def waiting():
    """A conversation in which a text has just been answered → conversation, text, answer."""
    conversation = queued().conversation
    Message.objects.all().delete()
    text = inbound(conversation)
    return conversation, text, services.reply(conversation, "Yes")


def waiting_since(conversation):
    return Conversation.objects.get(pk=conversation.pk).waiting_since


def test_an_answer_ends_the_waiting(waiting):
    assert waiting_since(waiting[0]) is None


def test_a_failed_answer_was_none(waiting):
    conversation, text, answer = waiting
    attempted(answer, Refused("no"))
    assert waiting_since(conversation) == fresh(text).created_at


@pytest.mark.parametrize("error", [None, NotAccepted("busy"), OutcomeUnknown("reset")])
def test_an_answer_that_did_not_fail_is_one(waiting, error):
    attempted(waiting[2], error)
    assert waiting_since(waiting[0]) is None


def test_a_failed_answer_after_another_changes_nothing(waiting):
    conversation, _text, answer = waiting
    services.reply(conversation, "And more")
    attempted(answer, Refused("no"))
    assert waiting_since(conversation) is None


def test_an_answer_answers_only_what_came_before(waiting):
    conversation, _text, answer = waiting
    attempted(answer)
    later = inbound(conversation, "Hello?")
    attempted(services.reply(conversation, "Now"), Refused("no"))
    assert waiting_since(conversation) == fresh(later).created_at


# Logs


def test_logs_show_no_number_text_or_token(provider, caplog):
    caplog.set_level("DEBUG")
    provider.behave(Behaviour.status(429, b"2348020000000 got: Private (simulator-token)"))
    message = queued("Private")
    outbox.send_now(message.pk)
    assert fresh(message).status == "queued"
    logged = "".join(r.getMessage() for r in caplog.records if r.name != "django.db.backends")
    assert "…0000" in logged
    for secret in ("8020000000", "Private", "simulator-token"):
        assert secret not in logged
    assert "simulator-token" not in fresh(message).error


# What is kept of attempts


def tries(message):
    return list(message.tries.values_list("number", "outcome", "http_status", "answer"))


@pytest.mark.parametrize(
    ("behaviour", "outcome", "http_status", "answer"),
    [
        (Behaviour.not_json(), "accepted", 200, "OK"),
        (Behaviour.status(422, b"No"), "refused", 422, "9bits answered 422: No"),
        (Behaviour.status(503, b"Busy"), "not_accepted", 503, "9bits answered 503: Busy"),
        (Behaviour.status(500, b"Oh"), "unknown", 500, "9bits answered 500: Oh"),
    ],
)
def test_an_attempt_is_kept_with_its_answer(provider, behaviour, outcome, http_status, answer):
    provider.then(behaviour)
    message = queued()
    outbox.send_now(message.pk)
    assert tries(message) == [(1, outcome, http_status, answer)]


def test_an_attempt_without_an_answer_is_kept_with_the_reason(provider):
    provider.then(Behaviour.silent(0))
    message = queued()
    outbox.send_now(message.pk)
    [(_number, outcome, http_status, answer)] = tries(message)
    assert (outcome, http_status) == ("unknown", None)
    assert answer == fresh(message).error != ""


def test_an_attempt_is_kept_with_its_time_and_how_long_it_took(provider):
    provider.then(Behaviour.slow(0.1))
    message = queued()
    outbox.send_now(message.pk)
    [attempt] = message.tries.all()
    assert timezone.now() - MINUTE < attempt.began_at < timezone.now()
    assert 0.1 <= attempt.seconds < 5


def test_each_attempt_is_kept(provider):
    provider.then(Behaviour.status(503))
    message = queued()
    outbox.send_now(message.pk)
    changed(message, due_at=timezone.now())
    outbox.send_now(message.pk)
    assert [(number, outcome) for number, outcome, *_rest in tries(message)] == [
        (1, "not_accepted"),
        (2, "accepted"),
    ]


def test_an_echoed_token_is_not_kept(provider, settings):
    settings.NINEBITS |= {"API_TOKEN": provider.token}
    provider.then(Behaviour.status(400, f"Bad token {provider.token}".encode()))
    message = queued()
    outbox.send_now(message.pk)
    assert tries(message)[0][3] == "9bits answered 400: Bad token ***"


def test_a_lost_attempt_is_kept_as_unknown():
    message = queued()
    lost(message)
    outbox.settle_lost()
    [attempt] = message.tries.all()
    assert (attempt.number, attempt.outcome, attempt.answer) == (1, "unknown", outbox.LOST)
    assert (attempt.began_at, attempt.seconds) == (fresh(message).sent_date, None)


def test_a_lost_attempt_began_when_the_clock_on_the_wall_said_so(settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "Africa/Lagos"
    message = queued()
    claimed(message)
    changed(message, claimed_at=timezone.now() - 5000 * MINUTE)
    outbox.settle_lost()
    assert abs(timezone.now() - message.tries.get().began_at) < MINUTE


def test_a_lost_claim_that_another_sweep_has_just_settled_is_not_settled_again(monkeypatch):
    message = queued()
    lost(message)
    monkeypatch.setattr(outbox, "move", lambda *args, **changes: False)
    assert (outbox.settle_lost(), tries(message)) == (0, [])


def test_what_a_lost_attempt_learns_late_is_kept_instead():
    message = queued()
    claim = lost(message)
    outbox.settle_lost()
    outbox.record(outbox.Outcome(claim, Refused("No", http_status=422)))
    assert tries(message) == [(1, "refused", 422, "No")]


def test_what_is_learnt_late_is_kept_of_that_attempt_alone():
    message = queued()
    attempted(message, Refused("busy"))
    other = queued(to=OTHER)
    attempted(other, Refused("busy"))
    changed(message, status="queued")
    claim = lost(message)
    changed(other, status="queued")
    attempted(other, Refused("busy"))
    outbox.settle_lost()
    outbox.record(outbox.Outcome(claim, Refused("No")))
    assert [said for *_, said in tries(message)] == ["busy", "No"]
    assert [said for *_, said in tries(other)] == ["busy", "busy"]


def test_what_an_attempt_learns_of_a_message_that_has_moved_on_is_kept():
    message = queued()
    claim = claimed(message)
    changed(message, status="cancelled")
    outbox.record(outbox.Outcome(claim, None))
    assert tries(message) == [(1, "accepted", None, "")]


def test_an_outcome_that_is_recorded_twice_is_kept_once():
    message = queued()
    claim = claimed(message)
    outbox.record(outbox.Outcome(claim, None))
    outbox.record(outbox.Outcome(claim, None))
    assert tries(message) == [(1, "accepted", None, "")]


@pytest.mark.parametrize("error", [None, NotAccepted("busy"), Refused("no"), OutcomeUnknown("x")])
def test_an_outcome_counts_though_a_sweep_is_quicker(monkeypatch, error):
    def move(message, to, **changes):
        monkeypatch.undo()
        changed(message, claimed_at=timezone.now() - 5 * MINUTE)
        outbox.settle_lost()
        return real(message, to, **changes)

    message = queued()
    claim, real = claimed(message), outbox.move
    monkeypatch.setattr(outbox, "move", move)
    outbox.record(outbox.Outcome(claim, error))
    status = {None: "sent", NotAccepted: "queued", Refused: "failed", OutcomeUnknown: "uncertain"}
    assert fresh(message).status == status[error and type(error)]
    assert len(tries(message)) == 1
