"""What a person reads can be translated, and each language that is there is there completely."""

import ast
import re
from collections import Counter
from datetime import timedelta
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.safestring import SafeData, SafeString
from django.utils.translation.template import templatize

import django_ninebits
from django_ninebits import decisions, handset, inbox, outbox, services, thread, wording
from django_ninebits.decisions import Seen
from django_ninebits.exceptions import MessageRefused
from django_ninebits.models import (
    CannedReply,
    Contact,
    Conversation,
    Message,
    QuarantinedDelivery,
)
from tests.deliveries import body

PACKAGE = Path(django_ninebits.__file__).parent
LANGUAGES = sorted(path.name for path in (PACKAGE / "locale").iterdir())
KEYWORDS = DEFAULT_KEYWORDS | {
    f"{name}{suffix}": DEFAULT_KEYWORDS[name]
    for name in ("gettext", "ngettext", "pgettext", "npgettext")
    for suffix in ("_lazy", "_noop")
}
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[a-z%]|\{\w*\}")
NO_BREAK_SPACE = "\u00a0"


def catalogue(language, reader, name):
    with (PACKAGE / "locale" / language / "LC_MESSAGES" / name).open("rb") as file:
        return reader(file)


def po(language):
    return catalogue(language, read_po, "django.po")


def entries(catalogue):
    """The context and the forms of each text → the forms of its translation."""
    return {(m.context, forms(m.id)): forms(m.string) for m in catalogue if m.id}


def forms(text):
    return (text,) if isinstance(text, str) else tuple(text)


def translations(language):
    """The forms of each text beside each form of its translation."""
    for (_context, text), translated in entries(po(language)).items():
        for form in translated:
            yield text, form


def extracted(source):
    found = extract("python", BytesIO(source.encode()), keywords=KEYWORDS)
    return {(context, forms(text)) for _line, text, _comments, context in found}


def as_python(template):
    """The calls that stand for a template's texts; what stands between them has no indentation."""
    return "\n".join(line.strip() for line in templatize(template).splitlines())


def texts_of_the_package():
    modules = [path.read_text() for path in PACKAGE.rglob("*.py")]
    templates = [as_python(path.read_text()) for path in PACKAGE.rglob("*.html")]
    return set().union(*map(extracted, modules + templates))


# The catalogues


def test_there_is_french():
    assert "fr" in LANGUAGES


def test_every_way_to_mark_a_text_is_found():
    module = (
        '_("a"), gettext_lazy("b"), ngettext("c", "cs", 2), pgettext_lazy("d", "e"), _("f" "g")'
    )
    template = (
        '  {% translate "h" %}\n {% if x %}\n   {% translate "i" context "j" %}{% endif %}'
        "{% blocktranslate with a=b %}k {{ a }}\nl{% endblocktranslate %}"
        "{% blocktranslate count n=n %}m{% plural %}{{ n }} ms{% endblocktranslate %}"
    )
    assert extracted(module) | extracted(as_python(template)) == {
        (None, ("a",)),
        (None, ("b",)),
        (None, ("c", "cs")),
        ("d", ("e",)),
        (None, ("fg",)),
        (None, ("h",)),
        ("j", ("i",)),
        (None, ("k %(a)s\nl",)),
        (None, ("m", "%(n)s ms")),
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_catalogue_has_the_texts_of_the_package_and_no_others(language):
    """Otherwise: ``make messages``, and fill in what is new."""
    assert set(entries(po(language))) == texts_of_the_package()
    assert not po(language).obsolete


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated(language):
    assert [text for text, translated in translations(language) if not translated] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_is_a_guess(language):
    assert [message.id for message in po(language) if message.fuzzy] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_form_of_a_plural_is_translated(language):
    wanted = {1, po(language).num_plurals}
    assert {len(translated) for translated in entries(po(language)).values()} <= wanted


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_compiled_is_what_is_written(language):
    """Otherwise: ``make messages``."""
    compiled, wanted = catalogue(language, read_mo, "django.mo"), BytesIO()
    write_mo(wanted, po(language))
    wanted.seek(0)
    assert entries(compiled) == entries(read_mo(wanted))
    assert compiled.plural_forms == po(language).plural_forms


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_placeholders_of_the_text(language):
    def placeholders(text):
        return Counter(PLACEHOLDER.findall(text))

    for text, translated in translations(language):
        wanted = [placeholders(form) for form in text]
        assert placeholders(translated) in wanted, translated


def test_french_keeps_its_signs_with_their_words():
    """No line may begin with a colon, and none end with an opening quotation mark."""
    apart = re.compile(
        rf"(?<!{NO_BREAK_SPACE})[;!?»]|(?<!{NO_BREAK_SPACE}):(?= |$)|«(?!\u00a0)|'(?=\w+[^'\w])"
    )
    assert [
        translated for _text, translated in translations("fr") if apart.search(translated)
    ] == []


# Pages


@pytest.fixture
def marked(monkeypatch):
    """Whatever goes through translation stands between « and »."""

    def marking(translate):
        def marked(*args):
            text = f"«{translate(*args)}»"
            return SafeString(text) if isinstance(args[-1], SafeData) else text

        return marked

    real = translation._trans  # type: ignore[attr-defined]
    for name in ("gettext", "pgettext", "ngettext", "npgettext"):
        monkeypatch.setattr(real, name, marking(getattr(real, name)))


class Reader(HTMLParser):
    """What a person gets to see or to hear of a page."""

    # A key is called what stands on it.
    SILENT = {"script", "style", "pre", "kbd"}
    # Not ``alt``, which Django's own pages write in English, and ours have no images.
    SAID = {"title", "aria-label", "aria-description", "placeholder"}

    def __init__(self, page):
        super().__init__()
        self.texts, self.attributes, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.open += [tag] if tag in self.SILENT else []
        is_labelled = tag == "input" and ("type", "submit") in attributes
        said = self.SAID | ({"value"} if is_labelled else set())
        self.attributes += [value for name, value in attributes if name in said]

    def handle_endtag(self, tag):
        self.open = [silent for silent in self.open if silent != tag]

    def handle_data(self, text):
        self.texts += [] if self.open else [text]


def unmarked(text):
    """The words outside of all marks."""
    count = 1
    while count:
        text, count = re.subn(r"«[^«»]*»", " ", text)
    return re.findall(r"[^\W\d_]+", re.sub(r"\b[0-9a-f]{64}\b", "", text))


def english(page):
    reader = Reader(page)
    return [word for text in ["".join(reader.texts), *reader.attributes] for word in unmarked(text)]


@pytest.fixture
def staff(client):
    client.force_login(User.objects.create_superuser("4711"))
    return client


def received(number, **changes):
    """A text of which no field has a letter."""
    fields = {"telco": "9", "session_id": str(number), "ref_id": str(number)}
    return inbox.take_in(body(message=str(number), **fields, **changes)).message


@pytest.fixture
def conversation(monkeypatch):
    """A thread of two pages that has a message in every status, with an error of ours."""
    monkeypatch.setattr(thread, "PAGE", 10)
    conversation = received(1).conversation
    for number in range(6):
        received(number)
    for status in Message.Status:
        later = timezone.now() + timedelta(days=1)
        message = services.reply(conversation, "1", ref_id=f"0{message_count()}", send_at=later)
        Message.objects.filter(pk=message.pk).update(status=status, error=outbox.LOST)
    return conversation


def message_count():
    return Message.objects.count()


def listing(row, **query):
    return reverse(f"admin:django_ninebits_{row._meta.model_name}_changelist", query=query)


def page_of(row):
    return reverse(f"admin:django_ninebits_{row._meta.model_name}_change", args=[row.pk])


def take_in_again(client, quarantined):
    name = "admin:django_ninebits_quarantineddelivery_take_in_again"
    return client.post(reverse(name, args=[quarantined.pk]), follow=True)


def reply(client, conversation, text, ref_id=f"{1:032}"):
    seen = conversation.messages.latest("id").pk
    given = {"text": text, "ref_id": ref_id, "seen": seen}
    return client.post(page_of(conversation), given, follow=True)


@pytest.fixture
def quarantined():
    return inbox.take_in(body(from_="1", telco="\0")).quarantined


def test_what_is_not_translated_is_seen(marked):
    page = '«a <b>«b»</b>»<i title="c">1</i><script>d</script><input type="submit" value="e">f'
    assert english(page) == ["f", "c", "e"]


@pytest.mark.django_db
@pytest.mark.parametrize("model", [Conversation, Contact, Message, QuarantinedDelivery])
def test_a_list_is_translated_empty_and_full(marked, staff, model):
    for query in ({}, {"q": "1"}):
        assert english(staff.get(listing(model, **query)).text) == []
    services.reply(received(2, from_="2348020000001").conversation, "1", ref_id="1")
    received(1)
    inbox.take_in(b"1")
    assert english(staff.get(listing(model, _facets="True")).text) == []


@pytest.mark.django_db
def test_a_thread_is_translated(marked, staff, conversation):
    newest = staff.get(page_of(conversation), follow=True)
    older = staff.get(newest.context["older"])
    Message.objects.all().delete()
    empty = staff.get(page_of(conversation), follow=True)
    assert [english(page.text) for page in (newest, older, empty)] == [[], [], []]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("text", "ref_id"), [("1", f"{1:032}"), ("2", f"{1:032}"), ("", f"{2:032}"), ("1", "")]
)
def test_what_becomes_of_a_reply_is_translated(marked, staff, conversation, text, ref_id):
    reply(staff, conversation, "1")
    page = reply(staff, conversation, text, ref_id)
    assert "message" in page.text
    assert english(page.text) == []


@pytest.mark.django_db
def test_that_somebody_else_has_replied_is_translated(marked, staff, conversation):
    given = {"text": "2", "ref_id": f"{2:032}"}
    for author in (None, User.objects.create_user("1", first_name="1")):
        services.reply(conversation, "1", author=author)
        page = staff.post(page_of(conversation), given)
        assert "«Not sent: " in page.text
        assert english(page.text) == []


@pytest.mark.django_db
@pytest.mark.parametrize("error", ["The text is empty.", "Message 1 is sent, not failed."])
def test_why_a_reply_is_refused_is_translated(marked, staff, conversation, monkeypatch, error):
    def refuse(*args, **kwargs):
        raise MessageRefused(error)

    monkeypatch.setattr(services, "reply", refuse)
    page = reply(staff, conversation, "1")
    assert page.context["form"].errors
    assert english(page.text) == []


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["1", "–", "🙏", "1" * 161, "–" * 71, "🙏" * 36])
def test_what_the_composer_says_is_translated(marked, staff, conversation, settings, text):
    settings.NINEBITS = settings.NINEBITS | {"MAX_SEGMENTS": 1}
    given = {"text": text, "ref_id": f"{1:032}"}
    asked = staff.post(page_of(conversation), given | {"count": "1"})
    sent = staff.post(page_of(conversation), given, follow=True)
    assert [english(page.text) for page in (asked, sent)] == [[], []]
    words = asked.context["form"].for_scripts["words"].values()
    without_names = [re.sub(r"{\w+}", "", str(said)) for said in words]
    assert [unmarked(said) for said in without_names] == [[]] * len(without_names)


@pytest.mark.django_db
def test_canned_replies_are_translated(marked, staff, conversation):
    add = reverse("admin:django_ninebits_cannedreply_add")
    mistaken = staff.post(add, {"title": "1", "text": "{2}"})
    for more in ({}, {"is_shared": "1"}):
        staff.post(add, {"title": "1", "text": "2 {name}"} | more)
    reply = CannedReply.objects.first()
    thread = staff.get(page_of(conversation), follow=True)
    assert "nb-slash" in thread.text
    pages = [staff.get(add), staff.get(listing(reply, q="1")), staff.get(page_of(reply)), thread]
    names = {"name", "number", "short_code", "short", "code", "me", "there"}
    for page in [mistaken, *pages]:
        assert set(english(page.text)) <= names


@pytest.mark.django_db
def test_what_whoever_is_logged_out_reads_is_translated(marked, client, conversation):
    page = client.post(page_of(conversation), {"text": "1", "keep": "1"})
    assert "1</textarea>" in page.text
    assert english(page.text) == []


@pytest.mark.django_db
def test_the_pages_of_messages_are_translated(marked, staff, conversation):
    replies = Message.objects.filter(direction=Message.Direction.OUTBOUND)
    for message in [Message.objects.first(), *replies]:
        assert english(staff.get(page_of(message)).text) == []


def decide(verb, *messages):
    address = reverse("admin:django_ninebits_message_decide", args=[verb])
    return address, " ".join(str(Seen.of(message)) for message in messages)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("verb", "status"),
    [("confirm", "uncertain"), ("retry", "uncertain"), ("retry", "failed"), ("cancel", "queued")],
)
def test_what_is_asked_and_told_about_a_decision_is_translated(
    marked, staff, conversation, verb, status
):
    message = Message.objects.get(status=status)
    address, seen = decide(verb, message)
    pages = [staff.get(address, {"seen": seen})]
    pages += [staff.post(address, {"seen": seen}, follow=True) for _again in range(2)]
    name = "admin:django_ninebits_message_history"
    pages.append(staff.get(reverse(name, args=[message.pk])))
    assert [english(page.text) for page in pages] == [[], [], [], []]


@pytest.mark.django_db
@pytest.mark.parametrize("verb", ["confirm", "retry", "cancel"])
def test_what_is_asked_and_told_about_several_is_translated(
    marked, staff, conversation, monkeypatch, verb
):
    messages = Message.objects.exclude(direction=Message.Direction.INBOUND)
    messages.update(was_uncertain=True)
    monkeypatch.setattr(decisions, "SHOWN", 0)
    chosen = {"action": f"{verb}_selected", "_selected_action": messages[0].pk, "index": 0}
    asked = staff.post(listing(messages[0]), chosen | {"select_across": "1"})
    none = staff.post(listing(messages[0], status="sent"), chosen, follow=True)
    address, seen = decide(verb, *messages)
    told = staff.post(address, {"seen": seen, "selected": "1"}, follow=True)
    assert [english(page.text) for page in (asked, none, told)] == [[], [], []]


@pytest.mark.django_db
def test_the_pages_of_a_contact_are_translated(marked, staff, conversation):
    add = reverse("admin:django_ninebits_contact_add")
    pages = [
        staff.get(page_of(conversation.contact)),
        staff.get(add),
        staff.post(add, {"phone_number": "1"}),
        staff.post(add, {"phone_number": "0802 000 0000"}),
    ]
    assert [english(page.text) for page in pages] == [[], [], [], []]


@pytest.mark.django_db
def test_the_pages_of_who_opted_out_are_translated(marked, staff, conversation, settings):
    words = {"OPT_OUT_WORDS": ["201", "203"], "OPT_IN_WORDS": ["202"]}
    settings.NINEBITS = settings.NINEBITS | words
    message = [received(number) for number in (201, 202, 203)][-1]
    address, seen = decide("retry", Message.objects.get(status="failed"))
    pages = [
        staff.get(page_of(conversation), follow=True),
        reply(staff, conversation, "1", f"{3:032}"),
        staff.get(page_of(message.conversation.contact)),
        staff.get(listing(message.conversation.contact, opted_out="yes")),
        staff.post(address, {"seen": seen}, follow=True),
        staff.post(address, {"seen": seen, "selected": "1"}, follow=True),
    ]
    assert [english(page.text) for page in pages] == [[]] * 6


@pytest.mark.django_db
def test_the_page_of_a_quarantined_delivery_is_translated(marked, staff, quarantined):
    assert english(staff.get(page_of(quarantined)).text) == []
    assert english(take_in_again(staff, quarantined).text) == []


@pytest.mark.django_db
def test_what_is_taken_in_again_is_translated(marked, staff):
    for _again in range(2):
        row = QuarantinedDelivery.objects.create(
            body=body(message="1"), errors="The body is not JSON."
        )
        assert english(take_in_again(staff, row).text) == []
    assert english(take_in_again(staff, row).text) == []


@pytest.mark.urls("tests.handset_urls")
def test_the_simulated_phone_is_translated(marked, client, settings, provider, monkeypatch):
    settings.DEBUG = True
    monkeypatch.setattr(handset, "_lines", {})
    handset.use(provider)
    page = client.get("/handset/").text
    names = {"django", "ninebits", *unmarked("mtn airtel glo 9mobile")}
    assert set(english(page)) == names
    for_the_script = re.findall(r'data-(?!wire)\w+="([^"]*)"', page)
    assert for_the_script
    assert not any(map(unmarked, for_the_script))


@pytest.mark.urls("tests.handset_urls")
def test_why_the_simulated_phone_takes_no_number_is_translated(marked, client, settings):
    settings.DEBUG = True
    typed = {"sender": "1", "service": "é", "telco": "mtn", "text": "1"}
    errors = client.post("/handset/text/", typed).json()["errors"]
    assert set(errors) == {"sender", "service"}
    assert not any(unmarked(said) for several in errors.values() for said in several)


@pytest.mark.urls("tests.handset_urls")
def test_the_page_without_a_simulated_phone_is_translated(marked):
    page = render_to_string("django_ninebits/handset_unusable.html", {"problem": "1"})
    assert english(page) == ["django", "ninebits"]


@pytest.mark.django_db
def test_french_is_what_a_french_site_shows(staff, conversation, settings):
    settings.LANGUAGE_CODE = "fr"
    assert "Boîte de réception" in staff.get(listing(conversation)).text
    assert "sur le 48974" in staff.get(page_of(conversation), follow=True).text


# Sentences that are English until they are shown


def sample(node):
    """What a literal may look like; None for what is no literal."""
    if isinstance(node, ast.JoinedStr):
        return "".join(sample(part) or "7" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


OURS = {
    "DeliveryNotUnderstood",
    "InvalidPhoneNumber",
    "MessageRefused",
    "OSError",
    "OptedOut",
    "RefIdConflict",
    "TimeoutError",
    "WrongStatus",
    "_quarantine",
    "append",
}


def literals(call):
    """The sentences that are given to a call, if it keeps or raises them."""
    name = getattr(call.func, "id", "") or getattr(call.func, "attr", "")
    if name == "append" and "errors" not in ast.unparse(call.func):
        return
    prefix = f"{name}: " if name.endswith("Error") else ""
    given = call.args if name in OURS else []
    given = [*given, *(keyword.value for keyword in call.keywords if keyword.arg == "error")]
    for node in given:
        for literal in node.elts if isinstance(node, ast.List) else [node]:
            if text := sample(literal):
                yield prefix + text


def sentences():
    modules = [path for path in PACKAGE.glob("*.py") if path.stem not in {"simulator", "testing"}]
    trees = [ast.parse(path.read_text()) for path in modules]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    reasons = [value for name, value in vars(outbox).items() if name.isupper()]
    said = [text for call in calls for text in literals(call)]
    return sorted({text for text in [*said, *reasons] if isinstance(text, str)})


FOR_DEVELOPERS = re.compile(r" must (be|have) ")


@pytest.mark.parametrize("sentence", [s for s in sentences() if not FOR_DEVELOPERS.search(s)])
def test_every_sentence_that_is_raised_or_kept_is_shown_in_french(sentence):
    with translation.override("fr"):
        assert wording.shown(sentence) != sentence


@pytest.mark.parametrize("sentence", sentences())
def test_in_english_a_sentence_is_shown_as_it_is(sentence):
    assert wording.shown(sentence) == sentence


def test_the_sentences_are_found():
    assert {
        "The text is empty.",
        "7 must be a datetime.",
        "7: missing.",
        "Message 7 is 7, not 7.",
        "It could not be stored: 7.",
        "TimeoutError: no answer before the deadline",
        "Cancelled before it was sent again.",
        "The subscriber has opted out, and only they can opt in again.",
        outbox.NOT_IN_ONLY_TO,
    } <= set(sentences())


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("9bits answered 503: not a string.", "9bits a répondu 503\u00a0: not a string."),
        (
            "9bits answered 200 with status_code 422: no with status_code 1: x",
            "9bits a répondu 200 avec le status_code 422\u00a0: no with status_code 1: x",
        ),
        (
            "9bits answered 500: no with status_code 1: x",
            "9bits a répondu 500\u00a0: no with status_code 1: x",
        ),
        ("9bits answered 500: ", "9bits a répondu 500\u00a0: "),
        (
            "Given up: it could not be sent in time. SSLError on the way to 9bits",
            "Abandonné\u00a0: il n’a pas pu être envoyé à temps. SSLError sur le chemin de 9bits",
        ),
        (
            "Message 3: 'a: 100 %' is not an international phone number.",
            "Message 3\u00a0: 'a: 100 %' n’est pas un numéro de téléphone international.",
        ),
        (
            "Message 4711 is queued, not failed or uncertain.",
            "Le message 4711 est «\u00a0en attente\u00a0», et non «\u00a0échoué\u00a0» ou"
            " «\u00a0incertain\u00a0».",
        ),
    ],
)
def test_only_our_part_of_a_sentence_is_translated(sentence, shown):
    with translation.override("fr"):
        assert wording.shown(sentence) == shown


@pytest.mark.parametrize(
    "sentence",
    ["", "ConnectionRefusedError: Connection refused", "The text is empty. So?", "100 %"],
)
def test_what_is_not_ours_is_shown_as_it_is(sentence):
    with translation.override("fr"):
        assert wording.shown(sentence) == sentence


@pytest.mark.django_db
def test_what_is_stored_is_english_whoever_is_logged_in():
    with translation.override("fr"):
        errors = inbox.take_in(b"{").errors
        message = services.reply(received(1).conversation, "1")
        outbox.end(message, outbox.EXPIRED)
    assert (errors, message.error) == (("The body is not JSON.",), outbox.EXPIRED)


def test_the_names_of_permissions_are_english_because_they_are_stored():
    assert {type(name) for _codename, name in Conversation._meta.permissions} == {str}
