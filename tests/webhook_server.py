"""A host's web server with the webhook, in a process of its own, until its standard input ends.

It writes its port. Whatever ``message_received`` announces is appended to the file that
``NINEBITS_TEST_HEARD`` names, a line for each.
"""

import os
import sys
import threading

import django
from django.conf import settings
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application


class Handler(WSGIRequestHandler):
    disable_nagle_algorithm = True

    def log_message(self, format, *args):
        """Nothing."""


class Server(ThreadedWSGIServer):
    request_queue_size = 128


def serve() -> None:
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    settings.DATABASES["default"]["CONN_MAX_AGE"] = None
    django.setup()
    from django_ninebits.signals import message_received

    heard = os.open(os.environ["NINEBITS_TEST_HEARD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(message, **kwargs):
        os.write(heard, f"{message.pk}\n".encode())

    message_received.connect(note)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.set_app(get_wsgi_application())
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.shutdown()


serve()
