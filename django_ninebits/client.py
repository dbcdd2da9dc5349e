"""One HTTP call to 9bits: the one funnel to the network.

What the caller needs to know of a call that fails is whether the request may have left.
``requests`` blurs that: a TLS handshake that hangs is a ``ReadTimeout``, and a reset before the
request is the same exception as a reset after it. So the connections here note it themselves, as
the first byte goes, and hold every step to one deadline: look-up, connect, TLS, the request, the
answer.
"""

import errno
import html
import http.client
import io
import json
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection

from django_ninebits import __version__
from django_ninebits.exceptions import NotAccepted, OutcomeUnknown, Refused, SendError
from django_ninebits.wire import body_status

#: How much of an answer is read, in bytes.
MAX_ANSWER = 64 * 1024

#: How much of an answer is quoted, in characters.
EXCERPT_LENGTH = 500

#: Seconds after which an idle connection is not used again: 9bits may be closing it just now.
MAX_IDLE = 3.0

#: Seconds that ``Retry-After`` can ask for at most.
MAX_RETRY_AFTER = 24 * 3600.0

#: Statuses that say: not now.
TRY_LATER = {401, 403, 429, 503}


@dataclass(frozen=True)
class Answer:
    """What 9bits said. ``excerpt`` is the start of the body, without the token if it was echoed."""

    status: int
    excerpt: str


def send(
    call: Mapping[str, str], *, url: str, token: str, deadline: float, ends_at: float = math.inf
) -> Answer:
    """Post ``call`` to 9bits; return when it is accepted.

    ``deadline`` is a ``time.monotonic()`` by which the answer must be complete; once it has passed,
    not one byte leaves. Nor does it after ``ends_at``, the same as a ``time.time()``: that goes on
    while the machine sleeps. Raises ``NotAccepted``, ``Refused`` or ``OutcomeUnknown``.
    """
    _attempt.deadline, _attempt.ends_at = deadline, ends_at
    _attempt.may_have_left = False
    try:
        status, headers, body = _line(url).post(call, token)
        answer = Answer(status, _excerpt(body, token))
        problem = _problem(answer, body, headers)
    except Exception as error:  # noqa: BLE001 - none may leave the attempt undecided
        kind: type[SendError] = OutcomeUnknown if _attempt.may_have_left else NotAccepted
        # Not chained: what libraries say when they fail can hold the headers.
        raise kind(_reason(error)) from None
    if problem is not None:
        raise problem
    return answer


def _problem(answer: Answer, body: bytes, headers: http.client.HTTPMessage) -> SendError | None:
    """What the answer means for the message; ``None`` if it was accepted."""
    status = answer.status
    if 200 <= status < 300:
        # A public integration saw answers of 200 whose body says that it failed. A body that was
        # not read to its end is no JSON, and then the status holds.
        inner = body_status(body) if len(body) <= MAX_ANSWER else None
        if inner is None or inner < 400:
            return None
        status = inner
    reason = f"9bits answered {_described(answer.status, status)}: {answer.excerpt}"
    if status in TRY_LATER:
        return NotAccepted(reason, http_status=answer.status, retry_after=_retry_after(headers))
    if 300 <= status < 500:
        return Refused(reason, http_status=answer.status)
    return OutcomeUnknown(reason, http_status=answer.status)


def _described(http_status: int, status: int) -> str:
    return str(status) if http_status == status else f"{http_status} with status_code {status}"


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    """Seconds, from seconds or a date. What cannot be read asks for nothing."""
    written = headers.get("Retry-After", "").strip()
    if written.isascii() and written.isdigit():
        return min(float(written[:9]), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(written)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER)


def _excerpt(body: bytes, token: str) -> str:
    text = body.decode(errors="replace").replace("\0", "\ufffd")
    for echoed in _spellings(token):
        text = text.replace(echoed, "***")
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT_LENGTH else f"{text[:EXCERPT_LENGTH]}…"


def _spellings(token: str) -> set[str]:
    """The ways in which an answer may write it: as it is, or as JSON, HTML or a URL has it."""
    written = {token, json.dumps(token)[1:-1], html.escape(token), quote(token, safe="")}
    return written | {spelling.replace("/", "\\/") for spelling in written}


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words; only the operating system's own words are quoted."""
    chain = [error]
    while (cause := _cause(chain[-1])) is not None and cause not in chain:
        chain.append(cause)
    for inner in reversed(chain):
        if isinstance(inner, OSError) and inner.strerror:
            return f"{type(inner).__name__}: {inner.strerror}"
    return f"{type(chain[-1]).__name__} on the way to 9bits"


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or error.__context__


class _Attempt(threading.local):
    """The attempt that this thread is making."""

    deadline = 0.0
    ends_at = math.inf
    may_have_left = False

    def leave(self) -> None:
        """Say that the request may leave, unless a machine that slept has missed its deadline."""
        # Where the clock was merely put forward, nothing has left, and the message is tried again.
        if time.time() >= self.ends_at:
            raise TimeoutError(errno.ETIMEDOUT, "the clock was put forward, or the machine slept")
        self.may_have_left = True

    def remaining(self) -> float:
        """Seconds to the deadline."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "no answer before the deadline")
        return seconds


_attempt = _Attempt()

#: What speaks, without what urllib3 adds to it.
_Plain = http.client.HTTPConnection


class _Connection(HTTPConnection):
    """Notes when the request begins to leave, and keeps every step to the deadline."""

    idle_since = math.inf
    #: Of a request that is being put together.
    parts: list[bytes] | None = None

    # urllib3's own would leave headers out where they are asked to.
    putrequest = _Plain.putrequest
    putheader = _Plain.putheader

    def _new_conn(self) -> socket.socket:
        self.sock = self._connected()
        # What comes next, such as the TLS handshake, has all the time that is left, and no more.
        self.sock.settimeout(_attempt.remaining())
        return self.sock

    def _connected(self) -> socket.socket:
        """Connect to one of the host's addresses; each gets its share of the time."""
        addresses = _look_up(self._dns_host)
        failure = OSError()
        while addresses:
            try:
                return create_connection(
                    (addresses[0], self.port),
                    timeout=_attempt.remaining() / len(addresses),
                    socket_options=self.socket_options,
                )
            except OSError as error:
                failure = error
            del addresses[0]
        raise failure

    def _tunnel(self) -> None:
        super()._tunnel()
        self.sock.settimeout(_attempt.remaining())

    def post(
        self, target: str, body: bytes, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """In one piece: a head that leaves before its body costs as much again."""
        parts: list[bytes] = []
        self.parts = parts
        try:
            _Plain.request(self, "POST", target, body, headers)
        finally:
            self.parts = None
        self.sock.settimeout(_attempt.remaining())
        _attempt.leave()
        super().send(b"".join(parts))
        return _Plain.getresponse(self)

    def send(self, data: Any) -> None:
        if self.parts is not None:
            self.parts.append(data)
            return
        # To a proxy, and not yet about the message.
        self.sock.settimeout(_attempt.remaining())
        super().send(data)

    class response_class(http.client.HTTPResponse):  # noqa: N801 - urllib3's name
        """An answer that is read up to the deadline, however slowly it drips."""

        def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp = io.BufferedReader(_UntilDeadline(sock, self.fp.detach()))

        def begin(self) -> None:
            """Skip what comes before the answer, such as 103: the next call must not find it."""
            super().begin()
            while 100 <= self.status < 200:
                self.headers = None  # type: ignore[assignment]
                super().begin()


class _UntilDeadline(io.RawIOBase):
    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self.sock = sock
        self.raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.sock.settimeout(_attempt.remaining())
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Pool(HTTPConnectionPool):
    """Connects with all that urllib3 knows of TLS, certificates and proxies; speaks without it.

    A third of what a call costs is what ``urlopen`` does beside that: pools, retries, redirects,
    decoding. None of it is wanted here.
    """

    ConnectionCls = _Connection

    def post(
        self, target: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The answer, and its body as far as that is read. Raises what ``http.client`` does."""
        connection = self._get_conn()
        is_read = False
        try:
            if connection.sock is None:
                self._connect(connection, _is_passed_on(target))
            with connection.post(target, body, headers) as response:
                answer = response.read(MAX_ANSWER + 1)
                if response.length and len(answer) <= MAX_ANSWER:
                    raise http.client.IncompleteRead(answer, response.length)
                is_read = response.isclosed()
        finally:
            # Unless the answer was read to its end, the connection ends with it.
            if not is_read:
                connection.close()
            self._put_conn(connection)
        return response, answer

    def _connect(self, connection: Any, is_passed_on: bool) -> None:
        if self.proxy is not None and not is_passed_on:
            # Through a tunnel, which this asks for as it connects.
            self._prepare_proxy(connection)
        else:
            connection.connect()

    def _get_conn(self, timeout: float | None = None) -> Any:
        """Not what has been idle for long. (urllib3 drops what is known to be closed.)"""
        connection: Any = super()._get_conn(timeout)
        if time.monotonic() - connection.idle_since > MAX_IDLE:
            connection.close()
        return connection

    def _put_conn(self, connection: Any) -> None:
        connection.idle_since = time.monotonic()
        super()._put_conn(connection)


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _TLSPool(_Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _TLSConnection


def _is_passed_on(target: str) -> bool:
    """Whether a proxy reads the call and passes it on. (Only such a one is told a whole URL.)"""
    return not target.startswith("/")


_POOLS = {"http": _Pool, "https": _TLSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if not proxy.lower().startswith("http"):
            raise OSError(errno.EPROTONOSUPPORT, "only http and https proxies are supported")
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def line(self, request: requests.PreparedRequest, **settings: Any) -> "_Line":
        """Where such requests go, and what they have in common."""
        proxies, verify, cert = (settings[name] for name in ("proxies", "verify", "cert"))
        pool: Any = self.get_connection_with_tls_context(request, verify, proxies, cert)
        self.cert_verify(pool, request.url, verify, cert)  # type: ignore[no-untyped-call]
        target, headers = self.request_url(request, proxies), dict(request.headers)
        if _is_passed_on(target):
            headers |= pool.proxy_headers
        return _Line(pool, target, headers)


@dataclass(frozen=True)
class _Line:
    """All that is the same for every call to a URL. Most of what ``requests`` does is."""

    pool: _Pool
    target: str
    #: They may hold the password of a proxy.
    headers: dict[str, str] = field(repr=False)

    def post(
        self, call: Mapping[str, str], token: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Post ``call`` → the answer's status, headers and body, or the start of a long one."""
        body = json.dumps(dict(call)).encode()
        own = {"Content-Length": str(len(body)), "Authorization": f"Bearer {token}"}
        response, answer = self.pool.post(self.target, body, self.headers | own)
        return response.status, response.headers, answer


def _new_line(url: str) -> _Line:
    session = requests.Session()
    session.headers["User-Agent"] = f"django-ninebits/{__version__}"
    # An unpacked answer could be a thousand times as long as what was sent.
    session.headers["Accept-Encoding"] = "identity"
    # With an ``auth``, so that none is looked for in a ``.netrc``.
    request = requests.Request("POST", url, json={}, auth=lambda prepared: prepared)
    prepared = session.prepare_request(request)
    # Proxies and certificates, as the environment says.
    settings = session.merge_environment_settings(prepared.url, {}, True, None, None)
    return _Adapter().line(prepared, **settings)


class _Lines(threading.local):
    """One to each URL for each thread, and never one of the process that this was forked from."""

    def __init__(self) -> None:
        self.to: dict[str, _Line] = {}
        self.process = os.getpid()


_lines = _Lines()


def _line(url: str) -> _Line:
    if _lines.process != os.getpid():
        _lines.to, _lines.process = {}, os.getpid()
    if url not in _lines.to:
        _lines.to[url] = _new_line(url)
    return _lines.to[url]


def _look_up(host: str) -> list[str]:
    """The addresses of ``host``. In a thread: a resolver that hangs knows no time limit."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            answers.put([str(address[4][0]) for address in found])
        except Exception as error:  # noqa: BLE001 - raised where the answer is awaited
            answers.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=_attempt.remaining())
    except queue.Empty:
        raise TimeoutError(errno.ETIMEDOUT, "the look-up of the name took too long") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
