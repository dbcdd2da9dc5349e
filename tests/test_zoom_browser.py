"""The inbox and a thread at 200 %, in a narrow window, from right to left, and without motion."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from django_ninebits import inbox, services
from django_ninebits.models import CannedReply, Contact, Conversation, Message
from tests.deliveries import body

pytestmark = [
    pytest.mark.browser,
    pytest.mark.looks,
    pytest.mark.django_db(transaction=True),
]

INBOX = "/admin/django_ninebits/conversation/"
WIDTH = "document.documentElement.scrollWidth"

#: Whose children stand beside and below each other.
ROWS = (
    ".nb-folders ul, #changelist-search > div, .nb-filters, .nb-orders, .actions, .nb-facts,"
    " #result_list tbody tr, .nb-handling, .nb-messages, .nb-message, .nb-bubble, .nb-meta,"
    " .nb-verbs, .nb-reply, .nb-row, .nb-figures, .nb-picker, .nb-keys, .nb-noting form"
)
OVERLAPS = """
    rows => Array.from(document.querySelectorAll(rows)).flatMap(row => {
        const style = one => getComputedStyle(one);
        const parts = Array.from(row.children).filter(one =>
            one.checkVisibility() && style(one).position !== "absolute");
        const boxes = parts.map(one => one.getBoundingClientRect());
        const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
        return parts.filter((_, i) => boxes.some((box, j) => i < j && meet(boxes[i], box)))
            .map(one => one.outerHTML);
    })
"""

#: In the list, and in a thread.
BESIDE = (
    [
        (".nb-folders li:first-child", ".nb-folders li:last-child"),
        (".field-who", ".field-when"),
        (".nb-orders [aria-current]", ".nb-keys-open"),
    ],
    [(".nb-inbound .nb-bubble", ".nb-outbound .nb-bubble"), (".nb-textarea", ".nb-send")],
)
MOVING = """
    () => Array.from(document.querySelectorAll("*")).filter(one => {
        const style = getComputedStyle(one);
        return style.transitionDuration !== "0s" || style.animationName !== "none"
            || style.scrollBehavior === "smooth";
    }).map(one => one.outerHTML)
"""


@pytest.fixture(autouse=True)
def deferred(settings):
    """Where nothing leaves before a worker comes."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


@pytest.fixture
def conversation():
    given = {"ref_id": uuid.uuid4().hex, "sent_date": "2024-01-02T23:50:37Z"}
    inbox.take_in(body(message="Where is my order? https://shop.ng/a", **given))
    Contact.objects.update(name="Adaeze Okafor-Williams")
    row = Conversation.objects.get()
    reply = services.reply(row, "On its way")
    Message.objects.filter(pk=reply.pk).update(status="uncertain", attempts=1, error="No answer.")
    services.reply(row, "Later", send_at=timezone.now() + timedelta(days=1))
    CannedReply.objects.create(title="Greeting", text="Hello")
    return row


@pytest.fixture
def addresses(conversation):
    return f"{INBOX}?folder=all&filter=yes", f"{INBOX}{conversation.pk}/change/"


def test_at_200_percent_there_is_no_scrolling_sideways(adas_tab, addresses, chromium, live_server):
    with chromium.new_context(
        base_url=live_server.url,
        storage_state=adas_tab.context.storage_state(),
        viewport={"width": 640, "height": 400},
        device_scale_factor=2,
    ) as zoomed:
        page = zoomed.new_page()
        for address in addresses:
            page.goto(address)
            assert page.evaluate(WIDTH) == 640
        page.click(".nb-textarea")
        expect(page.locator(".nb-send")).to_be_in_viewport()


def test_320_pixels_are_enough(adas_tab, addresses):
    adas_tab.set_viewport_size({"width": 320, "height": 640})
    for address in addresses:
        adas_tab.goto(address)
        assert adas_tab.evaluate(WIDTH) == 320
        adas_tab.get_by_role("button", name="Keys").click()
        box = adas_tab.get_by_role("dialog").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320


@pytest.mark.parametrize("language", ["en", "ar"])
def test_nothing_overlaps(adas_tab, addresses, settings, language):
    settings.LANGUAGE_CODE = language
    for address in addresses:
        adas_tab.goto(address)
        for width in (1280, 640, 320):
            adas_tab.set_viewport_size({"width": width, "height": 800})
            assert adas_tab.evaluate(OVERLAPS, ROWS) == []


def test_what_overlaps_is_found(adas_tab):
    adas_tab.goto(INBOX)
    adas_tab.evaluate(
        "document.querySelector('.nb-folders li').style.marginInlineEnd = '-20px'; null"
    )
    assert len(adas_tab.evaluate(OVERLAPS, ROWS)) == 1


def test_what_is_written_from_right_to_left_is_a_mirror_image(adas_tab, addresses, settings):
    def sides():
        """Of each two that stand beside each other, whether the first is on the left."""
        found = []
        for address, pairs in zip(addresses, BESIDE, strict=True):
            adas_tab.goto(address)
            for pair in pairs:
                one, other = (adas_tab.locator(each).first.bounding_box()["x"] for each in pair)
                found.append(one < other)
        return found

    assert sides() == [True] * 5
    settings.LANGUAGE_CODE = "ar"
    assert sides() == [False] * 5


def test_from_right_to_left_the_folders_begin_at_the_edge(adas_tab, settings):
    settings.LANGUAGE_CODE = "ar"
    adas_tab.goto(INBOX)
    around, folders = map(adas_tab.locator, (".nb-folders", ".nb-folders ul"))
    assert around.bounding_box()["width"] == folders.bounding_box()["width"]


def test_whoever_wants_no_motion_gets_none(adas_tab, addresses):
    for address in addresses:
        adas_tab.goto(address)
        adas_tab.emulate_media(reduced_motion="reduce")
        assert adas_tab.evaluate(MOVING) == []
    adas_tab.emulate_media(reduced_motion="no-preference")
    assert adas_tab.evaluate(MOVING) != []
