"""The pages in ``docs``, held against the code: what they name, and what they let a reader run."""

import ast
import base64
import configparser
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.core import mail
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.dispatch import Signal
from django.test import Client
from django.urls import path, reverse
from django.utils import timezone

from django_ninebits import checks, client, exceptions, outbox, services, testing, webhook
from django_ninebits import signals as ninebits_signals
from django_ninebits.admin import ConversationAdmin
from django_ninebits.conf import DEFAULTS, conf
from django_ninebits.inbox import take_in
from django_ninebits.management.commands import ninebits_status
from django_ninebits.models import (
    Attempt,
    CannedReply,
    ConsentChange,
    Contact,
    Conversation,
    ConversationChange,
    Message,
    QuarantinedDelivery,
)
from django_ninebits.phone import subscriber_number
from django_ninebits.simulator import Behaviour
from tests.deliveries import DOCUMENTED, body
from tests.settings import BASE_DIR
from tests.staff import client_of, user

DOCS = BASE_DIR / "docs"
TEMPLATES = BASE_DIR / "django_ninebits/templates/admin/django_ninebits/conversation"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
BLOCK = re.compile(
    r"^(?P<indent> *)```(?:\{code-block\} )?(?P<language>[a-z]+)\n"
    r"(?: *:caption: (?P<caption>[^\n]+)\n\n)?(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
DIRECTIVE = re.compile(r"(`{3,})\{py:(\w+)\} (.+)")
TO = "+2348020000000"


@dataclass(frozen=True)
class Block:
    """A block of code as a page shows it."""

    language: str
    caption: str
    code: str


def text_of(page):
    return (DOCS / page).read_text()


def blocks(page, *languages):
    found = [
        Block(block["language"], block["caption"] or "", textwrap.dedent(block["code"]))
        for block in BLOCK.finditer(text_of(page))
    ]
    return [block for block in found if not languages or block.language in languages]


def code(page, caption):
    """All that a page puts into one file."""
    mine = [
        block.code for block in blocks(page) if block.caption in {caption, f"{caption}, at the end"}
    ]
    assert mine, f"{page} has no {caption}"
    return "\n\n".join(mine)


def run(source, **namespace):
    exec(compile(source, "docs", "exec"), namespace)  # noqa: S102 - what the reader runs
    return namespace


def section(page, heading):
    """What stands under a heading, up to the next."""
    after = text_of(page).split(f"\n{heading}\n")[1]
    return re.split(r"^#+ ", after, flags=re.MULTILINE)[0]


def rows(text):
    """The rows of the tables in it, as lists of cells."""
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    ends_of_heads = [number for number, row in enumerate(cells) if set(row[0]) <= {"-"}]
    heads = {number - back for number in ends_of_heads for back in (0, 1)}
    return [row for number, row in enumerate(cells) if number not in heads]


def named(cell):
    """The name in a cell such as ```queued```."""
    return cell.strip("`")


@dataclass(frozen=True)
class Described:
    """One name of the reference: ``owner`` is the module or the class that has it."""

    kind: str
    owner: Any
    signature: str

    @property
    def name(self):
        return self.signature.partition("(")[0]


def described(page):
    module = owner = None
    fence = ""
    found = []
    for line in text_of(page).splitlines():
        directive = DIRECTIVE.fullmatch(line)
        if line == fence:
            owner = module
        elif directive and directive[2] == "module":
            module = owner = import_module(directive[3])
        elif directive:
            one = Described(directive[2], owner, directive[3])
            found.append(one)
            if one.kind == "class":
                fence, owner = directive[1], getattr(module, one.name)
    return found


DESCRIBED = [one for page in PAGES for one in described(page)]
CALLABLE = [one for one in DESCRIBED if "(" in one.signature]


def name_of(one):
    return f"{one.owner.__name__}.{one.name}"


# What is described


@pytest.mark.parametrize("one", DESCRIBED, ids=name_of)
def test_a_name_that_is_described_is_there(one):
    assert hasattr(one.owner, one.name) or one.name in one.owner.__annotations__


@pytest.mark.parametrize("one", CALLABLE, ids=name_of)
def test_a_signature_that_is_described_is_that_of_the_code(one):
    module = sys.modules[getattr(one.owner, "__module__", one.owner.__name__)]
    parts = one.signature.partition("(")
    written = run(f"def written({parts[2]}: ...", **vars(module))["written"]
    is_method = one.kind == "method"
    actual = inspect.signature(getattr(one.owner, one.name))
    assert (
        list(inspect.signature(written).parameters.values())
        == list(actual.parameters.values())[is_method:]
    )
    assert written.__annotations__.get("return") in {None, actual.return_annotation}


def public(module):
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }


@pytest.mark.parametrize(
    ("page", "not_for_hosts"),
    [
        ("reference/services.md", set()),
        ("reference/errors.md", {"traceback_without_values"}),
        ("reference/testing.md", set()),
        ("reference/simulator.md", {"main"}),
    ],
)
def test_every_public_name_is_described(page, not_for_hosts):
    found = described(page)
    module = found[0].owner
    assert {one.name for one in found if one.owner is module} == public(module) - not_for_hosts


@pytest.mark.parametrize("name", ["testing.Outbox", "simulator.Simulator", "simulator.Behaviour"])
def test_every_method_is_described(name):
    module, _, wanted = name.partition(".")
    owner = getattr(import_module(f"django_ninebits.{module}"), wanted)
    methods = {
        name
        for name, value in vars(owner).items()
        if isinstance(value, classmethod | property) or inspect.isfunction(value)
    }
    assert {one.name for one in DESCRIBED if one.owner is owner} == {
        name for name in methods if not name.startswith("_")
    }


def test_every_signal_is_described():
    signals = [name for name, value in vars(ninebits_signals).items() if isinstance(value, Signal)]
    assert [one.name for one in described("reference/signals.md")] == signals


def test_the_tree_of_errors_is_that_of_the_code():
    (tree,) = blocks("reference/errors.md", "text")
    assert textwrap.indent(tree.code, "    ") in (exceptions.__doc__ or "")


# What is listed


def test_every_setting_is_there_with_its_default():
    found = re.findall(
        r"^## `(\w+)`\n\nDefault: `(.+)`\.$", text_of("reference/settings.md"), re.MULTILINE
    )
    defaults = {name: run(f"default = {value}", timedelta=timedelta) for name, value in found}
    assert {name: value["default"] for name, value in defaults.items()} == dict(DEFAULTS)


def test_every_check_is_there_in_the_words_of_the_code():
    listed = re.findall(r"^(ninebits\.[EW]\d{3})  (.+)$", checks.__doc__ or "", re.MULTILINE)
    assert {named(number): words for number, words in rows(text_of("reference/checks.md"))} == {
        number: words.replace("``", "`") for number, words in listed
    }


def test_every_check_of_the_code_is_in_its_list():
    head, source = inspect.getsource(checks).split('"""\n\nimport', 1)
    assert set(re.findall(r"[EW]\d{3}", head)) == set(re.findall(r"\b[EW]\d{3}\b", source))


def test_every_status_is_there_with_its_label():
    listed = text_of("reference/statuses.md").split("## Moves")[0]
    found = [(named(status), label) for status, label, _meaning in rows(listed)]
    assert found == [(status.value, str(status.label)) for status in Message.Status]


@pytest.mark.django_db
def test_the_verbs_move_from_the_statuses_that_are_listed():
    listed = {
        (verb, named(before))
        for before, _after, when in rows(section("reference/statuses.md", "## Moves"))
        for verb in re.findall(r"`services\.(\w+)`", when)
    }
    assert listed == {
        (verb, status.value)
        for verb in ("retry", "confirm", "cancel")
        for status in Message.Status
        if is_allowed(verb, status)
    }


def is_allowed(verb, status):
    with testing.outbox():
        message = services.send_sms(TO, "Hello", send_at=timezone.now() + timedelta(days=1))
    Message.objects.filter(pk=message.pk).update(status=status)
    try:
        getattr(services, verb)(message)
    except exceptions.WrongStatus:
        return False
    return True


def test_the_statuses_that_say_not_now_are_those_of_the_code():
    listed = section("reference/statuses.md", "## What each answer of 9bits means")
    (answers,) = (cell for cell, *_ in rows(listed) if cell.startswith("401"))
    assert set(map(int, answers.split(", "))) == client.TRY_LATER


#: How 9bits is made to do what the rows of the table say, in their order.
ANSWERS = [
    Behaviour.accept(),
    Behaviour.says_it_failed(422),
    Behaviour.status(503),
    None,
    Behaviour.redirect("/elsewhere"),
    Behaviour.status(500),
    Behaviour.cut(),
]


@pytest.mark.django_db
@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_an_answer_makes_of_a_message_what_is_listed(provider, number):
    *listed, _killed = rows(section("reference/statuses.md", "## What each answer of 9bits means"))
    (expected,) = re.findall(r"`(\w+)`", listed[number][1].partition(";")[0])
    message = services.send_sms(TO, "Hello")
    answer = ANSWERS[number]
    with nullcontext(provider.then(answer)) if answer else provider.down():
        outbox.send_now(message.pk)
    message.refresh_from_db()
    assert (len(listed), message.status) == (len(ANSWERS), expected)


@pytest.mark.parametrize(
    "model",
    [
        Attempt,
        CannedReply,
        ConsentChange,
        Contact,
        Conversation,
        ConversationChange,
        Message,
        QuarantinedDelivery,
    ],
)
def test_every_field_is_there(model):
    listed = rows(section("reference/models.md", f"## `{model.__name__}`"))
    fields = [field.name for field in model._meta.concrete_fields if field.name != "id"]
    assert [named(name) for name, _meaning in listed] == fields


@pytest.mark.django_db
def test_every_permission_of_its_own_is_there_and_no_other_is_made_up():
    listed = {
        named(name) for name, _meaning in rows(section("reference/models.md", "## Permissions"))
    }
    assert {name for name, _words in Conversation._meta.permissions} <= listed
    assert listed <= set(
        Permission.objects.filter(content_type__app_label="django_ninebits").values_list(
            "codename", flat=True
        )
    )


def test_every_status_of_the_webhook_is_there():
    listed = rows(section("reference/webhook.md", "## Answers"))
    statuses = re.findall(r"^(\d{3})  ", webhook.__doc__ or "", re.MULTILINE)
    assert [status for status, *_ in listed] == statuses


@pytest.mark.django_db
def test_the_answers_of_the_webhook_are_those_that_are_shown(client):
    def post(raw, token="test-token"):
        headers = {"Authorization": f"Bearer {token}"}
        answer = client.post(reverse("ninebits:webhook"), raw, "application/json", headers=headers)
        return answer.json()

    *answers, documented = (
        json.loads(block.code) for block in blocks("reference/webhook.md", "json")
    )
    assert documented == DOCUMENTED
    assert answers == [post(body()), post(body()), post(body(without=["message"])), post(b"", "x")]


def test_the_fields_of_a_delivery_are_those_that_are_documented():
    listed = rows(section("reference/webhook.md", "## What is read"))
    assert [named(name) for name, _how in listed] == list(DOCUMENTED)


def options_of(parser):
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("name", ["ninebits_status", "ninebits_worker"])
def test_every_option_of_a_command_is_there(name):
    command = load_command_class("django_ninebits", name)
    own = options_of(command.create_parser("", "")) - options_of(
        BaseCommand().create_parser("", "")
    )
    listed = section("reference/commands.md", f"## `manage.py {name}`")
    assert {named(option) for option, _meaning in rows(listed)} == own


@pytest.mark.django_db
def test_every_key_of_the_status_is_there(capsys):
    call_command("ninebits_status", json=True)
    listed = rows(section("reference/commands.md", "### Keys of `ninebits_status --json`"))
    keys = [named(key) for cell, _meaning in listed for key in cell.split(", ")]
    assert keys == list(json.loads(capsys.readouterr().out))


def test_every_exit_code_of_the_status_is_there():
    listed = rows(section("reference/commands.md", "### Exit codes of `ninebits_status`"))
    meant = {name: code for code, name, _meaning in listed}
    assert meant["CRITICAL"] == str(ninebits_status.CRITICAL)
    assert meant["UNKNOWN"] == str(ninebits_status.UNKNOWN)


@pytest.mark.django_db
def test_what_is_measured_can_be_drawn(capsys):
    run(code("howto/monitor.md", "metrics.py"))
    assert capsys.readouterr().out == "0 0 None\n"


def test_every_option_of_the_simulator_is_there():
    shown = python("-m", "django_ninebits.simulator", "--help").stdout
    listed = section("reference/commands.md", "## `python -m django_ninebits.simulator`")
    own = set(re.findall(r"--\w+", shown)) - {"--help"}
    assert {named(option) for option, _meaning in rows(listed)} == own


def test_numbers_are_read_as_they_are_said_to_be():
    for written, read in rows(section("reference/services.md", "## Numbers")):
        assert subscriber_number(named(written)) == named(read)


def test_every_fact_about_9bits_says_how_sure_it_is():
    facts = rows(text_of("explanation/what-9bits-promises.md"))
    assert {sure for _fact, sure in facts} == {"documented", "observed", "unknown"}


# What can be run


@pytest.mark.parametrize("page", PAGES)
def test_no_block_is_in_a_language_that_nothing_here_reads(page):
    read = {"apache", "console", "django", "dockerfile", "ini", "json", "nginx", "python", "text"}
    assert {block.language for block in blocks(page)} <= read


@pytest.mark.parametrize("page", PAGES)
def test_the_python_is_python(page):
    for block in blocks(page, "python"):
        ast.parse(block.code)


def commands(page):
    """The lines that a reader types."""
    found = (
        re.findall(r"^\$ (.+)$", block.code, re.MULTILINE) for block in blocks(page, "console")
    )
    return [line.replace("sudo ", "").split() for lines in found for line in lines]


COMMANDS = sorted({" ".join(line) for page in PAGES for line in commands(page)})
OF_MANAGE = [line for line in COMMANDS if line.startswith("python manage.py")]
OTHERS = {".", "cd", "django-admin", "docker", "journalctl", "python", "python3", "systemctl"}


@pytest.mark.parametrize("line", OF_MANAGE)
def test_a_command_and_its_options_are_there(line):
    name, *arguments = line.split()[2:]
    command = load_command_class(get_commands()[name], name)
    assert command.create_parser("manage.py", name).parse_args(arguments)


def test_no_other_program_is_asked_for():
    assert {line.split()[0] for line in COMMANDS} == OTHERS


SECRETS = {
    "NINEBITS_API_TOKEN": "a-token-of-the-account",
    "NINEBITS_WEBHOOK_PASSWORD": "a-password-of-the-webhook",
    "NINEBITS_WEBHOOK_TOKEN": "a-token-of-the-webhook",
}


@pytest.fixture
def use(settings, monkeypatch):
    """Run the blocks of a page that go into the settings, and use what they leave."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    def run_and_use(page, number=0):
        source = [block for block in blocks(page) if block.caption.startswith("settings.py")]
        before = {"NINEBITS": dict(settings.NINEBITS), "DATABASES": {"default": {}}}
        after = run(source[number].code, **before)
        settings.NINEBITS = after["NINEBITS"]
        return after

    return run_and_use


SETTINGS = [
    (page, number)
    for page in PAGES
    for number, _block in enumerate(
        block for block in blocks(page) if block.caption.startswith("settings.py")
    )
]


@pytest.mark.parametrize(("page", "number"), SETTINGS)
def test_the_settings_that_are_shown_are_without_mistakes(use, page, number):
    use(page, number)
    assert checks.check_settings() == []


def bearer(token):
    return f"Bearer {token}".encode()


def test_while_a_token_is_rotated_both_open_the_webhook(use, monkeypatch):
    monkeypatch.setenv("NINEBITS_OLD_WEBHOOK_TOKEN", "an-old-token")
    use("howto/rotate-a-token.md")
    tokens = ["a-token-of-the-webhook", "an-old-token"]
    assert conf.webhook_credentials() == (list(map(bearer, tokens)), [])


def test_once_a_token_is_rotated_only_the_new_one_opens_the_webhook(use):
    use("howto/rotate-a-token.md")
    assert conf.webhook_credentials() == ([bearer("a-token-of-the-webhook")], [])


def test_a_token_is_read_where_the_secret_store_puts_it(use, monkeypatch):
    use("howto/rotate-a-token.md", 1)
    monkeypatch.setattr(Path, "read_text", lambda path: f"token-from-{path.name}\n")
    assert conf.api_token == "token-from-ninebits-token"


def test_only_the_pair_opens_the_webhook_with_basic_authentication(use):
    use("howto/behind-a-proxy.md")
    pair = base64.b64encode(b"ninebits:a-password-of-the-webhook")
    assert conf.webhook_credentials() == ([b"Basic " + pair], [])


@pytest.mark.django_db
def test_on_a_leash_only_the_numbers_that_are_listed_get_something(use):
    use("howto/staging.md")
    with testing.outbox() as sent:
        services.send_sms("08020000001", "to a tester")
        refused = services.send_sms("08030000000", "to somebody")
    refused.refresh_from_db()
    assert [call.text for call in sent] == ["to a tester"]
    assert (refused.status, refused.error) == ("failed", "not in ONLY_TO")


OPT_OUT = "howto/opt-out.md"


@pytest.mark.django_db
def test_words_of_several_languages_opt_out_and_in(use):
    use(OPT_OUT)
    assert checks.check_deployment() == []
    with testing.outbox() as sent:
        for text in ("arrêt", "reprise", "Dúró"):
            testing.receive(text)
    assert [call.text for call in sent] == [conf.opt_out_confirmation] * 2
    assert list(ConsentChange.objects.values_list("became", flat=True)) == [
        "opted_out",
        "opted_in",
        "opted_out",
    ]


@pytest.mark.django_db
def test_a_receiver_that_answers_each_text_leaves_it_at_a_stop(connected, caplog):
    connected(OPT_OUT, ninebits_signals.message_received, "answer")
    with testing.outbox() as sent:
        testing.receive("Hello")
        testing.receive("STOP")
    assert [call.text for call in sent] == [
        "Somebody will answer soon.",
        DEFAULTS["OPT_OUT_CONFIRMATION"],
    ]
    assert caplog.records == []


@pytest.mark.django_db
def test_a_newsletter_says_who_was_left_out(capsys):
    testing.receive("STOP", sender="+2348020000001")
    done = run(code(OPT_OUT, "newsletter.py"))
    assert (done["new"], done["left_out"]) == (2, ["+2348020000001"])
    assert capsys.readouterr().out == "3 read, 1 opted out\n"


@pytest.mark.django_db
def test_a_legal_notice_reaches_who_opted_out():
    with testing.outbox() as sent:
        testing.receive("STOP")
        run(code(OPT_OUT, "notice.py"))
    assert [call.ref_id for call in sent][1:] == ["terms-2026-4711"]


@pytest.mark.django_db
def test_the_history_of_opting_out_is_read(capsys):
    for number, text in enumerate(["STOP", "START", "STOP"]):
        testing.receive(text, ref_id=f"r{number}")
    assert run(code(OPT_OUT, "history.py"))["opted_out"] == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        ("opted_out", "r0"),
        ("opted_in", "r1"),
        ("opted_out", "r2"),
    ]


@pytest.mark.django_db
def test_somebody_is_told_that_somebody_opted_out(connected, told):
    connected(OPT_OUT, ninebits_signals.contact_opted_out, "tell_somebody", "mailing.py")
    message = testing.receive("STOP")
    assert told == [f"Contact {Contact.objects.get().pk}, by message {message.pk}"]


@pytest.mark.django_db
def test_a_list_that_is_taken_over_opts_out_until_they_opt_in():
    run(code(OPT_OUT, "take_over.py"))
    with pytest.raises(exceptions.OptedOut):
        services.send_sms("+2348030000000", "Hello")
    testing.receive("START", sender="+2348030000000")
    assert services.send_sms("+2348030000000", "Hello").pk


def test_the_check_that_staging_silences_is_the_one_that_it_would_get(use):
    silenced = use("howto/staging.md")["SILENCED_SYSTEM_CHECKS"]
    assert [problem.id for problem in checks.check_deployment()] == silenced


@pytest.mark.parametrize("page", ["reference/webhook.md", "tutorial.md"])
def test_the_webhook_is_where_it_is_said_to_be(page):
    (source,) = (block.code for block in blocks(page) if block.caption.endswith("urls.py"))
    urls = ModuleType("urls")
    vars(urls).update(run(source))
    assert reverse("ninebits:webhook", urlconf=urls) == "/hooks/9bits/webhook/"  # type: ignore[arg-type]


@pytest.mark.django_db
def test_the_examples_of_sending_send():
    with testing.outbox() as sent:
        run(code("reference/services.md", "send.py"))
        sent.run_worker()
    assert [call.text for call in sent] == [
        "Your parcel has arrived.",
        "We are closed tomorrow.",
        "We are closed tomorrow.",
    ]
    assert Message.objects.get(status="queued").text == "We are open until six today."


@pytest.fixture
def told(monkeypatch):
    """What the administrators are told by mail."""
    told: list[str] = []
    monkeypatch.setattr(mail, "mail_admins", lambda subject, message: told.append(message))
    return told


@pytest.fixture
def connected():
    """Run a page's receivers; afterwards they hear nothing more."""
    with ExitStack() as stack:

        def connect(page, signal, name, caption="receivers.py"):
            receiver = run(code(page, caption))[name]
            stack.callback(signal.disconnect, receiver)

        yield connect


@pytest.mark.django_db
def test_somebody_is_told_that_a_message_failed(connected, told):
    connected("reference/signals.md", ninebits_signals.message_failed, "tell_somebody")
    with testing.outbox() as sent:
        sent.refuse("No credit left")
        message = services.send_sms(TO, "Hello")
    assert told == [f"Message {message.pk}: 9bits answered 422: No credit left"]


@pytest.mark.django_db
def test_somebody_is_told_that_a_message_is_uncertain(connected, told):
    page = "howto/uncertain-and-quarantined.md"
    connected(page, ninebits_signals.message_uncertain, "ask_somebody")
    message = uncertain_message()
    assert told == [f"Message {message.pk}: TimeoutError: no answer before the deadline"]
    assert run(code(page, "daily.py"))["undecided"] == 1


def uncertain_message():
    with testing.outbox() as sent:
        sent.uncertain()
        return services.send_sms(TO, "Hello")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("caption", "status"), [("in the shell", "sent"), ("in the shell, or else", "queued")]
)
def test_what_is_uncertain_is_decided_in_the_shell(caption, status):
    message = uncertain_message()
    run(code("howto/uncertain-and-quarantined.md", caption))
    message.refresh_from_db()
    assert message.status == status


@pytest.mark.django_db
class Order:
    """What the examples of long transactions close."""

    pk = 4711
    phone = TO

    def __init__(self):
        self.done = []

    def close(self):
        self.done.append("closed")

    def print_invoice(self):
        self.done.append("printed")


@pytest.mark.django_db
@pytest.mark.parametrize("caption", ["orders.py", "orders_later.py"])
def test_an_order_that_is_closed_sends_once(django_capture_on_commit_callbacks, caption):
    order = Order()
    close = run(code("explanation/order.md", caption))["close"]
    with testing.outbox() as sent, django_capture_on_commit_callbacks(execute=True):
        close(order)
    assert order.done == ["closed", "printed"]
    assert [call.ref_id for call in sent] == ["order-4711"]


@pytest.mark.django_db
def test_what_is_quarantined_has_the_reason_that_is_listed():
    bodies = [b"Hello", body(from_="MTN"), body(type="delivery report"), body(without=["message"])]
    listed = rows(section("howto/uncertain-and-quarantined.md", "## A quarantined delivery"))
    *reasons, could_not_be_stored = (named(reason) for reason, _what in listed)
    assert [take_in(raw).errors for raw in bodies] == [(reason,) for reason in reasons]
    assert could_not_be_stored == "It could not be stored: DataError."


def test_the_simulator_is_tried(capsys):
    run(code("reference/simulator.md", "try_it.py"))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\S+ simulator-token\n", capsys.readouterr().out)


@pytest.mark.django_db(transaction=True)
def test_a_text_is_delivered_to_see_whether_it_arrives(live_server, monkeypatch, capsys):
    monkeypatch.setenv("NINEBITS_API_TOKEN", "test-token")
    source = code("howto/behind-a-proxy.md", "deliver.py")
    run(source.replace("https://your.site", live_server.url))
    shown = capsys.readouterr().out.strip()
    assert f"`{shown}` is what you want to see." in text_of("howto/behind-a-proxy.md")


BEFORE_THE_WEBHOOK: dict[str, dict[str, object]] = {
    "`ALLOWED_HOSTS`": {"ALLOWED_HOSTS": ["your.site"]},
    "`SECURE_SSL_REDIRECT`": {"SECURE_SSL_REDIRECT": True},
    "`PREPEND_WWW`": {"PREPEND_WWW": True},
}


@pytest.mark.parametrize("name", BEFORE_THE_WEBHOOK)
def test_what_answers_before_the_webhook_answers_as_it_is_listed(client, settings, name):
    for key, value in BEFORE_THE_WEBHOOK[name].items():
        setattr(settings, key, value)
    listed = rows(section("howto/behind-a-proxy.md", "## What answers before the webhook"))
    (expected,) = (answer for what, answer, _help in listed if what.startswith(name))
    assert str(client.post(reverse("ninebits:webhook")).status_code) == expected


@pytest.mark.django_db
def test_what_is_said_not_to_get_in_the_way_does_not(settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1
    strict = Client(enforce_csrf_checks=True)
    headers = {"Authorization": "Bearer test-token"}
    answer = strict.post("/hooks/9bits/webhook", body(), "application/json", headers=headers)
    assert answer.status_code == 200


# What a machine reads


def test_the_unit_of_systemd_runs_the_worker_and_lets_it_finish():
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(code("howto/run-the-worker.md", "ninebits-worker.service"))
    service = unit["Service"]
    assert unit.sections() == ["Unit", "Service", "Install"]
    assert service["ExecStart"].endswith("/python manage.py ninebits_worker")
    assert (service["KillSignal"], service["Restart"]) == ("SIGTERM", "always")
    assert service.getint("TimeoutStopSec") >= DEFAULTS["TIMEOUT"] + 30


def test_the_image_runs_the_worker_without_a_shell():
    lines = code("howto/run-the-worker.md", "Dockerfile").strip().splitlines()
    instructions = dict(line.split(" ", 1) for line in lines)
    assert next(iter(instructions)) == "FROM"
    assert json.loads(instructions["CMD"]) == ["python", "manage.py", "ninebits_worker"]
    assert instructions["STOPSIGNAL"] == "SIGTERM"


def test_the_lines_of_nginx_are_closed():
    lines = code("howto/behind-a-proxy.md", "nginx.conf").strip().splitlines()
    assert all(line.endswith(("{", "}", ";")) for line in lines)
    assert [line[-1] for line in lines if line[-1] in "{}"] == ["{", "}"]


# The tutorial, step by step


def python(*arguments, project=None, within=BASE_DIR):
    """Run Python, in the tutorial's project if one is given."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=within,
        env=environment(project),
        capture_output=True,
        text=True,
        check=False,
    )


def environment(project):
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "PYTHONPATH": str(project or ""),
        "PYTHONUNBUFFERED": "1",
    }


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


#: Those that end by themselves and ask nothing.
STEPS = {"startproject", "startapp", "check", "makemigrations", "migrate", "test"}


class Tutorial:
    """The project that the tutorial makes, on ports that are free."""

    def __init__(self, directory):
        self.directory = directory
        self.project = directory / "mysite"
        self.ports = {"8000": str(free_port()), "9480": str(free_port())}
        self.done = {}

    def do(self, block):
        if block.caption:
            self.write(block.caption, block.code)
        for line in re.findall(r"^\$ (.+)$", block.code, re.MULTILINE):
            words = line.split()
            if STEPS & set(words):
                self.done[line] = self.step(words)

    def write(self, caption, source):
        name, _, where = caption.partition(", ")
        for port, mine in self.ports.items():
            source = source.replace(f":{port}", f":{mine}")
        path = self.project / name
        path.write_text(path.read_text() + source if where == "at the end" else source)

    def step(self, words):
        # What makes files makes them where it is; what runs the app is measured from the checkout.
        if words[0] == "django-admin":
            return python("-m", "django", *words[1:], within=self.directory)
        if words[2] == "startapp":
            return python(*words[1:], project=self.project, within=self.project)
        return python(self.project / words[1], *words[2:], project=self.project)

    @contextmanager
    def running(self, *arguments):
        with subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=BASE_DIR,
            env=environment(self.project),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.communicate(timeout=30)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    tutorial = Tutorial(tmp_path_factory.mktemp("tutorial"))
    for block in blocks("tutorial.md"):
        tutorial.do(block)
    return tutorial


@pytest.mark.own_database
def test_every_step_of_the_tutorial_succeeds(tutorial):
    assert [line.split()[-1] for line in tutorial.done] == [
        "mysite",
        "bot",
        "check",
        "bot",
        "migrate",
        "bot",
    ]
    for line, done in tutorial.done.items():
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.mark.own_database
def test_the_steps_of_the_tutorial_print_what_is_shown(tutorial):
    assert tutorial.done["python manage.py check"].stdout in text_of("tutorial.md")
    assert "Ran 8 tests" in tutorial.done["python manage.py test bot"].stderr


@pytest.mark.own_database
def test_whoever_follows_the_tutorial_becomes_a_member(tutorial):
    manage, text = tutorial.project / "manage.py", tutorial.project / "text.py"
    simulator = ["-m", "django_ninebits.simulator", "--token", "tutorial-token"]
    site = [manage, "runserver", "--noreload", tutorial.ports["8000"]]
    with (
        tutorial.running(*simulator, "--port", tutorial.ports["9480"]) as simulator,
        tutorial.running(*site) as site,
        tutorial.running(manage, "ninebits_worker"),
    ):
        simulator.stdout.readline()
        assert any("Quit the server" in line for line in site.stdout)
        for said, answered in [
            ("JOIN", "What is your name?"),
            ("Ada", "Welcome, Ada. You have 100 points."),
        ]:
            shown = python(text, said, project=tutorial.project).stdout
            assert shown in text_of("tutorial.md")
            call = simulator.stdout.readline()
            assert call.endswith(f" accepted, to ****0000, {len(answered)} characters\n")


@pytest.mark.own_database
def test_the_tests_of_receivers_that_are_shown_pass(tutorial):
    page = "howto/test-your-receivers.md"
    sources = {name: code(page, name) for name in ("test_bot.py", "test_case.py")}
    for name, source in sources.items():
        (tutorial.project / name).write_text(source)
    passed = sum(source.count("def test_") for source in sources.values())
    run = python(
        *("-m", "pytest", "-q", "-W", "error", "--rootdir", tutorial.project),
        *(tutorial.project / name for name in sources),
        project=tutorial.project,
    )
    assert f"{passed} passed" in run.stdout, run.stdout + run.stderr


# An inbox of one's own


@pytest.fixture
def own_inbox(settings):
    """The admin of conversations as the page writes it."""
    shipped = type(admin.site.get_model_admin(Conversation))
    inbox = run(code("howto/your-own-inbox.md", "admin.py"))["SupportInbox"]
    settings.ROOT_URLCONF = (path("admin/", admin.site.urls),)
    yield inbox
    admin.site.unregister(Conversation)
    admin.site.register(Conversation, shipped)


@pytest.mark.django_db
def test_an_inbox_of_ones_own_shows_and_offers_what_it_says(own_inbox, rf):
    theirs, ours = (
        testing.receive("Hello", short_code=code).conversation for code in ("48974", "48975")
    )
    rights = ("view_conversation", "reply_conversation")
    anybody, biller = user(*rights), user(*rights, first_name="Bola")
    biller.groups.add(Group.objects.create(name="Billing"))
    client = client_of(biller)
    inbox = client.get(reverse("admin:django_ninebits_conversation_changelist"))
    assert list(inbox.context["cl"].result_list) == [ours]
    for row, status in ((ours, 200), (theirs, 404)):
        address = reverse("admin:django_ninebits_conversation_live", args=[row.pk])
        assert client.get(address).status_code == status
    shown: Any = admin.site.get_model_admin(Conversation)
    assert type(shown) is own_inbox
    request = rf.get("/")
    for somebody, codes in ((biller, ["48975"]), (anybody, ["48974"])):
        request.user = somebody
        assert shown.get_short_codes(request) == codes
        assert shown.get_colleagues(request) == [somebody]


@pytest.mark.django_db
def test_a_template_of_ones_own_adds_a_link_to_each_thread(settings, tmp_path):
    name = "admin/django_ninebits/conversation/change_form.html"
    own = tmp_path / name
    own.parent.mkdir(parents=True)
    own.write_text(code("howto/your-own-inbox.md", f"templates/{name}"))
    settings.TEMPLATES = [settings.TEMPLATES[0] | {"DIRS": [tmp_path]}]
    row = testing.receive("Hello").conversation
    address = reverse("admin:django_ninebits_conversation_change", args=[row.pk])
    page = client_of(user("view_conversation")).get(address).text
    assert 'href="https://shop.example/customers/?phone=%2B2348020000000"' in page
    assert 'id="nb-inbox"' in page


def test_the_blocks_of_the_templates_are_listed():
    listed = rows(section("howto/your-own-inbox.md", "## Your own words and links"))
    for row in listed:
        name, blocks_of_it = re.findall("`([^`]*)`", row[0])[0], re.findall("`([^`]*)`", row[1])
        source = (TEMPLATES / name).read_text()
        assert re.findall(r"{% block (nb-[\w-]+) %}", source) == blocks_of_it
    assert len(listed) == 2


def test_what_can_be_overridden_is_there():
    listed = rows(section("howto/your-own-inbox.md", "## Who sees what, and who can be given what"))
    names = [name for names, _meaning in listed for name in re.findall("`([^`]*)`", names)]
    assert len(names) > 5
    assert [name for name in names if not hasattr(ConversationAdmin, name)] == []
