"""A host that reads from a replica: what must be fresh is read where it was written."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_ninebits import inbox, outbox, services
from django_ninebits.exceptions import DeliveryNotUnderstood, NotAccepted
from django_ninebits.models import (
    Attempt,
    Contact,
    Conversation,
    Message,
    QuarantinedDelivery,
)
from django_ninebits.signals import message_sent
from tests.deliveries import body

pytestmark = pytest.mark.django_db


class ReadsFromAReplica:
    """There is none in the tests, so a row that is read from it cannot be read at all."""

    def db_for_read(self, model, instance=None, **hints):
        ours = {Attempt, Contact, Conversation, Message, QuarantinedDelivery}
        return "replica" if model in ours and instance is None else None

    def db_for_write(self, model, **hints):
        return "default"


@pytest.fixture(autouse=True)
def _replica(settings):
    settings.DATABASE_ROUTERS = [ReadsFromAReplica()]
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.defer"}


def stored(**fields):
    return Message.objects.using("default").get(**fields)


def test_a_redelivery_is_recognised():
    first = inbox.take_in(body()).message
    assert inbox.take_in(body()).message == first


def test_a_text_is_announced_where_its_process_died():
    inbox.take_in(body())
    stored_rows = Message.objects.using("default")
    stored_rows.update(announce_at=stored().created_at)
    assert inbox.announce_overdue() == 1


def test_a_quarantined_delivery_is_taken_in_again():
    inbox.take_in(b"{}")
    row = QuarantinedDelivery.objects.using("default").get()
    with pytest.raises(DeliveryNotUnderstood):
        inbox.take_in_again(row)


def test_a_message_is_claimed_and_its_outcome_recorded():
    message = services.send_sms("+2348020000000", "Hello")
    [claim] = outbox.claim_due(1)
    outbox.record(outbox.Outcome(claim, NotAccepted("busy")))
    assert stored(pk=message.pk).error == "busy"


def test_it_is_known_whether_anything_is_due():
    services.send_sms("+2348020000000", "Hello")
    assert outbox.is_any_due()


def test_what_was_claimed_of_several_is_known(monkeypatch):
    first = services.send_sms("+2348020000000", "Hello")
    second = services.send_sms("+2348020000001", "Hello")

    def claim_the_first(*_):
        Message.objects.using("default").filter(pk=first.pk).update(status="sending", attempts=1)

    monkeypatch.setattr(outbox, "_why_not", claim_the_first)
    assert [claim.message_id for claim in outbox.claim_due(2)] == [second.pk]


def test_what_is_recorded_together_is_announced(django_capture_on_commit_callbacks):
    services.send_sms("+2348020000000", "Hello")
    outcomes = [outbox.Outcome(claim, None) for claim in outbox.claim_due(1)]
    heard = []

    def hear(message, **_):
        heard.append(message.text)

    message_sent.connect(hear, sender=Message)
    with django_capture_on_commit_callbacks(execute=True):
        outbox.record_together(outcomes)
    assert heard == ["Hello"]


def test_what_expired_is_ended():
    services.send_sms("+2348020000000", "Hello", expires_at=timezone.now() + timedelta(hours=1))
    Message.objects.using("default").update(expires_at=timezone.now())
    assert outbox.end_expired() == 1


def test_what_may_not_be_sent_any_more_ends_where_it_would_be_claimed():
    message = services.send_sms("+2348020000000", "Hello")
    Message.objects.using("default").update(give_up_at=message.created_at)
    assert outbox.claim_due(1) == []
    assert stored().status == "failed"


def test_a_lost_claim_is_settled():
    message = services.send_sms("+2348020000000", "Hello")
    outbox.claim_due(1)
    long_ago = message.created_at.replace(year=2020)
    Message.objects.using("default").update(claimed_at=long_ago)
    assert outbox.settle_lost() == 1


def test_an_outcome_that_is_recorded_twice_is_kept_once():
    message = services.send_sms("+2348020000000", "Hello")
    [claim] = outbox.claim_due(1)
    for _ in range(2):
        outbox.record(outbox.Outcome(claim, None))
    assert Attempt.objects.using("default").filter(message=message).count() == 1


def test_of_a_message_that_is_gone_nothing_is_kept():
    services.send_sms("+2348020000000", "Hello")
    [claim] = outbox.claim_due(1)
    Message.objects.using("default").all().delete()
    outbox.record(outbox.Outcome(claim, None))
    assert not Attempt.objects.using("default").exists()


def test_the_same_reference_finds_the_first():
    first = services.send_sms("+2348020000000", "Hello", ref_id="order-1")
    assert services.send_sms("+2348020000000", "Hello", ref_id="order-1") == first


def test_a_bulk_finds_what_is_there():
    bulk = [{"to": "+2348020000000", "text": "Hello", "ref_id": "order-1"}]
    assert [services.send_many(bulk), services.send_many(bulk)] == [1, 0]


def test_a_cancelled_reply_leaves_its_text_waiting():
    inbox.take_in(body())
    text = stored()
    services.cancel(services.reply(text, "Wait"))
    assert Conversation.objects.using("default").get().waiting_since == text.created_at
