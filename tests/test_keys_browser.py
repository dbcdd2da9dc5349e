"""The keys of the inbox and of a thread, and the list of them."""

import re
import uuid

import pytest
from playwright.sync_api import expect

from django_ninebits import inbox
from django_ninebits.models import CannedReply
from tests.deliveries import body

pytestmark = [
    pytest.mark.browser,
    pytest.mark.looks,
    pytest.mark.django_db(transaction=True),
]

INBOX = "/admin/django_ninebits/conversation/"


@pytest.fixture
def page(adas_tab):
    return adas_tab


@pytest.fixture
def conversation():
    return received("Where is my order?", 1).conversation


def received(text, number):
    given = {"from_": f"23480200{number:05}", "ref_id": uuid.uuid4().hex}
    return inbox.take_in(body(message=text, **given)).message


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def link(page, number):
    return page.locator(f"#result_list a:has-text('+23480200{number:05}')")


def told(page):
    return page.get_by_role("dialog", name="Keys")


def test_keys_go_through_the_rows_and_open_one(page):
    for number in (1, 2, 3):
        received(f"text {number}", number)
    page.goto(INBOX)
    press(page, "j")
    expect(link(page, 1)).to_be_focused()
    press(page, "j", "j", "j")
    expect(link(page, 3)).to_be_focused()
    press(page, "k", "Control+k", "Alt+k")
    expect(link(page, 2)).to_be_focused()
    press(page, "k", "k", "j", "o")
    expect(page.locator(".nb-messages .nb-text")).to_have_text("text 2")


def test_keys_select_and_search(page, conversation):
    page.goto(INBOX)
    press(page, "x", "o", "j", "x")
    expect(page.locator(".action-counter")).to_have_text("1 of 1 selected")
    press(page, "/")
    expect(page.locator("#searchbar")).to_be_focused()
    page.keyboard.type("/jkox?")
    expect(page.locator("#searchbar")).to_have_value("/jkox?")
    expect(page.locator(".action-counter")).to_have_text("1 of 1 selected")
    expect(told(page)).to_be_hidden()


def test_in_an_empty_list_they_do_nothing(page):
    page.goto(INBOX)
    press(page, "j", "k", "o", "x")
    expect(page.locator(".nb-empty")).to_be_visible()


def test_keys_write_leave_and_go_back(page, conversation):
    CannedReply.objects.create(title="rush", text="Hurry")
    page.goto(INBOX)
    press(page, "j", "o")
    expect(page.locator(".nb-figures")).to_be_visible()
    press(page, "r")
    text = page.locator(".nb-textarea")
    expect(text).to_be_focused()
    page.keyboard.type("ru? /ru")
    press(page, "Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(text).to_be_focused()
    press(page, "Escape")
    expect(text).not_to_be_focused()
    expect(text).to_have_value("ru? /ru")
    press(page, "u")
    expect(page.locator("#result_list")).to_be_visible()


def test_the_keys_of_a_page_are_listed(page, conversation):
    page.goto(INBOX)
    press(page, "?")
    expect(told(page).locator("kbd")).to_have_text(["j", "k", "o", "x", "/", "?"])
    press(page, "j")
    expect(link(page, 1)).not_to_be_focused()
    press(page, "Enter")
    expect(told(page)).to_be_hidden()
    page.goto(f"{INBOX}{conversation.pk}/change/")
    page.get_by_role("button", name="Keys").click()
    expect(told(page).locator("kbd")).to_have_text(["r", "Esc", "Ctrl", "Enter", "u", "?"])
    press(page, "Escape")
    expect(told(page)).to_be_hidden()
    expect(page.get_by_role("button", name="Keys")).to_be_focused()


def test_they_work_under_a_strict_content_security_policy(page, conversation):
    def answer(route):
        response = route.fetch(max_redirects=0)
        headers = {**response.headers, "content-security-policy": "default-src 'self'"}
        route.fulfill(response=response, headers=headers)

    page.route(re.compile(f"{INBOX}$"), answer)
    page.goto(INBOX)
    press(page, "?")
    page.get_by_label("Single keys").uncheck()
    page.get_by_label("Single keys").check()
    press(page, "Escape", "j")
    expect(link(page, 1)).to_be_focused()
    page.unroute_all(behavior="wait")


def test_single_keys_can_be_switched_off_and_stay_so(page, conversation):
    page.goto(INBOX)
    press(page, "?")
    page.get_by_label("Single keys").uncheck()
    press(page, "Escape", "j", "?")
    expect(link(page, 1)).not_to_be_focused()
    expect(told(page)).to_be_hidden()
    page.goto(f"{INBOX}{conversation.pk}/change/")
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_label("Single keys")).not_to_be_checked()
    page.get_by_label("Single keys").check()
    press(page, "Escape", "r")
    expect(page.locator(".nb-textarea")).to_be_focused()
