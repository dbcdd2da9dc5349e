"""A process of a host that calls what it is told, until its standard input ends.

A call is a line of JSON, the name of one of ``CALLS`` and its arguments; so is what came of it.
"""

import json
import sys

import django

django.setup()

from django.db import connection  # noqa: E402

from django_ninebits import services  # noqa: E402
from django_ninebits.exceptions import RefIdConflict  # noqa: E402


def say(what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def hear():
    return json.loads(sys.stdin.readline() or "null")


def send_sms(arguments):
    """The id of the message, or what a conflict says and the id of the first."""
    try:
        return {"message": services.send_sms(**arguments).pk}
    except RefIdConflict as conflict:
        return {"first": conflict.first.pk, "words": str(conflict)}


def send_many(arguments):
    return services.send_many(**arguments)


def send_many_haltingly(arguments):
    """Say so after each statement that stores messages, and go on when told to."""
    with connection.execute_wrapper(halt_at_messages):
        return services.send_many(**arguments)


def halt_at_messages(execute, sql, *more):
    result = execute(sql, *more)
    if sql.startswith("INSERT") and "django_ninebits_message" in sql:
        say("halted")
        hear()
    return result


CALLS = {call.__name__: call for call in (send_sms, send_many, send_many_haltingly)}

say("ready")
while told := hear():
    name, arguments = told
    say(CALLS[name](arguments))
