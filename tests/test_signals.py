import pytest
from django.dispatch import Signal

from django_ninebits import signals
from django_ninebits.signals import announce


class Text:
    pass


@pytest.mark.parametrize(
    "name",
    [
        "message_received",
        "message_sent",
        "message_failed",
        "message_uncertain",
        "contact_opted_out",
        "contact_opted_in",
    ],
)
def test_the_signals_have_their_names(name):
    assert isinstance(getattr(signals, name), Signal)


def test_a_receiver_gets_the_message_and_its_class():
    heard = []
    signal, text = Signal(), Text()
    signal.connect(lambda **given: heard.append(given), weak=False)
    announce(signal, text)
    assert heard == [{"signal": signal, "sender": Text, "message": text}]


def test_a_receiver_gets_what_else_there_is():
    heard = []
    signal = Signal()
    signal.connect(lambda contact, **_: heard.append(contact), weak=False)
    announce(signal, Text(), contact="Ada")
    assert heard == ["Ada"]


def test_a_receiver_that_raises_harms_no_other(caplog):
    heard = []
    signal = Signal()
    signal.connect(lambda **_: 1 / 0, weak=False)
    signal.connect(lambda **given: heard.append(given["message"]), weak=False)
    announce(signal, text := Text())
    assert heard == [text]
    assert caplog.records[0].exc_info[0] is ZeroDivisionError
