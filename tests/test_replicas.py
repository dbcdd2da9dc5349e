"""A host that reads from a replica: what must be fresh is read where it was written."""

import pytest

from django_ninebits import inbox, outbox, services
from django_ninebits.exceptions import DeliveryNotUnderstood, NotAccepted
from django_ninebits.models import Contact, Conversation, Message, QuarantinedDelivery
from tests.deliveries import body

pytestmark = pytest.mark.django_db


class ReadsFromAReplica:
    """There is none in the tests, so a row that is read from it cannot be read at all."""

    def db_for_read(self, model, instance=None, **hints):
        ours = {Contact, Conversation, Message, QuarantinedDelivery}
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


def test_a_lost_claim_is_settled():
    message = services.send_sms("+2348020000000", "Hello")
    outbox.claim_due(1)
    long_ago = message.created_at.replace(year=2020)
    Message.objects.using("default").update(claimed_at=long_ago)
    assert outbox.settle_lost() == 1


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
