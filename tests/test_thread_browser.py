"""The thread in a real browser: it keeps itself up to date, and touches nothing that is written."""

import re
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from django_ninebits import inbox, links, live, outbox, services, thread
from django_ninebits.exceptions import OutcomeUnknown, Refused
from django_ninebits.models import Conversation, ConversationChange, Message
from tests.browsers import hide, log_in_again
from tests.deliveries import body

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

INBOX = "/admin/django_ninebits/conversation/"
LIVE = re.compile("/live/")


@pytest.fixture
def page(adas_tab, monkeypatch):
    """Where open pages ask often."""
    monkeypatch.setattr(live, "EVERY", 0.1)
    return adas_tab


@pytest.fixture(autouse=True)
def deferred(settings):
    """Where nothing leaves before a worker comes."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


@pytest.fixture
def conversation():
    return received("Where is my order?").conversation


def received(text, **changes):
    return inbox.take_in(body(message=text, ref_id=uuid.uuid4().hex, **changes)).message


def many_messages(conversation, count, begin=0):
    Message.objects.bulk_create(
        Message(
            conversation=conversation,
            direction=Message.Direction.INBOUND,
            status=Message.Status.RECEIVED,
            session_id="67543uhn3",
            ref_id=str(number),
            text=f"text {number}",
        )
        for number in range(begin, begin + count)
    )


def open_thread(page, conversation, query=""):
    page.goto(f"{INBOX}{conversation.pk}/change/{query}")


def texts(page):
    return page.locator(".nb-messages .nb-text")


def text(page, written):
    return texts(page).filter(has_text=re.compile(f"^{re.escape(written)}$"))


def bubble(page, message):
    return page.locator(f"#nb-message-{message.pk}")


def attempted(error=None):
    (claim,) = outbox.claim_due(1)
    outbox.record(outbox.Outcome(claim, error))


def unread():
    return Conversation.objects.get().unread_count


def marking(page):
    """Until the page has told that something was read."""
    return page.expect_response(lambda response: response.request.method == "POST")


def test_a_text_appears_and_is_announced_and_read_while_a_reply_is_written(page, conversation):
    open_thread(page, conversation)
    page.locator(".nb-textarea").press_sequentially("On its w")
    with marking(page):
        received("Hello?\nAnybody?")
    expect(texts(page)).to_have_text(["Where is my order?", "Hello?\nAnybody?"])
    expect(page.locator("#nb-said")).to_have_text("+2348020000000: Hello?\nAnybody?")
    page.keyboard.type("ay")
    expect(page.locator(".nb-textarea")).to_have_value("On its way")
    expect(page.locator(".nb-textarea")).to_be_focused()
    assert unread() == 0


def test_what_becomes_of_a_reply_is_shown(page, conversation):
    message = services.reply(conversation, "On its way")
    open_thread(page, conversation)
    expect(bubble(page, message).locator(".nb-status")).to_have_text("queued")
    attempted(OutcomeUnknown("9bits did not <b>answer</b>"))
    expect(bubble(page, message).locator(".nb-status")).to_have_text("uncertain")
    expect(bubble(page, message)).to_contain_text("9bits did not <b>answer</b>")
    expect(bubble(page, message).locator(".nb-verb")).to_have_text(["It arrived", "Send again"])
    expect(page.locator("#nb-said")).to_have_text("uncertain: On its way")
    services.confirm(message)
    expect(bubble(page, message).locator(".nb-status")).to_have_text("accepted by 9bits")
    expect(bubble(page, message).locator(".nb-verb")).to_have_count(0)


def test_the_focus_stays_at_a_message_whose_buttons_go(page, conversation):
    message = services.reply(conversation, "On its way")
    open_thread(page, conversation)
    bubble(page, message).locator(".nb-verb").focus()
    attempted()
    expect(bubble(page, message)).to_be_focused()


def test_the_reply_of_a_colleague_is_announced_with_the_name(page, conversation):
    open_thread(page, conversation)
    services.reply(conversation, "On its way", author=User.objects.get())
    expect(page.locator("#nb-said")).to_have_text("Ada: On its way")
    services.reply(conversation, "Soon")
    expect(page.locator("#nb-said")).to_have_text("Sent by us: Soon")


def test_somebody_who_opts_out_is_shown_to_have_and_a_draft_stays(page, conversation):
    open_thread(page, conversation)
    page.fill(".nb-textarea", "On its way")
    conversation.close(conversation.messages.get().pk)
    expect(page.locator("#nb-status")).to_have_text("closed")
    received("STOP")
    expect(page.locator(".nb-opted-out")).to_contain_text("Opted out since")
    expect(page.locator("#nb-status")).to_have_text("open")
    expect(page.locator(".nb-textarea")).to_have_value("On its way")


def test_whoever_reads_above_stays_there_and_is_told_what_has_come(page, conversation):
    many_messages(conversation, 40)
    open_thread(page, conversation)
    page.evaluate("scrollTo(0, 300)")
    place = text(page, "text 3").bounding_box()
    received("Hello?")
    received("Anybody?")
    button = page.get_by_role("button", name="New messages: 2")
    expect(button).to_be_in_viewport()
    assert text(page, "text 3").bounding_box() == place
    assert unread() == 2
    with marking(page):
        button.click()
    expect(text(page, "Anybody?")).to_be_in_viewport()
    expect(text(page, "Hello?")).to_be_in_viewport()
    expect(button).to_be_hidden()
    expect(page.locator(".nb-message:nth-last-child(2) .nb-bubble")).to_be_focused()
    assert unread() == 0


def test_whoever_is_at_the_end_follows(page, conversation):
    many_messages(conversation, 40)
    open_thread(page, conversation)
    expect(text(page, "text 39")).to_be_in_viewport()
    for number in range(5):
        received(f"Hello {number}")
        expect(text(page, f"Hello {number}")).to_be_in_viewport()
    expect(page.locator(".nb-arrived")).to_be_hidden()
    foot = page.locator(".nb-foot").bounding_box()
    last = texts(page).last.bounding_box()
    assert last["y"] + last["height"] <= foot["y"]


def test_what_comes_while_nobody_looks_stays_unread_until_somebody_does(page, conversation):
    open_thread(page, conversation)
    hide(page, True)
    page.wait_for_timeout(300)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    received("Hello?")
    page.wait_for_timeout(700)
    assert (asked, unread()) == ([], 1)
    with marking(page):
        hide(page, False)
    expect(texts(page)).to_have_count(2)
    assert unread() == 0


def test_more_than_a_page_that_has_come_takes_the_place_of_what_was_there(
    page, conversation, monkeypatch
):
    monkeypatch.setattr(thread, "PAGE", 5)
    # So few are near the top of the page, and older ones would come by themselves.
    page.route(re.compile("/live/.*before="), lambda route: route.fulfill(status=304))
    open_thread(page, conversation)
    hide(page, True)
    many_messages(conversation, 12)
    hide(page, False)
    expect(texts(page)).to_have_text([f"text {number}" for number in range(7, 12)])
    expect(page.locator(".nb-older a")).to_be_visible()
    expect(page.locator("#nb-newest")).to_contain_text("text 11")


def test_an_idle_page_is_told_that_nothing_changed(page, conversation):
    open_thread(page, conversation)
    with page.expect_response(LIVE) as answer:
        pass
    assert answer.value.status == 304


def test_a_lost_connection_is_said_and_recovers(page, conversation):
    open_thread(page, conversation)
    page.fill(".nb-textarea", "On its way")
    # Not by an answer of the site: a browser complains of those in its console.
    page.evaluate("() => { window.real = fetch; window.fetch = () => Promise.reject('no'); }")
    expect(page.locator("#nb-live")).to_contain_text("The connection is lost")
    expect(page.locator("#nb-live")).to_be_in_viewport()
    received("Meanwhile")
    page.evaluate("() => { window.fetch = real; }")
    expect(page.locator("#nb-live")).to_have_text("Connected again: the page is up to date.")
    expect(texts(page)).to_have_count(2)
    expect(page.locator(".nb-textarea")).to_have_value("On its way")


def test_a_draft_outlives_a_log_out_and_can_be_sent_after_a_log_in(page, conversation):
    open_thread(page, conversation)
    page.fill(".nb-textarea", "On its way")
    log_in_again(page)
    expect(page.locator("#nb-live")).to_have_text("Connected again: the page is up to date.")
    expect(page.locator(".nb-textarea")).to_have_value("On its way")
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_have_text("Your reply: queued.")


def test_a_note_can_be_saved_after_a_log_in(page, conversation):
    open_thread(page, conversation)
    page.click("text=Write an internal note")
    page.fill(".nb-noting textarea", "Ask the shop")
    log_in_again(page)
    page.click("text=Save note")
    expect(page.locator(".nb-messages")).to_contain_text("Ask the shop")


def fetch_older(page):
    """Unless the page is so short that they are fetched already."""
    page.evaluate("document.querySelector('.nb-older a')?.click()")


def test_older_messages_are_put_above_as_one_scrolls_and_the_place_is_kept(
    page, conversation, monkeypatch
):
    monkeypatch.setattr(thread, "PAGE", 30)
    many_messages(conversation, 80)
    open_thread(page, conversation)
    expect(texts(page)).to_have_count(30)
    top = page.evaluate(
        """() => {
            scrollTo(0, 150);
            return document.querySelector('.nb-message:nth-child(5)').getBoundingClientRect().top;
        }"""
    )
    expect(texts(page)).to_have_count(60)
    assert abs(text(page, "text 54").locator("xpath=../..").bounding_box()["y"] - top) < 1
    page.evaluate("scrollTo(0, 0)")
    expect(texts(page)).to_have_count(81)
    expect(page.locator(".nb-older a")).to_have_count(0)
    written = ["Where is my order?", *(f"text {number}" for number in range(80))]
    assert texts(page).all_text_contents() == written
    expect(page.locator(".nb-day")).to_have_count(1)
    expect(page.locator(".nb-mark:not(.nb-day)")).to_have_count(1)
    expect(page.locator("#nb-newest")).to_contain_text("text 79")


def test_a_day_and_a_session_are_marked_once_where_pages_meet(page, conversation, monkeypatch):
    monkeypatch.setattr(thread, "PAGE", 10)
    many_messages(conversation, 14)
    old = list(conversation.messages.order_by("id").values_list("pk", flat=True)[:8])
    yesterday = timezone.now() - timedelta(days=1)
    Message.objects.filter(pk__in=old).update(created_at=yesterday, session_id="before")
    open_thread(page, conversation)
    expect(page.locator(".nb-day")).to_have_count(2)
    fetch_older(page)
    expect(texts(page)).to_have_count(15)
    expect(page.locator(".nb-day")).to_have_count(2)
    expect(page.locator(".nb-mark:not(.nb-day)")).to_have_text(
        ["New session before", "New session 67543uhn3"]
    )
    expect(page.locator("[data-id]:has(.nb-day) .nb-text")).to_have_text(
        ["Where is my order?", "text 7"]
    )


def test_the_keyboard_stays_at_the_link_to_older_messages(page, conversation, monkeypatch):
    monkeypatch.setattr(thread, "PAGE", 30)
    many_messages(conversation, 80)
    open_thread(page, conversation)
    link = page.locator(".nb-older a")
    link.focus()
    expect(texts(page)).to_have_count(60)
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(texts(page)).to_have_count(81)
    expect(page.locator(".nb-message").first.locator(".nb-bubble")).to_be_focused()


def test_what_becomes_of_an_older_message_is_shown_too(page, conversation, monkeypatch):
    monkeypatch.setattr(thread, "PAGE", 5)
    message = services.reply(conversation, "On its way")
    many_messages(conversation, 8)
    open_thread(page, conversation)
    fetch_older(page)
    expect(bubble(page, message).locator(".nb-status")).to_have_text("queued")
    attempted()
    expect(bubble(page, message).locator(".nb-status")).to_have_text("accepted by 9bits")
    received("More")
    expect(texts(page).last).to_have_text("More")
    expect(texts(page)).to_have_count(11)


def test_an_older_page_shows_what_becomes_of_its_messages(page, conversation):
    message = services.reply(conversation, "On its way")
    open_thread(page, conversation, query=f"?before={received('Hello').pk}")
    attempted(Refused("No"))
    expect(bubble(page, message)).to_contain_text("No")
    received("More")
    services.retry(message)
    expect(bubble(page, message).locator(".nb-status")).to_have_text("queued")
    expect(texts(page)).to_have_count(2)


HOSTS = [
    "good.com",
    "1.2.3.4",
    "Éxample.com",
    "पंजाब.com",
    "xn--xample-9ua.com",
    "мир.рф",
    "a-b.c.ng",
]


def test_a_browser_goes_where_a_link_says(page):
    for host in HOSTS:
        for rest in ("", ":8080/a/../b", "?x=@evil.ng", "#//evil.ng", "/\\evil.ng", "/%2f@evil.ng"):
            (link,) = links.parts(f"https://{host}{rest}")
            assert isinstance(link, links.Link)
            gone = page.evaluate("address => new URL(address).hostname", link.address)
            seems = page.evaluate("address => new URL(address).hostname", link.written)
            assert link.host == gone == seems


def test_a_link_is_not_followed_by_accident(page):
    message = received("See https://shop.ng/a now")
    open_thread(page, message.conversation)
    summary = page.get_by_text("https://shop.ng/a", exact=True).first
    asked = []
    page.context.on("page", lambda opened: asked.append(opened.url))
    leads = page.locator(".nb-leads")
    expect(leads).to_be_hidden()
    summary.dblclick()
    summary.click()
    expect(leads).to_contain_text("This link leads to shop.ng")
    received("More")
    expect(texts(page)).to_have_count(2)
    expect(leads).to_be_visible()
    assert asked == []
    page.context.route(re.compile("shop.ng"), lambda route: route.fulfill(body="Bought"))
    with page.context.expect_page() as opened:
        page.click("text=Open in a new window")
    expect(opened.value.locator("body")).to_have_text("Bought")
    assert opened.value.evaluate("[opener, document.referrer]") == [None, ""]


def test_a_link_is_opened_by_the_keyboard_and_read_out_as_it_was_written(page, conversation):
    open_thread(page, conversation)
    received("See https://shop.ng/a now")
    expect(page.locator("#nb-said")).to_have_text("+2348020000000: See https://shop.ng/a now")
    page.focus("summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Open in a new window")).to_be_focused()


def test_it_keeps_itself_up_to_date_under_a_strict_content_security_policy(page, conversation):
    def answer(route):
        response = route.fetch(max_redirects=0)
        headers = {**response.headers, "content-security-policy": "default-src 'self'"}
        route.fulfill(response=response, headers=headers)

    page.route(re.compile("/change/"), answer)
    open_thread(page, conversation)
    received("<script>alert(1)</script><img src=x onerror=alert(2)>")
    services.reply(conversation, "On its way")
    expect(texts(page).nth(1)).to_have_text("<script>alert(1)</script><img src=x onerror=alert(2)>")
    attempted(Refused("<img src=x onerror=alert(3)>"))
    expect(page.locator(".nb-error")).to_have_text("<img src=x onerror=alert(3)>")
    page.unroute_all(behavior="wait")


def test_without_a_script_the_thread_works(page, conversation, chromium, live_server, monkeypatch):
    monkeypatch.setattr(thread, "PAGE", 2)
    many_messages(conversation, 2)
    received("See https://shop.ng/a now")
    state, base = page.context.storage_state(), live_server.url
    with chromium.new_context(
        base_url=base, java_script_enabled=False, storage_state=state
    ) as plain:
        tab = plain.new_page()
        open_thread(tab, conversation)
        expect(tab.locator(".nb-keys-open, .nb-keys").filter(visible=True)).to_have_count(0)
        expect(tab.locator(".nb-leads")).to_be_hidden()
        tab.click("summary >> text=shop.ng")
        expect(tab.locator(".nb-leads")).to_contain_text("This link leads to shop.ng")
        expect(tab.locator(".nb-arrived")).to_be_hidden()
        tab.click("text=Older messages")
        expect(texts(tab)).to_have_text(["Where is my order?", "text 0"])
        tab.click("text=Newest messages")
        expect(texts(tab).first).to_have_text("text 1")


# Handling


def test_one_is_closed_and_the_next_who_waits_is_there(page, conversation):
    other = received("And mine?", from_="2348020000009").conversation
    open_thread(page, conversation)
    page.click("#nb-take")
    expect(page.locator(".nb-handling")).to_contain_text("Assigned to Ada")
    page.click("#nb-close")
    expect(text(page, "And mine?")).to_be_visible()
    expect(page.locator(".nb-notes")).to_have_text("Closed 1 conversation.")
    assert f"/{other.pk}/change/" in page.url


def test_whose_it_became_is_shown_and_the_focus_stays(page, conversation):
    open_thread(page, conversation)
    page.focus("#nb-close")
    conversation.assign(User.objects.create_user("bola", first_name="Bola"))
    expect(page.locator(".nb-handling")).to_contain_text("Assigned to Bola")
    expect(page.locator("#nb-close")).to_be_focused()


# The trail


def test_it_is_handed_over_with_a_note_that_stands_in_the_thread(page, conversation):
    User.objects.create_superuser("bola", first_name="Bola")
    open_thread(page, conversation)
    page.click("#nb-hand_over")
    page.select_option("#nb-assignee", label="Bola")
    page.fill("[name=note]", "She waits since Monday.\nBe kind.")
    page.click("button.nb-send")
    expect(page.locator(".nb-change")).to_contain_text("Ada handed it over to Bola")
    expect(page.locator(".nb-has-note .nb-text")).to_have_text("She waits since Monday.\nBe kind.")
    expect(page.locator(".nb-handling")).to_contain_text("Assigned to Bola")


def test_what_a_colleague_does_is_shown_and_said_and_touches_nothing_that_is_written(
    page, conversation
):
    many_messages(conversation, 2)
    open_thread(page, conversation)
    page.click("text=Write an internal note")
    page.type(".nb-noting textarea", "She may")
    conversation.note("Order 4471 was returned.", author=User.objects.create_user("bola"))
    expect(page.locator("[data-id]").last.locator(".nb-has-note")).to_be_visible()
    expect(page.locator("#nb-said")).to_contain_text("bola noted")
    expect(page.locator("#nb-said")).to_contain_text("Order 4471 was returned.")
    page.keyboard.type(" call")
    page.click("text=Save note")
    expect(page.locator(".nb-has-note .nb-text").last).to_have_text("She may call")


def test_what_was_done_before_the_first_message_comes_with_it(page, conversation):
    first = conversation.messages.get()
    ConversationChange.objects.create(conversation=conversation, kind="noted", after=0, note="VIP")
    many_messages(conversation, thread.PAGE)
    open_thread(page, conversation)
    page.locator(".nb-older a").dispatch_event("click")
    expect(bubble(page, first)).to_be_attached()
    expect(page.locator("#nb-thread > .nb-trail .nb-text")).to_have_text("VIP")
    conversation.note("And on", author=None)
    expect(page.locator(".nb-has-note")).to_have_count(2)
