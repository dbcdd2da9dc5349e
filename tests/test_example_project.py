from importlib import reload

import pytest

from django_ninebits import testing
from django_ninebits.models import Message
from example_project import urls
from example_project.receivers import HELP, answer_help

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("written", ["HELP", "help", " Help\n"])
def test_whoever_texts_help_is_answered_in_the_session_of_the_text(written):
    with testing.outbox() as sent:
        message = testing.receive(written, session_id="session-of-the-text")
        answer_help(message=message)
        sent.run_worker()
    assert [(call.text, call.session_id) for call in sent] == [(HELP, "session-of-the-text")]


def test_a_text_that_is_announced_twice_is_answered_once():
    with testing.outbox():
        message = testing.receive("help")
        answer_help(message=message)
        answer_help(message=message)
    assert Message.objects.filter(direction=Message.Direction.OUTBOUND).count() == 1


def test_another_text_is_left_to_staff():
    with testing.outbox():
        answer_help(message=testing.receive("I need help"))
    assert not Message.objects.filter(direction=Message.Direction.OUTBOUND).exists()


def test_whoever_opted_out_is_not_answered():
    with testing.outbox() as sent:
        testing.receive("STOP")
        answer_help(message=testing.receive("HELP"))
        sent.run_worker()
    assert HELP not in [call.text for call in sent]


@pytest.mark.parametrize("debug", [False, True])
def test_the_phone_is_there_only_under_debug(settings, debug):
    settings.DEBUG = debug
    assert ("phone/" in map(str, (url.pattern for url in reload(urls).urlpatterns))) is debug
