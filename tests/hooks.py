"""A host's webhook on a socket of its own, for the tests of what delivers to it."""

from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Webhook(ThreadingHTTPServer):
    """A host's webhook: it keeps what it gets and answers 200, or as told (0: not at all)."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), WebhookHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook/"
        self.seen: list[tuple[Message, bytes]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        self.answer = b'{"status": "received"}'


class WebhookHandler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.headers, raw))
        self.server.paths.append(self.path)
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status:
            self.send_response(status)
            self.send_header("Location", "/elsewhere/")
            self.end_headers()
            self.wfile.write(self.server.answer)

    def log_message(self, *args):
        pass
