"""The composer without a script: its buttons, what it counts and what it refuses."""

import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_ninebits import inbox, services
from django_ninebits.composer import Counted, ReplyForm, named
from django_ninebits.models import Message
from django_ninebits.segments import GSM
from tests.deliveries import body

pytestmark = pytest.mark.django_db


@pytest.fixture
def agent(admin_client):
    return admin_client


@pytest.fixture
def conversation():
    return received("Where is my order?").conversation


@pytest.fixture
def at_most(settings):
    """Set the limit of segments."""

    def set_limit(limit):
        settings.NINEBITS = settings.NINEBITS | {"MAX_SEGMENTS": limit}

    return set_limit


def received(text, **changes):
    return inbox.take_in(body(message=text, ref_id=uuid.uuid4().hex, **changes)).message


def post(client, conversation, text, *, follow=False, **more):
    address = reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])
    seen = conversation.messages.latest("id").pk
    given = {"text": text, "ref_id": str(uuid.uuid4()), "seen": seen} | more
    return client.post(address, given, follow=follow)


def replies():
    return list(
        Message.objects.filter(direction=Message.Direction.OUTBOUND).values_list("text", flat=True)
    )


def problems(response):
    return response.context["form"].errors["text"]


# What is counted


def test_a_text_is_counted():
    counted = Counted("Ẹ kú iṣẹ́")
    figures = (counted.characters, counted.segments, counted.left, str(counted.encoding))
    assert figures == (9, 1, 61, "Unicode")
    assert counted.forcing == ["Ẹ", "ú", "ṣ", "ẹ", "◌́"]


def test_the_places_that_are_left_are_those_of_the_last_segment():
    assert [Counted(text).left for text in ("", "€", "a" * 160, "a" * 161, "₦" * 71)] == [
        160,
        158,
        0,
        145,
        63,
    ]


def test_a_plain_version_is_offered_where_each_character_has_a_counterpart():
    assert Counted("₦500").plain_version == Counted("N500")
    assert Counted("500").plain_version is None
    assert Counted("₦500 🙏").plain_version is None
    assert Counted("₦500 🙏").lasting == ["🙏"]


def test_characters_that_nobody_sees_are_named_by_their_numbers():
    assert named("₦\u00a0\u200b\u0301") == ["₦", "U+00A0", "U+200B", "◌\u0301"]


def test_of_many_characters_the_first_are_named():
    assert named("абвгдежзий") == [*"абвгдежз", "…"]
    assert named("абвгдежз") == [*"абвгдежз"]


# Buttons that send nothing


@pytest.mark.parametrize(
    ("button", "kept"), [("count", "₦500 for “two”\nnow"), ("plain", 'N500 for "two"\nnow')]
)
def test_a_button_that_only_asks_sends_nothing(agent, conversation, button, kept):
    key = str(uuid.uuid4())
    given = {"ref_id": key, button: "yes"}
    response = post(agent, conversation, "₦500 for “two”\r\nnow", **given)
    form = response.context["form"]
    assert (form["text"].value(), str(form["ref_id"].value())) == (kept, key)
    assert key in response.context["form_address"]
    assert (form.errors, replies()) == ({}, [])


def test_a_count_is_shown_when_it_is_asked_for(agent, conversation):
    page = post(agent, conversation, "₦" * 71, count="yes").text
    assert '<b data-nb="segments">2</b> of 10' in page
    assert '<b data-nb="encoding">Unicode</b>' in page
    assert "N" * 71 in page


def test_a_button_without_a_key_brings_a_new_one(agent, conversation):
    form = post(agent, conversation, "Hello", ref_id="x", count="yes").context["form"]
    assert uuid.UUID(form["ref_id"].value())


def test_an_empty_text_is_counted_as_nothing(agent, conversation):
    response = post(agent, conversation, "", count="yes")
    assert response.context["form"].counted == Counted("")
    assert '<p class="nb-figures" hidden>' in response.text


# The limit


def test_a_text_of_as_many_segments_as_there_may_be_is_sent(agent, conversation, at_most):
    at_most(2)
    post(agent, conversation, "a" * 306)
    assert replies() == ["a" * 306]


def test_a_longer_text_is_kept_and_not_sent(agent, conversation, at_most):
    at_most(2)
    response = post(agent, conversation, "a" * 307)
    assert problems(response) == [
        "Not sent: the text takes 3 segments, and at most 2 are sent.",
        "Shorten it, or send it as several replies.",
    ]
    assert f"{'a' * 307}</textarea>" in response.text
    assert '<b data-nb="segments">3</b> of 2' in response.text
    assert replies() == []


def test_line_ends_count_as_one_character(agent, conversation, at_most):
    at_most(1)
    post(agent, conversation, "a\r\n" * 80)
    assert replies() == ["a\n" * 80]


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        ("₦" * 71, "It is Unicode because of ₦. The plain version takes 1."),
        ("🙏" * 36, "It is Unicode because of 🙏: without, more fits into a segment."),
    ],
)
def test_a_text_that_is_too_long_says_what_makes_it_so(agent, conversation, at_most, text, help_):
    at_most(1)
    assert problems(post(agent, conversation, text))[1] == help_


def test_without_a_limit_any_text_is_sent(agent, conversation, at_most):
    at_most(None)
    page = post(agent, conversation, "a" * 5000, count="yes").text
    assert '<b data-nb="segments">33</b></span>' in page
    post(agent, conversation, "a" * 5000)
    assert replies() == ["a" * 5000]


def test_a_limit_that_is_wrong_is_said_beside_the_text(agent, conversation, at_most):
    at_most("three")
    response = post(agent, conversation, "On its way")
    assert "the settings of this site are wrong" in problems(response)[0]
    assert "On its way</textarea>" in response.text
    assert replies() == []


# Later


def filled_in(**more):
    return ReplyForm({"text": "a", "ref_id": str(uuid.uuid4())} | more)


def in_time_zone(moment):
    return timezone.localtime(moment).strftime("%Y-%m-%dT%H:%M")


def test_a_reply_is_sent_later(agent, conversation, settings):
    settings.TIME_ZONE = "Africa/Lagos"
    written = in_time_zone(timezone.now() + timedelta(days=1))
    post(agent, conversation, "Good morning", send_at=written)
    message = Message.objects.get(text="Good morning")
    assert message.send_at == datetime.fromisoformat(f"{written}+01:00")
    assert message.status == "queued"


def test_the_time_zone_of_the_field_is_named(agent, conversation, settings):
    settings.TIME_ZONE = "Africa/Lagos"
    assert "Time zone: Africa/Lagos" in post(agent, conversation, "").text


def test_without_time_zones_the_time_is_that_of_the_server(agent, conversation, settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "Africa/Lagos"
    written = in_time_zone(datetime.now(UTC) + timedelta(days=1))
    with timezone.override("Asia/Tokyo"):
        assert ReplyForm().time_zone == "Africa/Lagos"
        form = filled_in(send_at=written)
        assert form.is_valid()
        assert "that time is past" in filled_in(send_at="2020-01-01T10:00").errors["send_at"][0]
    assert form.cleaned_data["send_at"] == datetime.fromisoformat(written)


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (timedelta(minutes=-1), "Not sent: that time is past. It is "),
        (timedelta(days=366), "Not sent: that is more than a year ahead."),
    ],
)
def test_a_time_that_nobody_means_is_refused_and_kept(agent, conversation, away, said):
    written = in_time_zone(timezone.now() + away)
    response = post(agent, conversation, "Good morning", send_at=written)
    assert said in response.context["form"].errors["send_at"][0]
    assert f'value="{written}"' in response.text
    assert '<details class="nb-later" open>' in response.text
    assert "Good morning</textarea>" in response.text
    assert replies() == []


def test_a_time_that_is_none_is_refused(agent, conversation):
    response = post(agent, conversation, "Good morning", send_at="soon")
    assert "send_at" in response.context["form"].errors
    assert replies() == []


@pytest.mark.parametrize("more", [{"count": "1"}, {"ref_id": "x"}])
def test_the_time_is_kept_by_every_way_back_to_the_form(agent, conversation, more):
    form = post(agent, conversation, "a", send_at="2099-01-01T10:00", **more).context["form"]
    assert form["send_at"].value() == "2099-01-01T10:00"
    assert form.is_later


# Whoever has been logged out


@pytest.fixture
def written():
    """What a browser without a script posts."""
    return {"text": "\r\nOn its <way>", "ref_id": str(uuid.uuid4()), "keep": "1"}


def test_a_text_whose_author_is_logged_out_is_shown_again(client, conversation, written):
    address = reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])
    response = client.post(f"{address}?compose=1", written)
    assert response.status_code == 403
    assert ">\n\nOn its &lt;way&gt;</textarea>" in response.text
    assert f"/admin/login/?{urlencode({'next': f'{address}?compose=1'})}" in response.text
    assert "no-store" in response["Cache-Control"]
    assert replies() == []


def test_it_is_shown_to_nobody_without_the_token_of_the_form(conversation, written):
    response = post(Client(enforce_csrf_checks=True), conversation, **written)
    assert response.status_code == 403
    assert "On its" not in response.text


@pytest.mark.parametrize("method", ["get", "post"])
def test_whoever_keeps_a_draft_is_led_to_the_login(client, conversation, method):
    address = reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])
    response = getattr(client, method)(address, {"text": "On its way"})
    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")


def test_whoever_is_logged_in_sends_it(agent, conversation, written):
    post(agent, conversation, **written)
    assert replies() == ["\nOn its <way>"]


# What the scripts are given


def test_the_page_names_the_keys_of_the_replies_that_its_reader_has_sent(agent, conversation):
    services.reply(conversation, "Of somebody else", ref_id="theirs")
    key = str(uuid.uuid4())
    page = post(agent, conversation, "On its way", ref_id=key, follow=True)
    assert f'data-taken="{key} "' in page.text
    assert "data-is-returned" not in page.text


@pytest.mark.parametrize("more", [{}, {"count": "1"}])
def test_a_page_with_a_text_that_was_posted_says_so(agent, conversation, more):
    assert 'data-is-returned="1"' in post(agent, conversation, "", **more).text


def test_the_scripts_count_by_the_tables_of_the_server(at_most):
    at_most(3)
    given = ReplyForm().for_scripts
    assert set(given["tables"]["gsm"]) == GSM
    assert given["limit"] == 3


def test_what_the_scripts_are_given_is_data_that_nothing_runs(agent, conversation):
    page = post(agent, conversation, "Hello", count="yes").text
    assert '<script id="nb-composer" type="application/json">' in page
