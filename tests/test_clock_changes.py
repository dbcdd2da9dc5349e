"""Clocks that are put forward and back, by law or by hand: nothing is sent twice or too early."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from django_ninebits import outbox, services
from django_ninebits.models import Message
from django_ninebits.simulator import Behaviour
from tests.test_worker import Running, eventually, queue, start_worker, statuses

HOUR = timedelta(hours=1)
STEP = timedelta(minutes=10)
BERLIN = ZoneInfo("Europe/Berlin")

#: When clocks there are put back to two, and when they are put forward to three.
BACK = datetime(2026, 10, 25, 1, tzinfo=UTC)
FORWARD = datetime(2027, 3, 28, 1, tzinfo=UTC)


def local(instant):
    """What a clock on the wall in Berlin shows."""
    return instant.astimezone(BERLIN).replace(tzinfo=None)


def instants(wall):
    """Those at which it shows this, or would if it were not put forward: the first and the last."""
    both = [wall.replace(tzinfo=BERLIN, fold=fold).astimezone(UTC) for fold in (0, 1)]
    return min(both), max(both)


class Wall:
    """A clock on a wall in Berlin, for a host that goes by it: ``USE_TZ`` is off."""

    def __init__(self, instant):
        self.instant = instant

    def now(self):
        return local(self.instant)

    def pass_by(self, change):
        """Every ten minutes from three hours before the change until three hours after it."""
        for step in range(-18, 19):
            self.instant = change + step * STEP
            yield self.instant


@pytest.fixture(params=[BACK, FORWARD], ids=["back", "forward"])
def change(request):
    return request.param


@pytest.fixture
def wall(settings, monkeypatch, change):
    settings.USE_TZ, settings.TIME_ZONE = False, "Europe/Berlin"
    made = Wall(change - 4 * HOUR)
    monkeypatch.setattr(timezone, "now", made.now)
    return made


def hours_around(change):
    """What clocks show, or do not show, every ten minutes from one to four on that day."""
    one = local(change).replace(hour=1)
    return [one + step * STEP for step in range(18)]


def send_what_is_due():
    outbox.settle_lost()
    outbox.end_expired()
    while claims := outbox.claim_due(50):
        for claim in claims:
            outbox.record(outbox.attempt(claim))


def tried(wall, change, provider):
    """When each message was tried, by its text."""
    found = defaultdict(list)
    for instant in wall.pass_by(change):
        seen = len(provider.calls)
        send_what_is_due()
        for call in provider.calls[seen:]:
            found[call.body["message"]].append(instant)
    return found


def schedule(name, moments):
    services.send_many(
        {"to": f"080200{n:05}", "text": str(n), name: moment} for n, moment in enumerate(moments)
    )


@pytest.mark.django_db
def test_what_is_scheduled_leaves_once_when_the_clock_shows_it(wall, change, provider):
    wishes = hours_around(change)
    schedule("send_at", wishes)
    left = tried(wall, change, provider)
    for n, wish in enumerate(wishes):
        [instant] = left[str(n)]
        first, last = instants(wish)
        assert first <= instant <= last


@pytest.mark.django_db
def test_a_time_with_a_zone_is_the_first_that_the_clock_shows_so(wall, change, provider):
    wishes = [change + step * STEP for step in range(-12, 12)]
    schedule("send_at", wishes)
    left = tried(wall, change, provider)
    for n, wish in enumerate(wishes):
        assert left[str(n)] == [instants(local(wish))[0]]


@pytest.mark.django_db
def test_what_waits_is_tried_again_and_not_after_it_expired(wall, change, provider):
    provider.behave(Behaviour.status(503))
    limits = hours_around(change)
    schedule("expires_at", limits)
    tries = tried(wall, change, provider)
    for n, limit in enumerate(limits):
        assert tries[str(n)][-1] < instants(limit)[1]
        pauses = [later - one for one, later in pairwise(tries[str(n)])]
        assert max(pauses) <= HOUR + STEP
    assert set(Message.objects.values_list("status", "error")) == {("failed", outbox.EXPIRED)}


@pytest.mark.django_db
def test_what_waits_while_the_clock_is_put_back_is_not_overtaken(wall, change, provider):
    wall.instant = change - STEP
    services.send_sms("08020000000", "first")
    wall.instant = change
    services.send_sms("08020000000", "second")
    tried(wall, change, provider)
    assert [call.body["message"] for call in provider.calls] == ["first", "second"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_machine_whose_clock_jumps_while_it_sends_makes_nothing_uncertain(
    provider, monkeypatch, jump
):
    now = timezone.now
    provider.behave(Behaviour.slow(1.5))
    queue(8)
    with Running(concurrency=4):
        provider.wait_for_calls(4)
        monkeypatch.setattr(timezone, "now", lambda: now() + jump)
        assert outbox.settle_lost() == 0
        with start_worker(provider, "--once") as another:
            assert another.wait(30) == 0
        eventually(lambda: statuses() == ["sent"] * 8)
    assert len(provider.calls) == 8
