"""What somebody does with a browser beside clicking in the page."""

from playwright.sync_api import expect


def hide(page, is_hidden):
    """Look at another tab, or back."""
    page.evaluate(
        """is_hidden => {
            const hidden = {get: () => is_hidden, configurable: true};
            Object.defineProperty(document, 'hidden', hidden);
            document.dispatchEvent(new Event('visibilitychange'));
        }""",
        is_hidden,
    )


def log_in_again(page):
    """The login of Ada expires, and she logs in again in the tab that the page offers."""
    page.context.clear_cookies()
    expect(page.locator("#nb-live")).to_contain_text("You are logged out")
    with page.context.expect_page() as opened:
        page.click("#nb-live >> text=Log in")
    opened.value.fill("[name=username]", "ada")
    opened.value.fill("[name=password]", "x")
    opened.value.click("[type=submit]")
    expect(opened.value.locator("#user-tools")).to_be_visible()
    opened.value.close()
    hide(page, False)
    expect(page.locator("#nb-live")).to_contain_text("Connected again")
