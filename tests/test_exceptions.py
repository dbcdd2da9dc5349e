import inspect
import re

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_ninebits import conf, exceptions
from django_ninebits.exceptions import (
    DeliveryNotUnderstood,
    NinebitsError,
    NotAccepted,
    RefIdConflict,
    Refused,
    traceback_without_values,
)


def classes():
    found = vars(exceptions).values()
    return [kind for kind in found if inspect.isclass(kind) and issubclass(kind, Exception)]


def drawn():
    """The pairs of class and parent in the tree of the docstring."""
    parents, pairs = {}, {}
    for line in exceptions.__doc__.splitlines():
        if match := re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            parents[depth] = match[2]
            pairs[match[2]] = parents.get(depth - 1, "Exception")
    return pairs


NUMBER = "".join(["08", "02"])  # not in the source lines that a traceback has


def raised(function):
    with pytest.raises(NinebitsError) as error:
        function(NUMBER)
    return error.value


def test_the_tree_is_drawn_as_it_is():
    assert drawn() == {kind.__name__: kind.__base__.__name__ for kind in classes()}


def test_every_exception_says_what_it_means():
    assert all(kind.__doc__ for kind in classes())


def test_a_refused_message_is_a_value_error():
    assert issubclass(exceptions.InvalidPhoneNumber, ValueError)


def test_mistakes_in_the_settings_stand_outside():
    assert issubclass(conf.NotSetYet, ImproperlyConfigured)
    assert not issubclass(conf.NotSetYet, NinebitsError)


def test_a_conflict_names_the_first():
    error = RefIdConflict("taken", first := object())
    assert (str(error), error.first) == ("taken", first)


def test_a_delivery_has_every_reason():
    error = DeliveryNotUnderstood(["One.", "Two."])
    assert (str(error), error.errors) == ("One. Two.", ["One.", "Two."])


def test_an_attempt_carries_its_evidence():
    error = NotAccepted("busy", http_status=429, retry_after=7)
    assert (error.reason, error.http_status, error.retry_after) == ("busy", 429, 7)
    assert (Refused("no").http_status, NotAccepted("no").retry_after) == (None, None)


def chained(secret):
    try:
        int(f"cause {secret}")
    except ValueError as cause:
        raise NinebitsError(f"detail {secret}") from cause


def in_passing(secret):
    try:
        int(f"context {secret}")
    except ValueError:
        raise NinebitsError(f"detail {secret}")  # noqa: B904


def hiding(secret):
    try:
        int(f"context {secret}")
    except ValueError:
        raise NinebitsError(f"detail {secret}") from None


@pytest.mark.parametrize("function", [chained, in_passing])
def test_a_traceback_has_every_place_and_type_but_no_message(function):
    written = traceback_without_values(raised(function))
    assert NUMBER not in written
    assert written.index("builtins.ValueError") < written.index("exceptions.NinebitsError")
    assert written.count(f"in {function.__name__}") == 2


def test_a_traceback_leaves_out_what_was_suppressed():
    written = traceback_without_values(raised(hiding))
    assert "ValueError\n" not in written
    assert NUMBER not in written
    assert written.endswith("exceptions.NinebitsError")


def test_an_error_that_was_never_raised_has_its_type():
    assert traceback_without_values(ValueError(NUMBER)) == "builtins.ValueError"
