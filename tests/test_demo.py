"""``make demo`` as a newcomer meets it: a real process, real sockets, a real shell."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import requests

from tests.settings import BASE_DIR

pytestmark = pytest.mark.own_database


class Demo:
    """A running demo and what it has printed."""

    def __init__(self, process):
        self.process = process
        self.printed = ""

    def read_until(self, pattern):
        while not (found := re.search(pattern, self.printed)):
            line = self.process.stdout.readline()
            assert line, f"{pattern} was never printed:\n{self.printed}"
            self.printed += line
        return found

    @property
    def site(self):
        return self.read_until(r"(http://127\.0\.0\.1:\d+)/admin/\S+\n")[1]

    def text(self):
        """Do what the printed command does; the shell writes the body as it would for curl."""
        command = self.read_until(r"curl (\S+) -H '([^']+)' -H '([^']+)' -d @- (<<TEXT\n.*\nTEXT)")
        body = subprocess.check_output(["sh", "-c", f"cat {command[4]}"])
        headers = dict(header.split(": ") for header in (command[2], command[3]))
        return requests.post(command[1], body, headers=headers, timeout=10)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.printed += self.process.communicate(timeout=30)[0]
        return self.process.returncode


@contextmanager
def running_demo(database, *arguments):
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "EXAMPLE_DATABASE": str(database),
    }
    with subprocess.Popen(
        [sys.executable, "manage.py", "demo", *arguments],
        cwd=BASE_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Demo(process)
        finally:
            process.kill()


def log_in(site):
    browser = requests.Session()
    page = browser.get(f"{site}/admin/login/", timeout=10).text
    login = {"username": "admin", "password": "admin", "next": "/admin/"}
    answer = post_form(browser, f"{site}/admin/login/", page, **login)
    assert "Log out" in answer.text
    return browser


def post_form(browser, url, page, **fields):
    for name in ("csrfmiddlewaretoken", "ref_id"):
        if found := re.search(rf'name="{name}" value="([^"]+)"', page):
            fields[name] = found[1]
    return browser.post(url, fields, timeout=10)


def wait_until(condition):
    assert any(condition() for _ in map(time.sleep, [0.05] * 200))


def test_the_demo_shows_a_text_come_in_and_the_reply_go_out(tmp_path):
    with running_demo(tmp_path / "demo.sqlite3", "--port", "0") as demo:
        site = demo.site
        assert requests.get(f"{site}/static/admin/css/base.css", timeout=10).status_code == 200
        assert demo.text().json() == {"status": "stored"}
        browser = log_in(site)
        inbox = f"{site}/admin/django_ninebits/conversation/"
        [thread] = set(
            re.findall(r"/conversation/\d+/change/", browser.get(inbox, timeout=10).text)
        )
        page = browser.get(f"{site}/admin/django_ninebits{thread}", timeout=10)
        assert "Hello, is anybody there?" in page.text
        post_form(browser, page.url, page.text, text="Yes ₦ 😀")
        assert demo.read_until(r"a call to 9bits: to (\S+), (\w+)")[0].endswith("…0000, accepted")
        wait_until(lambda: "accepted by 9bits" in browser.get(page.url, timeout=10).text)
        assert demo.stop() == 0
        assert "Traceback" not in demo.printed


def test_a_second_demo_keeps_the_conversations_of_the_first(tmp_path):
    for expected in (1, 2):
        with running_demo(tmp_path / "demo.sqlite3", "--port", "0") as demo:
            site = demo.site
            demo.text()
            messages = log_in(site).get(f"{site}/admin/django_ninebits/message/", timeout=10)
            assert f"{expected} message" in messages.text
            assert demo.stop() == 0


def test_a_port_that_is_in_use_is_named_with_what_to_do(tmp_path):
    with running_demo(tmp_path / "first.sqlite3", "--port", "0") as first:
        port = first.site.rpartition(":")[2]
        with running_demo(tmp_path / "second.sqlite3", "--port", port) as second:
            second.read_until(rf"Cannot listen on port {port}.*make demo PORT={int(port) + 1}")
            assert second.process.wait(10) == 1
