import http.client
import json
import runpy
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
import requests

from django_ninebits import simulator as module
from django_ninebits.simulator import PATH, Behaviour, Call, Simulator, redelivery_pauses

BODY = {
    "from": "48974",
    "to": "2348020000000",
    "message": "When was the last time you went to the cinema?",
    "session_id": "67543uhn3",
    "sent_date": "2024-01-02T23:50:37.000000Z",
    "ref_id": "873ghf8749956778gf4",
}
HEADERS = {"Authorization": "Bearer simulator-token", "Content-Type": "application/json"}


@pytest.fixture
def simulator():
    with Simulator(speed=100_000) as running:
        yield running


def post(simulator, body=BODY, **options):
    with requests.Session() as caller:
        caller.trust_env = False
        data = body if isinstance(body, bytes) else json.dumps(body)
        options = {"url": simulator.url, "headers": HEADERS, "timeout": 5} | options
        return caller.post(data=data, allow_redirects=False, **options)


@contextmanager
def raw_call(simulator):
    """A call that has left on a connection of its own, its answer still unread."""
    with closing(http.client.HTTPConnection("127.0.0.1", simulator.port, timeout=5)) as connection:
        connection.request("POST", PATH, json.dumps(BODY), HEADERS)
        yield connection


# The ledger


def test_a_call_is_kept_with_its_body(simulator):
    post(simulator)
    assert simulator.calls[0].body == BODY


def test_a_call_is_kept_with_its_bytes(simulator):
    post(simulator, b'{"to" : 1}')
    assert simulator.calls[0].raw == b'{"to" : 1}'


def test_a_call_is_kept_with_its_time_in_utc(simulator):
    post(simulator)
    assert abs(datetime.now(UTC) - simulator.calls[0].received_at) < timedelta(minutes=1)


def test_a_call_is_kept_with_lowercase_headers(simulator):
    post(simulator)
    assert simulator.calls[0].headers["content-type"] == "application/json"


def test_the_token_is_kept_nowhere(simulator):
    post(simulator)
    assert simulator.calls[0].authorized
    assert "simulator-token" not in repr(simulator.calls)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_kept_as_none(simulator, raw):
    post(simulator, raw)
    assert simulator.calls[0].body is None


def test_a_call_is_in_the_ledger_before_its_answer(simulator):
    simulator.behave(Behaviour.silent())
    with raw_call(simulator):
        assert simulator.wait_for_calls(1)[0].answered == "silent"


def test_the_ledger_given_out_is_a_copy(simulator):
    simulator.calls.append("mine")
    assert simulator.calls == []


def test_calls_on_one_connection_share_its_number(simulator):
    with raw_call(simulator) as connection:
        connection.getresponse().read()
        connection.request("POST", PATH, json.dumps(BODY), HEADERS)
        connection.getresponse().read()
    assert [call.connection for call in simulator.calls] == [1, 1]


def test_connections_are_told_apart(simulator):
    post(simulator)
    post(simulator)
    assert [call.connection for call in simulator.calls] == [1, 2]


def test_connections_are_told_apart_across_a_restart(simulator):
    post(simulator)
    with simulator.down():
        pass
    post(simulator)
    assert [call.connection for call in simulator.calls] == [1, 2]


def test_accepted_leaves_out_what_was_refused(simulator):
    simulator.then(Behaviour.status(500))
    post(simulator)
    post(simulator)
    assert [call.answered for call in simulator.accepted] == ["accepted"]


def test_waiting_for_calls_returns_them_when_they_come(simulator):
    threading.Timer(0.05, post, [simulator]).start()
    assert [call.body for call in simulator.wait_for_calls(1)] == [BODY]


def test_waiting_for_calls_that_do_not_come_is_a_timeout(simulator):
    post(simulator)
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for 2 calls, and 1 came"):
        simulator.wait_for_calls(2, timeout=0.01)


def test_following_gives_calls_that_are_there_and_those_that_come(simulator):
    post(simulator)
    calls = simulator.follow()
    next(calls)
    threading.Timer(0.05, post, [simulator, b"second"]).start()
    assert next(calls).raw == b"second"


def test_a_request_that_broke_off_is_no_call(simulator):
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=5) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert simulator.calls == []


def test_calls_at_once_are_all_kept(simulator):
    simulator.then(*[Behaviour.status(503)] * 20)
    threads = [threading.Thread(target=post, args=[simulator]) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(call.answered for call in simulator.calls) == (
        ["accepted"] * 20 + ["status 503"] * 20
    )


def test_clear_forgets_calls_and_behaviour(simulator):
    simulator.behave(Behaviour.status(500))
    simulator.then(Behaviour.status(500))
    post(simulator)
    simulator.clear()
    assert simulator.calls == []
    assert post(simulator).status_code == 200


# The checks


def test_a_documented_call_is_answered_with_200_and_json(simulator):
    response = post(simulator)
    assert response.status_code == 200
    assert response.json().keys() == {"status_code", "reference_id", "created_at"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_refused(simulator, method):
    response = requests.request(method, simulator.url, timeout=5)
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


def test_another_path_is_refused(simulator):
    assert post(simulator, url=simulator.url + "/").status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer another"}])
def test_a_missing_or_wrong_token_is_refused(simulator, headers):
    response = post(simulator, headers=headers)
    assert (response.status_code, response.json().keys()) == (401, {"error"})
    assert not simulator.calls[0].authorized


def test_a_call_refused_at_the_door_uses_up_no_behaviour(simulator):
    simulator.then(Behaviour.status(503))
    post(simulator, headers={})
    assert post(simulator).status_code == 503


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        (b"[]", {"body": "not a JSON object"}),
        ({k: v for k, v in BODY.items() if k != "to"}, {"to": "missing"}),
        (BODY | {"content": ""}, {"content": "not documented"}),
        (BODY | {"to": 2348020000000}, {"to": "not a string"}),
        (BODY | {"sent_date": None}, {"sent_date": "not a string"}),
    ],
)
def test_an_undocumented_body_is_refused_by_name(simulator, body, errors):
    response = post(simulator, body)
    assert (response.status_code, response.json()) == (422, {"errors": errors})
    assert simulator.accepted == []


@pytest.mark.parametrize(
    "written",
    [
        "",
        "2024-01-02T23:50:37Z",
        "2024-01-02T23:50:37.000Z",
        "2024-01-02T23:50:37.000000",
        "2024-01-02 23:50:37.000000Z",
        "2024-01-02T23:50:37.000000+00:00",
        "2024-02-30T23:50:37.000000Z",
        "0001-01-01T00:00:00.000000+05:00",
    ],
)
def test_another_date_format_is_refused(simulator, written):
    response = post(simulator, BODY | {"sent_date": written})
    assert response.json()["errors"].keys() == {"sent_date"}


def test_a_told_behaviour_does_not_look_at_the_body(simulator):
    simulator.behave(Behaviour.not_json())
    assert post(simulator, b"anything").status_code == 200


# The behaviours


def test_behaviours_come_in_turn_and_then_the_standing_one(simulator):
    simulator.behave(Behaviour.status(500))
    simulator.then(Behaviour.status(429), Behaviour.status(503))
    assert [post(simulator).status_code for _ in range(4)] == [429, 503, 500, 500]


def test_accept_answers_with_the_body_it_was_given(simulator):
    simulator.behave(Behaviour.accept({"reference_id": "abc"}))
    assert post(simulator).json() == {"reference_id": "abc"}


def test_accept_with_a_body_still_checks(simulator):
    simulator.behave(Behaviour.accept("fine"))
    assert post(simulator, b"{}").status_code == 422


@pytest.mark.parametrize("body", [b"busy", "busy"])
def test_status_answers_with_its_body(simulator, body):
    simulator.behave(Behaviour.status(503, body))
    assert post(simulator).content == b"busy"


def test_status_answers_with_its_headers(simulator):
    simulator.behave(Behaviour.status(429, headers={"Retry-After": "7"}))
    assert post(simulator).headers["Retry-After"] == "7"


@pytest.mark.parametrize(("code", "accepted"), [(199, False), (201, True), (300, False)])
def test_status_is_accepted_when_it_is_2xx(code, accepted):
    assert Behaviour.status(code).accepts is accepted


def test_a_status_without_a_name_is_sent(simulator):
    simulator.behave(Behaviour.status(599))
    assert post(simulator).status_code == 599


def test_slow_accepts_and_answers_in_the_end(simulator):
    simulator.behave(Behaviour.slow(0.05))
    assert post(simulator).elapsed >= timedelta(seconds=0.05)
    assert len(simulator.accepted) == 1


def test_slow_accepts_before_it_answers(simulator):
    simulator.behave(Behaviour.slow(60))
    with pytest.raises(requests.ReadTimeout):
        post(simulator, timeout=(5, 0.1))
    assert simulator.wait_for_calls(1)[0].accepted


def test_drip_sends_a_whole_answer(simulator):
    simulator.behave(Behaviour.drip(0.0001))
    assert post(simulator).json()["status_code"] == 200


def test_drip_sends_it_in_pieces(simulator):
    simulator.behave(Behaviour.drip(0.01))
    with raw_call(simulator) as connection:
        assert b"\r\n\r\n" not in connection.sock.recv(65536)


def test_cut_ends_inside_the_body(simulator):
    simulator.behave(Behaviour.cut())
    with raw_call(simulator) as connection, pytest.raises(http.client.IncompleteRead) as error:
        connection.getresponse().read()
    assert len(error.value.partial) > 10
    assert simulator.calls[0].accepted


def test_reset_is_a_reset_and_not_a_close(simulator):
    simulator.behave(Behaviour.reset())
    with raw_call(simulator) as connection, pytest.raises(ConnectionResetError) as error:
        connection.getresponse()
    assert error.type is ConnectionResetError
    assert simulator.accepted == []


def test_silent_accepts_and_closes_without_an_answer(simulator):
    simulator.behave(Behaviour.silent(0.01))
    with raw_call(simulator) as connection, pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    assert simulator.calls[0].accepted


def test_redirect_names_the_location(simulator):
    simulator.behave(Behaviour.redirect("https://example.com/"))
    response = post(simulator)
    assert (response.status_code, response.headers["Location"]) == (307, "https://example.com/")
    assert simulator.accepted == []


def test_not_json_is_accepted_with_ok(simulator):
    simulator.behave(Behaviour.not_json())
    assert post(simulator).text == "OK"
    assert simulator.calls[0].accepted


def test_says_it_failed_is_a_200_with_another_status_in_the_body(simulator):
    simulator.behave(Behaviour.says_it_failed(402, "No credit"))
    response = post(simulator)
    assert (response.status_code, response.json()["status_code"]) == (200, 402)
    assert simulator.accepted == []


def test_too_long_is_accepted_with_more_than_64_kib(simulator):
    simulator.behave(Behaviour.too_long())
    assert len(post(simulator).content) > 64 * 1024
    assert simulator.calls[0].accepted


def test_close_idle_answers_as_if_it_kept_the_connection(simulator):
    simulator.behave(Behaviour.close_idle())
    with raw_call(simulator) as connection:
        response = connection.getresponse()
        assert (response.status, response.will_close) == (200, False)


def test_close_idle_closes_the_idle_connection(simulator):
    simulator.behave(Behaviour.close_idle())
    with raw_call(simulator) as connection:
        connection.getresponse().read()
        assert connection.sock.recv(1) == b""


# Starting and stopping


def test_the_url_has_the_documented_path(simulator):
    assert simulator.url == f"http://127.0.0.1:{simulator.port}/ng/v1/sendsms"


def test_starting_twice_is_an_error(simulator):
    with pytest.raises(RuntimeError, match="running already"):
        simulator.start()


def test_a_port_that_is_taken_is_an_error(simulator):
    with pytest.raises(OSError, match="in use"):
        Simulator(port=simulator.port).start()


def test_stopping_twice_is_harmless(simulator):
    simulator.stop()
    simulator.stop()


def test_a_stopped_simulator_refuses_connections(simulator):
    simulator.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", simulator.port), timeout=5)


def test_a_stopped_simulator_keeps_its_ledger(simulator):
    post(simulator)
    simulator.stop()
    assert len(simulator.calls) == 1


def test_a_stopped_simulator_comes_back_on_its_port(simulator):
    url = simulator.url
    simulator.stop()
    simulator.start()
    assert post(simulator, url=url).status_code == 200


def test_stopping_closes_idle_connections(simulator):
    with raw_call(simulator) as connection:
        connection.getresponse().read()
        simulator.stop()
        assert connection.sock.recv(1) == b""


@pytest.mark.parametrize("behaviour", [Behaviour.silent(), Behaviour.slow(60)])
def test_stopping_ends_a_call_that_has_no_answer_yet(simulator, behaviour):
    simulator.behave(behaviour)
    with raw_call(simulator) as connection:
        simulator.wait_for_calls(1)
        simulator.stop()
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()


def test_stopping_ends_a_drip(simulator):
    simulator.behave(Behaviour.drip(60))
    with raw_call(simulator) as connection:
        assert connection.sock.recv(65536) == b"H"
        simulator.stop()
        assert connection.sock.recv(65536) == b""


def test_stopping_after_a_caller_went_away_is_quiet(simulator, capfd):
    simulator.behave(Behaviour.drip(0.001))
    with raw_call(simulator) as connection:
        connection.sock.recv(1)
    simulator.stop()
    assert capfd.readouterr() == ("", "")


def test_down_refuses_connections(simulator):
    with simulator.down(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", simulator.port), timeout=5)


def test_down_closes_open_connections(simulator):
    with raw_call(simulator) as connection:
        connection.getresponse().read()
        with simulator.down():
            assert connection.sock.recv(1) == b""


def test_down_comes_back_on_the_same_port(simulator):
    url = simulator.url
    with simulator.down():
        pass
    assert post(simulator, url=url).status_code == 200


def test_down_comes_back_after_an_error_inside(simulator):
    with pytest.raises(ZeroDivisionError), simulator.down():
        1 / 0  # noqa: B018
    assert post(simulator).status_code == 200


# Delivering texts


def test_a_delivery_has_the_documented_body(simulator, webhook):
    body = simulator.deliver(
        webhook.url, "Hello", session_id="s", ref_id="r", sent_date="2024-01-02T23:50:37.000000Z"
    ).body
    assert body == {
        "type": "two-way sms",
        "telco": "mtn",
        "from": "2348020000000",
        "to": "48974",
        "message": "Hello",
        "session_id": "s",
        "sent_date": "2024-01-02T23:50:37.000000Z",
        "ref_id": "r",
    }


def test_the_webhook_gets_what_the_receipt_says(simulator, webhook):
    receipt = simulator.deliver(webhook.url, "Ẹ káàbọ̀ 🎉")
    assert json.loads(webhook.seen[0][1]) == receipt.body


def test_a_receipt_has_status_and_answer(simulator, webhook):
    receipt = simulator.deliver(webhook.url, "Hello")
    assert (receipt.statuses, receipt.answer) == ((200,), {"status": "received"})


def test_an_answer_that_is_no_json_is_none(simulator, webhook):
    webhook.answer = b"<h1>"
    assert simulator.deliver(webhook.url, "Hello").answer is None


def test_session_and_reference_are_random(simulator, webhook):
    first, second = (simulator.deliver(webhook.url, "Hello").body for _ in range(2))
    assert first["session_id"] != second["session_id"]
    assert first["ref_id"] != second["ref_id"]


def test_the_date_of_a_delivery_is_now(simulator, webhook):
    written = simulator.deliver(webhook.url, "Hello").body["sent_date"]
    age = datetime.now(UTC) - datetime.strptime(written, "%Y-%m-%dT%H:%M:%S.%f%z")
    assert abs(age) < timedelta(minutes=1)


def test_a_datetime_is_written_as_documented(simulator, webhook):
    lagos = datetime(2024, 1, 3, 0, 50, 37, tzinfo=timezone(timedelta(hours=1)))
    receipt = simulator.deliver(webhook.url, "Hello", sent_date=lagos)
    assert receipt.body["sent_date"] == "2024-01-02T23:50:37.000000Z"


def test_fields_are_added_and_overridden(simulator, webhook):
    fields = {"network_id": 7, "message": None}
    body = simulator.deliver(webhook.url, "Hello", fields=fields).body
    assert (body["network_id"], body["message"]) == (7, None)


def test_fields_are_left_out(simulator, webhook):
    assert "ref_id" not in simulator.deliver(webhook.url, "Hello", without=["ref_id"]).body


@pytest.mark.parametrize(
    ("options", "credential"),
    [
        ({}, "Bearer simulator-token"),
        ({"token": "another"}, "Bearer another"),
        ({"token": ""}, None),
        ({"basic": ("user", "päss")}, "Basic dXNlcjpww6Rzcw=="),
    ],
)
def test_a_delivery_carries_its_credential(simulator, webhook, options, credential):
    simulator.deliver(webhook.url, "Hello", **options)
    assert webhook.seen[0][0]["Authorization"] == credential


def test_a_credential_in_the_url_is_sent_as_basic(simulator, webhook):
    simulator.deliver(webhook.url.replace("//", "//user:pass@"), "Hello")
    assert webhook.seen[0][0]["Authorization"] == "Basic dXNlcjpwYXNz"


def test_a_delivery_that_failed_is_not_made_again_by_default(simulator, webhook):
    webhook.statuses = [503]
    assert simulator.deliver(webhook.url, "Hello").statuses == (503,)


def test_a_redelivery_follows_server_errors_429_and_no_answer(simulator, webhook):
    webhook.statuses = [500, 429, 0, 503]
    receipt = simulator.deliver(webhook.url, "Hello", redeliver=True)
    assert receipt.statuses == (500, 429, 0, 503, 200)


def test_a_redelivery_repeats_the_same_bytes(simulator, webhook):
    webhook.statuses = [500, 500]
    simulator.deliver(webhook.url, "Hello", redeliver=True)
    assert len({raw for _, raw in webhook.seen}) == 1


@pytest.mark.parametrize("status", [200, 202, 302, 400, 401, 413, 499])
def test_any_other_answer_ends_the_redeliveries(simulator, webhook, status):
    webhook.statuses = [status]
    assert simulator.deliver(webhook.url, "Hello", redeliver=True).statuses == (status,)


def test_redeliveries_end_when_the_hour_is_over(simulator, webhook):
    webhook.statuses = [500] * 20
    receipt = simulator.deliver(webhook.url, "Hello", redeliver=True)
    assert receipt.statuses == (500,) * 8


def test_a_webhook_that_is_too_slow_gave_no_answer(simulator):
    simulator.behave(Behaviour.silent())
    receipt = simulator.deliver(simulator.url, "Hello", timeout=0.1)
    assert (receipt.statuses, receipt.answer) == ((0,), None)


def test_a_cut_answer_is_no_answer(simulator):
    simulator.behave(Behaviour.cut())
    assert simulator.deliver(simulator.url, "Hello").statuses == (0,)


def test_an_address_that_is_none_is_the_callers_error(simulator):
    with pytest.raises(requests.exceptions.MissingSchema):
        simulator.deliver("hooks/9bits/", "Hello")


def test_raw_bytes_are_delivered_as_they_are(simulator, webhook):
    receipt = simulator.deliver_raw(webhook.url, b"\x00\xff", content_type="text/plain", token="t")
    headers, raw = webhook.seen[0]
    assert (raw, headers["Content-Type"], headers["Authorization"]) == (
        b"\x00\xff",
        "text/plain",
        "Bearer t",
    )
    assert (receipt.body, receipt.statuses) == ({}, (200,))


def test_raw_json_is_in_the_receipt(simulator, webhook):
    assert simulator.deliver_raw(webhook.url, b'{"a": 1}').body == {"a": 1}


def test_pauses_double_from_30_seconds():
    assert list(redelivery_pauses())[:6] == [30, 60, 120, 240, 480, 960]


def test_the_last_try_comes_an_hour_after_the_first_failure():
    assert sum(redelivery_pauses()) == 3600


def test_pauses_are_shortened_by_speed(webhook, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    webhook.statuses = [500, 500]
    Simulator(speed=1000).deliver(webhook.url, "Hello", redeliver=True)
    assert slept == [0, 0.03, 0.06]


# The command


@pytest.fixture
def one_call_then_ctrl_c(monkeypatch):
    def follow(self):
        post(self)
        yield self.calls[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(Simulator, "follow", follow)


@pytest.mark.usefixtures("one_call_then_ctrl_c")
def test_the_command_prints_its_url_and_a_line_for_a_call(capsys):
    module.main(["--port", "0"])
    url, line = capsys.readouterr().out.splitlines()
    assert url.endswith(PATH)
    assert line.endswith(" accepted, to ****0000, 46 characters")


@pytest.mark.usefixtures("one_call_then_ctrl_c")
def test_the_command_takes_a_token(capsys):
    module.main(["--port", "0", "--token", "another"])
    assert " status 401, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "to ********, 0 characters"),
        ({"to": "+234 802 000 1234\x1b", "message": 1}, "to ****1234, 1 characters"),
    ],
)
def test_a_line_shows_four_digits_of_any_body(body, words):
    call = Call(datetime.now(UTC), body, b"", {}, True, "accepted", 1, True, 200, b"")
    assert module._line(call).endswith(words)


def test_the_module_runs_as_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["simulator", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(module.__file__, run_name="__main__")
    assert "--token" in capsys.readouterr().out


def test_django_is_not_imported():
    code = "import sys, django_ninebits.simulator as s; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Over the wire


@pytest.mark.parametrize(
    ("behaviour", "status", "answer"),
    [
        (Behaviour.status(422, b"No"), 422, b"No"),
        (Behaviour.not_json(), 200, b"OK"),
        (Behaviour.silent(0.01), 0, b""),
        (Behaviour.reset(), 0, b""),
    ],
)
def test_a_call_is_kept_with_what_is_sent_back(simulator, behaviour, status, answer):
    simulator.then(behaviour)
    with suppress(requests.ConnectionError):
        post(simulator)
    assert [(call.status, call.answer) for call in simulator.calls] == [(status, answer)]


def test_the_answer_that_is_kept_is_the_one_that_came(simulator):
    assert post(simulator).content == simulator.calls[0].answer


def test_of_an_answer_that_is_cut_the_half_is_kept(simulator):
    simulator.then(Behaviour.cut())
    with suppress(requests.exceptions.ChunkedEncodingError):
        post(simulator)
    answer = simulator.calls[0].answer
    assert answer.startswith(b'{"status_code": 200')
    assert not answer.endswith(b"}")


def test_both_ways_are_kept_in_one_order(simulator, webhook):
    post(simulator)
    simulator.deliver(webhook.url, "Hello")
    call, delivery = simulator.wire
    assert call == simulator.calls[0]
    assert json.loads(delivery.raw)["message"] == "Hello"
    assert (delivery.status, delivery.answer) == (200, b'{"status": "received"}')


def test_each_try_of_a_delivery_is_kept_under_its_number(simulator, webhook):
    webhook.statuses = [503, 0]
    simulator.deliver(webhook.url, "Hello", redeliver=True)
    simulator.deliver(webhook.url, "Hello")
    tries = [(post.delivery, post.status) for post in simulator.wire]
    assert tries == [(1, 503), (1, 0), (1, 200), (2, 200)]


def test_a_try_is_kept_with_its_time_in_utc(simulator, webhook):
    simulator.deliver(webhook.url, "Hello")
    assert abs(datetime.now(UTC) - simulator.wire[0].posted_at) < timedelta(minutes=1)


def test_what_went_over_the_wire_is_forgotten_with_the_calls(simulator):
    post(simulator)
    simulator.clear()
    assert (simulator.wire, simulator.calls) == ([], [])
