"""The list of the inbox in a real browser: it keeps itself up to date, and lets go of nothing."""

import re
import uuid

import pytest
from playwright.sync_api import expect

from django_ninebits import inbox, live, services
from django_ninebits.models import Contact, Conversation
from tests.browsers import hide, log_in_again
from tests.deliveries import body

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

INBOX = "/admin/django_ninebits/conversation/"


@pytest.fixture
def page(adas_tab, monkeypatch):
    """Of somebody who has logged in, where open pages ask often."""
    monkeypatch.setattr(live, "EVERY", 0.1)
    adas_tab.goto(INBOX)
    return adas_tab


@pytest.fixture(autouse=True)
def deferred(settings):
    """Where nothing leaves before a worker comes."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


def received(text="Hello", number=0):
    given = {"from_": f"23480200{number:05}", "ref_id": uuid.uuid4().hex}
    return inbox.take_in(body(message=text, **given)).message


def names(page):
    return page.locator("#result_list .nb-number")


def row(page, number):
    return page.locator("#result_list tbody tr").filter(has_text=f"+23480200{number:05}")


def test_a_text_appears_by_itself_and_is_announced(page):
    page.goto(INBOX)
    expect(page.locator(".nb-empty")).to_be_visible()
    received("Where is my order?", 1)
    expect(page.locator("#result_list")).to_contain_text("Where is my order?")
    expect(page.get_by_role("status")).to_have_text("Waiting: 1")
    expect(page.locator(".nb-folders [aria-current]")).to_have_text("Open 1")
    received("Hello?", 2)
    expect(names(page)).to_have_text(["+2348020000001", "+2348020000002"])


def test_what_leaves_a_folder_disappears(page):
    conversation = received().conversation
    page.goto(f"{INBOX}?folder=waiting")
    expect(names(page)).to_have_count(1)
    services.reply(conversation, "On its way")
    expect(page.locator(".nb-empty")).to_have_text("Nobody waits for an answer.")


def test_selection_and_focus_stay_with_whoever_had_them(page):
    for number in (1, 2, 3):
        received(number=number)
    page.goto(f"{INBOX}?folder=all&order=newest")
    row(page, 1).locator(".action-select").check()
    row(page, 2).locator("a").first.focus()
    received("Again", 1)
    expect(names(page).first).to_have_text("+2348020000001")
    expect(row(page, 1).locator(".action-select")).to_be_checked()
    expect(row(page, 2).locator("a").first).to_be_focused()
    received("New", 4)
    expect(names(page)).to_have_count(4)
    expect(page.locator(".action-select:checked")).to_have_count(1)
    expect(row(page, 1).locator(".action-select")).to_be_checked()
    expect(row(page, 2).locator("a").first).to_be_focused()


def test_what_is_selected_after_a_change_is_what_is_acted_upon(page):
    for number in (1, 2):
        received(number=number)
    page.goto(f"{INBOX}?folder=all&order=newest")
    received("Again", 1)
    expect(names(page).first).to_have_text("+2348020000001")
    row(page, 1).locator(".action-select").check()
    expect(page.locator(".action-counter")).to_have_text("1 of 2 selected")
    page.select_option("[name=action]", label="Close")
    page.click("[name=index]")
    expect(page.get_by_text("Closed 1 conversation.")).to_be_visible()
    closed = Conversation.objects.get(status="closed")
    assert str(closed.contact.phone_number) == "+2348020000001"


def test_whoever_is_gone_leaves_the_focus_to_nobody(page):
    first, second = received(number=1).conversation, received(number=2).conversation
    page.goto(f"{INBOX}?folder=waiting")
    row(page, 1).locator("a").first.focus()
    services.reply(first, "On its way")
    received(number=3)
    expect(row(page, 1)).to_have_count(0)
    expect(row(page, 2).locator("a").first).not_to_be_focused()
    assert second.messages.count() == 1


def test_a_list_at_which_nobody_writes_asks_and_is_told_that_nothing_changed(page):
    received()
    page.goto(INBOX)
    with page.expect_response(re.compile(INBOX)) as answer:
        pass
    assert answer.value.status == 304


def test_how_long_somebody_waits_goes_on(page):
    received()
    page.goto(INBOX)
    page.evaluate("document.querySelector('.nb-waits').dateTime = '2020-01-01T00:00:00Z'")
    expect(page.locator(".nb-waits")).to_have_text(re.compile(r"^\d+ years$"))


def test_a_hidden_page_hardly_asks(page):
    received()
    page.goto(INBOX)
    hide(page, True)
    page.wait_for_timeout(300)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(700)
    assert asked == []
    with page.expect_request(re.compile(INBOX)):
        hide(page, False)


def test_a_lost_connection_is_said_and_recovers(page):
    received()
    page.goto(INBOX)
    # Not by an answer of the site: a browser complains of those in its console.
    page.evaluate("() => { window.real = fetch; window.fetch = () => Promise.reject('no'); }")
    expect(page.get_by_role("status")).to_contain_text("The connection is lost")
    expect(page.get_by_role("status")).to_be_visible()
    received("Meanwhile", 2)
    page.evaluate("() => { window.fetch = real; }")
    expect(page.get_by_role("status")).to_have_text("Connected again: the list is up to date.")
    expect(names(page)).to_have_count(2)


def test_whoever_was_logged_out_is_told_so(page):
    received()
    page.goto(INBOX)
    page.context.clear_cookies()
    expect(page.get_by_role("status")).to_contain_text("You are logged out")


def test_conversations_can_be_assigned_after_a_log_in(page):
    received(number=1)
    page.goto(INBOX)
    log_in_again(page)
    row(page, 1).locator(".action-select").check()
    page.select_option("[name=action]", label="Assign to me")
    page.click("[name=index]")
    expect(row(page, 1)).to_contain_text("Ada")


def test_it_keeps_itself_up_to_date_under_a_strict_content_security_policy(page):
    def answer(route):
        response = route.fetch(max_redirects=0)
        headers = {**response.headers, "content-security-policy": "default-src 'self'"}
        route.fulfill(response=response, headers=headers)

    page.route(re.compile(f"{INBOX}$"), answer)
    page.goto(INBOX)
    received(number=1)
    expect(names(page)).to_have_count(1)
    Contact.objects.update(name="<script>alert(1)</script>")
    expect(page.locator(".nb-name")).to_have_text("<script>alert(1)</script>")
    page.unroute_all(behavior="wait")


def test_without_a_script_the_list_works(page, chromium):
    for number in (1, 2):
        received(number=number)
    state = page.context.storage_state()
    base = page.url.partition("/admin/")[0]
    with chromium.new_context(
        base_url=base, java_script_enabled=False, storage_state=state
    ) as plain:
        tab = plain.new_page()
        tab.goto(INBOX)
        expect(tab.locator(".nb-keys-open, .nb-keys").filter(visible=True)).to_have_count(0)
        tab.click("text=Waiting")
        row(tab, 2).locator(".action-select").check()
        tab.select_option("[name=action]", label="Assign to me")
        tab.click("[name=index]")
        expect(row(tab, 2)).to_contain_text("Ada")
        tab.click("text=Filter")
        tab.select_option("[name=assignee]", label="Ada")
        tab.click("text=Apply")
        expect(names(tab)).to_have_text(["+2348020000002"])
