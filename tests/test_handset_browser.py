"""The whole story in a real browser: a phone, the inbox, and a 9bits that misbehaves."""

import re

import pytest
from playwright.sync_api import expect

from django_ninebits import handset, services
from django_ninebits.models import Message
from django_ninebits.simulator import Simulator

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls("tests.handset_urls"),
]

INBOX = "/admin/django_ninebits/conversation/"
WIRE = re.compile("/wire/")
LONG = "Averyveryverylongword" * 10


@pytest.fixture
def ninebits(settings):
    with Simulator(speed=100) as simulator:
        settings.NINEBITS = {
            "API_URL": simulator.url,
            "API_TOKEN": simulator.token,
            "SHORT_CODE": "48974",
            "HANDSET_WITHOUT_DEBUG": True,
        }
        handset.use(simulator)
        yield simulator


@pytest.fixture
def phone(tab, ninebits):
    tab.goto("/handset/")
    yield tab
    # It goes on asking, and is not to find that the phone is gone with the settings.
    tab.goto("about:blank")


@pytest.fixture
def inbox(phone, adas_tab):
    """The inbox, in another tab of the same browser."""
    page = phone.context.new_page()
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page.goto(INBOX)
    return page


def text(phone, words):
    phone.fill("#nb-text", words)
    phone.press("#nb-text", "Enter")
    expect(phone.locator(".hs-typed .hs-said").last).to_have_text(words)


def reply(inbox, words):
    inbox.fill(".nb-textarea", words)
    inbox.click(".nb-send")


def said(phone):
    return phone.locator(".hs-received .hs-said")


def feet(phone, way):
    return phone.locator(f".hs-{way} .hs-foot span")


def test_a_subscriber_texts_staff_answers_and_what_fails_is_seen(phone, inbox):
    text(phone, "Where is my order?")
    expect(feet(phone, "typed")).to_have_text("200 stored")
    inbox.reload()
    inbox.click("text=Where is my order?")
    reply(inbox, "On its way: ₦12,500 🙏")
    expect(inbox.locator(".nb-notes")).to_have_text("Your reply: accepted by 9bits.")
    expect(said(phone)).to_have_text("On its way: ₦12,500 🙏")
    expect(feet(phone, "received")).to_have_text("1 part, Unicode because of ₦ 🙏")
    with phone.expect_response("**/answer/"):
        phone.get_by_label("Refuse").check()
    reply(inbox, "And one more")
    expect(inbox.locator(".nb-failed .nb-error")).to_contain_text("Invalid recipient")
    expect(phone.locator(".hs-wire .hs-bad")).to_have_text("400")
    expect(said(phone)).to_have_count(1)


def test_what_was_asked_before_does_not_put_the_old_answer_back(phone):
    late = []
    phone.route(WIRE, lambda route: late.append((route, route.fetch())))
    # Until it was asked, and answered.
    list(iter(lambda: phone.wait_for_timeout(10) or len(late), 1))
    phone.unroute(WIRE)
    with phone.expect_response("**/answer/"):
        phone.get_by_label("Refuse").check()
    phone.evaluate(
        """() => {
            window.shown = new Set();
            const {elements} = document.getElementById("hs-answer");
            setInterval(() => window.shown.add(elements.answer.value), 1);
        }"""
    )
    route, answer = late[0]
    with phone.expect_response(WIRE):
        route.fulfill(response=answer)
    with phone.expect_response(WIRE):
        pass
    assert phone.evaluate("[...window.shown]") == ["refuse"]


def test_an_answer_that_is_cut_off_arrives_and_is_uncertain(phone, inbox):
    text(phone, "Hello")
    expect(feet(phone, "typed")).to_have_text("200 stored")
    handset.line().answer_with("hang_up")
    inbox.reload()
    inbox.click("text=Hello")
    reply(inbox, "Good day")
    expect(said(phone)).to_have_text("Good day")
    expect(inbox.locator(".nb-uncertain .nb-text")).to_have_text("Good day")


def test_a_text_that_is_delivered_twice_is_taken_once(phone):
    phone.get_by_label("Deliver twice").check()
    text(phone, "Hello")
    expect(feet(phone, "typed")).to_have_text("200 stored → 200 repeated")
    assert Message.objects.get().text == "Hello"


def test_whoever_is_texted_to_has_a_phone_too(phone, ninebits):
    text(phone, "Hello")
    services.send_sms("0803 111 2222", "Your parcel is here", sender="55500")
    other = phone.get_by_role("button", name="+2348031112222 55500")
    expect(other).to_contain_text("1 unread")
    expect(said(phone)).to_have_count(0)
    other.click()
    expect(said(phone)).to_have_text("Your parcel is here")
    expect(other).not_to_contain_text("unread")
    expect(phone.locator("[name=sender]")).to_have_value("+2348031112222")
    expect(phone.locator("[name=service]")).to_have_value("55500")


def test_another_number_is_another_phone(phone):
    text(phone, "Hello")
    phone.fill("[name=sender]", "0803 111 2222")
    expect(phone.locator(".hs-typed")).to_have_count(0)
    text(phone, "Good day")
    phone.fill("[name=sender]", "+2348020000000")
    expect(phone.locator(".hs-typed .hs-said")).to_have_text("Hello")


def test_a_reload_shows_what_was_there(phone):
    text(phone, "Hello")
    expect(feet(phone, "typed")).to_have_text("200 stored")
    phone.reload()
    expect(phone.locator(".hs-typed .hs-said")).to_have_text("Hello")


def test_what_went_over_the_wire_is_shown_both_ways(phone):
    text(phone, "HELP ₦")
    entry = phone.locator(".hs-wire details")
    entry.locator("summary").click()
    asked, answered = entry.locator("pre").all()
    expect(asked).to_contain_text('"message": "HELP ₦"')
    expect(answered).to_contain_text('"status": "stored"')


def test_a_number_that_is_none_is_told_and_the_text_is_kept(phone):
    phone.fill("[name=sender]", "MTN")
    phone.fill("#nb-text", "Hello")
    with phone.expect_response("**/text/"):
        phone.press("#nb-text", "Enter")
    expect(phone.get_by_role("alert")).to_contain_text("'MTN' is not a phone number")
    expect(phone.locator("#nb-text")).to_have_value("Hello")


def test_9bits_can_be_sent_away_and_called_back(phone, ninebits):
    phone.click("text=Go away for a minute")
    expect(phone.locator("#hs-countdown")).to_contain_text(re.compile(r"Back in \d+ s"))
    message = services.send_sms("0803 111 2222", "Hello")
    message.refresh_from_db()
    assert message.status == "queued"
    phone.click("text=Come back now")
    expect(phone.locator("#hs-countdown")).to_be_empty()
    assert handset.line().away_for == 0


def test_the_keyboard_is_enough(phone):
    phone.focus("[name=service]")
    for key in ("Tab", "Tab"):
        phone.keyboard.press(key)
    phone.keyboard.type("first")
    phone.keyboard.press("Shift+Enter")
    phone.keyboard.type("second")
    phone.keyboard.press("Enter")
    expect(phone.locator(".hs-typed .hs-said")).to_have_text("first\nsecond")
    phone.focus("[value=accept]")
    phone.keyboard.press("ArrowDown")
    expect(phone.locator("[value=slow]")).to_be_checked()


def test_a_site_that_does_not_answer_is_told_and_waited_for(phone):
    phone.evaluate("window.real = fetch; window.fetch = () => Promise.reject(); null")
    expect(phone.get_by_text("This site does not answer")).to_be_visible()
    phone.evaluate("window.fetch = window.real; null")
    expect(phone.get_by_text("This site does not answer")).to_be_hidden()


def test_a_simulator_that_was_started_anew_is_followed(phone, ninebits):
    text(phone, "before")
    expect(feet(phone, "typed")).to_have_text("200 stored")
    ninebits.clear()
    handset.use(ninebits)
    text(phone, "after")
    expect(feet(phone, "typed").last).to_have_text("200 stored")
    expect(phone.locator(".hs-typed .hs-said")).to_have_text(["before", "after"])


@pytest.mark.parametrize("language", ["en-us", "fr", "ar"])
def test_a_small_screen_never_scrolls_sideways(phone, settings, language):
    settings.LANGUAGE_CODE = language
    phone.set_viewport_size({"width": 390, "height": 800})
    phone.reload()
    text(phone, LONG)
    phone.locator(".hs-wire summary").click()
    assert phone.evaluate("document.documentElement.scrollWidth") == 390


def test_a_strict_content_security_policy_breaks_nothing(phone):
    def answer(route):
        response = route.fetch()
        headers = {**response.headers, "content-security-policy": "default-src 'self'"}
        route.fulfill(response=response, headers=headers)

    phone.route("**/handset/", answer)
    phone.reload()
    text(phone, "Hello")
    expect(feet(phone, "typed")).to_have_text("200 stored")
