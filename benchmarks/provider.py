"""A 9bits that accepts everything after a while, and costs as little processor time as may be.

``python -m benchmarks.provider SECONDS`` prints its port, and then at each line that it reads how
many calls it has accepted, and how many a second in the middle four fifths of them.
"""

import asyncio
import sys
import time

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n"
    b'{"status": "submitted"}'
)


class Calls:
    """What has come in since the last report."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def report(self) -> str:
        """How many, and how many a second the middle four fifths of them were."""
        times, self.times = self.times, []
        tenth = len(times) // 10
        middle = times[tenth : len(times) - tenth]
        return f"{len(times)} {len(middle) / (middle[-1] - middle[0]) if middle else 0:.1f}"


class Call(asyncio.Protocol):
    """A connection with one call at a time on it."""

    transport: asyncio.Transport

    def __init__(self, calls: Calls, answer_after: float) -> None:
        self.calls = calls
        self.answer_after = answer_after
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.body += data
        # The head is ASCII, so that its only closing brace is the JSON's.
        if self.body.endswith(b"}"):
            self.body = b""
            asyncio.get_running_loop().call_later(self.answer_after, self.accept)

    def accept(self) -> None:
        self.calls.times.append(time.monotonic())
        self.transport.write(ANSWER)


async def serve(answer_after: float) -> None:
    loop = asyncio.get_running_loop()
    calls = Calls()
    server = await loop.create_server(lambda: Call(calls, answer_after), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(calls.report(), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
