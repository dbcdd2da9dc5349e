"""A new conversation in a real browser, as staff begin one."""

import pytest
from playwright.sync_api import expect

from django_ninebits.models import Contact, Message

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

INBOX = "/admin/django_ninebits/conversation/"


@pytest.fixture(autouse=True)
def settings_of_a_shop(settings):
    """Two short codes, and nothing leaves before a worker comes."""
    settings.NINEBITS = settings.NINEBITS | {
        "SHORT_CODES": ["MyShop"],
        "DISPATCHER": "django_ninebits.dispatch.defer",
    }


def drafts(page):
    return page.evaluate("Object.keys(localStorage).filter(one => one.startsWith('nb-draft:'))")


def test_a_conversation_is_begun_with_the_keyboard_alone(adas_tab):
    page = adas_tab
    page.goto(INBOX)
    page.get_by_role("link", name="New conversation", exact=True).press("Enter")
    expect(page.get_by_label("Number")).to_be_focused()
    page.keyboard.type("5502")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("is not a phone number")
    expect(page.get_by_label("Number")).to_be_focused()
    page.get_by_label("Number").fill("0802 000 0001")
    page.get_by_label("Short code").select_option("MyShop")
    page.get_by_label("Short code").press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".nb-facts")).to_contain_text("+234 802 000 0001")
    expect(page.get_by_label("Your message")).to_be_focused()
    expect(page.locator(".nb-figures")).to_be_visible()
    page.get_by_label("Their name").fill("Amaka")
    page.get_by_label("Your message").fill("Your parcel is here")
    page.reload()
    expect(page.locator(".nb-restored")).to_be_visible()
    expect(page.get_by_label("Your message")).to_have_value("Your parcel is here")
    page.get_by_label("Their name").fill("Amaka")
    page.get_by_label("Your message").press("Control+Enter")
    expect(page.locator(".nb-outbound .nb-text")).to_have_text("Your parcel is here")
    expect(page.locator(".nb-notes")).to_contain_text("Your message: queued.")
    expect(page.get_by_role("heading", name="Amaka")).to_be_visible()
    expect(page.locator(".nb-figures")).to_be_visible()
    expect(page.get_by_label("Your reply")).to_have_value("")
    assert drafts(page) == []
    assert Message.objects.get().conversation.short_code == "MyShop"
    assert Contact.objects.get().phone_number == "+2348020000001"


def test_what_was_written_when_somebody_was_quicker_is_in_the_thread(adas_tab):
    page = adas_tab
    page.goto(f"{INBOX}add/?to=08020000001&from=MyShop")
    expect(page.locator(".nb-figures")).to_be_visible()
    page.get_by_label("Your message").fill("Your parcel is here")
    Contact.objects.create(phone_number="+2348020000001").conversations.create(short_code="MyShop")
    page.reload()
    expect(page.locator(".nb-notes")).to_contain_text("You have talked before")
    expect(page.get_by_label("Your reply")).to_have_value("Your parcel is here")
    expect(page.locator(".nb-restored")).to_be_visible()
