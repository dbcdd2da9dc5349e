import base64
import json
from io import BytesIO
from wsgiref.util import setup_testing_defaults

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.test import Client, override_settings
from django.urls import reverse
from hypothesis import given, settings
from hypothesis import strategies as st

from django_ninebits.models import Contact, Conversation, Message, QuarantinedDelivery
from django_ninebits.webhook import webhook
from django_ninebits.wire import MAX_DELIVERY
from tests.deliveries import DOCUMENTED, body

URL = "/hooks/9bits/webhook/"
AUTHENTIC = {"authorization": "Bearer test-token"}

pytestmark = pytest.mark.django_db

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=5,
)
posted = (
    st.binary()
    | json_values.map(json.dumps).map(str.encode)
    | st.fixed_dictionaries({}, optional=dict.fromkeys(DOCUMENTED, json_values)).map(
        lambda changes: json.dumps(DOCUMENTED | changes).encode()
    )
)


def post(data=None, *, offered="Bearer test-token", url=URL, **headers):
    if offered is not None:
        headers["HTTP_AUTHORIZATION"] = offered
    data = body() if data is None else data
    return Client().post(url, data, content_type="application/json", **headers)


def basic(pair):
    return "Basic " + base64.b64encode(pair.encode()).decode()


def rows():
    return Message.objects.count() + QuarantinedDelivery.objects.count()


def given_settings(**changes):
    return override_settings(NINEBITS=changes)


def broken_store():
    raise KeyError("the secret itself")


# What is stored


@pytest.mark.parametrize("changes", [{}, {"from_": "+2348020000000"}, {"to": "+48974"}])
@pytest.mark.parametrize("without", [[], ["ref_id"]])
def test_a_text_is_stored(changes, without):
    response = post(body(without, **changes))
    message = Message.objects.get()
    assert (response.status_code, response.json()) == (200, {"status": "stored"})
    assert str(message.conversation.contact.phone_number) == "+2348020000000"
    assert (message.conversation.short_code, message.text) == ("48974", DOCUMENTED["message"])
    assert message.ref_id == ("" if without else DOCUMENTED["ref_id"])


def test_a_redelivery_is_taken_and_stored_once():
    assert [post().json()["status"] for _ in range(3)] == ["stored", "repeated", "repeated"]
    assert Message.objects.count() == 1


def test_the_address_serves_without_its_slash_too():
    assert reverse("ninebits:webhook") == URL
    assert post(url=URL.rstrip("/")).status_code == 200
    assert Message.objects.count() == 1


def test_what_is_not_understood_is_quarantined_with_its_errors():
    response = post(body(from_="MTN", without=["message"]))
    assert response.status_code == 202
    assert response.json() == {
        "status": "quarantined",
        "errors": ["from: 'MTN' is not a number that can be kept.", "message: missing."],
    }
    assert Message.objects.count() == 0
    assert bytes(QuarantinedDelivery.objects.get().body) == body(from_="MTN", without=["message"])


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x/;;"]
)
def test_any_content_type_is_read_as_json(kind):
    assert Client().generic("POST", URL, body(), kind, headers=AUTHENTIC).status_code == 200
    assert Message.objects.get().text == DOCUMENTED["message"]


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/*;q=0.1", "nonsense"])
@pytest.mark.parametrize("query", ["", "?format=html", "?version=9"])
def test_any_accept_is_answered_in_json(accept, query):
    response = post(url=URL + query, HTTP_ACCEPT=accept)
    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


def test_a_csrf_check_does_not_stand_in_the_way():
    client = Client(enforce_csrf_checks=True)
    assert client.post(URL, body(), "application/json", headers=AUTHENTIC).status_code == 200


def test_a_session_of_a_staff_member_opens_nothing(admin_client):
    assert admin_client.post(URL, body(), "application/json").status_code == 401


# Who may enter


@pytest.mark.parametrize(
    "offered",
    [
        "Bearer test-token",
        "bearer test-token",
        "BEARER test-token",
        "Bearer  test-token ",
    ],
)
def test_the_token_opens(offered):
    assert post(offered=offered).status_code == 200


@pytest.mark.parametrize(
    ("offered", "kind"),
    [
        (None, "no credential"),
        ("", "no credential"),
        ("Bearer", "bearer"),
        ("Bearer ", "bearer"),
        ("Bearer wrong", "bearer"),
        ("Bearer test-token2", "bearer"),
        ("Bearer test-toke", "bearer"),
        ("Bearer TEST-TOKEN", "bearer"),
        ("test-token", "another kind"),
        ("Token test-token", "another kind"),
        ("Basic test-token", "basic"),
        ("Bearer test-token, Bearer x", "bearer"),
        ("Bearer \xff\udc80", "bearer"),
        (basic("test-token:"), "basic"),
        ("Bearer None", "bearer"),
    ],
)
def test_anything_else_is_turned_away(offered, kind, caplog):
    response = post(b"no json", offered=offered)
    assert response.status_code == 401
    assert response.json() == {"status": "refused", "errors": ["Wrong or missing credential."]}
    assert response["WWW-Authenticate"] == 'Bearer realm="ninebits", Basic realm="ninebits"'
    assert rows() == 0
    assert kind in caplog.text


def test_what_was_offered_is_not_logged(caplog):
    post(offered="Bearer almost-the-token")
    post(offered="almost-the-token")
    post(offered=basic("user:almost"))
    assert "almost" not in caplog.text
    assert basic("user:almost").split()[1] not in caplog.text


def test_a_wrong_credential_comes_before_everything_else():
    assert post(b"x" * 70_000, offered="Bearer wrong").status_code == 401
    assert Client().get(URL).status_code == 401


@pytest.mark.parametrize("offered", ["Bearer new", "Bearer old", basic("user:pass"), basic("ú:p")])
def test_any_of_several_credentials_opens(offered):
    pairs = ["user:pass", "ú:p"]
    with given_settings(API_TOKEN="sends", WEBHOOK_TOKENS=["new", "old"], WEBHOOK_BASIC_AUTH=pairs):
        assert post(offered=offered).status_code == 200
        assert post(offered="Bearer sends").status_code == 401


def test_the_scheme_of_basic_is_read_in_any_case():
    with given_settings(WEBHOOK_BASIC_AUTH=["user:pass"]):
        assert post(offered=basic("user:pass").replace("Basic", "bAsIc")).status_code == 200


def test_a_token_that_was_rotated_out_opens_no_more():
    with given_settings(WEBHOOK_TOKENS=["new"]):
        assert post(offered="Bearer test-token").status_code == 401


def test_a_callable_token_opens():
    with given_settings(API_TOKEN=lambda: "drawn"):
        assert post(offered="Bearer drawn").status_code == 200


@pytest.mark.parametrize(
    "misconfigured",
    [
        {},
        {"API_TOKEN": ""},
        {"API_TOKEN": broken_store},
        {"API_TOKEN": "to ken"},
        {"WEBHOOK_TOKENS": []},
        {"WEBHOOK_TOKENS": "abc"},
        {"WEBHOOK_TOKENS": [None]},
        {"WEBHOOK_TOKENS": ["a"], "WEBHOOK_BASIC_AUTH": ["user"]},
        {"WEBHOOK_TOKENS": ["a"], "WEBHOOK_ALLOW_ANONYMOUS": "yes"},
        None,
        ["API_TOKEN"],
    ],
)
@pytest.mark.parametrize("offered", [None, "Bearer x"])
def test_who_cannot_be_judged_shall_come_again(misconfigured, offered, caplog):
    with override_settings(NINEBITS=misconfigured):
        response = post(offered=offered)
    assert response.status_code == 503
    assert response.json()["status"] == "refused"
    assert "secret itself" not in caplog.text
    assert rows() == 0


@pytest.mark.parametrize(
    "misconfigured",
    [
        {"API_TOKEN": broken_store},
        {"WEBHOOK_TOKENS": "abc"},
        {"WEBHOOK_TOKENS": ["a b", 5]},
        {"WEBHOOK_ALLOW_ANONYMOUS": "yes"},
        {"TIMEOUT": "x", "SHORT_CODE": 5},
    ],
)
def test_a_credential_that_matches_opens_whatever_else_is_wrong(misconfigured):
    with given_settings(**misconfigured, WEBHOOK_BASIC_AUTH=[5, "user", "user:pass"]):
        assert post(offered=basic("user:pass")).status_code == 200


@pytest.mark.parametrize("offered", [None, "Bearer wrong", basic("a:b"), "?"])
def test_the_anonymous_are_let_in_where_that_is_set(offered):
    with given_settings(WEBHOOK_ALLOW_ANONYMOUS=True):
        assert post(offered=offered).status_code == 200


def test_the_anonymous_are_let_in_whatever_else_is_wrong():
    with given_settings(WEBHOOK_ALLOW_ANONYMOUS=True, API_TOKEN=broken_store):
        assert post(offered=None).status_code == 200


# Other methods


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"]
)
def test_another_method_is_not_allowed(method):
    response = Client().generic(method, URL, body(), headers=AUTHENTIC)
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert rows() == 0
    assert method == "HEAD" or response.json()["errors"] == ["Only POST is taken here."]


# The size


def padded(size):
    raw = body()
    return raw + b" " * (size - len(raw))


def test_64_kib_are_read():
    assert post(padded(MAX_DELIVERY)).status_code == 200
    assert len(Message.objects.get().delivery or b"") == MAX_DELIVERY == 65_536


def test_one_byte_more_is_too_large():
    response = post(padded(MAX_DELIVERY + 1))
    assert response.status_code == 413
    assert response.json() == {"status": "refused", "errors": ["Larger than 65536 bytes."]}
    assert rows() == 0


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1, DATA_UPLOAD_MAX_NUMBER_FIELDS=0)
def test_the_upload_limits_of_the_host_do_not_matter():
    assert post().status_code == 200


class Stream(BytesIO):
    """Counts what was read from it."""

    taken = 0

    def read(self, size=-1):
        chunk = super().read(size)
        self.taken += len(chunk)
        return chunk


def wsgi(stream, **environ):
    """What the view answers to a request of a WSGI server."""
    environ |= {"REQUEST_METHOD": "POST", "PATH_INFO": URL, "wsgi.input": stream}
    setup_testing_defaults(environ)
    return answer(WSGIRequest({"HTTP_AUTHORIZATION": "Bearer test-token"} | environ))


def answer(request):
    return webhook(request).render()


def test_what_is_declared_too_large_is_not_read():
    stream = Stream(b"x" * 200_000)
    assert wsgi(stream, CONTENT_LENGTH="200000").status_code == 413
    assert stream.taken == 0


def test_a_short_body_shall_come_again():
    response = wsgi(Stream(body()[:-1]), CONTENT_LENGTH=str(len(body())))
    assert response.status_code == 503
    assert rows() == 0


@pytest.mark.parametrize("length", ["", "-1", "0", "x"])
def test_a_body_without_a_length_is_empty_and_quarantined(length):
    assert wsgi(Stream(body()), CONTENT_LENGTH=length).status_code == 202
    assert bytes(QuarantinedDelivery.objects.get().body) == b""


class Broken(BytesIO):
    def read(self, *args):
        raise ConnectionResetError(f"in the middle of {DOCUMENTED['from']}")


@pytest.mark.parametrize(
    "environ", [{"CONTENT_LENGTH": "99"}, {"HTTP_TRANSFER_ENCODING": "chunked"}]
)
def test_a_connection_that_breaks_shall_come_again(environ, caplog):
    assert wsgi(Broken(), **environ, **{"wsgi.input_terminated": True}).status_code == 503
    assert rows() == 0
    assert DOCUMENTED["from"] not in caplog.text


# Chunked bodies


@pytest.mark.parametrize("encoding", ["chunked", "gzip, Chunked"])
def test_a_chunked_body_is_read_where_the_server_ends_it(encoding):
    environ = {"HTTP_TRANSFER_ENCODING": encoding, "wsgi.input_terminated": True}
    assert wsgi(Stream(body()), **environ).status_code == 200
    assert Message.objects.get().text == DOCUMENTED["message"]


def test_a_chunked_body_is_read_no_further_than_it_may_be_long():
    stream = Stream(b"x" * 200_000)
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    assert wsgi(stream, **environ).status_code == 413
    assert stream.taken == MAX_DELIVERY + 1


def test_a_chunked_body_that_nobody_ends_shall_come_again():
    stream = Stream(body())
    assert wsgi(stream, HTTP_TRANSFER_ENCODING="chunked").status_code == 503
    assert (stream.taken, rows()) == (0, 0)


def test_a_chunked_body_that_the_server_gave_a_length_is_read():
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": str(len(body()))}
    assert wsgi(Stream(body()), **environ).status_code == 200


def test_a_chunked_body_is_read_under_asgi():
    headers = [(b"authorization", b"Bearer test-token"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": URL, "headers": headers}
    assert answer(ASGIRequest(scope, BytesIO(body()))).status_code == 200


# Middleware that was there before


def reads_the_body(get_response):
    def middleware(request):
        assert len(request.body) in {len(body()), 0, MAX_DELIVERY + 1}
        return get_response(request)

    return middleware


def reads_the_form(get_response):
    def middleware(request):
        assert not request.POST
        return get_response(request)

    return middleware


def with_middleware(name):
    return override_settings(MIDDLEWARE=[f"{__name__}.{name}"])


@pytest.mark.parametrize("name", ["reads_the_body", "reads_the_form"])
def test_a_body_that_a_middleware_has_read_is_read_again(name):
    with with_middleware(name):
        assert post().status_code == 200
    assert Message.objects.get().text == DOCUMENTED["message"]


@with_middleware("reads_the_body")
def test_a_body_that_a_middleware_has_read_may_be_too_large_too():
    assert post(padded(MAX_DELIVERY + 1)).status_code == 413


@with_middleware("reads_the_form")
def test_a_body_that_a_middleware_has_consumed_shall_come_again():
    kind = "multipart/form-data; boundary=x"
    response = Client().post(URL, b"--x--\r\n", content_type=kind, headers=AUTHENTIC)
    assert response.status_code == 503
    assert rows() == 0


@with_middleware("reads_the_body")
def test_a_chunked_body_is_not_taken_for_the_empty_one_that_a_middleware_saw():
    environ = {
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_LENGTH": "",
        "wsgi.input": BytesIO(body()),
        "wsgi.input_terminated": True,
    }
    assert post(**environ).status_code == 200
    assert Message.objects.get().text == DOCUMENTED["message"]


# Whatever comes


@settings(max_examples=60, deadline=None)
@given(posted)
def test_whatever_is_posted_one_row_is_there(raw):
    before = rows()
    responses = [post(raw), post(raw)]
    kept, again = (response.json()["status"] for response in responses)
    assert [response.status_code for response in responses] in ([200, 200], [202, 202])
    assert (kept, again) in {("stored",) * 2, ("stored", "repeated"), ("quarantined",) * 2} or (
        kept == "repeated"
    )
    assert rows() - before == [kept, again].count("stored") + [kept, again].count("quarantined")


@settings(max_examples=30, deadline=None)
@given(st.binary(), st.text(st.characters(codec="latin-1")))
def test_whoever_comes_without_a_credential_leaves_nothing(raw, offered):
    response = post(raw, offered=offered)
    assert (response.status_code, rows()) == (401, 0)
    assert response.json()["status"] == "refused"


# The database


def test_a_text_of_a_known_subscriber_costs_one_read_and_two_writes(django_assert_num_queries):
    post()
    with django_assert_num_queries(5):  # two of them: a savepoint here, a transaction in earnest
        assert post(body(message="Another")).status_code == 200


def test_a_redelivery_costs_one_read_more(django_assert_num_queries):
    post()
    with django_assert_num_queries(7):
        assert post().status_code == 200


def test_no_transaction_is_opened_around_the_view():
    assert webhook._non_atomic_requests == {"default"}


def test_a_bug_in_the_view_shall_come_again(monkeypatch, caplog):
    def bug(raw):
        raise RuntimeError(raw)

    monkeypatch.setattr("django_ninebits.webhook.take_in", bug)
    response = post()
    assert (response.status_code, response["Content-Type"]) == (503, "application/json")
    assert "RuntimeError" in caplog.text
    assert DOCUMENTED["from"] not in caplog.text


def test_a_second_text_of_a_subscriber_opens_no_second_conversation():
    post()
    post(body(message="Another", session_id="another"))
    assert (Contact.objects.count(), Conversation.objects.count()) == (1, 1)
