import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_ninebits.exceptions import DeliveryNotUnderstood
from django_ninebits.wire import (
    Delivery,
    body_status,
    outbound_identity,
    read_delivery,
    unstorable,
    write_call,
    write_date,
)
from tests.deliveries import DOCUMENTED, body

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
field_values = st.fixed_dictionaries({}, optional=dict.fromkeys(DOCUMENTED, json_values))


def errors(raw):
    with pytest.raises(DeliveryNotUnderstood) as error:
        read_delivery(raw)
    return error.value.errors


def understood(raw):
    try:
        return read_delivery(raw)
    except DeliveryNotUnderstood:
        return None


# What 9bits documents


def test_the_documented_delivery_is_read():
    assert read_delivery(body()) == Delivery(
        subscriber="+2348020000000",
        short_code="48974",
        text="When was the last time you went to the cinema?",
        session_id="67543uhn3",
        ref_id="873ghf8749956778gf5",
        telco="mtn",
        sent_date="2024-01-02T23:50:37.000000Z",
        sent_at=datetime(2024, 1, 2, 23, 50, 37, tzinfo=UTC),
    )


def test_a_delivery_of_an_older_account_has_no_reference():
    delivery = read_delivery(body(without=["ref_id"]))
    assert (delivery.ref_id, delivery.session_id) == ("", "67543uhn3")


@pytest.mark.parametrize("field", ["type", "telco", "session_id", "ref_id", "sent_date"])
@pytest.mark.parametrize("change", ["left out", None])
def test_what_is_not_needed_may_be_missing(field, change):
    raw = body(without=[field]) if change else body(**{field: None})
    read = dataclasses.asdict(read_delivery(raw))
    assert read["text"] == DOCUMENTED["message"]
    assert not read.get(field)


@pytest.mark.parametrize("field", ["from", "to", "message"])
@pytest.mark.parametrize("change", ["left out", None])
def test_what_is_needed_is_missed(field, change):
    raw = body(without=[field]) if change else body(**{field: None})
    assert errors(raw) == [f"{field}: missing."]


def test_every_error_is_told():
    wrong = {"type": "dlr", "from": "MTN", "to": "", "session_id": [], "telco": "x" * 65}
    told = " ".join(errors(json.dumps(wrong).encode()))
    assert all(f"{field}: " in told for field in [*wrong, "message"])


def test_fields_that_nobody_knows_yet_are_no_error():
    assert read_delivery(body(network_id=7, from_name={"a": []})).text == DOCUMENTED["message"]


def test_a_delivery_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        del read_delivery(body()).text


@pytest.mark.parametrize("kind", ["two-way sms", "Two-Way SMS", " two-way sms ", ""])
def test_the_type_is_read_whatever_its_case(kind):
    assert read_delivery(body(type=kind)).text == DOCUMENTED["message"]


@pytest.mark.parametrize("kind", ["delivery report", "a2p", 5])
def test_another_type_is_not_understood(kind):
    assert errors(body(type=kind)) == [f"type: {str(kind)!r} is not 'two-way sms'."]


# The text and the other strings


@pytest.mark.parametrize("text", ["", " ", "a\r\nb", "Ẹ káàbọ̀ 🎉", "x" * 60_000, "\u202e", "\x1b"])
def test_a_text_is_read_as_it_was_written(text):
    assert read_delivery(body(message=text)).text == text


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud83d"])
@pytest.mark.parametrize("field", ["message", "session_id", "ref_id", "telco", "sent_date", "from"])
def test_what_no_database_can_hold_is_not_understood(field, text):
    assert errors(body(**{field: text})) == [
        f"{field}: has characters that cannot be stored as text."
    ]
    assert unstorable(text)


def test_surrogates_in_pairs_are_one_character():
    assert read_delivery(body(message="🎉")).text == "🎉"
    assert not unstorable("🎉")


def test_a_lone_surrogate_in_utf_8_is_not_understood():
    assert errors(body(message="?").replace(b"?", b"\xed\xa0\x80"))


@pytest.mark.parametrize("field", ["from", "to", "message", "telco", "session_id", "sent_date"])
@pytest.mark.parametrize("value", [True, False, [], {}, ["48974"], {"a": "b"}])
def test_a_value_of_another_kind_is_not_understood(field, value):
    assert errors(body(**{field: value})) == [f"{field}: not a string."]


@pytest.mark.parametrize(
    ("field", "longest"), [("session_id", 255), ("ref_id", 255), ("telco", 64)]
)
def test_what_is_indexed_has_a_longest(field, longest):
    assert getattr(read_delivery(body(**{field: "ẹ" * longest})), field) == "ẹ" * longest
    assert errors(body(**{field: "x" * (longest + 1)})) == [
        f"{field}: longer than {longest} characters."
    ]


def test_numbers_without_quotes_are_kept_as_they_stand():
    raw = b'{"from": 2348020000000, "to": 48974, "message": 1e5, "session_id": 12, "ref_id": 1.50}'
    read = read_delivery(raw)
    assert (read.subscriber, read.short_code) == ("+2348020000000", "48974")
    assert (read.text, read.session_id, read.ref_id) == ("1e5", "12", "1.50")
    assert type(read.text) is str


def test_ten_thousand_digits_are_a_text():
    raw = body(message="?").replace(b'"?"', b"1" * 10_000)
    assert read_delivery(raw).text == "1" * 10_000


@pytest.mark.parametrize(
    ("written", "subscriber"),
    [("+2348020000000", "+2348020000000"), ("002348020000000", "+2348020000000")],
)
def test_a_subscriber_is_normalised(written, subscriber):
    assert read_delivery(body(from_=written)).subscriber == subscriber


def test_a_short_code_is_normalised():
    assert read_delivery(body(to="+48974")).short_code == "48974"


@pytest.mark.parametrize("field", ["from", "to"])
@pytest.mark.parametrize("written", ["", "ọjà", "5" * 40, "x" * 1000])
def test_a_number_that_is_none_is_told_in_ascii_and_in_short(field, written):
    (told,) = errors(body(**{field: written}))
    assert told.startswith(f"{field}: ")
    assert told.isascii()
    assert len(told) < 320


# The bytes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_encoding_of_json_is_read(encoding):
    text = json.dumps(DOCUMENTED | {"message": "Ẹ káàbọ̀ 🎉"}, ensure_ascii=False)
    assert read_delivery(text.encode(encoding)).text == "Ẹ káàbọ̀ 🎉"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"\0",
        b"\xff\xfe",
        b"\x80abc",
        b"{",
        b"{'a': 1}",
        b'{"a": 1} {}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"message": "a\nb"}',
        b"from=2348020000000&message=Hello",
        body().decode().encode("cp500"),
    ],
)
def test_what_is_no_json_is_not_understood(raw):
    assert errors(raw) == ["The body is not JSON."]


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"text"', b"1", b"1" * 10_000, b"true", b"[{}]"])
def test_what_is_no_object_is_not_understood(raw):
    assert errors(raw) == ["The body is not a JSON object."]


@pytest.mark.parametrize("raw", [b"[" * 65_536, b'{"a":' * 13_000])
def test_what_is_nested_too_deeply_is_not_understood(raw):
    assert errors(raw) == ["The body is nested too deeply."]


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_understood_or_not(raw):
    assert understood(raw) is None or b"from" in raw


@given(json_values)
def test_any_json_is_understood_or_not(value):
    raw = json.dumps(value).encode()
    assert understood(raw) is None or b"from" in raw


@given(field_values)
@example({"message": "\ud800"})
@example({"from": "4900060"})
def test_any_field_is_understood_or_not(changes):
    read = understood(json.dumps(DOCUMENTED | changes).encode())
    if read is not None:
        assert read == understood(json.dumps(DOCUMENTED | changes).encode())
        assert not any(unstorable(v) for v in vars(read).values() if isinstance(v, str))
        assert read.subscriber.startswith("+")


@given(st.text())
def test_any_text_is_read_exactly_or_not_at_all(text):
    read = understood(body(message=text))
    assert unstorable(text) if read is None else read.text == text


# Dates


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2024-01-02T23:50:37Z", datetime(2024, 1, 2, 23, 50, 37, tzinfo=UTC)),
        ("2024-01-02T23:50:37.123456Z", datetime(2024, 1, 2, 23, 50, 37, 123456, tzinfo=UTC)),
        ("2024-01-03T00:50:37+01:00", datetime(2024, 1, 2, 23, 50, 37, tzinfo=UTC)),
        ("2024-01-02T23:50:37", datetime(2024, 1, 2, 23, 50, 37, tzinfo=UTC)),
        ("2024-01-02 23:50:37", datetime(2024, 1, 2, 23, 50, 37, tzinfo=UTC)),
        ("2000-01-01T00:00:00Z", datetime(2000, 1, 1, tzinfo=UTC)),
        ("2099-12-31T23:59:59Z", datetime(2099, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_date_is_read_as_utc(written, moment):
    read = read_delivery(body(sent_date=written))
    assert (read.sent_at, read.sent_date) == (moment, written)
    assert f"{read.sent_at}".endswith("+00:00")


@pytest.mark.parametrize(
    "written",
    [
        "",
        "yesterday",
        "2024-01-02",
        "20240102T235037Z",
        "2024-01-02T23:50",
        "2024-W01-2T23:50:37Z",
        "2024-13-02T23:50:37Z",
        "2024-02-30T23:50:37Z",
        "2024-01-02T23:50:37.000000 WAT",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1999-12-31T23:59:59Z",
        "2100-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00",
        "1704239437",
        1704239437,
        "２０２４-01-02T23:50:37Z",
        "2024-01-02T23:50:37Z" * 100,
    ],
)
def test_a_date_that_cannot_be_believed_is_kept_as_written(written):
    read = read_delivery(body(sent_date=written))
    assert (read.sent_at, read.sent_date) == (None, str(written))
    assert read.identity is None


@given(st.text("0123456789-:TZ.+ ") | st.datetimes().map(str))
def test_any_date_is_believed_or_not(written):
    sent_at = read_delivery(body(sent_date=written)).sent_at
    assert sent_at is None or 2000 <= sent_at.year < 2100


# Identity


def test_the_identity_of_a_delivery_is_pinned():
    assert read_delivery(body()).identity == (
        "cac51bddf80ecb096257492ef37f49caf9cefe12aeb28d0d0233ce825d8878ac"
    )


def test_the_identity_of_an_outbound_message_is_pinned():
    assert outbound_identity("873ghf8749956778gf4") == (
        "815906abdfbff1273ec4e29e73303d212fff231b103abc3dd79adaeb60acc658"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"from_": "2348020000001"},
        {"to": "48975"},
        {"message": "When was the last time you went to the cinema? "},
        {"session_id": "67543uhn4"},
        {"ref_id": None},
        {"sent_date": "2024-01-02T23:50:37.000001Z"},
        {"session_id": "67543uhn38", "ref_id": "73ghf8749956778gf5"},
    ],
)
def test_what_identifies_a_message_changes_its_identity(changes):
    assert read_delivery(body(**changes)).identity != read_delivery(body()).identity


@pytest.mark.parametrize(
    "changes",
    [
        {"from_": "+2348020000000"},
        {"to": "+48974"},
        {"telco": "airtel"},
        {"type": None},
        {"new_field": 1},
    ],
)
def test_what_a_redelivery_may_write_differently_does_not(changes):
    assert read_delivery(body(**changes)).identity == read_delivery(body()).identity


def test_a_reference_alone_proves_nothing():
    assert read_delivery(body(sent_date=None)).identity is None


def test_an_empty_session_and_reference_with_a_date_prove_it():
    assert read_delivery(body(session_id="", ref_id="")).identity is not None


def test_inbound_and_outbound_never_meet():
    assert outbound_identity("") != outbound_identity("0") != read_delivery(body()).identity


# What goes out


def test_a_call_has_the_documented_body():
    call = write_call(
        sender="48974",
        to="+2348020000000",
        text="When was the last time you went to the cinema?",
        session_id="67543uhn3",
        ref_id="873ghf8749956778gf4",
        sent_date=datetime(2024, 1, 2, 23, 50, 37, tzinfo=UTC),
    )
    assert list(call.items()) == [
        ("from", "48974"),
        ("to", "2348020000000"),
        ("message", "When was the last time you went to the cinema?"),
        ("session_id", "67543uhn3"),
        ("sent_date", "2024-01-02T23:50:37.000000Z"),
        ("ref_id", "873ghf8749956778gf4"),
    ]


def test_a_date_is_written_in_utc():
    lagos = datetime(2024, 1, 3, 0, 50, 37, 5, tzinfo=timezone(timedelta(hours=1)))
    assert write_date(lagos) == "2024-01-02T23:50:37.000005Z"


@given(st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_date_that_was_written_is_read_as_it_was(moment):
    assert read_delivery(body(sent_date=write_date(moment))).sent_at == moment


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b'{"status_code": 200}', 200),
        (b'{"status_code": 402, "detail": "No credit"}', 402),
        (b'\xef\xbb\xbf{"status_code": 402}', 402),
        (b'{"status_code": -1}', -1),
        (b'{"status_code": "402"}', None),
        (b'{"status_code": 402.0}', None),
        (b'{"status_code": true}', None),
        (b'{"status_code": null}', None),
        (b'{"status_code": NaN}', None),
        (b'{"status_code": [402]}', None),
        (b'{"status_code": 402', None),
        (b'{"answer": {"status_code": 402}}', None),
        (b"{}", None),
        (b"[402]", None),
        (b"402", None),
        (b"OK", None),
        (b"", None),
        (b"\xff\xff", None),
        (b"[" * 65_536, None),
    ],
)
def test_the_status_inside_an_answer(answer, status):
    assert body_status(answer) == status


@pytest.mark.parametrize("digits", [10, 10_000])
def test_a_status_of_too_many_digits_is_still_an_error(digits):
    assert body_status(b'{"status_code": %b}' % (b"4" * digits)) == 444_444_444
    assert body_status(b'{"status_code": -%b}' % (b"4" * digits)) == -44_444_444


@given(st.binary() | json_values.map(json.dumps).map(str.encode))
def test_any_answer_has_a_status_or_none(answer):
    assert isinstance(body_status(answer), int | None)
