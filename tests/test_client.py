import email.utils
import gc
import multiprocessing
import os
import select
import socket
import ssl
import threading
import time
import traceback
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from urllib3.connection import HTTPConnection

from django_ninebits import __version__, client
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown, Refused, SendError
from django_ninebits.simulator import Behaviour, Simulator

CALL = {
    "from": "48974",
    "to": "2348020000000",
    "message": "Ẹ káàbọ̀ 🎉",
    "session_id": "67543uhn3",
    "sent_date": "2024-01-02T23:50:37.000000Z",
    "ref_id": "873ghf8749956778gf4",
}
# A key that opens nothing, and its certificate for localhost and 127.0.0.1.
CERTIFICATE = Path(__file__).parent / "localhost.pem"
TOKEN = "s3cret/t0ken"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
RESETS = b"\1\0\0\0\0\0\0\0"


@pytest.fixture(autouse=True)
def fresh_lines(monkeypatch):
    """No test finds the connection of another."""
    monkeypatch.setattr(client, "_lines", client._Lines())


@pytest.fixture
def provider():
    with Simulator(token=TOKEN) as running:
        yield running


@pytest.fixture
def trusted(monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))


@pytest.fixture
def handshakes(monkeypatch):
    """The time limit of each TLS handshake, which is then reset."""
    limits: list[float] = []

    def wrap_socket(_context, sock, **_options):
        limits.append(sock.gettimeout())
        raise ConnectionResetError

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap_socket)
    return limits


def post(url, seconds=10.0, token=TOKEN):
    return client.send(CALL, url=url, token=token, deadline=time.monotonic() + seconds)


def failure(url, seconds=10.0, token=TOKEN):
    with pytest.raises(SendError) as caught:
        post(url, seconds, token)
    return caught.value


class Server:
    """Speaks to each connection as ``speak`` does; notes whatever requests it reads."""

    def __init__(self, speak, listener, scheme="http"):
        self.speak = speak
        self.listener = listener
        self.received: list[bytes] = []
        self.connections = 0
        self.port = listener.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}/sendsms"
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        with suppress(OSError):
            while True:
                connection, _address = self.listener.accept()
                self.connections += 1
                with connection, suppress(OSError):
                    self.speak(self, connection)

    def read(self, connection):
        """One request, or what there is of one."""
        request = b""
        while b"\r\n\r\n" not in request or (
            request.startswith(b"POST") and not request.endswith(b"}")
        ):
            if not (part := connection.recv(65536)):
                break
            request += part
        if request:
            self.received.append(request)
        return request

    def secured(self, connection):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE)
        return context.wrap_socket(connection, server_side=True)


@contextmanager
def serving(speak, scheme="http"):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(speak, listener, scheme)
        server.thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            server.thread.join(10)


def answering(*parts, pause=0.0):
    """Read a request, send ``parts`` with a pause after each, close."""

    def speak(server, connection):
        server.read(connection)
        for part in parts:
            connection.sendall(part)
            server.ended.wait(pause)

    return speak


def silent(server, connection):
    server.read(connection)
    server.ended.wait(10)


def deaf(server, _connection):
    server.ended.wait(10)


def resetting(_server, connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)


def over_tls(speak):
    def speak_securely(server, connection):
        with server.secured(connection) as secured:
            speak(server, secured)

    return speak_securely


def answered(status, *headers, body=b""):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def full_backlog(host="127.0.0.1", port=0):
    """A listener that no further connection gets through to."""
    with ExitStack() as stack:
        listener = stack.enter_context(closing(socket.socket()))
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def names(monkeypatch, resolve):
    """Let ``resolve`` find every host that is a name; addresses are as they are."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **options):
        if host.endswith(".test"):
            return [real(address, port, type=socket.SOCK_STREAM)[0] for address in resolve()]
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


# What leaves


def test_the_call_leaves_as_json(provider):
    post(provider.url)
    assert provider.accepted[0].body == CALL
    assert provider.accepted[0].headers["content-type"] == "application/json"


def test_nothing_of_a_call_is_left_in_the_next():
    calls = [CALL | {"message": "A long first text"}, CALL | {"message": "2"}]
    with Simulator(token="second") as provider:
        for call, token in zip(calls, ["first", "second"], strict=True):
            with suppress(SendError):
                client.send(call, url=provider.url, token=token, deadline=time.monotonic() + 10)
    assert [call.body for call in provider.calls] == calls
    assert [call.authorized for call in provider.calls] == [False, True]


def test_the_user_agent_names_app_and_version(provider):
    post(provider.url)
    assert provider.calls[0].headers["user-agent"] == f"django-ninebits/{__version__}"


def test_an_unpacked_answer_is_asked_for(provider):
    post(provider.url)
    assert provider.calls[0].headers["accept-encoding"] == "identity"


def test_a_netrc_does_not_replace_the_token(provider, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    post(provider.url)
    assert provider.calls[0].authorized


def test_cookies_are_not_carried_to_the_next_call(provider):
    provider.then(Behaviour.status(200, {}, {"Set-Cookie": "person=1; Path=/"}))
    post(provider.url)
    post(provider.url)
    assert [call.connection for call in provider.calls] == [1, 1]
    assert "cookie" not in provider.calls[1].headers


# Accepted


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.accept(),
        Behaviour.status(201),
        Behaviour.status(204),
        Behaviour.status(299, b"fine"),
        Behaviour.not_json(),
        Behaviour.too_long(),
        Behaviour.accept(b""),
        Behaviour.accept(b"[400]"),
        Behaviour.accept(b"[" * 60_000),
        Behaviour.accept(b'{"status_code": 200}'),
        Behaviour.accept(b'{"status_code": 302}'),
        Behaviour.accept(b'{"status_code": 399}'),
        Behaviour.accept(b'{"status_code": "500"}'),
        Behaviour.accept(b'{"status_code": true}'),
        Behaviour.accept(b'{"status_code": null}'),
        Behaviour.accept(b'{"status_code": 500.0}'),
        Behaviour.accept(b'{"status_code": 5e2}'),
        Behaviour.accept(b'{"status_code": NaN}'),
        Behaviour.accept(b'{"status_code": -500}'),
        Behaviour.accept(b'{"answer": {"status_code": 500}}'),
        Behaviour.accept(b'{"status_code": 500'),
        Behaviour.accept(b'\xff{"status_code": 500}'),
        Behaviour.accept(b'{"status_code": 500, "padding": "%s"}' % (b"x" * 65536)),
        Behaviour.accept(b'{"status_code": 500}'.ljust(client.MAX_ANSWER + 1)),
    ],
)
def test_2xx_is_accepted_whatever_the_body(provider, behaviour):
    provider.behave(behaviour)
    assert post(provider.url).status == behaviour.code


def test_an_endless_answer_is_accepted_and_read_no_further():
    def endless(server, connection):
        server.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with serving(endless) as server:
        assert post(server.url).status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\nOK",
        b"HTTP/1.1 200\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nOK",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK,
    ],
)
def test_an_answer_in_an_unusual_form_is_accepted(answer):
    with serving(answering(answer)) as server:
        assert post(server.url).status == 200


def test_a_slow_answer_within_the_deadline_is_accepted(provider):
    provider.behave(Behaviour.drip(0.001))
    assert post(provider.url).status == 200


# Surely not accepted


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_not_now_is_not_accepted(provider, status):
    provider.behave(Behaviour.status(status, b"Too busy"))
    error = failure(provider.url)
    assert (type(error), error.http_status) == (NotAccepted, status)
    assert "Too busy" in error.reason


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_a_body_that_says_not_now_is_not_accepted(provider, status):
    provider.behave(Behaviour.says_it_failed(status, "Too busy"))
    error = failure(provider.url)
    assert (type(error), error.http_status) == (NotAccepted, 200)
    assert f"status_code {status}" in error.reason
    assert "Too busy" in error.reason


def http_date(**delta):
    return email.utils.format_datetime(datetime.now(UTC) + timedelta(**delta), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("9" * 5000, 24 * 3600.0),
        ("86401", 24 * 3600.0),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 0.0),
        ("Wed, 01 Jan 2020 00:00:00", 0.0),
        ("Wed, 01 Jan 2020 00:00:00 -0000", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 24 * 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 24 * 3600.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("", None),
        ("soon", None),
        ("-7", None),
        ("7.5", None),
        ("²", None),
        ("Wed, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Wed, 01 Jan 2020 00:00:00 +99999999999999999999", None),
        ("Wed, 99 Jan 2020 00:00:00 GMT", None),
        ("9" * 100 + " Jan " + "9" * 5000, None),
    ],
)
def test_retry_after_is_read(provider, status, written, seconds):
    provider.behave(Behaviour.status(status, headers={"Retry-After": written}))
    error = failure(provider.url)
    assert isinstance(error, NotAccepted)
    assert error.retry_after == seconds


def test_a_refusal_is_quoted(provider):
    provider.behave(Behaviour.status(404, "no such number"))
    assert failure(provider.url).reason == "9bits answered 404: no such number"


def test_a_refusal_in_the_body_is_quoted_with_both_statuses(provider):
    provider.behave(Behaviour.status(200, '{"status_code": 404}'))
    reason = '9bits answered 200 with status_code 404: {"status_code": 404}'
    assert failure(provider.url).reason == reason


def test_an_answer_that_tells_nothing_is_quoted(provider):
    provider.behave(Behaviour.status(500, f"no luck with {TOKEN}"))
    error = failure(provider.url)
    assert (error.http_status, error.reason) == (500, "9bits answered 500: no luck with ***")


def test_what_is_quoted_is_shortened_where_it_is_too_long(provider):
    provider.then(Behaviour.status(400, "x" * 500), Behaviour.status(400, "x" * 501))
    assert failure(provider.url).reason == f"9bits answered 400: {'x' * 500}"
    assert failure(provider.url).reason == f"9bits answered 400: {'x' * 500}…"


def test_what_broke_on_the_way_is_named(provider):
    provider.behave(Behaviour.cut())
    assert failure(provider.url).reason == "IncompleteRead on the way to 9bits"


def test_the_longest_answer_that_is_read_is_judged(provider):
    said = '{"status_code": 404}'
    provider.behave(Behaviour.status(200, said.ljust(client.MAX_ANSWER)))
    assert isinstance(failure(provider.url), Refused)


def test_retry_after_may_be_a_date(provider):
    provider.behave(Behaviour.status(503, headers={"Retry-After": http_date(minutes=5)}))
    error = failure(provider.url)
    assert isinstance(error, NotAccepted)
    assert 240 < (error.retry_after or 0) <= 300


def test_retry_after_counts_for_what_the_body_says(provider):
    body = b'{"status_code": 429}'
    provider.behave(Behaviour.status(200, body, headers={"Retry-After": "7"}))
    error = failure(provider.url)
    assert isinstance(error, NotAccepted)
    assert error.retry_after == 7.0


def test_a_refused_connection_is_not_accepted():
    error = failure(f"http://127.0.0.1:{closed_port()}/")
    assert type(error) is NotAccepted
    assert error.reason == "ConnectionRefusedError: Connection refused"
    assert (error.http_status, error.retry_after) == (None, None)


def test_a_connect_timeout_is_not_accepted():
    with full_backlog() as port:
        assert type(failure(f"http://127.0.0.1:{port}/", 0.2)) is NotAccepted


def test_a_name_that_is_not_found_is_not_accepted(monkeypatch):
    def resolve():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names(monkeypatch, resolve)
    error = failure("http://nine.test/")
    assert type(error) is NotAccepted
    assert "Name or service not known" in error.reason


@pytest.mark.parametrize("host", ["a" * 70, "ü" * 70, "a..b"])
def test_a_name_that_cannot_be_one_is_not_accepted(host):
    assert type(failure(f"http://{host}/")) is NotAccepted


def test_a_resolver_that_hangs_is_not_accepted_at_the_deadline(monkeypatch):
    hangs = threading.Event()

    def resolve():
        hangs.wait(20)
        return []

    names(monkeypatch, resolve)
    started = time.monotonic()
    error = failure("http://nine.test/", 0.2)
    hangs.set()
    assert type(error) is NotAccepted
    assert error.reason == "TimeoutError: the look-up of the name took too long"
    assert time.monotonic() - started < 5


def test_a_resolver_that_hangs_does_not_hold_up_the_end_of_the_process(monkeypatch):
    daemons = []

    def resolve():
        daemons.append(threading.current_thread().daemon)
        return ["127.0.0.1"]

    names(monkeypatch, resolve)
    failure(f"http://nine.test:{closed_port()}/")
    assert daemons == [True]


def test_a_deadline_that_has_passed_lets_nothing_leave():
    with serving(answering(OK)) as server:
        assert type(failure(server.url, -0.001)) is NotAccepted
    assert (server.connections, server.received) == (0, [])


def test_a_deadline_that_is_now_has_passed(monkeypatch):
    stopped = SimpleNamespace(monotonic=lambda: 7.0, time=lambda: 7.0)
    monkeypatch.setattr(client, "time", stopped)
    with serving(answering(OK)) as server, pytest.raises(NotAccepted) as caught:
        client.send(CALL, url=server.url, token=TOKEN, deadline=7.0)
    assert caught.value.reason == "TimeoutError: no answer before the deadline"


def test_a_deadline_that_passes_while_connecting_lets_nothing_leave(monkeypatch):
    def connect(self):
        real(self)
        time.sleep(0.3)

    real = client._Connection.connect
    monkeypatch.setattr(client._Connection, "connect", connect)
    with serving(answering(OK)) as server:
        assert type(failure(server.url, 0.2)) is NotAccepted
    assert server.received == []


def test_a_deadline_that_passes_as_the_connection_stands_lets_nothing_leave(monkeypatch):
    def connected(self):
        time.sleep(0.3)
        return real(self)

    real = client._Connection._connected
    monkeypatch.setattr(client._Connection, "_connected", connected)
    with serving(answering(OK)) as server:
        assert type(failure(server.url, 0.2)) is NotAccepted
    assert server.received == []


def test_a_machine_that_slept_past_the_deadline_lets_nothing_leave(provider, monkeypatch):
    def connected(self):
        monkeypatch.setattr(time, "time", lambda: now + 10)
        return real(self)

    now, real = time.time(), client._Connection._connected
    monkeypatch.setattr(client._Connection, "_connected", connected)
    ends = {"deadline": time.monotonic() + 10, "ends_at": now + 10}
    with pytest.raises(NotAccepted, match="slept"):
        client.send(CALL, url=provider.url, token=provider.token, **ends)
    assert provider.calls == []


def test_a_deadline_that_passed_lets_nothing_leave_on_an_old_connection(provider):
    post(provider.url)
    assert type(failure(provider.url, -1)) is NotAccepted
    assert len(provider.calls) == 1


def test_a_url_that_is_none_is_not_accepted():
    assert type(failure("http://")) is NotAccepted


# Several addresses


def test_the_next_address_is_tried_when_the_first_refuses(provider, monkeypatch):
    names(monkeypatch, lambda: ["127.0.0.2", "127.0.0.1"])
    post(provider.url.replace("127.0.0.1", "nine.test"))
    assert len(provider.accepted) == 1


def test_the_next_address_has_time_left_when_the_first_hangs(provider, monkeypatch):
    names(monkeypatch, lambda: ["127.0.0.2", "127.0.0.1"])
    with full_backlog("127.0.0.2", provider.port):
        post(provider.url.replace("127.0.0.1", "nine.test"), 2.0)
    assert len(provider.accepted) == 1


def test_the_answer_has_all_the_time_whatever_the_share_of_the_connect(provider, monkeypatch):
    names(monkeypatch, lambda: ["127.0.0.1"] * 40)
    provider.behave(Behaviour.slow(0.6))
    assert post(provider.url.replace("127.0.0.1", "nine.test"), 12.0).status == 200


def test_each_address_is_tried_once(monkeypatch):
    tried = []

    def create_connection(address, **_options):
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(client, "create_connection", create_connection)
    failure("http://127.0.0.1:9480/")
    assert tried == [("127.0.0.1", 9480)]


def test_no_address_that_answers_is_not_accepted(monkeypatch):
    names(monkeypatch, lambda: ["127.0.0.2", "127.0.0.3"])
    assert type(failure(f"http://nine.test:{closed_port()}/")) is NotAccepted


# TLS


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_call_over_tls_is_accepted(host):
    with serving(over_tls(answering(OK)), "https") as server:
        assert post(server.url.replace("127.0.0.1", host)).status == 200
    assert b"Bearer s3cret/t0ken" in server.received[0]


def test_a_wrong_certificate_is_not_accepted():
    with serving(over_tls(answering(OK)), "https") as server:
        error = failure(server.url)
    assert (type(error), server.received) == (NotAccepted, [])
    assert "certificate" in error.reason


def test_a_tls_handshake_that_hangs_is_not_accepted():
    with serving(deaf, "https") as server:
        assert type(failure(server.url, 0.2)) is NotAccepted


@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")
def test_a_tls_handshake_that_is_reset_is_not_accepted():
    with serving(resetting, "https") as server:
        assert type(failure(server.url)) is NotAccepted
    # Python 3.11 leaves the socket of such a handshake to the collector, which complains.
    gc.collect()


def test_a_tls_handshake_with_something_else_is_not_accepted():
    def speak(_server, connection):
        connection.recv(1)
        connection.sendall(OK)

    with serving(speak, "https") as server:
        assert type(failure(server.url)) is NotAccepted


@pytest.mark.usefixtures("trusted")
def test_a_tls_handshake_after_a_slow_connect_has_the_time_that_is_left(monkeypatch, handshakes):
    def connected(self):
        found = real(self)
        time.sleep(0.2)
        return found

    real = client._Connection._connected
    monkeypatch.setattr(client._Connection, "_connected", connected)
    with serving(deaf, "https") as server:
        assert type(failure(server.url, 5.0)) is NotAccepted
    assert 0 < handshakes[0] <= 4.8


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("speak", [silent, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n")])
def test_what_goes_wrong_over_tls_after_the_handshake_is_uncertain(speak):
    with serving(over_tls(speak), "https") as server:
        assert type(failure(server.url, 3.0)) is OutcomeUnknown


@pytest.mark.usefixtures("trusted")
def test_a_connection_over_tls_is_used_again():
    def twice(server, connection):
        answering(OK)(server, connection)
        answering(OK)(server, connection)

    with serving(over_tls(twice), "https") as server:
        post(server.url)
        post(server.url)
    assert (server.connections, len(server.received)) == (1, 2)


# Proxies


def relay(port):
    """A proxy that opens one tunnel, to ``port``."""

    def speak(server, connection):
        server.read(connection)
        with socket.create_connection(("127.0.0.1", port)) as inner:
            connection.sendall(ESTABLISHED)
            other = {connection: inner, inner: connection}
            while not server.ended.is_set():
                for source in select.select(list(other), [], [], 0.02)[0]:
                    other[source].sendall(source.recv(65536))

    return speak


@pytest.fixture
def through(monkeypatch):
    """Sends everything through the proxy at an address."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def through(address):
        monkeypatch.setenv("https_proxy", address)

    return through


@pytest.mark.usefixtures("trusted")
def test_a_call_through_a_proxy_is_accepted(through):
    with (
        serving(over_tls(answering(OK)), "https") as server,
        serving(relay(server.port)) as proxy,
    ):
        through(f"http://127.0.0.1:{proxy.port}")
        assert post(server.url).status == 200
    assert b"s3cret" not in proxy.received[0]


@pytest.mark.usefixtures("trusted")
def test_a_tunnel_is_used_again(through):
    def twice(server, connection):
        for _ in range(2):
            server.read(connection)
            connection.sendall(OK)

    with serving(over_tls(twice), "https") as server, serving(relay(server.port)) as proxy:
        through(f"http://127.0.0.1:{proxy.port}")
        assert [post(server.url).status, post(server.url).status] == [200, 200]
    assert proxy.connections == 1


@pytest.mark.usefixtures("trusted")
def test_only_the_proxy_is_told_its_password(through):
    with (
        serving(over_tls(answering(OK)), "https") as server,
        serving(relay(server.port)) as proxy,
    ):
        through(f"http://user:hunter2@127.0.0.1:{proxy.port}")
        post(server.url)
    assert b"Proxy-Authorization: Basic dXNlcjpodW50ZXIy" in proxy.received[0]
    assert b"Proxy-Authorization" not in server.received[0]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_passes_a_call_on_is_told_its_whole_url(monkeypatch, through, scheme):
    speak = answering(OK) if scheme == "http" else over_tls(answering(OK))
    with serving(speak) as proxy:
        through("")
        address = f"{scheme}://user:hunter2@127.0.0.1:{proxy.port}"
        monkeypatch.setenv("http_proxy", address)
        assert post("http://nine.test/sendsms").status == 200
    head = proxy.received[0].split(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST http://nine.test/sendsms HTTP/1.1"
    assert b"Proxy-Authorization: Basic dXNlcjpodW50ZXIy" in head
    assert b"Host: nine.test" in head


def test_a_line_does_not_show_the_password_of_its_proxy(monkeypatch, through):
    through("")
    monkeypatch.setenv("http_proxy", "http://user:hunter2@127.0.0.1:1")
    line = client._line("http://nine.test/sendsms")
    assert line.headers["Proxy-Authorization"] == "Basic dXNlcjpodW50ZXIy"
    assert "dXNlcjpodW50ZXIy" not in repr(line)


@pytest.mark.usefixtures("trusted")
def test_silence_behind_a_proxy_is_uncertain(through):
    with serving(over_tls(silent), "https") as server, serving(relay(server.port)) as proxy:
        through(f"http://127.0.0.1:{proxy.port}")
        assert type(failure(server.url, 3.0)) is OutcomeUnknown


def test_a_proxy_that_cannot_be_reached_is_not_accepted(through):
    through(f"http://127.0.0.1:{closed_port()}")
    assert type(failure("https://nine.test/")) is NotAccepted


@pytest.mark.parametrize(
    "speak",
    [
        answering(answered(407, "Proxy-Authenticate: Basic")),
        answering(answered(502)),
        answering(ESTABLISHED),
        answering(ESTABLISHED + b"not TLS at all"),
        answering(ESTABLISHED, pause=10),
        answering(*[b"x"] * 1000, pause=0.01),
        silent,
        resetting,
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_not_accepted(through, speak):
    with serving(speak) as proxy:
        through(f"http://user:hunter2@127.0.0.1:{proxy.port}")
        error = failure("https://nine.test/", 0.5)
    assert type(error) is NotAccepted
    assert "hunter2" not in "".join(traceback.format_exception(error))


def test_a_tls_handshake_behind_a_slow_proxy_has_the_time_that_is_left(through, handshakes):
    with serving(answering(b"", ESTABLISHED, pause=0.2)) as proxy:
        through(f"http://127.0.0.1:{proxy.port}")
        assert type(failure("https://nine.test/", 5.0)) is NotAccepted
    assert 0 < handshakes[0] <= 4.8


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "SOCKS4"])
def test_a_socks_proxy_is_not_accepted(through, scheme):
    with serving(answering(OK)) as proxy:
        through(f"{scheme}://127.0.0.1:{proxy.port}")
        error = failure("https://nine.test/")
    assert type(error) is NotAccepted
    assert error.reason == "OSError: only http and https proxies are supported"
    assert proxy.connections == 0


# Uncertain


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.status(500),
        Behaviour.status(502),
        Behaviour.status(504),
        Behaviour.status(599),
        Behaviour.says_it_failed(500),
        Behaviour.says_it_failed(502),
        Behaviour.says_it_failed(1000),
        Behaviour.accept(b'{"status_code": %s}' % (b"5" * 10_000)),
        Behaviour.cut(),
        Behaviour.reset(),
        Behaviour.silent(0.0),
    ],
)
def test_what_cannot_be_told_apart_is_uncertain(provider, behaviour):
    provider.behave(behaviour)
    assert type(failure(provider.url)) is OutcomeUnknown


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_uncertain(answer):
    with serving(answering(answer)) as server:
        assert type(failure(server.url)) is OutcomeUnknown


def test_silence_is_uncertain_at_the_deadline(provider):
    provider.behave(Behaviour.silent())
    error = failure(provider.url, 1.5)
    assert (type(error), len(provider.accepted)) == (OutcomeUnknown, 1)


@pytest.mark.parametrize(
    "parts",
    [
        [b"H"] * 1000,
        [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 1000],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1000],
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 1000],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 1000],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 1000,
    ],
)
def test_an_answer_that_drips_is_uncertain_at_the_deadline(parts):
    started = time.monotonic()
    with serving(answering(*parts, pause=0.02)) as server:
        error = failure(server.url, 1.5)
    assert type(error) is OutcomeUnknown
    assert time.monotonic() - started < 12


def test_an_attempt_leaves_no_mark_on_the_next(provider):
    provider.then(Behaviour.reset())
    assert type(failure(provider.url)) is OutcomeUnknown
    with provider.down():
        assert type(failure(provider.url)) is NotAccepted


def test_a_bug_in_reading_the_answer_is_uncertain(provider, monkeypatch):
    monkeypatch.setattr(client, "body_status", lambda body: 1 // 0)
    assert type(failure(provider.url)) is OutcomeUnknown


# Refused


@pytest.mark.parametrize("status", [300, 302, 304, 400, 404, 405, 413, 422, 499])
def test_everything_else_is_refused(provider, status):
    provider.behave(Behaviour.status(status, b"Invalid \xff recipient"))
    error = failure(provider.url)
    assert (type(error), error.http_status) == (Refused, status)
    assert str(status) in error.reason


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_body_that_says_no_is_refused_in_the_providers_words(provider, status):
    provider.behave(Behaviour.says_it_failed(status, "Invalid recipient"))
    error = failure(provider.url)
    assert (type(error), error.http_status) == (Refused, 200)
    assert "Invalid recipient" in error.reason


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Location: /elsewhere/"],
        ["Location: http://[::1"],
        ["Location: \xff\xfe"],
        ["Location:"],
        ["Location: https://nine.test/", "Location: https://eight.test/"],
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_not_followed(status, headers):
    with serving(answering(answered(status, *headers, body=b"x" * 100_000))) as server:
        assert type(failure(server.url)) is Refused
    assert server.connections == 1


def test_the_token_goes_to_no_other_address(provider):
    with serving(answering(OK)) as other:
        provider.behave(Behaviour.redirect(other.url))
        assert type(failure(provider.url)) is Refused
    assert other.connections == 0


# What is quoted


def test_the_answer_is_quoted_from_its_start(provider):
    provider.behave(Behaviour.accept(b"  all\r\n\tfine\x00 " + b"x" * 1000))
    excerpt = post(provider.url).excerpt
    assert excerpt.startswith("all fine\ufffd x")
    assert len(excerpt) == client.EXCERPT_LENGTH + 1


@pytest.mark.parametrize(
    ("token", "written"),
    [
        ("s3cret/t0ken", b"s3cret/t0ken"),
        ("s3cret/t0ken", rb"s3cret\/t0ken"),
        ("s3cret/t0ken", b"s3cret%2Ft0ken"),
        ('s3cret"t0ken', rb"s3cret\"t0ken"),
        ("s3cret&t0ken", b"s3cret&amp;t0ken"),
        (r"s3cret/\"t0ken", rb"s3cret\/\\\"t0ken"),
    ],
)
def test_an_echoed_token_is_not_quoted(token, written):
    with serving(answering(answered(400, body=b"<" + written + b">"))) as server:
        assert failure(server.url, token=token).reason == "9bits answered 400: <***>"


@pytest.mark.parametrize(
    "behaviour", [Behaviour.status(401), Behaviour.status(500), Behaviour.reset(), Behaviour.cut()]
)
def test_no_error_or_log_shows_the_token(provider, caplog, behaviour):
    caplog.set_level("DEBUG")
    provider.behave(behaviour)
    error = failure(provider.url)
    assert TOKEN not in "".join(traceback.format_exception(error))
    assert TOKEN not in caplog.text
    assert CALL["to"] not in caplog.text


def test_no_error_carries_what_libraries_say(provider):
    with provider.down():
        error = failure(provider.url)
    assert (error.__cause__, error.__suppress_context__) == (None, True)


# Connections


def test_a_connection_is_used_again(provider):
    for _ in range(3):
        post(provider.url)
    assert [call.connection for call in provider.calls] == [1, 1, 1]


def test_a_connection_is_used_again_after_a_refusal(provider):
    provider.then(Behaviour.status(400, b"no"))
    failure(provider.url)
    post(provider.url)
    assert [call.connection for call in provider.calls] == [1, 1]


@pytest.mark.parametrize("behaviour", [Behaviour.cut(), Behaviour.reset()])
def test_a_connection_that_was_not_read_to_its_end_is_not_used_again(provider, behaviour):
    provider.then(behaviour)
    with suppress(OutcomeUnknown):
        post(provider.url)
    post(provider.url)
    assert [call.connection for call in provider.calls] == [1, 2]


def test_a_late_answer_is_not_taken_for_that_of_the_next_call(provider):
    provider.then(Behaviour.slow(2.0))
    assert type(failure(provider.url, 1.0)) is OutcomeUnknown
    provider.then(Behaviour.status(400))
    assert type(failure(provider.url)) is Refused


def test_a_connection_that_the_provider_closed_is_not_used_again(provider):
    provider.then(Behaviour.close_idle(0.0))
    post(provider.url)
    time.sleep(0.2)
    post(provider.url)
    assert [call.connection for call in provider.calls] == [1, 2]
    assert len(provider.accepted) == 2


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(provider, monkeypatch):
    post(provider.url)
    monkeypatch.setattr(client, "MAX_IDLE", -1.0)
    post(provider.url)
    assert [call.connection for call in provider.calls] == [1, 2]


def test_idle_means_no_more_than_three_seconds():
    assert client.MAX_IDLE == 3.0


def test_each_thread_has_a_connection_of_its_own(provider):
    post(provider.url)
    thread = threading.Thread(target=post, args=(provider.url,))
    thread.start()
    thread.join()
    post(provider.url)
    assert [call.connection for call in provider.calls] == [1, 2, 1]


def test_what_another_process_made_ready_is_not_used(monkeypatch):
    line = client._line("http://127.0.0.1:9")
    assert client._line("http://127.0.0.1:9") is line
    monkeypatch.setattr("os.getpid", lambda: 0)
    assert client._line("http://127.0.0.1:9") is not line


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_a_connection_of_its_own(provider):
    post(provider.url)
    forked = multiprocessing.get_context("fork").Process(target=post, args=(provider.url,))
    forked.start()
    forked.join(20)
    post(provider.url)
    assert forked.exitcode == 0
    assert [call.connection for call in provider.calls] == [1, 2, 1]


def test_a_line_is_kept_for_the_process_and_thread(provider):
    line = client._line(provider.url)
    assert client._line(provider.url) is line
    assert client._lines.process == os.getpid()


def test_each_url_has_a_line_of_its_own(provider):
    with Simulator(token=TOKEN) as other:
        post(provider.url)
        post(other.url)
        post(provider.url)
    assert (len(provider.accepted), len(other.accepted)) == (2, 1)


def test_a_request_leaves_in_one_piece(provider, monkeypatch):
    def send(self, data):
        sent.append(data)
        real(self, data)

    sent: list[bytes] = []
    real = HTTPConnection.send
    monkeypatch.setattr(HTTPConnection, "send", send)
    post(provider.url)
    assert ([piece[:5] for piece in sent], CALL["ref_id"].encode() in sent[0]) == ([b"POST "], True)
