"""What 9bits posts, for the tests of what takes it in."""

import json

#: As 9bits documents it.
DOCUMENTED = {
    "type": "two-way sms",
    "telco": "mtn",
    "from": "2348020000000",
    "to": "48974",
    "message": "When was the last time you went to the cinema?",
    "session_id": "67543uhn3",
    "sent_date": "2024-01-02T23:50:37.000000Z",
    "ref_id": "873ghf8749956778gf5",
}


def body(without=(), **changes):
    """The bytes of a delivery. ``from`` is a keyword, so it is ``from_`` here."""
    fields = DOCUMENTED | {name.rstrip("_"): value for name, value in changes.items()}
    return json.dumps({k: v for k, v in fields.items() if k not in without}).encode()
