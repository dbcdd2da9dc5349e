import json
import re
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import requests
from django.core import checks
from django.test import Client
from django.urls import include, path

from django_ninebits import handset
from django_ninebits.client import send
from django_ninebits.exceptions import NotAccepted
from django_ninebits.simulator import PATH, Behaviour, Simulator
from tests.deliveries import DOCUMENTED
from tests.settings import BASE_DIR

pytestmark = pytest.mark.urls("tests.handset_urls")

TYPED = {"sender": "0802 000 0000", "service": "48974", "telco": "glo", "text": "Where is it?"}

#: Of a site with nothing but the phone.
urlpatterns = [path("handset/", include("django_ninebits.handset"))]


@pytest.fixture(autouse=True)
def debug(settings):
    settings.DEBUG = True
    settings.ALLOWED_HOSTS = ["*"]


@pytest.fixture(autouse=True)
def line(provider, settings):
    """The phone's line, on a simulator that is quick to deliver again."""
    provider.speed = 100_000
    handset.use(provider)
    yield handset.line()
    handset._lines.clear()


def wire(client, **query):
    return client.get("/handset/wire/", query).json()


def entries(client):
    return wire(client)["entries"]


def type_text(client, webhook, **changes):
    """Post what is typed, to a site that has the address of ``webhook``."""
    at = {"SERVER_NAME": "127.0.0.1", "SERVER_PORT": webhook.server_port}
    return client.post("/handset/text/", TYPED | changes, **at)


def delivered(line, count=1):
    """What was delivered, as soon as there were so many tries."""
    enough = (len(line.simulator.wire) >= count for _ in map(time.sleep, [0.02] * 250))
    assert any(enough)
    return [json.loads(post.raw) for post in line.simulator.wire]


def call(line, **changes):
    """A call from the site; any word that it failed is left to the wire."""
    body = {"from": "48974", "to": "2348020000000", "message": "Soon", "ref_id": "r"}
    body |= {"session_id": "s", "sent_date": DOCUMENTED["sent_date"]} | changes
    headers = {"Authorization": f"Bearer {line.simulator.token}"}
    return requests.post(line.simulator.url, json=body, headers=headers, timeout=5)


# Who may


@pytest.mark.parametrize("name", ["", "wire/"])
def test_without_debug_no_page_answers(client, settings, name):
    settings.DEBUG = False
    assert client.get(f"/handset/{name}").status_code == 404


@pytest.mark.parametrize("name", ["text/", "answer/", "away/"])
def test_without_debug_nothing_is_done(client, settings, line, name):
    settings.DEBUG = False
    answer = client.post(f"/handset/{name}", TYPED | {"answer": "refuse", "away": "yes"})
    assert answer.status_code == 404
    assert (line.answer, line.away_for, line.simulator.wire) == ("accept", 0, [])


def test_without_debug_it_answers_where_the_settings_say_so(client, settings):
    settings.DEBUG = False
    settings.NINEBITS |= {"HANDSET_WITHOUT_DEBUG": True}
    assert client.get("/handset/").status_code == 200


@pytest.mark.parametrize("name", ["text/", "answer/", "away/"])
def test_a_get_does_nothing(client, name):
    assert client.get(f"/handset/{name}").status_code == 405


def test_nothing_is_cached(client):
    assert "no-store" in client.get("/handset/wire/")["Cache-Control"]


# Where it cannot be used yet


def unusable(client):
    answer = client.get("/handset/")
    assert answer.status_code == 503
    return answer.content.decode()


@pytest.mark.parametrize(
    "url", ["https://app.9bits.net:2081/ng/v1/sendsms", f"http://127.0.0.1{PATH}"]
)
def test_an_address_that_is_no_simulators_is_told_what_to_be(client, settings, url):
    settings.NINEBITS |= {"API_URL": url}
    assert f"Set it to http://127.0.0.1:9480{PATH}" in unusable(client)


def test_a_port_that_is_taken_is_named(client, settings, webhook):
    settings.NINEBITS |= {"API_URL": f"http://127.0.0.1:{webhook.server_port}{PATH}"}
    assert f"cannot listen on port {webhook.server_port}" in unusable(client)


def test_a_short_code_that_is_missing_is_named(client, settings):
    settings.NINEBITS |= {"SHORT_CODE": ""}
    assert "SHORT_CODE" in unusable(client)


@pytest.mark.urls("tests.test_handset")
def test_a_webhook_that_is_not_mounted_is_told_where_it_goes(client, webhook):
    answer = type_text(client, webhook)
    assert answer.status_code == 503
    assert "path(&quot;hooks/9bits/&quot;" in answer.content.decode()


# The page


def test_the_first_page_starts_a_simulator_where_calls_go(client, settings):
    with Simulator() as free:
        settings.NINEBITS |= {"API_URL": free.url, "API_TOKEN": "its-token"}
    assert client.get("/handset/").status_code == 200
    started = handset.line().simulator
    try:
        assert call(handset.line()).status_code == 200
        assert (started.token, started.speed) == ("its-token", handset.SPEED)
    finally:
        started.stop()


def test_the_page_has_the_short_code_and_a_way_to_the_inbox(client):
    page = client.get("/handset/").content.decode()
    assert 'value="48974"' in page
    assert 'href="/admin/django_ninebits/conversation/"' in page


@pytest.mark.urls("tests.test_handset")
def test_without_the_admin_there_is_no_way_to_the_inbox(client):
    assert "conversation" not in client.get("/handset/").content.decode()


def test_the_page_knows_how_9bits_answers_now(client):
    client.post("/handset/answer/", {"answer": "busy"})
    assert 'value="busy" checked' in client.get("/handset/").content.decode()


# Texting


def test_a_text_is_delivered_as_it_was_typed(client, line, webhook):
    answer = type_text(client, webhook, text=" Ẹ káàrọ̀\r\n😀 ")
    [body] = delivered(line)
    assert body | DOCUMENTED == body | {key: DOCUMENTED[key] for key in body}
    assert (body["from"], body["to"], body["telco"]) == ("2348020000000", "48974", "glo")
    assert body["message"] == " Ẹ káàrọ̀\n😀 "
    told = {"subscriber": "+2348020000000", "service": "48974", "sent_date": body["sent_date"]}
    assert (answer.status_code, answer.json()) == (202, told)


def test_a_text_is_dated_now(client, line, webhook):
    type_text(client, webhook)
    age = datetime.now(UTC) - datetime.fromisoformat(delivered(line)[0]["sent_date"])
    assert timedelta() < age < timedelta(minutes=1)


def test_the_texts_of_one_phone_are_one_session(client, line, webhook):
    for sender in ("0802 000 0000", "+2348020000000", "0803 111 2222"):
        type_text(client, webhook, sender=sender)
    by_phone: dict[str, set[str]] = {}
    for body in delivered(line, 3):
        by_phone.setdefault(body["from"], set()).add(body["session_id"])
    assert [len(sessions) for sessions in by_phone.values()] == [1, 1]
    assert len(set.union(*by_phone.values())) == 2


def test_each_text_has_a_reference_of_its_own(client, line, webhook):
    type_text(client, webhook)
    type_text(client, webhook)
    assert len({body["ref_id"] for body in delivered(line, 2)}) == 2


def test_a_text_goes_to_the_webhook_of_this_site(client, line, webhook):
    type_text(client, webhook)
    delivered(line)
    assert webhook.paths == ["/hooks/9bits/webhook/"]


@pytest.mark.parametrize(
    ("opens", "header"),
    [
        ({}, "Bearer simulator-token"),
        ({"WEBHOOK_TOKENS": ["another"]}, "Bearer another"),
        ({"WEBHOOK_TOKENS": [], "WEBHOOK_BASIC_AUTH": ["ada:l:ẹ"]}, "Basic YWRhOmw64bq5"),
        ({"WEBHOOK_TOKENS": [], "WEBHOOK_ALLOW_ANONYMOUS": True}, None),
    ],
)
def test_a_text_carries_what_opens_the_webhook(client, settings, line, webhook, opens, header):
    settings.NINEBITS |= opens
    type_text(client, webhook)
    delivered(line)
    assert webhook.seen[0][0]["Authorization"] == header


def test_a_text_is_delivered_twice_on_request(client, line, webhook):
    type_text(client, webhook, twice="on")
    first, second = delivered(line, 2)
    assert first == second
    assert [post.delivery for post in line.simulator.wire] == [1, 2]


def test_a_text_is_delivered_late_on_request(client, line, webhook, monkeypatch):
    pauses: list[float] = []
    clock = SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic)
    monkeypatch.setattr(handset, "time", clock)
    type_text(client, webhook, late="on")
    type_text(client, webhook)
    delivered(line, 2)
    assert sorted(pauses) == [0, handset.LATE]


def test_a_text_is_delivered_as_to_an_older_account_on_request(client, line, webhook):
    type_text(client, webhook, without_ref_id="on")
    assert "ref_id" not in delivered(line)[0]


def test_a_text_that_the_site_cannot_take_is_delivered_again(client, line, webhook):
    webhook.statuses = [503, 503]
    type_text(client, webhook)
    delivered(line, 3)
    assert [entry["outcome"] for entry in entries(client)] == [
        "503 received",
        "503 received",
        "200 received",
    ]


@pytest.mark.parametrize(
    ("field", "written", "word"),
    [("sender", "MTN", "0802 000 0000"), ("service", "₦", "ASCII"), ("text", "", "required")],
)
def test_what_cannot_be_texted_is_told(client, line, webhook, field, written, word):
    answer = type_text(client, webhook, **{field: written})
    assert word in answer.json()["errors"][field][0]
    assert line.simulator.wire == []


# The wire


def test_a_call_is_shown_with_both_sides(client, line):
    call(line, message="Soon ₦")
    [entry] = entries(client)
    assert (entry["way"], entry["subscriber"], entry["service"], entry["text"]) == (
        "call",
        "+2348020000000",
        "48974",
        "Soon ₦",
    )
    assert json.loads(entry["request"])["ref_id"] == "r"
    assert "₦" in entry["request"]
    assert json.loads(entry["answer"])["status_code"] == 200
    assert entry["at"] == line.simulator.calls[0].received_at.isoformat()


def test_a_delivery_is_shown_with_both_sides(client, line, webhook):
    type_text(client, webhook)
    [body] = delivered(line)
    [entry] = entries(client)
    assert (entry["way"], entry["subscriber"], entry["service"], entry["text"]) == (
        "delivery",
        "+2348020000000",
        "48974",
        "Where is it?",
    )
    assert entry["sent_date"] == body["sent_date"]
    assert json.loads(entry["request"]) == body
    assert json.loads(entry["answer"]) == {"status": "received"}
    assert entry["at"] == line.simulator.wire[0].posted_at.isoformat()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello", "1 part"),
        ("a" * 161, "2 parts"),
        ("₦500 “now”", "1 part, Unicode because of ₦ “ ”"),
        ("ạẹịọụṣ", "1 part, Unicode because of ạ ẹ ị ọ ụ"),
    ],
)
def test_the_parts_of_a_message_are_told(client, line, text, parts):
    call(line, message=text)
    assert entries(client)[0]["parts"] == parts


@pytest.mark.parametrize(
    ("name", "arrives", "outcome"),
    [
        ("accept", True, "200 accepted"),
        ("refuse", False, "400"),
        ("busy", False, "503"),
        ("fail", False, "500"),
        ("hang_up", True, "200 cut"),
    ],
)
def test_9bits_answers_as_it_was_told(client, line, name, arrives, outcome):
    client.post("/handset/answer/", {"answer": name})
    assert wire(client)["answer"] == name
    with suppress(requests.exceptions.ChunkedEncodingError):
        call(line)
    [entry] = entries(client)
    assert (entry["arrived"], entry["outcome"]) == (arrives, outcome)


def test_where_there_is_no_answer_none_is_shown(client, line):
    line.simulator.then(Behaviour.silent(0))
    with pytest.raises(requests.ConnectionError):
        call(line)
    [entry] = entries(client)
    assert (entry["arrived"], entry["outcome"], entry["answer"]) == (True, "no answer", "")


def test_an_answer_that_there_is_not_is_refused(client, line):
    told = client.post("/handset/answer/", {"answer": "explode"})
    assert told.status_code == 400
    assert "accept, slow" in told.json()["errors"]["answer"][0]


def test_a_delivery_that_is_refused_did_not_arrive(client, line, webhook):
    webhook.statuses = [401]
    webhook.answer = b'["no", "object"]'
    type_text(client, webhook)
    delivered(line)
    [entry] = entries(client)
    assert (entry["arrived"], entry["outcome"]) == (False, "401")
    assert entry["answer"] == '["no", "object"]'


def test_a_call_that_is_no_message_is_shown_too(client, line):
    headers = {"Authorization": f"Bearer {line.simulator.token}"}
    requests.post(line.simulator.url, b"\xff{", headers=headers, timeout=5)
    call(line, to="nobody")
    first, second = entries(client)
    assert (first["request"], first["outcome"]) == ("\ufffd{", "422")
    assert second["subscriber"] == "nobody"


def test_only_what_is_new_is_given(client, line):
    call(line, message="first")
    known = wire(client)
    call(line, message="second")
    new = wire(client, line=known["line"], after=known["after"])
    assert [entry["text"] for entry in new["entries"]] == ["second"]
    assert wire(client, line=new["line"], after=new["after"])["entries"] == []


@pytest.mark.parametrize("query", [{"line": "another", "after": 1}, {"after": 1}, {"after": "x"}])
def test_whoever_followed_another_line_is_given_all(client, line, query):
    call(line)
    assert len(wire(client, **query)["entries"]) == 1


def test_whoever_follows_is_given_a_token_that_posts(line):
    client = Client(enforce_csrf_checks=True)
    token = wire(client)["csrf"]
    answer = {"answer": "busy", "csrfmiddlewaretoken": token}
    assert client.post("/handset/answer/", answer).status_code == 200
    assert client.post("/handset/answer/", {"answer": "fail"}).status_code == 403


def test_the_guide_has_every_switch():
    guide = (BASE_DIR / "docs/howto/try-with-a-phone.md").read_text()
    switches = re.findall(r"^\| ([A-Z][^|]+) \|", guide, re.MULTILINE)
    assert switches[:-1] == [str(label) for _, label, _ in handset.ANSWERS.values()]


# Away


def reaches(line):
    with pytest.raises(NotAccepted) as caught:
        send({}, url=line.simulator.url, token="x", deadline=time.monotonic() + 5)
    return caught.value.http_status == 401


def test_9bits_goes_away_and_comes_back(client, line):
    client.post("/handset/away/", {"away": "yes"})
    assert not reaches(line)
    assert 55 <= wire(client)["away_for"] <= 60
    client.post("/handset/away/", {"away": "no"})
    assert reaches(line)
    assert wire(client)["away_for"] == 0


def test_9bits_comes_back_by_itself(line):
    line.go_away(0.01)
    assert any(reaches(line) for _ in map(time.sleep, [0.05] * 100))
    assert line.away_for == 0


def test_9bits_goes_away_only_once(line):
    line.go_away()
    line.go_away(3600)
    assert line.away_for < 61
    line.come_back()
    assert reaches(line)


def test_9bits_that_is_there_does_not_come_back(line):
    line.come_back()
    assert reaches(line)


# The check


def found(settings, **keys):
    settings.NINEBITS |= {"HANDSET_WITHOUT_DEBUG": False} | keys
    said = checks.run_checks(app_configs=None, tags=["django_ninebits"])
    return [message.id for message in said if message.id in {"ninebits.E015", "ninebits.E016"}]


def test_a_phone_that_strangers_could_find_is_an_error(settings):
    settings.DEBUG = False
    assert found(settings) == ["ninebits.E016"]


def test_a_phone_under_debug_is_silent(settings):
    assert found(settings) == []


def test_a_phone_that_is_meant_to_be_there_is_silent(settings):
    settings.DEBUG = False
    assert found(settings, HANDSET_WITHOUT_DEBUG=True) == []


@pytest.mark.urls("tests.urls")
def test_a_phone_that_is_not_mounted_is_silent(settings):
    settings.DEBUG = False
    assert found(settings) == []


def test_a_host_without_urls_has_no_phone(settings):
    settings.DEBUG = False
    settings.ROOT_URLCONF = None
    assert found(settings) == []


def test_a_setting_that_is_no_truth_is_named(settings):
    assert found(settings, HANDSET_WITHOUT_DEBUG="yes") == ["ninebits.E015"]
