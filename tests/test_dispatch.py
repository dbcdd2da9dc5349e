import threading

import pytest
from django.db import transaction

from django_ninebits import client, dispatch, services
from django_ninebits.models import Message

pytestmark = pytest.mark.django_db

NUMBER = "+2348020000000"


def sent(django_capture_on_commit_callbacks, text="Hello"):
    with django_capture_on_commit_callbacks(execute=True):
        message = services.send_sms(NUMBER, text)
    message.refresh_from_db()
    return message


def broken(message_ids):
    raise RuntimeError(f"cannot dispatch {message_ids} to {NUMBER}")


def vanished(message_ids):
    raise SystemError


def inline_within_a_transaction(message_ids):
    with transaction.atomic():
        dispatch.inline(message_ids)


def test_inline_sends_in_the_callers_thread(
    provider, settings, django_capture_on_commit_callbacks, monkeypatch
):
    def noted(call, **options):
        threads.append(threading.current_thread())
        send(call, **options)

    threads: list[threading.Thread] = []
    send = client.send
    monkeypatch.setattr(client, "send", noted)
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": "django_ninebits.dispatch.inline"}
    assert sent(django_capture_on_commit_callbacks).status == "sent"
    assert threads == [threading.current_thread()]


def test_inline_sends_each(provider):
    ids = [services.send_sms(f"+234802000000{n}", "Hello").pk for n in range(3)]
    dispatch.inline(ids)
    assert len(provider.accepted) == 3


def test_inline_leaves_what_is_held_back(provider):
    services.send_sms(NUMBER, "1")
    second = services.send_sms(NUMBER, "2")
    dispatch.inline([second.pk])
    assert provider.calls == []


def test_defer_leaves_it_to_a_worker(provider, django_capture_on_commit_callbacks):
    assert sent(django_capture_on_commit_callbacks).status == "queued"
    assert provider.calls == []


@pytest.mark.parametrize("name", ["broken", "vanished", "inline_within_a_transaction"])
@pytest.mark.django_db(transaction=True)
def test_a_dispatcher_that_raises_is_logged_and_the_message_stored(
    provider, settings, caplog, name
):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": f"{__name__}.{name}"}
    message = services.send_sms(NUMBER, "Private")
    assert Message.objects.get().pk == message.pk
    assert "The dispatcher failed" in caplog.text
    assert NUMBER not in caplog.text
    assert "Private" not in caplog.text


@pytest.mark.parametrize("path", ["nowhere.at_all", "no dots", "tests.test_dispatch.NUMBER", None])
def test_a_dispatcher_that_is_none_is_logged_and_the_message_stored(
    provider, settings, caplog, django_capture_on_commit_callbacks, path
):
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": path}
    assert sent(django_capture_on_commit_callbacks).status == "queued"
    assert 'NINEBITS["DISPATCHER"]' in caplog.text


def test_without_a_token_the_message_is_stored(
    provider, settings, caplog, django_capture_on_commit_callbacks
):
    settings.NINEBITS = settings.NINEBITS | {
        "DISPATCHER": "django_ninebits.dispatch.inline",
        "API_TOKEN": "",
    }
    assert sent(django_capture_on_commit_callbacks).status == "queued"
    assert 'NINEBITS["API_TOKEN"]' in caplog.text


def test_a_token_that_cannot_be_fetched_is_not_logged(
    provider, settings, caplog, django_capture_on_commit_callbacks
):
    def fetch():
        raise RuntimeError("s3cret")

    settings.NINEBITS = settings.NINEBITS | {
        "DISPATCHER": "django_ninebits.dispatch.inline",
        "API_TOKEN": fetch,
    }
    assert sent(django_capture_on_commit_callbacks).status == "queued"
    assert "RuntimeError" in caplog.text
    assert "s3cret" not in caplog.text
