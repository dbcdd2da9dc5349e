"""Pages that keep themselves up to date: they ask again and again with the tag of what they show.

As long as nothing has changed there is no answer but 304, and nothing is written.
"""

import hashlib
from typing import Any

from django.http import HttpRequest
from django.utils.timezone import get_current_timezone_name
from django.utils.translation import get_language

#: Seconds after which an open page asks whether anything has changed.
EVERY = 2.0


def tag_of(*shown: object) -> str:
    """Of all that a page shows and that can change: the same as long as nothing has.

    What the page says depends on the language and the time zone as well.
    """
    written = repr((get_language(), get_current_timezone_name(), shown))
    return f'"{hashlib.sha256(written.encode()).hexdigest()[:32]}"'


def known_tag(request: HttpRequest) -> str:
    """What the open page that asks has got, perhaps made weak on its way; else nothing."""
    known = request.headers.get("If-None-Match", "") if request.method == "GET" else ""
    if known:
        let_session_end(request)
    return known


def let_session_end(request: HttpRequest) -> None:
    """Nobody need be there when an open page asks: that makes no session last longer.

    Where the host saves sessions at every request, this one is saved only if it was changed.
    """
    session: Any = request.session
    save = session.save

    def save_changes(*args: Any, **kwargs: Any) -> None:
        if session.modified:
            save(*args, **kwargs)

    session.save = save_changes
