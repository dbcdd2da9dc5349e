"""9bits on your own machine: the two-way SMS API on a real socket.

It takes calls of ``sendsms``, keeps them in a ledger, answers as it is told, and delivers texts
to a webhook. It needs neither Django nor a network::

    with Simulator() as simulator:
        simulator.then(Behaviour.status(503), Behaviour.reset())
        ...  # point NINEBITS["API_URL"] and ["API_TOKEN"] at simulator.url and simulator.token
        simulator.wait_for_calls(3)
        simulator.deliver("http://127.0.0.1:8000/hooks/9bits/webhook/", "Hello")

``python -m django_ninebits.simulator --port 9480`` runs it in the foreground.

How sure each fact about 9bits is stands beside it: *documented* in 9bits' own documentation,
*observed* in a public integration, or *unknown*, where the simulator had to choose.
"""

import argparse
import base64
import http.client
import itertools
import json
import re
import secrets
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Literal, Self

import requests

PATH = "/ng/v1/sendsms"
TOKEN = "simulator-token"  # noqa: S105 (it opens nothing but a simulator)
JSON = {"Content-Type": "application/json"}
KEYS = frozenset({"from", "to", "message", "session_id", "sent_date", "ref_id"})

NO_ANSWER = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
RESETS = struct.pack("ii", 1, 0)

Body = bytes | str | Mapping[str, object]


@dataclass(frozen=True)
class Behaviour:
    """How one call is answered; made by the class methods below. Seconds are real seconds.

    Each is done to whatever call comes with the right method, path and token; only ``accept``
    looks at the body first.
    """

    word: str
    accepts: bool = True
    checks: bool = False
    code: int = 200
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0
    byte_pause: float = 0.0
    idle: float = 0.0
    ending: Literal["keep", "close", "cut", "reset", "silence"] = "keep"

    @classmethod
    def accept(cls, body: Body | None = None) -> Self:
        """Check the call as the documentation has it, then 200 and ``body``, or 422.

        That 200 with JSON means accepted is documented. The shape of that JSON is described
        nowhere: the default is ``{"status_code": 200, "reference_id": …, "created_at": …}``,
        after the one-way API (documented) and one public integration (observed). That a bad
        body is answered with 422 is unknown.
        """
        return cls("accepted", checks=True, body=None if body is None else _encoded(body))

    @classmethod
    def status(cls, code: int, body: Body = b"", headers: Mapping[str, str] | None = None) -> Self:
        """Answer HTTP ``code``; a mapping as ``body`` is sent as JSON; 2xx counts as accepted."""
        body, accepts = _encoded(body), 200 <= code < 300
        return cls(f"status {code}", accepts, code=code, body=body, headers=headers or {})

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Accept at once, answer after ``seconds``."""
        return cls("slow", pause=seconds)

    @classmethod
    def drip(cls, seconds_between_bytes: float) -> Self:
        """Accept; headers and body of the answer come byte by byte."""
        return cls("drip", byte_pause=seconds_between_bytes)

    @classmethod
    def cut(cls) -> Self:
        """Accept, send half of the body that Content-Length promises, close."""
        return cls("cut", ending="cut")

    @classmethod
    def reset(cls) -> Self:
        """Read the request, do not accept it, reset the connection (RST)."""
        return cls("reset", accepts=False, ending="reset")

    @classmethod
    def silent(cls, seconds: float = 3600.0) -> Self:
        """Accept, never answer; close after ``seconds`` or when the simulator stops."""
        return cls("silent", pause=seconds, ending="silence")

    @classmethod
    def redirect(cls, location: str) -> Self:
        """Answer 307 to ``location``; not accepted."""
        return cls("redirect", accepts=False, code=307, body=b"", headers={"Location": location})

    @classmethod
    def not_json(cls) -> Self:
        """Accept with 200 and the bare text ``OK``."""
        return cls("not json", body=b"OK")

    @classmethod
    def says_it_failed(cls, code: int = 400, words: str = "Invalid recipient") -> Self:
        """Answer HTTP 200 with ``code`` as the ``status_code`` in the body (observed)."""
        body = _encoded({"status_code": code, "message": words})
        return cls("says it failed", accepts=False, body=body)

    @classmethod
    def too_long(cls) -> Self:
        """Accept with 200 and valid JSON of more than 64 KiB."""
        return cls("too long", body=_encoded({"status_code": 200, "padding": "x" * 65536}))

    @classmethod
    def close_idle(cls, seconds: float = 0.05) -> Self:
        """Accept with a keep-alive answer; ``seconds`` later close the idle connection.

        A call that comes on it in between is lost, as it is with any server that closes.
        """
        return cls("close idle", idle=seconds, ending="close")

    def sends(self) -> tuple[int, bytes]:
        """The HTTP status and the part of the body that are sent; 0 and nothing if none are."""
        if self.ending in {"reset", "silence"}:
            return 0, b""
        body = self.body or b""
        return self.code, body[: len(body) // 2] if self.ending == "cut" else body


@dataclass(frozen=True)
class Call:
    """One request as it came: in the ledger before its answer leaves.

    ``body`` is None where ``raw`` is no JSON object. The names in ``headers`` are in lower case;
    ``Authorization`` is left out, and ``authorized`` says whether it was right. ``answered`` is
    the word of the behaviour that it met, ``status`` and ``answer`` are what is sent back (0 and
    nothing where there is no answer), ``connection`` counts the connections from 1.
    """

    received_at: datetime
    body: dict[str, Any] | None
    raw: bytes
    headers: dict[str, str]
    authorized: bool
    answered: str
    connection: int
    accepted: bool
    status: int
    answer: bytes


@dataclass(frozen=True)
class Post:
    """One try to deliver a text to a webhook, once it is over.

    ``delivery`` is the same number for every try of one ``deliver``. ``status`` is 0 and
    ``answer`` empty where no whole answer came.
    """

    posted_at: datetime
    delivery: int
    raw: bytes
    status: int
    answer: bytes


@dataclass(frozen=True)
class Receipt:
    """What became of a delivery.

    ``body`` is what was posted (empty where that was no JSON object), ``statuses`` has the HTTP
    status of each try, 0 where no whole answer came, and ``answer`` is the JSON of the last
    answer, or None.
    """

    body: dict[str, Any]
    statuses: tuple[int, ...]
    answer: Any


class Simulator:
    """9bits on a socket of its own: a context manager, or ``start()`` and ``stop()``.

    ``port=0`` takes any free port, and keeps it from then on. ``speed`` makes the pauses between
    redeliveries shorter: with 1000, 30 s are 30 ms. All methods may be called from any thread.

    A call must be a POST to ``PATH`` with the bearer token (documented); otherwise it is answered
    with 405, 404 or 401 (which statuses 9bits uses is unknown), whatever behaviour was told.
    """

    def __init__(
        self,
        *,
        token: str = TOKEN,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
    ) -> None:
        self.token = token
        self.host = host
        self.port = port
        self.speed = speed
        self._server: _Server | None = None
        self._numbers = itertools.count(1)
        self._deliveries = itertools.count(1)
        self._changed = threading.Condition()
        self.clear()

    @property
    def url(self) -> str:
        """The address to call, as ``NINEBITS["API_URL"]`` wants it; known once it was started."""
        return f"http://{self.host}:{self.port}{PATH}"

    def start(self) -> Self:
        """Listen, on the same port as before if there was one; ``OSError`` if that is taken."""
        if self._server:
            raise RuntimeError("the simulator is running already")
        self._serve(self._bind())
        return self

    def stop(self) -> None:
        """Close the listening socket and every open connection; the ledger stays."""
        server, self._server = self._server, None
        if server:
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuse every connection inside the block; afterwards be back on the same port."""
        self.stop()
        server = self._bind()
        try:
            yield
        finally:
            self._serve(server)

    def _bind(self) -> "_Server":
        server = _Server(self, self._numbers)
        self.port = server.server_address[1]
        return server

    def _serve(self, server: "_Server") -> None:
        server.listen()
        self._server = server

    @property
    def calls(self) -> list[Call]:
        """A copy of the ledger: every call that came, in the order in which they came."""
        with self._changed:
            return list(self._calls)

    @property
    def accepted(self) -> list[Call]:
        """The calls of the ledger that were accepted, whether or not an answer arrived."""
        return [call for call in self.calls if call.accepted]

    @property
    def wire(self) -> list[Call | Post]:
        """A copy of all that went over the wire, both ways, in the order in which it ended."""
        with self._changed:
            return list(self._wire)

    def wait_for_calls(self, n: int, timeout: float = 5.0) -> list[Call]:
        """Return all calls as soon as there are ``n``; ``TimeoutError`` after ``timeout`` s."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._calls) >= n, timeout):
                came = len(self._calls)
                raise TimeoutError(f"waited {timeout} s for {n} calls, and {came} came")
            return list(self._calls)

    def follow(self) -> Iterator[Call]:
        """Give each call as it comes, from the first in the ledger on; this never ends."""
        return map(self._call, itertools.count())

    def _call(self, index: int) -> Call:
        with self._changed:
            while len(self._calls) <= index:
                self._changed.wait()
            return self._calls[index]

    def clear(self) -> None:
        """Forget what went over the wire, and accept whatever comes next."""
        with self._changed:
            self._calls: list[Call] = []
            self._wire: list[Call | Post] = []
            self._next: deque[Behaviour] = deque()
            self._standing = Behaviour.accept()

    def behave(self, behaviour: Behaviour) -> None:
        """Answer so from now on, once what ``then`` was given is used up."""
        with self._changed:
            self._standing = behaviour

    def then(self, *behaviours: Behaviour) -> None:
        """Answer the next calls so, one each. A wrong method, path or token uses up none."""
        with self._changed:
            self._next.extend(behaviours)

    def _take(self, request: "_Handler", raw: bytes) -> Behaviour:
        headers = {name.lower(): value for name, value in request.headers.items()}
        authorized = headers.pop("authorization", "") == f"Bearer {self.token}"
        body = _json_object(raw)
        number = request.server.connections[request.connection]
        with self._changed:
            now = datetime.now(UTC)
            behaviour = _door(request, authorized) or self._told(body)
            if behaviour.body is None:
                behaviour = replace(behaviour, body=_accepted_body())
            did = (behaviour.word, number, behaviour.accepts, *behaviour.sends())
            call = Call(now, body, raw, headers, authorized, *did)
            self._calls.append(call)
            self._wire.append(call)
            self._changed.notify_all()
        return behaviour

    def _told(self, body: dict[str, Any] | None) -> Behaviour:
        behaviour = self._next.popleft() if self._next else self._standing
        errors = _errors(body) if behaviour.checks else {}
        return Behaviour.status(422, {"errors": errors}) if errors else behaviour

    def deliver(
        self,
        webhook_url: str,
        text: str,
        *,
        sender: str = "2348020000000",
        short_code: str = "48974",
        session_id: str | None = None,
        ref_id: str | None = None,
        telco: str = "mtn",
        sent_date: str | datetime | None = None,
        token: str | None = None,
        basic: tuple[str, str] | None = None,
        fields: Mapping[str, object] | None = None,
        without: Collection[str] = (),
        redeliver: bool = False,
        timeout: float = 30.0,
    ) -> Receipt:
        """Post a subscriber's text to ``webhook_url`` in the documented body.

        ``session_id`` and ``ref_id`` are random unless given; ``sent_date`` is now, an aware
        datetime, or a string to be sent as it is. ``fields`` adds to the body or overrides it,
        ``without`` names what is left out: ``["ref_id"]`` is an older account (documented).

        The credential is ``token`` as a bearer token (the simulator's own unless given; ``""``
        sends none), or ``basic``, a user name and a password; those may stand in the URL too.

        With ``redeliver`` the same bytes are posted again after 5xx and 429 (documented) and
        where no answer came (unknown), with ``redelivery_pauses()`` between the tries. Any other
        answer ends it. How long 9bits waits for one is unknown: here ``timeout`` seconds. This
        returns after the last try.
        """
        body: dict[str, Any] = {
            "type": "two-way sms",
            "telco": telco,
            "from": sender,
            "to": short_code,
            "message": text,
            "session_id": secrets.token_hex(8) if session_id is None else session_id,
            "sent_date": _sent_date(sent_date),
            "ref_id": secrets.token_hex(8) if ref_id is None else ref_id,
        } | dict(fields or {})
        raw = json.dumps({key: body[key] for key in body if key not in without}).encode()
        headers = JSON | self._credential(token, basic)
        return self._deliver(webhook_url, raw, headers, redeliver, timeout)

    def deliver_raw(
        self,
        webhook_url: str,
        raw: bytes,
        *,
        content_type: str = "application/json",
        token: str | None = None,
        timeout: float = 30.0,
    ) -> Receipt:
        """Post any bytes to ``webhook_url``, once; ``token`` is that of ``deliver``."""
        headers = {"Content-Type": content_type} | self._credential(token, None)
        return self._deliver(webhook_url, raw, headers, False, timeout)

    def _credential(self, token: str | None, basic: tuple[str, str] | None) -> dict[str, str]:
        if basic:
            pair = base64.b64encode(":".join(basic).encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        token = self.token if token is None else token
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _deliver(
        self, url: str, raw: bytes, headers: dict[str, str], redeliver: bool, timeout: float
    ) -> Receipt:
        posts: list[Post] = []
        delivery = next(self._deliveries)
        for pause in itertools.chain([0.0], redelivery_pauses() if redeliver else ()):
            time.sleep(pause / self.speed)
            posts.append(self._post(url, raw, headers, timeout, delivery))
            if 0 < posts[-1].status < 500 and posts[-1].status != 429:
                break
        statuses = tuple(post.status for post in posts)
        return Receipt(_json_object(raw) or {}, statuses, _json(posts[-1].answer))

    def _post(
        self, url: str, raw: bytes, headers: dict[str, str], timeout: float, delivery: int
    ) -> Post:
        now = datetime.now(UTC)
        post = Post(now, delivery, raw, *_post(url, raw, headers, timeout))
        with self._changed:
            self._wire.append(post)
        return post


def redelivery_pauses() -> Iterator[float]:
    """Give the seconds between one try of a delivery and the next, at a speed of 1.

    Documented: first after 30 s, then 60 s, 120 s and so on, the last try 3600 s after the first
    failure. Unknown, and read so here: each is counted from the try before it, and the last
    pause is what is left of the hour.
    """
    pause, left = 30.0, 3600.0
    while pause < left:
        yield pause
        pause, left = pause * 2, left - pause
    yield left


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, simulator: Simulator, numbers: Iterator[int]) -> None:
        self.simulator = simulator
        self.numbers = numbers
        self.stopping = threading.Event()
        self.connections: dict[socket.socket, int] = {}
        self.changed = threading.Condition()
        super().__init__((simulator.host, simulator.port), _Handler)

    def server_activate(self) -> None:
        """Leave it to ``listen``: a socket that is only bound keeps its port and refuses all."""

    def listen(self) -> None:
        super().server_activate()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.changed:
            self.connections[request] = next(self.numbers)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close without the FIN that the base class sends first: it would precede an RST."""
        with self.changed:
            del self.connections[request]
            request.close()
            self.changed.notify_all()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.stopping.set()
        with self.changed:
            for connection in self.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.changed.wait_for(lambda: not self.connections, timeout=5.0)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        raw = self.rfile.read(length)
        if len(raw) < length:
            self.close_connection = True
        else:
            self.obey(self.server.simulator._take(self, raw))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve  # noqa: N815

    def obey(self, behaviour: Behaviour) -> None:
        stopped = self.server.stopping.wait(behaviour.pause)
        if behaviour.ending == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
        elif behaviour.ending != "silence" and not stopped:
            self.send(_answer(behaviour), behaviour.byte_pause)
            self.server.stopping.wait(behaviour.idle)
        self.close_connection |= behaviour.ending != "keep"

    def send(self, answer: bytes, byte_pause: float) -> None:
        step = 1 if byte_pause else len(answer)
        for start in range(0, len(answer), step):
            self.wfile.write(answer[start : start + step])
            if self.server.stopping.wait(byte_pause):
                break

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the ledger is the log."""


def _door(request: _Handler, authorized: bool) -> Behaviour | None:
    if request.command != "POST":
        return Behaviour.status(405, headers={"Allow": "POST"})
    if request.path != PATH:
        return Behaviour.status(404, {"error": f"POST to {PATH}"})
    if not authorized:
        return Behaviour.status(401, {"error": "bearer token missing or wrong"})
    return None


def _errors(body: dict[str, Any] | None) -> dict[str, str]:
    if body is None:
        return {"body": "not a JSON object"}
    errors = dict.fromkeys(sorted(KEYS - body.keys()), "missing")
    errors |= dict.fromkeys(sorted(body.keys() - KEYS), "not documented")
    errors |= {key: "not a string" for key in body if not isinstance(body[key], str)}
    if "sent_date" not in errors and not _is_documented_date(body["sent_date"]):
        errors["sent_date"] = "not like 2024-01-02T23:50:37.000000Z"
    return errors


def _is_documented_date(written: str) -> bool:
    with suppress(ValueError, OverflowError):
        return _sent_date(datetime.fromisoformat(written)) == written
    return False


def _sent_date(when: str | datetime | None) -> str:
    if isinstance(when, str):
        return when
    utc = (when or datetime.now(UTC)).astimezone(UTC)
    return utc.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _accepted_body() -> bytes:
    reference, now = secrets.token_hex(8), _sent_date(None)
    return _encoded({"status_code": 200, "reference_id": reference, "created_at": now})


def _encoded(body: Body) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _answer(behaviour: Behaviour) -> bytes:
    body = behaviour.body or b""
    headers = JSON | {"Content-Length": str(len(body))} | dict(behaviour.headers)
    reason = http.client.responses.get(behaviour.code, "")
    lines = [f"HTTP/1.1 {behaviour.code} {reason}", *map(": ".join, headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + behaviour.sends()[1]


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _json_object(raw: bytes) -> dict[str, Any] | None:
    value = _json(raw)
    return value if isinstance(value, dict) else None


def _post(url: str, raw: bytes, headers: dict[str, str], timeout: float) -> tuple[int, bytes]:
    with requests.Session() as session, suppress(*NO_ANSWER):
        # A proxy or a .netrc of the machine must not change what the webhook gets.
        session.trust_env = False
        response = session.post(
            url, data=raw, headers=headers, timeout=timeout, allow_redirects=False
        )
        return response.status_code, response.content
    return 0, b""


def _line(call: Call) -> str:
    body = call.body or {}
    digits = re.sub(r"\D", "", str(body.get("to", "")))
    to, length = digits[-4:].rjust(8, "*"), len(str(body.get("message", "")))
    return f"{call.received_at:%H:%M:%S} {call.answered}, to {to}, {length} characters"


def main(argv: list[str] | None = None) -> None:
    """Run in the foreground until Ctrl-C; print the URL and one line a call, never a text."""
    parser = argparse.ArgumentParser("python -m django_ninebits.simulator", description="9bits")
    parser.add_argument("--port", type=int, default=9480)
    parser.add_argument("--token", default=TOKEN)
    options = parser.parse_args(argv)
    with suppress(KeyboardInterrupt), Simulator(**vars(options)) as simulator:
        print(simulator.url, flush=True)
        for call in simulator.follow():
            print(_line(call), flush=True)


if __name__ == "__main__":
    main()
