"""Every page by the rules of axe-core: light and dark, on a desk and on a phone.

No rule is switched off and no part of a page is left out: what Django's own markup gets wrong is
put right on the pages of the app. Of the rules that axe runs only when asked to, all are asked for
but those of level AAA, which the colours of Django's admin do not meet.
"""

import itertools
import uuid
from datetime import timedelta

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import expect

from django_ninebits import handset, inbox, live, services, thread
from django_ninebits.decisions import Seen
from django_ninebits.models import (
    CannedReply,
    Contact,
    Conversation,
    Message,
    QuarantinedDelivery,
)
from django_ninebits.simulator import Simulator
from tests.deliveries import body
from tests.staff import cookie_of, user

pytestmark = [
    pytest.mark.browser,
    pytest.mark.looks,
    pytest.mark.django_db(transaction=True),
]

ADMIN = "/admin/django_ninebits/"
INBOX = f"{ADMIN}conversation/"
MODES = list(itertools.product(["light", "dark"], [1280, 390]))
LONG = "Averyveryverylongword" * 20
ADA, BOLA, CHIDI = (f"+234802000000{number}" for number in range(3))

RUN = """
    async () => {
        await Promise.allSettled(document.getAnimations().map(one => one.finished));
        const isAsked = ({tags}) => !tags.includes("wcag2aaa") && !tags.includes("deprecated");
        const rules = axe.getRules().filter(isAsked).map(({ruleId}) => [ruleId, {enabled: true}]);
        // It would look for the files that style sheets import, and in the wrong place.
        const options = {preload: false, rules: Object.fromEntries(rules)};
        const {violations} = await axe.run(options);
        return violations.flatMap(({id, nodes}) =>
            nodes.map(({target, failureSummary}) => [id, target.join(" "), failureSummary]));
    }
"""


@pytest.fixture(autouse=True)
def deferred(settings):
    """Where nothing leaves before a worker comes."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


@pytest.fixture
def page(adas_tab):
    return adas_tab


@pytest.fixture
def ada(page):
    return User.objects.get(username="ada")


@pytest.fixture
def conversation(ada):
    """In which there is all that can be in one."""
    row = received("Order? https://shop.ng/a", sent_date="2024-01-02T23:50:37Z").conversation
    Contact.objects.update(name=LONG[:60], notes="A note")
    received("", session_id="another")
    received(LONG)
    for status in ("queued", "sending", "sent", "failed", "uncertain", "cancelled"):
        became(services.reply(row, f"{status}: https://shop.ng/", author=ada), status)
    services.reply(row, "Later", send_at=timezone.now() + timedelta(days=1), author=ada)
    row.messages.get(status="failed").tries.create(
        number=1, began_at=timezone.now(), outcome="refused", http_status=400, answer="No."
    )
    row.note("They called, too", author=ada)
    row.assign(ada, author=ada)
    received("Thank you")
    CannedReply.objects.create(title="Greeting", text="Hello {name|there}")
    CannedReply.objects.create(title="My own", text="Hello", owner=ada)
    return row


@pytest.fixture
def others(ada):
    """Conversations in other states, and a queue that nobody works off."""
    received("Hello?", from_=BOLA)
    Conversation.objects.filter(contact__phone_number=BOLA).update(assignee=ada)
    received("STOP", from_=CHIDI)
    received("Thank you", from_="+2348020000003").conversation.close(10**9)
    an_hour_ago = timezone.now() - timedelta(hours=1)
    Message.objects.filter(status="queued").update(due_at=an_hour_ago, created_at=an_hour_ago)


def received(text, **changes):
    return inbox.take_in(body(message=text, ref_id=uuid.uuid4().hex, **changes)).message


def became(message, status):
    is_troubled = status in Message.UNDECIDED
    Message.objects.filter(pk=message.pk).update(
        status=status, attempts=1, error="No." * is_troubled, needs_decision=is_troubled
    )


def violations(page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    return [(scheme, width, *one) for one in page.evaluate(RUN)]


def assert_is_accessible(page):
    """As it is shown, in each mode."""
    page.evaluate(AXE_SCRIPT)
    assert [one for mode in MODES for one in violations(page, *mode)] == []


def open_thread(page, conversation, query=""):
    page.goto(f"{INBOX}{conversation.pk}/change/{query}")
    expect(page.locator("#nb-thread")).to_be_visible()


def test_what_is_wrong_is_found(page):
    page.goto(INBOX)
    page.evaluate("document.querySelector('#searchbar').labels[0].remove()")
    page.evaluate(AXE_SCRIPT)
    found = violations(page, "light", 1280)
    assert ("label", "#searchbar") in [(rule, target) for *_mode, rule, target, _why in found]


# The inbox


def test_the_inbox(page, conversation, others):
    page.goto(f"{INBOX}?folder=all&filter=yes")
    assert_is_accessible(page)


@pytest.mark.parametrize("rest", ["", "{}/change/"])
def test_the_list_of_keys(page, conversation, rest):
    page.goto(INBOX + rest.format(conversation.pk))
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert_is_accessible(page)


def test_an_empty_inbox(page):
    page.goto(INBOX)
    assert_is_accessible(page)


def test_what_a_search_found(page, conversation, others):
    page.goto(f"{INBOX}?q=order")
    assert_is_accessible(page)


def test_a_search_that_found_nothing(page, conversation):
    page.goto(f"{INBOX}?q=zebra")
    assert_is_accessible(page)


def test_a_list_that_has_lost_its_connection(page, conversation, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0.1)
    page.goto(INBOX)
    page.evaluate("() => { window.fetch = () => Promise.reject('no'); }")
    expect(page.locator(".nb-lost")).to_be_visible()
    assert_is_accessible(page)


def test_the_page_that_asks_for_a_colleague(page, conversation):
    page.goto(INBOX)
    page.check(".action-select")
    page.select_option("[name=action]", "assign_to_colleague")
    page.click("[name=index]")
    expect(page.locator("#nb-assignee")).to_be_visible()
    assert_is_accessible(page)


# A thread


def test_a_thread(page, conversation):
    open_thread(page, conversation)
    page.fill(".nb-textarea", "₦500 🙏")
    page.click("summary >> text=Send later")
    page.locator(".nb-link summary").first.click()
    assert_is_accessible(page)


def test_a_plain_version_that_is_offered_for_a_draft(page, conversation):
    open_thread(page, conversation)
    page.fill(".nb-textarea", "₦500 " * 500)
    page.reload()
    expect(page.locator(".nb-restored")).to_be_visible()
    assert_is_accessible(page)


def test_the_list_of_canned_replies(page, conversation):
    open_thread(page, conversation)
    page.locator(".nb-textarea").press_sequentially("/")
    expect(page.get_by_role("listbox")).to_be_visible()
    assert_is_accessible(page)


def test_new_messages_below(page, conversation):
    open_thread(page, conversation)
    page.evaluate("scrollTo(0, 0)")
    received("More")
    expect(page.locator(".nb-arrived")).to_be_visible()
    assert_is_accessible(page)


def test_older_messages(page, conversation, monkeypatch):
    monkeypatch.setattr(thread, "PAGE", 3)
    newest = conversation.messages.order_by("-id").first()
    open_thread(page, conversation, query=f"?before={newest.pk}")
    assert_is_accessible(page)


def test_a_thread_without_messages(page):
    contact = Contact.objects.create(phone_number=ADA)
    open_thread(page, Conversation.objects.create(contact=contact, short_code="48974"))
    assert_is_accessible(page)


def test_a_reply_that_was_not_understood(page, conversation):
    open_thread(page, conversation)
    page.click(".nb-send")
    expect(page.get_by_role("alert")).to_be_visible()
    assert_is_accessible(page)


def test_a_reply_that_was_sent(page, conversation):
    open_thread(page, conversation)
    page.fill(".nb-textarea", "On its way")
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_be_visible()
    assert_is_accessible(page)


def test_somebody_else_replied(page, conversation):
    open_thread(page, conversation)
    services.reply(conversation, "On its way")
    page.fill(".nb-textarea", "It is lost")
    page.click(".nb-send")
    expect(page.get_by_role("alert")).to_contain_text("Look first")
    assert_is_accessible(page)


def test_the_thread_of_whoever_opted_out(page, others):
    open_thread(page, Conversation.objects.get(contact__phone_number=CHIDI))
    assert_is_accessible(page)


def test_a_thread_for_whoever_only_reads(page, conversation, live_server):
    page.context.add_cookies([cookie_of(user("view_conversation"), live_server.url)])
    open_thread(page, conversation)
    assert_is_accessible(page)


def test_an_internal_note_without_words(page, conversation):
    open_thread(page, conversation)
    page.click("text=Write an internal note")
    page.click("text=Save note")
    expect(page.get_by_role("alert")).to_be_visible()
    assert_is_accessible(page)


def test_a_thread_in_which_it_was_handed_over(page, conversation):
    bola = user("view_conversation", first_name="Bola")
    conversation.assign(bola, author=bola, note="https://shop.ng/\n" + LONG)
    conversation.close(10**9, author=bola)
    open_thread(page, conversation)
    assert_is_accessible(page)


def test_a_colleague_to_hand_over_to(page, conversation):
    open_thread(page, conversation)
    page.click("#nb-hand_over")
    expect(page.locator("#nb-note")).to_be_visible()
    assert_is_accessible(page)


# A new conversation


@pytest.mark.parametrize("query", ["", "?to=call+me", f"?to={ADA}&from=48974"])
def test_a_new_conversation(page, provider, query):
    page.goto(f"{INBOX}add/{query}")
    expect(page.locator("#content-main form").first).to_be_visible()
    assert_is_accessible(page)


def test_the_history_of_a_thread(page, conversation):
    open_thread(page, conversation)
    page.click("#nb-release")
    page.goto(f"{INBOX}{conversation.pk}/history/")
    expect(page.locator("#change-history table")).to_be_visible()
    assert_is_accessible(page)


def test_a_reply_of_whoever_was_logged_out(page, conversation):
    address = f"{INBOX}{conversation.pk}/change/"
    show(page, address, Client().post(address, {"keep": "1", "text": LONG}))
    expect(page.locator("#nb-unsent")).to_be_visible()
    assert_is_accessible(page)


def show(page, address, answer):
    """Without its status, of which a browser complains."""
    page.route(
        f"**{address}",
        lambda route: route.fulfill(body=answer.content, headers=dict(answer.headers)),
    )
    page.goto(address)


# Messages


@pytest.mark.parametrize("query", ["?status__exact=failed", "?q=0000"])
def test_the_messages(page, conversation, query):
    page.goto(f"{ADMIN}message/{query}")
    assert_is_accessible(page)


@pytest.mark.parametrize("status", ["failed", "received"])
def test_a_message(page, conversation, status):
    message = conversation.messages.filter(status=status).first()
    page.goto(f"{ADMIN}message/{message.pk}/change/")
    assert_is_accessible(page)


def test_the_page_that_asks_about_a_message(page, conversation):
    seen = Seen.of(conversation.messages.get(status="uncertain"))
    page.goto(f"{ADMIN}message/decide/retry/?seen={seen}")
    assert_is_accessible(page)


def test_the_page_that_asks_about_several_messages(page, conversation):
    page.goto(f"{ADMIN}message/")
    page.check("#action-toggle")
    page.select_option("[name=action]", label="It arrived")
    page.click("[name=index]")
    expect(page.locator(".nb-decision")).to_be_visible()
    assert_is_accessible(page)


# Contacts


def test_the_contacts(page, others):
    page.goto(f"{ADMIN}contact/")
    assert_is_accessible(page)


def test_a_contact(page, others):
    row = Contact.objects.get(phone_number=CHIDI)
    page.goto(f"{ADMIN}contact/{row.pk}/change/")
    assert_is_accessible(page)


def test_a_contact_that_cannot_be_added(page):
    page.goto(f"{ADMIN}contact/add/")
    page.fill("[name=phone_number]", "MTN")
    page.click("[name=_save]")
    expect(page.locator(".errornote")).to_be_visible()
    assert_is_accessible(page)


# What was not understood


@pytest.mark.parametrize("rest", ["", "{}/change/"])
def test_what_was_not_understood(page, rest):
    row = QuarantinedDelivery.objects.create(body=LONG.encode(), errors="No.")
    page.goto(f"{ADMIN}quarantineddelivery/{rest.format(row.pk)}")
    assert_is_accessible(page)


# Canned replies


@pytest.mark.parametrize("rest", ["", "add/", "{}/change/", "{}/delete/"])
def test_canned_replies(page, conversation, rest):
    row = CannedReply.objects.get(title="Greeting")
    page.goto(f"{ADMIN}cannedreply/{rest.format(row.pk)}")
    assert_is_accessible(page)


def test_canned_replies_that_are_to_be_deleted(page, conversation):
    page.goto(f"{ADMIN}cannedreply/")
    page.check("#action-toggle")
    page.select_option("[name=action]", "delete_selected")
    page.click("[name=index]")
    expect(page.locator(".delete-confirmation")).to_be_visible()
    assert_is_accessible(page)


# The phone


@pytest.fixture
def phone(tab, settings):
    with Simulator(speed=100) as simulator:
        settings.NINEBITS = {
            "API_URL": simulator.url,
            "API_TOKEN": simulator.token,
            "SHORT_CODE": "48974",
            "HANDSET_WITHOUT_DEBUG": True,
        }
        handset.use(simulator)
        tab.goto("/handset/")
        yield tab
        # It goes on asking, and is not to find that the phone is gone with the settings.
        tab.goto("about:blank")


@pytest.mark.urls("tests.handset_urls")
def test_the_phone(phone):
    services.send_sms(BOLA, "Your parcel is here")
    phone.fill("#nb-text", LONG)
    phone.press("#nb-text", "Enter")
    expect(phone.locator(".hs-typed .hs-foot")).to_contain_text("200")
    phone.locator(".hs-wire summary").first.click()
    phone.fill("[name=sender]", "MTN")
    phone.fill("#nb-text", "Hello")
    phone.press("#nb-text", "Enter")
    expect(phone.locator("#hs-errors")).not_to_be_empty()
    assert_is_accessible(phone)


@pytest.mark.urls("tests.handset_urls")
def test_a_phone_that_cannot_be_used(tab, settings):
    settings.NINEBITS = {"HANDSET_WITHOUT_DEBUG": True}
    show(tab, "/handset/", Client().get("/handset/"))
    expect(tab.get_by_role("heading")).to_have_text("The phone cannot be used yet")
    assert_is_accessible(tab)
