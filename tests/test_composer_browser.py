"""The composer in a real browser: what its scripts do, and that all of it can be done without."""

import random
import re
import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from django_ninebits import inbox, services
from django_ninebits.models import CannedReply, Message
from django_ninebits.plain import PLAIN, plain
from django_ninebits.segments import GSM, GSM_EXTENSION, segments
from tests.deliveries import body
from tests.staff import cookie_of

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

INBOX = "/admin/django_ninebits/conversation/"


@pytest.fixture(autouse=True)
def deferred(settings):
    """Where nothing leaves before a worker comes."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


@pytest.fixture
def ada():
    return User.objects.create_superuser("ada", password="x", first_name="Ada", last_name="Obi")


@pytest.fixture
def conversation():
    return received("Where is my order?").conversation


@pytest.fixture
def page(tab, ada, conversation, live_server):
    """The thread, of somebody who has logged in."""
    tab.context.add_cookies([cookie_of(ada, live_server.url)])
    tab.goto(address_of(conversation))
    expect(tab.locator(".nb-figures")).to_be_visible()
    return tab


@pytest.fixture
def plain_page(page, chromium):
    """The same in a browser that runs no script."""
    state = page.context.storage_state()
    base = page.url.partition("/admin/")[0]
    with chromium.new_context(
        base_url=base, java_script_enabled=False, storage_state=state
    ) as plain:
        tab = plain.new_page()
        tab.goto(page.url)
        yield tab


def received(text, **changes):
    return inbox.take_in(body(message=text, ref_id=uuid.uuid4().hex, **changes)).message


def address_of(conversation):
    return f"{INBOX}{conversation.pk}/change/"


def fill_in_login(tab):
    tab.fill("[name=username]", "ada")
    tab.fill("[name=password]", "x")
    tab.click("#login-form [type=submit]")


def replies():
    sent = Message.objects.filter(direction=Message.Direction.OUTBOUND).order_by("id")
    return list(sent.values_list("text", flat=True))


def figure(page, name):
    return page.locator(f"[data-nb={name}]")


# One table, counted by both


def texts(count):
    """Of all scripts, some at the edges of segments, the same in each run."""
    chance = random.Random(4471)
    gsm, extension = sorted(GSM), sorted(GSM_EXTENSION)
    letters = map(chr, range(0xA0, 0x250))
    others = [*PLAIN, *letters, *"ẹọṣẸỌṢ\u0300\u0301\u0323🙏👩🏽\u200d🌾😀你й\u202e"]
    for _number in range(count):
        alphabet = chance.choice([gsm, gsm + extension, gsm + extension + others, others])
        length = chance.choice([1, 5, 70, 71, 134, 160, 161, 306, chance.randrange(700)])
        yield "".join(chance.choices(alphabet, k=length))


COUNT = """
    texts => {
      const data = JSON.parse(document.getElementById("nb-composer").textContent);
      const { count, plain } = nbSegments.of(data.tables);
      return texts.map(text => {
        const { encoding, parts, forcing, left, characters } = count(text);
        return [encoding, parts, forcing.join(""), left, characters, plain(text)];
      });
    }
"""


def counted(text):
    found = segments(text)
    figures = [found.encoding, list(found.parts), found.forcing, found.left, len(text)]
    return [*figures, plain(text)]


def test_the_browser_counts_and_replaces_as_the_server_does(page):
    given = [*texts(3000), "", "\n", "€" * 77, "😀" * 34]
    found = page.evaluate(COUNT, given)
    wrong = [text for text, one in zip(given, found, strict=True) if one != counted(text)]
    assert wrong == []
    assert len(found) == 3004


# While typing


def test_a_text_is_counted_while_it_is_typed(page):
    page.locator(".nb-textarea").press_sequentially("Hello")
    expect(figure(page, "characters")).to_have_text("5")
    expect(figure(page, "left")).to_have_text("155")
    expect(figure(page, "encoding")).to_have_text("GSM-7")
    page.fill(".nb-textarea", "a" * 161)
    expect(figure(page, "segments")).to_have_text("2")
    expect(page.get_by_text("Count the segments")).to_be_hidden()


def test_what_forces_unicode_is_named_with_its_plain_version(page):
    expect(page.locator(".nb-unicode")).to_be_hidden()
    page.fill(".nb-textarea", "₦500 “now”\u00a0ọ\u0300")
    expect(page.locator("[data-nb=forcing] bdi")).to_have_text(
        ["₦", "“", "”", "U+00A0", "ọ", "◌\u0300"]
    )
    expect(figure(page, "plain")).to_have_text('N500 "now" o')
    expect(figure(page, "no-plain")).to_be_hidden()
    expect(page.locator(".nb-textarea")).to_have_value("₦500 “now”\u00a0ọ\u0300")


def test_what_has_no_plain_version_is_named_too(page):
    page.fill(".nb-textarea", "₦500 🙏")
    expect(figure(page, "lasting")).to_have_text("🙏 ")
    expect(figure(page, "offer")).to_be_hidden()


def test_of_many_characters_some_are_named(page):
    page.fill(".nb-textarea", "абвгдежзий")
    expect(page.locator("[data-nb=forcing] bdi")).to_have_text([*"абвгдежз", "…"])


def test_a_plain_version_is_one_click_and_can_be_undone(page):
    page.fill(".nb-textarea", "₦500 “now”")
    page.click("text=Use the plain version")
    expect(page.locator(".nb-textarea")).to_have_value('N500 "now"')
    expect(page.locator(".nb-textarea")).to_be_focused()
    expect(figure(page, "encoding")).to_have_text("GSM-7")
    page.keyboard.press("Control+z")
    expect(page.locator(".nb-textarea")).to_have_value("₦500 “now”")
    expect(figure(page, "encoding")).to_have_text("Unicode")
    assert replies() == []


def test_a_text_that_is_too_long_is_marked_and_then_refused(page, settings):
    settings.NINEBITS = settings.NINEBITS | {"MAX_SEGMENTS": 1}
    page.reload()
    page.fill(".nb-textarea", "a" * 161)
    expect(page.locator(".nb-too-long")).to_be_visible()
    page.click(".nb-send")
    expect(page.get_by_role("alert")).to_contain_text("at most 1 are sent")
    expect(page.locator(".nb-textarea")).to_have_value("a" * 161)
    page.fill(".nb-textarea", "a" * 160)
    expect(page.locator(".nb-too-long")).to_have_count(0)
    assert replies() == []


def test_a_screen_reader_hears_the_count_when_nobody_types(page):
    said = figure(page, "said")
    page.locator(".nb-textarea").press_sequentially("Hello", delay=50)
    expect(said).to_have_text("")
    expect(said).to_have_text("Segments: 1. Encoding: GSM-7.")
    page.fill(".nb-textarea", "a" * 1531)
    expect(said).to_have_text("Too long: it takes 11 segments, at most 10 are sent.")


def test_a_screen_reader_is_told_the_same_once(page):
    said = figure(page, "said")
    page.fill(".nb-textarea", "a")
    expect(said).to_have_text("Segments: 1. Encoding: GSM-7.")
    page.evaluate(
        """() => {
            window.changes = 0;
            const said = document.querySelector("[data-nb=said]");
            new MutationObserver(() => window.changes++).observe(said, {childList: true});
        }"""
    )
    page.fill(".nb-textarea", "ab")
    page.wait_for_timeout(1500)
    assert page.evaluate("window.changes") == 0


# Sending


@pytest.mark.parametrize("keys", ["Control+Enter", "Meta+Enter"])
def test_keys_send(page, keys):
    page.fill(".nb-textarea", "On its way")
    page.press(".nb-textarea", keys)
    expect(page.locator(".nb-notes")).to_have_text("Your reply: queued.")
    assert replies() == ["On its way"]


def test_keys_that_are_held_down_send_once(page):
    page.fill(".nb-textarea", "On its way")
    page.evaluate(
        """() => {
            const keys = {key: "Enter", ctrlKey: true, bubbles: true, cancelable: true};
            const text = document.querySelector(".nb-textarea");
            for (const repeat of [false, false, true]) {
                text.dispatchEvent(new KeyboardEvent("keydown", {...keys, repeat}));
            }
        }"""
    )
    expect(page.locator(".nb-notes")).to_have_text("Your reply: queued.")
    assert replies() == ["On its way"]


def test_enter_alone_begins_a_line(page):
    page.fill(".nb-textarea", "On its way")
    page.press(".nb-textarea", "Enter")
    expect(page.locator(".nb-textarea")).to_have_value("On its way\n")
    assert replies() == []


def tomorrow():
    return f"{timezone.localtime() + timedelta(days=1):%Y-%m-%dT%H:%M}"


def test_a_reply_is_sent_later(page):
    page.fill(".nb-textarea", "Good morning")
    page.click("summary")
    expect(page.locator(".nb-later")).to_contain_text("Time zone: America/Chicago")
    page.fill("[name=send_at]", tomorrow())
    page.click("button:text-is('Send later')")
    expect(page.locator(".nb-outbound")).to_contain_text("not before")
    expect(page.locator(".nb-send")).to_have_text("Send")
    assert replies() == ["Good morning"]


def test_a_time_that_is_past_is_said_and_all_is_kept(page):
    page.fill(".nb-textarea", "Good morning")
    page.click("summary")
    page.fill("[name=send_at]", "2020-01-01T10:00")
    page.click(".nb-send")
    expect(page.get_by_role("alert")).to_contain_text("that time is past")
    expect(page.locator(".nb-textarea")).to_have_value("Good morning")
    expect(page.locator("[name=send_at]")).to_have_value("2020-01-01T10:00")
    expect(page.locator(".nb-send")).to_have_text("Send later")


# Canned replies


@pytest.fixture
def canned(page, ada):
    """Some of them, on the page."""
    for title, text in (
        ("Greeting", "Hello {name|there}, this is {me}."),
        ("Good bye", "Good bye."),
        ("Price", "It costs {name}."),
        ("Thanks", "Thanks\nfor all."),
    ):
        CannedReply.objects.create(title=title, text=text)
    page.reload()
    expect(page.locator(".nb-figures")).to_be_visible()


def options(page):
    return page.locator(".nb-slash [role=option] b")


@pytest.mark.usefixtures("canned")
def test_a_canned_reply_is_inserted_by_a_button_where_the_cursor_is(page):
    page.fill(".nb-textarea", "A: . B")
    page.evaluate("document.querySelector('textarea').setSelectionRange(3, 3)")
    page.select_option("[name=canned]", label="Greeting")
    page.click("text=Insert")
    expect(page.locator(".nb-textarea")).to_have_value("A: Hello there, this is Ada Obi.. B")
    page.keyboard.press("Control+z")
    expect(page.locator(".nb-textarea")).to_have_value("A: . B")
    assert replies() == []


@pytest.mark.usefixtures("canned")
def test_a_slash_opens_the_list_and_letters_narrow_it(page):
    text = page.locator(".nb-textarea")
    text.press_sequentially("Hi /")
    expect(options(page)).to_have_text(["Good bye", "Greeting", "Price", "Thanks"])
    text.press_sequentially("re")
    expect(options(page)).to_have_text(["Greeting"])
    text.press_sequentially("x")
    expect(page.get_by_role("listbox")).to_be_hidden()


@pytest.mark.usefixtures("canned")
def test_the_list_is_used_with_the_keyboard(page):
    text = page.locator(".nb-textarea")
    text.press_sequentially("Hi /g")
    expect(text).to_have_role("textbox")
    expect(text).to_have_attribute("aria-controls", "nb-slash")
    expect(text).to_have_attribute("aria-activedescendant", "nb-slash-0")
    text.press("ArrowDown")
    expect(text).to_have_attribute("aria-activedescendant", "nb-slash-1")
    expect(page.locator(".nb-slash [aria-selected=true]")).to_contain_text("Greeting")
    text.press("ArrowDown")
    text.press("ArrowUp")
    text.press("Enter")
    expect(text).to_have_value("Hi Hello there, this is Ada Obi.")
    assert text.get_attribute("aria-activedescendant") is None
    expect(text).to_be_focused()


@pytest.mark.usefixtures("canned")
def test_the_list_is_used_with_the_mouse(page):
    page.locator(".nb-textarea").press_sequentially("/th")
    options(page).click()
    expect(page.locator(".nb-textarea")).to_have_value("Thanks\nfor all.")


@pytest.mark.usefixtures("canned")
def test_escape_closes_the_list_for_this_slash(page):
    text = page.locator(".nb-textarea")
    text.press_sequentially("/g")
    text.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    text.press_sequentially("r")
    expect(page.get_by_role("listbox")).to_be_hidden()
    text.press("Enter")
    text.press_sequentially("/gr")
    expect(options(page)).to_have_text(["Greeting"])
    text.click()
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(text).to_have_value("/gr\n/gr")


@pytest.mark.usefixtures("canned")
@pytest.mark.parametrize("typed", ["1/g", "http://g", "/ g"])
def test_no_other_slash_opens_it(page, typed):
    page.locator(".nb-textarea").press_sequentially(typed)
    expect(page.get_by_role("listbox")).to_be_hidden()


@pytest.mark.usefixtures("canned")
def test_a_gap_is_selected_and_must_be_filled_in(page):
    page.locator(".nb-textarea").press_sequentially("/price")
    page.keyboard.press("Enter")
    expect(page.locator(".nb-textarea")).to_have_value("It costs {name}.")
    page.click(".nb-send")
    expect(page.get_by_role("alert")).to_contain_text("in the place of {name}")
    expect(page.get_by_text("or type /")).to_be_visible()
    page.fill(".nb-textarea", "")
    page.locator(".nb-textarea").press_sequentially("/price")
    page.keyboard.press("Enter")
    page.keyboard.type("500")
    expect(page.locator(".nb-textarea")).to_have_value("It costs 500.")
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_have_text("Your reply: queued.")
    assert replies() == ["It costs 500."]


@pytest.mark.usefixtures("canned")
def test_without_a_script_a_canned_reply_is_inserted_behind_the_text(plain_page):
    plain_page.fill(".nb-textarea", "Hi.")
    plain_page.select_option("[name=canned]", label="Thanks")
    plain_page.click("text=Insert")
    expect(plain_page.locator(".nb-textarea")).to_have_value("Hi. Thanks\nfor all.")
    assert replies() == []


# Drafts


def drafts(page):
    # What shows the figures is the last of the scripts.
    expect(page.locator(".nb-figures")).to_be_visible()
    return page.evaluate("Object.keys(localStorage).filter(one => one.startsWith('nb-draft:'))")


def write(page, text):
    page.fill(".nb-textarea", text)
    assert len(drafts(page)) == 1


def test_a_draft_survives_a_reload(page):
    write(page, "On its way")
    page.fill("[name=send_at] >> visible=false", tomorrow(), force=True)
    page.goto(page.url.partition("?")[0])
    expect(page.locator(".nb-textarea")).to_have_value("On its way")
    expect(page.locator(".nb-restored")).to_be_visible()
    expect(page.locator("[name=send_at]")).to_be_visible()
    expect(figure(page, "characters")).to_have_text("10")
    page.fill(".nb-textarea", "On its way!")
    expect(page.locator(".nb-restored")).to_be_hidden()


def test_a_draft_survives_an_expired_login(page):
    write(page, "On its way")
    page.context.clear_cookies(name="sessionid")
    page.click(".nb-send")
    fill_in_login(page)
    expect(page.locator(".nb-textarea")).to_have_value("On its way")
    expect(page.locator(".nb-restored")).to_be_visible()
    assert replies() == []
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_have_text("Your reply: queued.")
    assert (replies(), drafts(page)) == (["On its way"], [])


def test_what_was_sent_or_emptied_is_no_draft(page):
    write(page, "On its way")
    page.fill(".nb-textarea", " ")
    assert drafts(page) == []
    write(page, "On its way")
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_be_visible()
    expect(page.locator(".nb-textarea")).to_have_value("")
    assert drafts(page) == []


def test_what_may_have_been_sent_is_sent_again_with_its_key_only(page, conversation):
    write(page, "On its way")
    page.evaluate("document.querySelector('.nb-reply').action = 'about:blank#'")
    page.click(".nb-send")
    page.wait_for_url("about:blank*")
    page.goto(address_of(conversation))
    expect(page.locator(".nb-restored")).to_be_visible()
    key = page.locator("[name=ref_id]").input_value()
    assert page.locator(".nb-reply").get_attribute("action").count(key) == 1
    services.reply(conversation, "On its way", ref_id=key)
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_contain_text("is not sent a second time")
    assert replies() == ["On its way"]


def test_what_was_written_after_a_reply_that_arrived_is_another_one(page, conversation, ada):
    key = str(uuid.uuid4())
    services.reply(conversation, "On its way", ref_id=key, author=ada)
    draft = {"text": "On its way!", "later": "", "key": key, "sent": "On its way"}
    keep(page, ada, conversation, draft)
    page.reload()
    expect(page.locator(".nb-textarea")).to_have_value("On its way!")
    assert page.locator("[name=ref_id]").input_value() != key


def keep(page, user, conversation, draft):
    whose = f"{user.pk}:{conversation.contact.phone_number}:{conversation.short_code}"
    page.evaluate(
        "([name, draft]) => localStorage.setItem(name, JSON.stringify({at: Date.now(), ...draft}))",
        [f"nb-draft:{whose}", draft],
    )


@pytest.mark.parametrize("draft", [{"text": "Old", "at": 0}, {"text": "Of no time", "at": None}])
def test_an_old_draft_is_forgotten(page, ada, conversation, draft):
    keep(page, ada, conversation, draft)
    page.reload()
    expect(page.locator(".nb-figures")).to_be_visible()
    assert drafts(page) == []
    expect(page.locator(".nb-textarea")).to_have_value("")


def test_a_draft_is_restored_over_nothing_that_came_back(page, ada, conversation, settings):
    settings.NINEBITS = settings.NINEBITS | {"MAX_SEGMENTS": 1}
    page.fill(".nb-textarea", "a" * 161)
    page.click(".nb-send")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator(".nb-textarea")).to_have_value("a" * 161)
    expect(page.locator(".nb-restored")).to_be_hidden()
    page.goto(address_of(conversation))
    expect(page.locator(".nb-textarea")).to_have_value("a" * 161)


def test_a_draft_is_of_one_user_and_one_conversation(page, conversation, ada):
    other = received("Hello?", from_="2348020000009").conversation
    keep(page, ada, other, {"text": "For another"})
    bola = User.objects.create_superuser("bola", password="x")
    keep(page, bola, conversation, {"text": "Of another"})
    page.reload()
    expect(page.locator(".nb-figures")).to_be_visible()
    expect(page.locator(".nb-textarea")).to_have_value("")


def test_two_tabs_show_the_same_draft_until_it_is_sent(page):
    second = page.context.new_page()
    second.goto(page.url.partition("?")[0])
    expect(second.locator(".nb-figures")).to_be_visible()
    page.fill(".nb-textarea", "On its way")
    expect(second.locator(".nb-textarea")).to_have_value("On its way")
    expect(figure(second, "characters")).to_have_text("10")
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_be_visible()
    expect(second.locator(".nb-textarea")).to_have_value("")


def test_what_one_tab_is_sending_another_does_not_send_again(page):
    second = page.context.new_page()
    second.goto(page.url.partition("?")[0])
    page.fill(".nb-textarea", "On its way")
    expect(second.locator(".nb-textarea")).to_have_value("On its way")
    held, key = [], page.input_value("[name=ref_id]")
    page.route(
        re.compile("/change/"),
        lambda route: held.append(route) if route.request.method == "POST" else route.continue_(),
    )
    page.click(".nb-send", no_wait_after=True)
    expect(second.locator("[name=ref_id]")).to_have_value(key)
    second.click(".nb-send")
    expect(second.locator(".nb-notes")).to_have_text("Your reply: queued.")
    [call] = held
    call.continue_()
    expect(page.locator(".nb-notes")).to_be_visible()
    page.unroute_all(behavior="wait")
    assert replies() == ["On its way"]


def test_once_a_tab_has_sent_its_text_another_sends_the_next_under_its_own_key(page):
    second = page.context.new_page()
    second.goto(page.url.partition("?")[0])
    own = second.input_value("[name=ref_id]")
    page.fill(".nb-textarea", "On its way")
    page.click(".nb-send")
    expect(second.locator(".nb-textarea")).to_have_value("")
    assert second.input_value("[name=ref_id]") == own
    second.fill(".nb-textarea", "It has arrived")
    second.click(".nb-send")
    expect(second.locator(".nb-notes")).to_have_text("Your reply: queued.")
    assert replies() == ["On its way", "It has arrived"]


def test_a_tab_with_another_text_keeps_it(page):
    page.fill(".nb-textarea", "One")
    second = page.context.new_page()
    second.goto(page.url.partition("?")[0])
    expect(second.locator(".nb-textarea")).to_have_value("One")
    page.evaluate("document.querySelector('textarea').value = 'Two'")
    second.fill(".nb-textarea", "Three")
    expect(page.locator(".nb-textarea")).to_have_value("Two")


def test_where_the_browser_keeps_nothing_a_reply_can_be_written(page):
    page.add_init_script(
        """
        const real = Storage.prototype.setItem;
        Storage.prototype.setItem = function (name, value) {
          if (name.startsWith("nb-draft:")) {
            throw Error("It is full.");
          }
          real.call(this, name, value);
        };
        """
    )
    page.reload()
    page.fill(".nb-textarea", "On its way")
    assert drafts(page) == []
    expect(page.locator(".nb-reply [name=keep]")).to_have_count(1)
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_have_text("Your reply: queued.")


# Without a script, and where few may run


def test_without_a_script_a_text_is_shown_again_to_whoever_was_logged_out(plain_page):
    plain_page.fill(".nb-textarea", "On its way")
    plain_page.context.clear_cookies(name="sessionid")
    plain_page.click(".nb-send")
    expect(plain_page.locator(".nb-textarea")).to_have_value("On its way")
    with plain_page.context.expect_page() as opened:
        plain_page.click("text=Log in, in another window")
    fill_in_login(opened.value)
    expect(opened.value.locator(".nb-textarea")).to_be_empty()


def test_without_a_script_it_is_sent_later_by_a_plain_field(plain_page):
    plain_page.fill(".nb-textarea", "Good morning")
    plain_page.click("summary")
    plain_page.fill("[name=send_at]", tomorrow())
    plain_page.click(".nb-send")
    expect(plain_page.locator(".nb-outbound")).to_contain_text("not before")


def test_without_a_script_it_is_counted_and_made_plain_by_buttons(plain_page):
    plain_page.fill(".nb-textarea", "₦500")
    plain_page.click("text=Count the segments")
    expect(figure(plain_page, "encoding")).to_have_text("Unicode")
    expect(figure(plain_page, "plain")).to_have_text("N500")
    plain_page.click("text=Use the plain version")
    expect(plain_page.locator(".nb-textarea")).to_have_value("N500")
    expect(figure(plain_page, "encoding")).to_have_text("GSM-7")
    assert replies() == []
    plain_page.click(".nb-send")
    expect(plain_page.locator(".nb-notes")).to_have_text("Your reply: queued.")
    assert replies() == ["N500"]


def test_it_works_under_a_strict_content_security_policy(page):
    be_strict(page)
    page.reload()
    page.fill(".nb-textarea", "₦500")
    expect(figure(page, "plain")).to_have_text("N500")
    page.click("text=Use the plain version")
    expect(page.locator(".nb-textarea")).to_have_value("N500")
    page.unroute_all(behavior="wait")


@pytest.mark.usefixtures("canned")
def test_canned_replies_and_drafts_work_under_a_strict_content_security_policy(page):
    be_strict(page)
    page.reload()
    text = page.locator(".nb-textarea")
    text.press_sequentially("/than")
    options(page).click()
    expect(text).to_have_value("Thanks\nfor all.")
    text.press_sequentially(" /good")
    text.press("Enter")
    page.select_option("[name=canned]", label="Greeting")
    page.click("text=Insert")
    written = "Thanks\nfor all. Good bye.Hello there, this is Ada Obi."
    expect(text).to_have_value(written)
    page.goto(page.url.partition("?")[0])
    expect(page.locator(".nb-restored")).to_be_visible()
    expect(text).to_have_value(written)
    page.click(".nb-send")
    expect(page.locator(".nb-notes")).to_have_text("Your reply: queued.")
    assert (replies(), drafts(page)) == ([written], [])
    page.unroute_all(behavior="wait")


def be_strict(page):
    def answer(route):
        response = route.fetch(max_redirects=0)
        headers = {**response.headers, "content-security-policy": "default-src 'self'"}
        route.fulfill(response=response, headers=headers)

    page.route(re.compile("/admin/django_ninebits/"), answer)
