"""The life of a message, as hypothesis makes it up: calls, crashes, clocks, answers and people."""

from datetime import timedelta
from itertools import count

import pytest
from django.utils import timezone
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_ninebits import outbox, services
from django_ninebits.exceptions import (
    NotAccepted,
    OptedOut,
    OutcomeUnknown,
    Refused,
    WrongStatus,
)
from django_ninebits.inbox import take_in
from django_ninebits.models import Message
from tests.deliveries import body

#: The moves of the design, and that of a message that waits and may have arrived before.
MOVES = {
    ("queued", "sending"),
    ("queued", "cancelled"),
    ("queued", "failed"),
    ("queued", "uncertain"),
    ("sending", "sent"),
    ("sending", "failed"),
    ("sending", "uncertain"),
    ("sending", "queued"),
    ("uncertain", "sent"),
    ("uncertain", "queued"),
    ("uncertain", "failed"),
    ("failed", "queued"),
}

ANSWERS = {
    "accepted": None,
    "not now": NotAccepted("busy", http_status=503),
    "refused": Refused("no", http_status=422),
    "unknown": OutcomeUnknown("reset"),
}

VERBS = {"retry": services.retry, "confirm": services.confirm, "cancel": services.cancel}


SUBSCRIBERS = count()


def in_status(*statuses):
    return precondition(lambda life: life.status in statuses)


class Life(RuleBasedStateMachine):
    """One message, and all that can happen to it."""

    @initialize(
        override=st.sampled_from([False, False, True]),
        word=st.sampled_from(["START", "START", "STOP"]),
    )
    def begin(self, override, word):
        # A subscriber of its own, so that no message of another life holds it back.
        self.number = f"+234802{next(SUBSCRIBERS):07}"
        self.pk = services.send_sms(self.number, "Hello", override_opt_out=override).pk
        self.status = "queued"
        #: Of which nothing has been recorded: the worker is at it, was killed, or is frozen.
        self.claims = []
        #: Whether an attempt may have arrived that no person has spoken about since.
        self.may_have_arrived = False
        #: Whether the subscriber's latest word forbids it to leave.
        self.is_unwanted = False
        #: Whether a person's latest word is that it must not leave.
        self.is_cancelled = False
        self.may_override = override
        self.the_subscriber_texts(word=word)

    @property
    def message(self):
        return Message.objects.get(pk=self.pk)

    @in_status("queued")
    @rule()
    def a_worker_claims(self):
        found = [claim for claim in outbox.claim_due(50) if claim.message_id == self.pk]
        assert not (found and self.may_have_arrived)
        assert not (found and self.is_unwanted)
        assert not (found and self.is_cancelled)
        # From now on it may have left, whatever becomes of the worker.
        self.may_have_arrived |= bool(found)
        self.claims += found

    @precondition(lambda life: life.claims)
    @rule(which=st.integers(0, 9), answer=st.sampled_from(sorted(ANSWERS)))
    def an_attempt_ends(self, which, answer):
        """The latest one more often than one that was taken for lost long ago."""
        claim = self.claims.pop(-1 if which else 0)
        is_latest = claim.attempt == self.message.attempts
        outbox.record(outbox.Outcome(claim, ANSWERS[answer]))
        self.may_have_arrived &= not (is_latest and answer in {"not now", "refused"})

    @in_status("sending")
    @rule()
    def a_claim_runs_out(self):
        long_ago = timezone.now() - timedelta(hours=1)
        Message.objects.filter(pk=self.pk).update(claimed_at=long_ago)
        outbox.settle_lost()

    @in_status("queued")
    @rule()
    def a_pause_ends(self):
        Message.objects.filter(pk=self.pk).update(due_at=timezone.now())

    @in_status("queued", "sending")
    @rule(field=st.sampled_from(["expires_at", "give_up_at"]))
    def its_time_is_over(self, field):
        Message.objects.filter(pk=self.pk).update(**{field: timezone.now()})
        outbox.end_expired()

    @in_status("queued", "sending", "uncertain", "failed")
    @rule(word=st.sampled_from(["STOP", "START"]))
    def the_subscriber_texts(self, word):
        take_in(body(message=word, from_=self.number, without=["sent_date"]))
        self.is_unwanted = word == "STOP" and not self.may_override

    @rule(verb=st.sampled_from(sorted(VERBS)))
    def a_person_decides(self, verb):
        try:
            VERBS[verb](self.message)
        except (WrongStatus, OptedOut):
            return
        assert not (verb == "retry" and self.is_unwanted)
        self.may_have_arrived &= verb != "retry"
        self.is_cancelled = verb == "cancel"

    @invariant()
    def only_the_moves_of_the_design(self):
        before, self.status = self.status, self.message.status
        assert before == self.status or (before, self.status) in MOVES

    @invariant()
    def what_may_have_arrived_never_ends_as_failed(self):
        assert not (self.status == "failed" and self.message.was_uncertain)

    @invariant()
    def a_person_is_asked_about_what_only_a_person_can_decide(self):
        message = self.message
        asked = message.conversation.undecided_since is not None
        assert asked == message.needs_decision == (message.status in {"failed", "uncertain"})

    @invariant()
    def each_attempt_is_kept_once(self):
        numbers = list(self.message.tries.values_list("number", flat=True))
        assert len(numbers) == len(set(numbers)) <= self.message.attempts


@pytest.mark.django_db
def test_no_life_of_a_message_sends_it_twice_without_a_persons_word(provider):
    run_state_machine_as_test(
        Life, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )
