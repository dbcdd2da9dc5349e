"""The example site, its worker and a simulated 9bits, all in one process."""

import json
import logging
import secrets
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import BaseCommand, CommandError, call_command
from django.core.servers.basehttp import (
    ThreadedWSGIServer,
    WSGIRequestHandler,
    get_internal_wsgi_application,
)
from django.urls import reverse
from django.utils.timezone import localtime

from django_ninebits import handset
from django_ninebits.phone import masked
from django_ninebits.simulator import Simulator

TOKEN = "demo-token"

WELCOME = """
The phone    {phone}
The inbox    {inbox}
Log in as    admin, with the password admin

Text something on the phone, and answer in the inbox. HELP is answered by
example_project/receivers.py. Every call is printed below: 9bits is simulated, nobody gets an SMS.
From another terminal, a text arrives so:

{curl}

Ctrl-C ends the demo; its conversations are kept.
"""


class Command(BaseCommand):
    help = "Runs the example site, its worker and a simulated 9bits, until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="of the site (default: 8000)")

    def handle(self, *, port: int, **options: Any) -> None:
        with suppress(KeyboardInterrupt):
            call_command("migrate", verbosity=0)
            create_admin()
            with Simulator(token=TOKEN, speed=handset.SPEED) as simulator, serve(port) as site:
                use(simulator)
                phone = site + reverse("ninebits-handset:page")
                inbox = site + reverse(handset.INBOX)
                self.say(WELCOME.format(phone=phone, inbox=inbox, curl=curl(site)))
                Thread(target=self.print_calls, args=[simulator], daemon=True).start()
                call_command("ninebits_worker")

    def print_calls(self, simulator: Simulator) -> None:
        calls = simulator.follow()
        while True:
            call = next(calls)
            to = masked((call.body or {}).get("to", ""))
            when = localtime(call.received_at)
            self.say(f"{when:%H:%M:%S} a call to 9bits: to {to}, {call.answered}")

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def create_admin() -> None:
    users = get_user_model()._default_manager
    if not users.filter(username="admin").exists():
        users.create_superuser("admin", password="admin")


def use(simulator: Simulator) -> None:
    """Whatever the environment says: the demo never calls the real 9bits, nor shows its token."""
    settings.NINEBITS = settings.NINEBITS | {
        "API_TOKEN": simulator.token,
        "API_URL": simulator.url,
        "DISPATCHER": "django_ninebits.dispatch.defer",
    }
    handset.use(simulator)


@contextmanager
def serve(port: int) -> Iterator[str]:
    """Serve the site, its static files too, on this machine; gives its address."""
    try:
        server = ThreadedWSGIServer(("127.0.0.1", port), WSGIRequestHandler)
    except OSError as error:
        raise CommandError(
            f"Cannot listen on port {port} ({error.strerror})."
            f" End what uses it, or choose another: make demo PORT={port + 1}"
        ) from error
    server.set_app(StaticFilesHandler(get_internal_wsgi_application()))
    # A line for each request would bury the calls to 9bits.
    logging.getLogger("django.server").setLevel(logging.WARNING)
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def curl(site: str) -> str:
    """The command that makes a text arrive, with the body that 9bits documents.

    The shell writes the date, so that each time it is a new text and no redelivery.
    """
    body = {
        "type": "two-way sms",
        "telco": "mtn",
        "from": "2348020000000",
        "to": settings.NINEBITS["SHORT_CODE"],
        "message": "Hello, is anybody there?",
        "session_id": secrets.token_hex(5),
        "sent_date": "$(date -u +%Y-%m-%dT%H:%M:%S.000000Z)",
        "ref_id": secrets.token_hex(10),
    }
    return (
        f"curl {site}{reverse('ninebits:webhook')} -H 'Authorization: Bearer {TOKEN}'"
        f" -H 'Content-Type: application/json' -d @- <<TEXT\n{json.dumps(body)}\nTEXT"
    )
