"""The README, followed to the letter by somebody who has the wheel and a new project.

Every block of it is run, in order, outside the checkout: commands are typed in, what they are said
to print is looked for, Python goes into the file that its first line names, or into a shell. Only
what a reader would replace too is replaced: ports that may be in use here, the address of the site,
and the published package by the wheel.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from zipfile import ZipFile

import pytest
import requests

from tests.settings import BASE_DIR
from tests.test_demo import log_in

README = (BASE_DIR / "README.md").read_text()
BLOCKS = re.findall(r"^```(.*)\n((?s:.*?))^```$", README, re.MULTILINE)

#: What runs until it is stopped.
SERVERS = {"demo", "ninebits_worker", "runserver"}
#: What the site says each time it has read its code.
STARTED = "Quit the server with CONTROL-C."

#: What `make demo` needs of a checkout.
CHECKOUT = ("LICENSE", "Makefile", "README.md", "manage.py", "pyproject.toml")
CHECKOUT_PACKAGES = ("django_ninebits", "example_project")

#: The project that the reader has already.
OWN_SETTINGS = 'INSTALLED_APPS += ["shop"]\nSTATIC_ROOT = BASE_DIR / "collected"\n'
OWN_ADMIN = {
    "DJANGO_SUPERUSER_USERNAME": "admin",
    "DJANGO_SUPERUSER_PASSWORD": "admin",
    "DJANGO_SUPERUSER_EMAIL": "admin@example.com",
}
TOKEN = "simulator-token"

#: What reaches 9bits: the answer of the receiver, a single message, and two in bulk.
SENT = [
    "Somebody will answer soon.",
    "Your parcel has arrived.",
    "We are closed tomorrow.",
    "We are closed tomorrow.",
]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def commands(block):
    """Each command of a console block, with the lines that it is said to print."""
    before, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert before == "", f"No command: {before}"
    for part in parts:
        command, *said = part.splitlines()
        while is_unfinished(command):
            command += "\n" + said.pop(0)
        yield command, said


def is_unfinished(command):
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


class Reader:
    """Somebody with a project of their own, who does what the README says."""

    def __init__(self, scratch, wheel):
        self.scratch = scratch
        self.project = scratch / "project"
        self.checkout = scratch / "checkout"
        self.port = free_port()
        self.demo_port = free_port()
        self.replaced = {
            "pip install django-ninebits": f"pip install --quiet {wheel}",
            "https://your.site": f"http://127.0.0.1:{self.port}",
            "8000": self.port,
            "9480": free_port(),
        }
        self.servers = {}

    @property
    def site(self):
        return self.here("http://127.0.0.1:8000")

    @property
    def environment(self):
        foreign = ("COVERAGE", "DJANGO", "MAKE", "MFLAGS", "NINEBITS", "PYTHON")
        mine = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        return mine | {
            "NINEBITS_API_TOKEN": TOKEN,
            # Twice as fast.
            "PIP_NO_COMPILE": "1",
            "PATH": f"{self.scratch / 'venv/bin'}{os.pathsep}{os.environ['PATH']}",
            "PORT": self.demo_port,
            "PYTHONUNBUFFERED": "1",
        }

    def here(self, text):
        words = "|".join(map(re.escape, self.replaced))
        return re.sub(rf"\b({words})\b", lambda found: self.replaced[found[1]], text)

    def do(self, language, text):
        {"console": self.type_in, "python": self.use}[language](self.here(text))

    def type_in(self, block):
        for command, said in commands(block):
            act = self.start if SERVERS & set(command.split()) else self.run
            act(command, said)

    def where(self, command):
        return self.checkout if command.startswith("make ") else self.project

    def run(self, command, said=(), **more):
        done = subprocess.run(
            ["bash", "-c", command],
            check=False,
            cwd=self.where(command),
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        assert [line for line in said if line not in done.stdout] == [], done.stdout
        return done.stdout

    def start(self, command, said):
        [name] = SERVERS & set(command.split())
        with (self.scratch / f"{name}.log").open("w") as log:
            self.servers[name] = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.where(command),
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for line in said:
            self.wait_for(name, line)
        if name == "runserver":
            # What the reader opens; it starts the simulated 9bits.
            assert requests.get(f"{self.site}/handset/", timeout=30).status_code == 200

    def printed(self, name):
        return (self.scratch / f"{name}.log").read_text()

    def wait_for(self, name, text, times=1):
        def has_come():
            assert self.servers[name].poll() is None, self.printed(name)
            return self.printed(name).count(text) >= times

        # A minute: the demo installs what it needs first.
        assert any(has_come() for _ in map(time.sleep, [0.05] * 1200)), self.printed(name)

    def sent(self):
        wire = requests.get(f"{self.site}/handset/wire/", timeout=10).json()["entries"]
        return [call["text"] for call in wire if call["way"] == "call" and call["arrived"]]

    def use(self, code):
        if path := re.match(r"# ([a-z_/]+\.py)\n", code):
            self.write(path[1], code)
        else:
            self.run(f"python manage.py shell -c {shlex.quote(code)}")
            # The simulator ends with the site, which starts anew when its settings change.
            assert any(len(self.sent()) >= len(SENT) for _ in map(time.sleep, [0.1] * 300))
            assert sorted(self.sent()) == sorted(SENT)

    def write(self, path, code):
        adds = path.endswith(("settings.py", "urls.py"))
        with (self.project / path).open("a" if adds else "w") as file:
            file.write(f"\n{code}")
        if "runserver" in self.servers:
            self.wait_for("runserver", STARTED, times=2)

    def stop(self, name, how=signal.SIGINT):
        """By default Ctrl-C, which all processes of a terminal get."""
        server = self.servers[name]
        if server.poll() is None:
            os.killpg(server.pid, how)
        return server.wait(30)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution, as the published one is."""
    directory = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--outdir", directory, BASE_DIR]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def reader(tmp_path_factory, wheel):
    """Has followed the whole README."""
    reader = Reader(tmp_path_factory.mktemp("reader"), wheel)
    prepare(reader)
    try:
        for language, text in BLOCKS:
            reader.do(language, text)
        yield reader
    finally:
        for name in reader.servers:
            reader.stop(name, signal.SIGKILL)


def prepare(reader):
    """What the README takes for granted: a checkout, an environment, a project with an admin."""
    reader.checkout.mkdir()
    for name in CHECKOUT:
        shutil.copy(BASE_DIR / name, reader.checkout)
    for name in CHECKOUT_PACKAGES:
        shutil.copytree(BASE_DIR / name, reader.checkout / name)
    venv.create(reader.scratch / "venv", with_pip=True, symlinks=True)
    reader.project.mkdir()
    reader.run("pip install --quiet django")
    reader.run("django-admin startproject mysite . && python manage.py startapp shop")
    reader.write("mysite/settings.py", OWN_SETTINGS)
    reader.run(
        "python manage.py migrate && python manage.py createsuperuser --noinput", **OWN_ADMIN
    )


@pytest.mark.wheel
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    package = {
        str(file.relative_to(BASE_DIR))
        for file in (BASE_DIR / "django_ninebits").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    held = ZipFile(wheel).namelist()
    assert {name for name in held if ".dist-info/" not in name} == package


@pytest.mark.wheel
def test_the_readme_runs_the_installed_package_and_not_the_checkout(reader):
    where = reader.run("python -c 'import django_ninebits; print(django_ninebits.__file__)'")
    assert where.startswith(str(reader.scratch / "venv"))


@pytest.mark.wheel
def test_the_inbox_shows_the_text_and_the_reply_of_the_receiver(reader):
    browser, inbox = log_in(reader.site), f"{reader.site}/admin/django_ninebits/conversation/"
    [thread] = set(re.findall(r"\d+/change/", browser.get(inbox, timeout=10).text))
    page = browser.get(f"{inbox}{thread}", timeout=10).text
    assert re.findall(r'<div class="nb-text" dir="auto">(.*)</div>', page) == [
        "help",
        "Somebody will answer soon.",
        "Your parcel has arrived.",
    ]
    assert page.count("accepted by 9bits") == 2


@pytest.mark.wheel
def test_the_site_serves_the_style_of_the_inbox_from_the_wheel(reader):
    style = requests.get(f"{reader.site}/static/django_ninebits/admin.css", timeout=10)
    assert style.text == (BASE_DIR / "django_ninebits/static/django_ninebits/admin.css").read_text()


@pytest.mark.wheel
def test_collectstatic_finds_the_style_of_the_inbox(reader):
    reader.run("python manage.py collectstatic --noinput")
    assert (reader.project / "collected/django_ninebits/admin.css").exists()


@pytest.mark.wheel
def test_a_wrong_credential_is_turned_away_and_the_log_says_what_was_offered(reader):
    wrong = {"Authorization": "Bearer wrong"}
    answer = requests.post(f"{reader.site}/hooks/9bits/webhook/", headers=wrong, timeout=10)
    assert answer.status_code == 401
    reader.wait_for("runserver", "A delivery was turned away: it offered a wrong bearer credential")


@pytest.mark.wheel
def test_the_demo_starts_in_a_checkout(reader):
    reader.wait_for("demo", "Log in as")
    assert requests.get(f"http://127.0.0.1:{reader.demo_port}/", timeout=10).status_code == 200


@pytest.mark.wheel
def test_ctrl_c_ends_the_worker_in_peace(reader):
    assert reader.stop("ninebits_worker") == 0


@pytest.mark.parametrize(
    ("language", "text"), [("json", "{}"), ("", "$ ls\n"), ("console", "ls\n")]
)
def test_a_block_that_nobody_knows_how_to_run_is_a_failure(tmp_path, language, text):
    with pytest.raises((KeyError, AssertionError)):
        Reader(tmp_path, "").do(language, text)


def test_every_fence_begins_or_ends_a_block():
    assert len(re.findall("```|~~~", README)) == 2 * len(BLOCKS)


def test_every_link_to_a_file_leads_to_one():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert [link for link in links if not (BASE_DIR / link).exists()] == []
