"""The inbox in a real browser, from the text that comes in to the reply that leaves."""

import re
import uuid

import pytest
from django.contrib.admin.models import LogEntry
from playwright.sync_api import expect

from django_ninebits import inbox, services
from django_ninebits.decisions import Seen
from django_ninebits.models import Contact, Message, QuarantinedDelivery
from django_ninebits.simulator import Simulator
from tests.deliveries import body

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

INBOX = "/admin/django_ninebits/conversation/"
PHONE = {"width": 390, "height": 800}
LONG = "Averyveryverylongword" * 20


@pytest.fixture
def ninebits(settings):
    with Simulator() as simulator:
        settings.NINEBITS = {
            "API_URL": simulator.url,
            "API_TOKEN": simulator.token,
            "SHORT_CODE": "48974",
        }
        yield simulator


@pytest.fixture
def page(adas_tab):
    adas_tab.goto(INBOX)
    return adas_tab


@pytest.fixture
def deferred(settings):
    """Where nothing leaves before a worker comes."""
    dispatcher = "django_ninebits.dispatch.defer"
    settings.NINEBITS = settings.NINEBITS | {"DISPATCHER": dispatcher}


@pytest.fixture
def conversation():
    return received("Where is my order?").conversation


def received(text, **changes):
    return inbox.take_in(body(message=text, ref_id=uuid.uuid4().hex, **changes)).message


def open_thread(page, conversation):
    page.goto(f"{INBOX}{conversation.pk}/change/")


def send(page, text):
    page.fill(".nb-textarea", text)
    page.click(".nb-send")


def asked(verb, message):
    return f"/admin/django_ninebits/message/decide/{verb}/?seen={Seen.of(message)}"


def uncertain(conversation, text="On its way"):
    message = services.reply(conversation, text)
    Message.objects.filter(pk=message.pk).update(status=Message.Status.UNCERTAIN, attempts=1)
    return message


def decided():
    return list(LogEntry.objects.values_list("object_id", flat=True))


def be_strict(page):
    """Let nothing run or look that is not in a file of the site."""

    def answer(route):
        response = route.fetch(max_redirects=0)
        headers = {**response.headers, "content-security-policy": "default-src 'self'"}
        route.fulfill(response=response, headers=headers)

    # Not what open pages ask: that is no page.
    page.route(re.compile("/admin/django_ninebits/(?!.*/live/)"), answer)


def outbound():
    return Message.objects.filter(direction=Message.Direction.OUTBOUND)


def replies(page):
    return page.locator(".nb-outbound .nb-text")


def test_a_text_is_read_and_answered(page, conversation, ninebits):
    page.goto(INBOX)
    expect(page.locator(".nb-unread")).to_contain_text("1")
    page.click("text=Where is my order?")
    expect(page.locator(".nb-inbound .nb-text")).to_have_text("Where is my order?")
    send(page, "  Order 4471 is on its way\n₦500 🙏")
    expect(page.locator(".nb-notes")).to_have_text("Your reply: accepted by 9bits.")
    expect(replies(page)).to_be_in_viewport()
    assert replies(page).text_content() == "  Order 4471 is on its way\n₦500 🙏"
    assert [call.body["message"] for call in ninebits.accepted] == [outbound().get().text]
    expect(page.locator(".nb-textarea")).to_have_value("")
    page.click("text=Inbox")
    expect(page.locator(".nb-unread")).to_have_count(0)


def test_a_double_click_sends_once(page, conversation, ninebits):
    open_thread(page, conversation)
    page.fill(".nb-textarea", "On its way")
    page.dblclick(".nb-send")
    expect(page.locator(".nb-notes")).to_be_visible()
    expect(replies(page)).to_have_text(["On its way"])
    assert outbound().count() == 1


def test_back_and_send_again_sends_once(page, conversation, ninebits):
    open_thread(page, conversation)
    send(page, "On its way")
    expect(page.locator(".nb-notes")).to_be_visible()
    page.go_back()
    send(page, "On its way")
    expect(page.locator(".nb-notes")).to_contain_text("is not sent a second time")
    expect(replies(page)).to_have_text(["On its way"])
    assert len(ninebits.accepted) == 1


def test_back_with_an_edited_text_sends_nothing_until_it_is_sent_again(
    page, conversation, ninebits
):
    open_thread(page, conversation)
    send(page, "On its way")
    expect(page.locator(".nb-notes")).to_be_visible()
    page.go_back()
    send(page, "It is lost")
    expect(page.get_by_role("alert")).to_contain_text("Already sent")
    expect(page.get_by_role("alert")).to_be_in_viewport()
    expect(page.locator(".nb-textarea")).to_have_value("It is lost")
    assert outbound().count() == 1
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_be_visible()
    expect(replies(page)).to_have_text(["On its way", "It is lost"])


def test_a_reload_after_sending_sends_nothing(page, conversation, ninebits):
    open_thread(page, conversation)
    send(page, "On its way")
    expect(page.locator(".nb-notes")).to_be_visible()
    page.reload()
    expect(replies(page)).to_have_text(["On its way"])
    assert len(ninebits.accepted) == 1


def test_a_thread_opens_at_its_newest_message(page, conversation):
    for number in range(40):
        received(f"text {number}")
    open_thread(page, conversation)
    expect(page.get_by_text("text 39", exact=True)).to_be_in_viewport()
    expect(page.locator(".nb-textarea")).to_be_in_viewport()
    page.evaluate("scrollTo(0, 0)")
    expect(page.get_by_text("text 0", exact=True)).to_be_in_viewport()
    expect(page.locator(".nb-textarea")).to_be_in_viewport()


def test_a_reply_can_be_written_with_the_keyboard_alone(page, conversation):
    open_thread(page, conversation)
    page.keyboard.press("Tab")
    page.keyboard.type("On its way")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(replies(page)).to_have_text(["On its way"])


@pytest.mark.parametrize("language", ["en-us", "fr", "ar"])
def test_a_phone_shows_every_page_without_scrolling_sideways(
    page, conversation, settings, language
):
    settings.LANGUAGE_CODE = language
    Contact.objects.update(name=LONG[:200])
    services.reply(conversation, LONG)
    outbound().update(status=Message.Status.FAILED, error=LONG)
    row = QuarantinedDelivery.objects.create(body=LONG.encode(), errors="No.")
    received(LONG)
    page.set_viewport_size(PHONE)
    for address in (
        INBOX,
        f"{INBOX}{conversation.pk}/change/",
        f"/admin/django_ninebits/quarantineddelivery/{row.pk}/change/",
        f"/admin/django_ninebits/message/{outbound().get().pk}/change/",
        asked("retry", outbound().get()),
        f"/admin/django_ninebits/contact/{conversation.contact_id}/change/",
    ):
        page.goto(address)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert (address, width) == (address, PHONE["width"])


def test_a_strict_content_security_policy_breaks_nothing(page, conversation):
    be_strict(page)
    page.goto(INBOX)
    open_thread(page, conversation)
    send(page, "On its way")
    expect(replies(page)).to_have_text(["On its way"])
    background = "element => getComputedStyle(element).backgroundColor"
    assert page.locator(".nb-send").evaluate(background) == "rgb(65, 118, 144)"


def test_what_was_not_understood_is_taken_in_by_a_button(page):
    row = QuarantinedDelivery.objects.create(body=body(message="At last"), errors="A bug.")
    page.goto(f"/admin/django_ninebits/quarantineddelivery/{row.pk}/change/")
    page.click("text=Take in again")
    page.click(".messagelist a")
    expect(page.locator(".nb-inbound .nb-text")).to_have_text("At last")


def test_what_is_uncertain_is_sent_again_after_a_question(page, conversation, deferred):
    message = uncertain(conversation)
    open_thread(page, conversation)
    page.click("text=Send again")
    expect(page.locator(".nb-risk")).to_contain_text("the subscriber may get it twice")
    assert page.evaluate("document.activeElement === document.body")
    page.keyboard.press("Enter")
    page.click("text=Yes, send it again")
    expect(page.locator(".nb-notes")).to_have_text("It will be sent again. Its status: queued.")
    expect(replies(page)).to_be_in_viewport()
    assert decided() == [str(message.pk)]


def test_whoever_says_no_is_back_in_the_thread_and_nothing_was_done(page, conversation, deferred):
    message = uncertain(conversation)
    open_thread(page, conversation)
    page.click("text=It arrived")
    page.click("text=No, back to the conversation")
    expect(page.locator(f"#nb-message-{message.pk}")).to_be_in_viewport()
    message.refresh_from_db()
    assert (message.status, decided()) == ("uncertain", [])


def test_a_double_click_decides_once(page, conversation, deferred):
    message = uncertain(conversation)
    page.goto(asked("retry", Message.objects.get(pk=message.pk)))
    page.dblclick("text=Yes, send it again")
    expect(page.locator(".nb-notes")).to_contain_text("Its status")
    assert decided() == [str(message.pk)]


def test_back_after_a_second_attempt_asks_nothing_and_says_why(page, conversation, deferred):
    message = uncertain(conversation)
    page.goto(asked("retry", Message.objects.get(pk=message.pk)))
    page.click("text=Yes, send it again")
    expect(page.locator(".nb-notes")).to_contain_text("It will be sent again")
    outbound().update(status=Message.Status.UNCERTAIN, attempts=2)
    page.go_back()
    expect(page.locator(".nb-notes")).to_contain_text("Nothing was done")
    assert (outbound().get().status, decided()) == ("uncertain", [str(message.pk)])


def test_several_are_decided_about_under_a_strict_content_security_policy(
    page, conversation, deferred
):
    rows = [uncertain(conversation, text) for text in ("One", "Two")]
    be_strict(page)
    page.goto("/admin/django_ninebits/message/?status=uncertain")
    page.check("#action-toggle")
    page.select_option("[name=action]", label="It arrived")
    page.click("[name=index]")
    page.click("text=Yes, they arrived")
    expect(page.locator(".messagelist")).to_have_text("Noted: 2 messages arrived.")
    assert sorted(decided()) == sorted(str(row.pk) for row in rows)


def test_a_decision_needs_no_script_and_no_mouse(page, conversation, deferred, chromium):
    message = uncertain(conversation)
    state = page.context.storage_state()
    base = page.url.partition("/admin/")[0]
    with chromium.new_context(
        base_url=base, java_script_enabled=False, storage_state=state
    ) as plain:
        tab = plain.new_page()
        open_thread(tab, conversation)
        tab.focus("text=It arrived")
        tab.keyboard.press("Enter")
        tab.focus("text=Yes, it arrived")
        tab.keyboard.press("Enter")
        expect(tab.locator(".nb-notes")).to_contain_text("Noted: it arrived.")
    assert decided() == [str(message.pk)]
