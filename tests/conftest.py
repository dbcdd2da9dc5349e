import shutil
import threading
import time

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect, sync_playwright

from django_ninebits.simulator import Simulator
from tests.hooks import Webhook
from tests.staff import cookie_of

#: The first needs half of the processor time.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

#: What Chromium says of the log-in of Django's admin where it is filled in before it has the focus.
UNTOLD = ["Autofocus processing was blocked because a document already has a focused element."]

#: Milliseconds for which a browser is waited for, whatever else the machine does.
PATIENCE = 20_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture
def provider(settings):
    """9bits on a socket, with the settings that lead there."""
    with Simulator() as running:
        settings.NINEBITS = {
            "API_TOKEN": running.token,
            "API_URL": running.url,
            "SHORT_CODE": "48974",
            "DISPATCHER": "django_ninebits.dispatch.defer",
        }
        yield running


@pytest.fixture
def webhook():
    """A host's webhook that keeps what it gets, and answers as it is told."""
    with Webhook() as running:
        threading.Thread(target=running.serve_forever, args=(0.005,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def chromium():
    with pytest.MonkeyPatch.context() as patch:
        # Playwright has an event loop in this thread, which Django takes for asynchronous code.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=next(filter(None, map(shutil.which, CHROMIUMS))),
                args=["--no-sandbox", "--disable-gpu"],
            )
            yield browser
            browser.close()


@pytest.fixture
def tab(chromium, live_server, settings):
    """A page of a browser in which nothing may be complained of in the console."""
    # Closed before the settings are as they were: for a moment meanwhile there are none.
    context = chromium.new_context(base_url=live_server.url)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    complaints = []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    yield page
    context.close()
    let_requests_end(live_server.thread.httpd)
    assert [said for said in complaints if said not in UNTOLD] == []


def let_requests_end(server):
    """A page may have asked just before it was closed: the tables must not be emptied meanwhile."""
    waits = map(time.sleep, [0.0] + [0.01] * (PATIENCE // 10))
    assert any(not is_answering(server) for _ in waits)


def is_answering(server):
    """Whether one of its threads is, be it only about to start (nobody could join that yet)."""
    targets = [getattr(thread, "_target", None) for thread in threading.enumerate()]
    return any(getattr(target, "__self__", None) is server for target in targets)


@pytest.fixture
def adas_tab(tab, live_server):
    """The page of somebody who has logged in and may do everything."""
    ada = User.objects.create_superuser("ada", password="x", first_name="Ada")
    tab.context.add_cookies([cookie_of(ada, live_server.url)])
    return tab
