import re
import uuid
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib import admin
from django.contrib.admin.utils import flatten
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from django.db.models.signals import pre_save
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_ninebits import inbox, services, thread
from django_ninebits.exceptions import MessageRefused
from django_ninebits.models import Contact, Conversation, Message, QuarantinedDelivery
from tests.deliveries import body
from tests.staff import client_of, user

MODELS = ["contact", "conversation", "message", "quarantineddelivery"]
INBOX = reverse("admin:django_ninebits_conversation_changelist")
NOT_UNDERSTOOD = body(from_="MTN")
#: What the page of a contact posts of its changes of consent, which nobody edits.
NO_CHANGES = {"consent_changes-TOTAL_FORMS": "0", "consent_changes-INITIAL_FORMS": "0"}

pytestmark = pytest.mark.django_db


@pytest.fixture
def person():
    """A client of staff with exactly these permissions."""
    return lambda *codenames: client_of(user(*codenames, last_name="Obi"))


@pytest.fixture
def viewer(person):
    return person("view_conversation")


@pytest.fixture
def agent(person):
    return person("view_conversation", "reply_conversation")


@pytest.fixture
def superuser(admin_client):
    return admin_client


@pytest.fixture
def conversation():
    received("Where is my order?")
    return Conversation.objects.get()


@pytest.fixture
def quarantined():
    return inbox.take_in(NOT_UNDERSTOOD).quarantined


def received(text, **changes):
    changes.setdefault("ref_id", uuid.uuid4().hex)
    return inbox.take_in(body(message=text, **changes)).message


def page_of(row, **query):
    name = f"admin:django_ninebits_{row._meta.model_name}_change"
    return reverse(name, args=[row.pk], query=query)


def read(client, conversation, **query):
    """The thread, as a browser shows it."""
    response = client.get(page_of(conversation, **query), follow=True)
    assert response.status_code == 200
    return response


def reply(client, conversation, text, ref_id=None, **more):
    given = {"text": text, "ref_id": ref_id or str(uuid.uuid4()), "seen": newest(conversation)}
    return client.post(page_of(conversation), given, **more)


def newest(conversation):
    return conversation.messages.latest("id").pk


def shown(response):
    return [entry.message.text for entry in response.context["entries"]]


def listed(client, **query):
    """Of all, the newest first."""
    response = client.get(INBOX, {"folder": "all", "order": "newest", **query})
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def outbound():
    return Message.objects.filter(direction=Message.Direction.OUTBOUND)


def conversations(count):
    contacts = Contact.objects.bulk_create(
        Contact(phone_number=f"+23480211{i:05d}", name=f"Name {i}") for i in range(count)
    )
    Conversation.objects.bulk_create(
        Conversation(contact=c, short_code="48974", last_message_at=timezone.now(), unread_count=1)
        for c in contacts
    )


def many_messages(conversation, count):
    Message.objects.bulk_create(
        Message(
            conversation=conversation,
            direction=Message.Direction.INBOUND,
            status=Message.Status.RECEIVED,
            session_id="s",
            ref_id=str(i),
            text=f"text {i}",
        )
        for i in range(count)
    )


# Who may do what


@pytest.mark.parametrize("model", MODELS)
def test_a_list_needs_the_view_permission(person, model):
    address = reverse(f"admin:django_ninebits_{model}_changelist")
    assert person(f"view_{model}").get(address).status_code == 200
    others = [f"view_{other}" for other in MODELS if other != model]
    assert person(*others, "reply_conversation").get(address).status_code == 403


@pytest.mark.parametrize("model", MODELS)
def test_a_page_needs_the_view_permission(person, model, conversation, quarantined):
    rows = {
        "contact": conversation.contact,
        "conversation": conversation,
        "message": conversation.messages.get(),
        "quarantineddelivery": quarantined,
    }
    assert person(f"view_{model}").get(page_of(rows[model])).status_code == 200
    others = [f"view_{other}" for other in MODELS if other != model]
    assert person(*others, "reply_conversation").get(page_of(rows[model])).status_code == 403


def test_whoever_is_no_staff_is_sent_to_the_login(client, conversation, quarantined):
    take_in = f"{page_of(quarantined)[: -len('change/')]}take-in-again/"
    for response in (
        client.get(INBOX),
        client.get(page_of(conversation)),
        client.post(page_of(conversation), {"text": "x", "ref_id": str(uuid.uuid4())}),
        client.post(take_in),
    ):
        assert response.status_code == 302
        assert "/login/" in response["Location"]
    assert not outbound().exists()


def test_what_is_not_there_is_not_found(superuser):
    assert superuser.get("/admin/django_ninebits/conversation/4711/change/").status_code == 404
    assert superuser.get("/admin/django_ninebits/conversation/x/change/").status_code == 404
    address = "/admin/django_ninebits/quarantineddelivery/4711/take-in-again/"
    assert superuser.post(address).status_code == 404


@pytest.mark.parametrize("model", MODELS)
def test_nothing_can_be_deleted(superuser, model, conversation, quarantined):
    row = {
        "contact": conversation.contact,
        "conversation": conversation,
        "message": conversation.messages.get(),
        "quarantineddelivery": quarantined,
    }[model]
    address = reverse(f"admin:django_ninebits_{model}_delete", args=[row.pk])
    assert superuser.post(address, {"post": "yes"}).status_code == 403
    bulk = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    superuser.post(reverse(f"admin:django_ninebits_{model}_changelist"), bulk)
    row.refresh_from_db()


@pytest.mark.parametrize("model", MODELS)
def test_no_list_offers_to_delete(superuser, model, conversation, quarantined):
    response = superuser.get(reverse(f"admin:django_ninebits_{model}_changelist"))
    assert response.context["cl"].result_count == 1
    assert "delete" not in response.text.lower()


@pytest.mark.parametrize("model", ["message", "quarantineddelivery"])
def test_nobody_adds_by_hand_what_only_comes_or_is_sent(superuser, model):
    address = reverse(f"admin:django_ninebits_{model}_add")
    assert superuser.get(address).status_code == 403
    assert superuser.post(address, {}).status_code == 403


@pytest.mark.parametrize("model", ["message", "quarantineddelivery"])
def test_nobody_edits_what_came(superuser, model, conversation, quarantined):
    row = quarantined if model == "quarantineddelivery" else conversation.messages.get()
    before = type(row).objects.filter(pk=row.pk).values().get()
    assert superuser.post(page_of(row), {"text": "x", "errors": "x"}).status_code == 403
    assert type(row).objects.filter(pk=row.pk).values().get() == before


def test_a_user_who_wrote_can_be_deleted_and_the_name_stays(superuser, agent, conversation):
    reply(agent, conversation, "It is on its way.")
    author = outbound().get().author
    response = superuser.post(
        reverse("admin:auth_user_delete", args=[author.pk]), {"post": "yes"}, follow=True
    )
    assert response.status_code == 200
    message = outbound().get()
    assert (message.author, message.author_name) == (None, "Ada Obi")


# The inbox


def test_the_newest_conversation_is_first(viewer):
    first, second = received("1"), received("2", from_="2348020000001")
    assert listed(viewer) == [second.conversation, first.conversation]
    received("3")
    assert listed(viewer) == [first.conversation, second.conversation]


def test_bulk_alone_lists_no_conversation(viewer):
    services.send_many([{"to": "08020000009", "text": "An offer"}])
    assert listed(viewer) == []
    assert listed(viewer, q="0009") == []


def test_a_conversation_that_is_not_listed_can_be_read(viewer):
    services.send_many([{"to": "08020000009", "text": "An offer"}])
    assert shown(read(viewer, Conversation.objects.get())) == ["An offer"]


def test_a_row_says_who_and_what_and_when(viewer, conversation):
    Contact.objects.update(name="Ngozi <b>")
    page = viewer.get(INBOX).text
    assert "Ngozi &lt;b&gt;" in page
    assert "+2348020000000" in page
    assert "Where is my order?" in page
    assert "48974" in page
    assert 'title="received">↓' in page
    assert f'datetime="{timezone.localtime(conversation.last_message_at).isoformat()}"' in page


def test_a_row_shows_a_reply_as_ours(viewer, conversation):
    services.reply(conversation, "On its way")
    assert 'title="sent by us">↑' in viewer.get(INBOX).text


def test_a_row_shows_an_empty_text_as_empty(viewer):
    received(" \n")
    assert "(empty)" in viewer.get(INBOX).text


def test_a_row_of_another_day_shows_the_date(viewer, conversation):
    Conversation.objects.update(last_message_at=timezone.now() - timedelta(days=400))
    assert re.search(r">\w+\.? \d+, 20\d\d</time>", viewer.get(INBOX).text)


def test_a_site_without_time_zones_reads_and_replies(agent, settings):
    settings.USE_TZ = False
    conversation = received("Where is my order?").conversation
    assert re.search(
        r">\d+:\d+ [ap]\.m\.</time>|>(noon|midnight|\d+ [ap]\.m\.)</time>", agent.get(INBOX).text
    )
    assert shown(reply(agent, conversation, "On its way", follow=True))[-1] == "On its way"


def test_rows_lead_to_the_thread(viewer, conversation):
    assert viewer.get(INBOX).text.count(f'href="{page_of(conversation)}"') == 2


def test_unread_texts_are_marked_and_counted(viewer, conversation):
    received("Hello?")
    assert '<span class="nb-unread">2 ' in viewer.get(INBOX).text
    Conversation.objects.update(unread_count=0)
    assert "nb-unread" not in viewer.get(INBOX).text


def test_an_empty_inbox_says_what_will_come(viewer):
    assert "When somebody texts your short code" in viewer.get(INBOX).text
    assert "No conversation fits." in viewer.get(INBOX, {"q": "nothing"}).text


def test_the_inbox_costs_the_same_queries_for_ten_and_a_thousand(viewer):
    conversations(10)
    viewer.get(INBOX)
    with CaptureQueriesContext(connection) as ten:
        assert len(listed(viewer)) == 10
    Conversation.objects.all().delete()
    Contact.objects.all().delete()
    conversations(1000)
    with CaptureQueriesContext(connection) as thousand:
        assert len(listed(viewer)) == 50
    assert len(thousand) == len(ten)


@pytest.mark.parametrize(
    "term",
    [
        "08021234567",
        "8021234567",
        "2348021234567",
        "+234 802 123 4567",
        "+234 (0)802 123 4567",
        "00234-802-123-4567",
        "\u202d0802 123 4567\u202c",
        "4567",
        " 0802123",
        "00234802123",
        "234 802 1234",
        "ngozi",
        "Okonkwo Ngozi",
        "cinema",
        "TIME YOU WENT",
        "₦500",
    ],
)
def test_a_search_finds(viewer, term):
    wanted = received("When was the last time you went to the cinema? ₦500", from_="2348021234567")
    Contact.objects.update(name="Ngozi Okonkwo")
    received("Another", from_="2349099999999")
    assert listed(viewer, q=term) == [wanted.conversation]


@pytest.mark.parametrize("term", ["7654", "+", "Bola", "x4567", "Ngozi Bola", "%", "_"])
def test_a_search_does_not_find(viewer, term):
    received("Hello", from_="2348021234567")
    Contact.objects.update(name="Ngozi Okonkwo")
    assert listed(viewer, q=term) == []


def test_a_search_for_nothing_lists_all(viewer, conversation):
    assert listed(viewer, q="  ") == [conversation]


def test_a_search_lists_a_conversation_once(viewer, conversation):
    received("order")
    received("my order")
    assert listed(viewer, q="order") == [conversation]


# Replying


def test_an_agent_replies(agent, conversation):
    response = reply(agent, conversation, "On its way")
    message = outbound().get()
    assert (message.text, message.conversation) == ("On its way", conversation)
    assert (message.author_name, message.author.get_full_name()) == ("Ada Obi", "Ada Obi")
    assert response.status_code == 302
    page = agent.get(response["Location"])
    assert shown(page)[-1] == "On its way"
    assert "Your reply: queued." in page.text


def test_a_viewer_gets_no_form_and_cannot_reply(viewer, conversation):
    assert "<textarea" not in read(viewer, conversation).text
    assert reply(viewer, conversation, "Hello").status_code == 403
    assert not outbound().exists()


def test_a_viewer_is_told_of_no_key_that_does_nothing(viewer, agent, conversation):
    def told(client):
        pages = (client.get(INBOX), client.get(page_of(conversation), follow=True))
        return [re.findall(r'data-does="(\w+)"', page.text) for page in pages]

    rows = ["next", "previous", "open", "search", "tell"]
    assert told(viewer) == [rows, ["inbox", "tell"]]
    assert told(agent) == [[*rows[:3], "select", *rows[3:]], ["write", "inbox", "tell"]]


def test_whoever_may_not_see_it_cannot_reply(person, conversation):
    assert reply(person("reply_conversation"), conversation, "Hello").status_code == 403
    assert not outbound().exists()


def test_a_reply_needs_the_token_of_the_form(agent, conversation):
    agent.handler.enforce_csrf_checks = True
    assert reply(agent, conversation, "Hello").status_code == 403
    assert not outbound().exists()


def test_the_key_of_the_form_is_that_of_the_address(agent, conversation):
    response = agent.get(page_of(conversation))
    assert response.status_code == 302
    key = uuid.UUID(parse_qs(urlsplit(response["Location"]).query)["compose"][0])
    for _time in range(2):
        page = agent.get(response["Location"])
        assert page.context["form"]["ref_id"].value() == str(key)


def test_a_malformed_key_in_the_address_is_replaced(agent, conversation):
    assert agent.get(page_of(conversation, compose="x")).status_code == 302


def test_each_reply_is_followed_by_a_new_key(agent, conversation):
    key = str(uuid.uuid4())
    response = reply(agent, conversation, "On its way", key)
    assert "compose=" in response["Location"]
    assert key not in response["Location"]


def test_the_same_form_twice_sends_once(agent, conversation):
    key = str(uuid.uuid4())
    reply(agent, conversation, "On its way\r\ntoday", key)
    response = reply(agent, conversation, "On its way\r\ntoday", key, follow=True)
    assert outbound().get().text == "On its way\ntoday"
    assert "is not sent a second time" in response.text


def test_the_same_form_with_another_text_sends_nothing_and_says_so(agent, conversation):
    key = str(uuid.uuid4())
    reply(agent, conversation, "On its way", key)
    response = reply(agent, conversation, "It is lost <sorry>", key)
    assert response.status_code == 200
    assert "Already sent" in response.text
    assert "It is lost &lt;sorry&gt;</textarea>" in response.text
    assert outbound().get().text == "On its way"


def test_what_was_edited_can_then_be_sent_once(agent, conversation):
    key = str(uuid.uuid4())
    reply(agent, conversation, "On its way", key)
    for _again in range(2):
        form = reply(agent, conversation, "It is lost", key).context["form"]
        reply(agent, conversation, "It is lost", form["ref_id"].value())
    assert [message.text for message in outbound()] == ["On its way", "It is lost"]


def test_a_key_of_another_conversation_sends_nothing(agent, conversation):
    key = str(uuid.uuid4())
    reply(agent, conversation, "On its way", key)
    other = received("Hello", from_="2348020000001").conversation
    assert "Already sent" in reply(agent, other, "On its way", key).text
    assert outbound().count() == 1


@pytest.mark.parametrize("key", ["x", "", "0" * 31])
def test_a_malformed_key_sends_nothing_and_keeps_the_text(agent, conversation, key):
    response = agent.post(page_of(conversation), {"text": "On its way", "ref_id": key})
    assert "On its way</textarea>" in response.text
    assert "the form was incomplete" in response.text
    assert uuid.UUID(response.context["form"]["ref_id"].value())
    assert not outbound().exists()


def test_a_form_without_fields_sends_nothing(agent, conversation):
    assert "the form was incomplete" in agent.post(page_of(conversation)).text
    assert not outbound().exists()


@pytest.mark.parametrize("text", ["", " ", "\r\n \t"])
def test_an_empty_reply_is_an_error_of_the_form(agent, conversation, text):
    key = str(uuid.uuid4())
    response = reply(agent, conversation, text, key)
    assert response.context["form"].errors["text"] == ["Write a text first."]
    assert response.context["form"]["ref_id"].value() == key
    assert not outbound().exists()


def test_a_text_that_nobody_can_store_is_an_error_of_the_form(agent, conversation):
    response = reply(agent, conversation, "a\0b")
    assert "text" in response.context["form"].errors
    assert not outbound().exists()


@pytest.mark.parametrize(
    ("error", "field"), [(MessageRefused("Too bad"), "text"), (ImproperlyConfigured("Wrong"), None)]
)
def test_what_the_services_refuse_is_said_beside_the_text(
    agent, conversation, monkeypatch, error, field
):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(services, "reply", refuse)
    response = reply(agent, conversation, "On its way")
    assert response.status_code == 200
    assert str(error) in str(response.context["form"].errors[field or "__all__"])
    assert "On its way</textarea>" in response.text


def test_settings_that_are_wrong_are_said_beside_the_text(agent, conversation, settings):
    settings.NINEBITS = {**settings.NINEBITS, "GIVE_UP_AFTER": "tomorrow"}
    response = reply(agent, conversation, "On its way")
    assert "the settings of this site are wrong" in response.text
    assert "On its way</textarea>" in response.text
    assert not outbound().exists()


@pytest.mark.parametrize("text", ["  a  \n\n b ", "\na", "₦ẹ́🙏🏽 مرحبا", "<b>&amp;", "x" * 1500])
def test_a_reply_is_stored_as_it_was_written(agent, conversation, text):
    reply(agent, conversation, text.replace("\n", "\r\n"))
    assert outbound().get().text == text


@pytest.mark.parametrize("text", ["\r\na", "  a  \r\nb"])
def test_a_text_comes_back_to_the_form_as_it_was_written(agent, conversation, text):
    page = agent.post(page_of(conversation), {"text": text}).text
    # A browser leaves out the first line end.
    assert f">\n{text}</textarea>" in page


@pytest.mark.parametrize(
    ("status", "level"), [("sent", "success"), ("failed", "error"), ("uncertain", "warning")]
)
def test_what_became_of_a_reply_is_told(agent, conversation, monkeypatch, status, level):
    send = services.reply

    def reply_at_once(*args, **kwargs):
        message = send(*args, **kwargs)
        Message.objects.filter(pk=message.pk).update(status=status)
        return message

    monkeypatch.setattr(services, "reply", reply_at_once)
    page = reply(agent, conversation, "On its way", follow=True).text
    display = Message(status=status).get_status_display()
    assert f'<li class="{level}">Your reply: {display}.</li>' in page


@pytest.mark.django_db(transaction=True)
def test_replies_stay_outside_of_the_transaction_of_a_request(
    agent, conversation, quarantined, monkeypatch
):
    seen = []

    def refuse(*args, **kwargs):
        seen.append(connection.in_atomic_block)
        raise MessageRefused("No")

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    monkeypatch.setattr(thread, "_answer", refuse)
    monkeypatch.setattr(inbox, "take_in_again", refuse)
    reply(agent, conversation, "On its way")
    agent.force_login(User.objects.create_superuser("root"))
    take_in_again(agent, quarantined)
    assert seen == [False, False]


# Contacts


def test_the_number_of_a_contact_stays_and_the_rest_can_be_edited(person, conversation):
    contact = conversation.contact
    given = {"name": "Ngozi", "notes": "VIP", "phone_number": "08029999999"} | NO_CHANGES
    clerk = person("view_contact", "change_contact")
    assert clerk.post(page_of(contact), given).status_code == 302
    contact.refresh_from_db()
    assert (contact.name, contact.notes) == ("Ngozi", "VIP")
    assert contact.phone_number == "+2348020000000"


def test_a_viewer_edits_no_contact(person, conversation):
    response = person("view_contact").post(page_of(conversation.contact), {"name": "Ngozi"})
    assert response.status_code == 403
    assert Contact.objects.get().name == ""


@pytest.mark.parametrize("number", ["0802 123 4567", "8021234567", "00234 802 123 4567"])
def test_a_contact_is_added_with_any_way_of_writing_the_number(superuser, number):
    address = reverse("admin:django_ninebits_contact_add")
    assert superuser.get(address).status_code == 200
    response = superuser.post(address, {"phone_number": number, "name": "", "notes": ""})
    assert response.status_code == 302
    assert Contact.objects.get().phone_number == "+2348021234567"


@pytest.mark.parametrize("number", ["", "MTN", "48974", "0802 000 000 000 000", "<b>"])
def test_a_bad_number_is_an_error_of_the_form(superuser, number):
    given = {"phone_number": number, "name": "", "notes": ""}
    response = superuser.post(reverse("admin:django_ninebits_contact_add"), given)
    assert "phone_number" in response.context["adminform"].form.errors
    assert not Contact.objects.exists()


def test_a_number_that_is_there_is_an_error_of_the_form(superuser, conversation):
    given = {"phone_number": "0802 000 0000", "name": "", "notes": ""}
    response = superuser.post(reverse("admin:django_ninebits_contact_add"), given)
    assert "already exists" in str(response.context["adminform"].form.errors["phone_number"])
    assert Contact.objects.count() == 1


@pytest.mark.parametrize("term", ["0802 000 0000", "0000", "ngozi", "Okonkwo ngo", " "])
def test_contacts_are_found_by_number_and_name(superuser, conversation, term):
    Contact.objects.update(name="Ngozi Okonkwo")
    Contact.objects.create(phone_number="+14155552671", name="Bola")
    found = superuser.get(reverse("admin:django_ninebits_contact_changelist"), {"q": term})
    expected = 1 if term.strip() else 2
    assert found.context["cl"].result_count == expected


def test_a_contact_leads_to_its_conversations(superuser, conversation):
    other = received("Hello", to="5502").conversation
    page = superuser.get(page_of(conversation.contact)).text
    assert f'<a href="{page_of(conversation)}">48974</a>' in page
    assert f'<a href="{page_of(other)}">5502</a>' in page


# Who opted out


def the_text(message):
    """The address of the thread that ends with it."""
    return f"{page_of(message.conversation, before=message.pk + 1)}#nb-message-{message.pk}"


def banner(response):
    found = re.search(r'<p class="nb-opted-out">(.*?)</p>', response.text, re.DOTALL)
    return found and " ".join(re.sub("<[^>]*>", "", found[1]).split())


def test_a_thread_says_who_opted_out_since_when_by_which_text_and_the_way_back(viewer, settings):
    settings.NINEBITS = settings.NINEBITS | {"OPT_IN_WORDS": ["start", "Yes"]}
    message = received("STOP")
    received("Hello", to="5502")
    for conversation in Conversation.objects.all():
        page = read(viewer, conversation)
        said = banner(page)
        assert said.startswith("Opted out since ")
        assert said.endswith(
            "by this text. Nothing is sent to them. Only they can change that: by texting"
            " START, YES."
        )
        assert f'<a href="{the_text(message)}">this text</a>' in page.text


def test_the_text_that_opted_out_is_where_the_link_leads(viewer):
    message = received("STOP")
    received("Hello?")
    page = viewer.get(the_text(message))
    assert shown(page) == ["STOP"]
    assert f'id="nb-message-{message.pk}"' in page.text


def test_a_thread_says_who_opted_out_by_no_text(viewer, conversation, settings):
    received("STOP")
    received("START")
    settings.NINEBITS = settings.NINEBITS | {"OPT_OUT_WORDS": [], "OPT_IN_WORDS": []}
    Contact.objects.update(opted_out_at=timezone.now())
    assert re.fullmatch(
        r"Opted out since [^,]+, [^,]+, [^,]+\. Nothing is sent to them\.",
        banner(read(viewer, conversation)),
    )


def test_a_thread_of_who_opted_in_again_says_nothing(agent):
    conversation = received("STOP").conversation
    received("START")
    page = read(agent, conversation)
    assert banner(page) is None
    assert "<textarea" in page.text


def test_the_bubbles_of_the_texts_that_changed_it_are_marked(viewer):
    for text in ("STOP", "STOP", "START", "START", "Hello"):
        last = received(text)
    marks = re.findall(r'<strong class="nb-consent">([^<]*)', read(viewer, last.conversation).text)
    assert marks == ["opted out", "opted in again"]


def test_the_bubble_of_what_was_sent_in_spite_of_it_says_so(viewer):
    conversation = received("STOP").conversation
    assert "in spite of opt-out" not in read(viewer, conversation).text
    services.reply(conversation, "Our terms change.", override_opt_out=True)
    assert "in spite of opt-out" in read(viewer, conversation).text


def test_the_thread_of_who_opted_out_has_no_form_and_says_why(agent, viewer):
    conversation = received("STOP").conversation
    page = read(agent, conversation)
    assert 'name="text"' not in page.text
    assert "No reply can be sent" in page.text
    assert "No reply can be sent" not in read(viewer, conversation).text


def test_an_agent_who_reads_the_thread_of_who_opted_out_marks_it_read(agent):
    conversation = received("STOP").conversation
    read(agent, conversation)
    conversation.refresh_from_db()
    assert conversation.unread_count == 0


def test_a_reply_from_a_page_of_before_they_opted_out_is_refused_and_kept(agent, conversation):
    received("STOP")
    response = reply(agent, conversation, "On its way")
    said = "The subscriber has opted out, and only they can opt in again."
    assert said in response.context["form"].errors["text"]
    assert "On its way</textarea>" in response.text
    assert "No reply can be sent" not in response.text
    assert not outbound().exists()


def test_a_thread_of_who_opted_out_costs_one_query_more(viewer, django_assert_num_queries):
    conversation = received("STOP").conversation
    with CaptureQueriesContext(connection) as opted_out:
        read(viewer, conversation)
    received("START")
    with django_assert_num_queries(len(opted_out) - 1):
        read(viewer, conversation)


def test_those_who_opted_out_can_be_picked(superuser):
    received("STOP")
    received("Hello", from_="2348030000000")
    contacts = reverse("admin:django_ninebits_contact_changelist")
    found = [
        superuser.get(contacts, {"opted_out": chosen}).context["cl"].result_count
        for chosen in ("yes", "nonsense")
    ]
    assert found == [1, 2]


def test_a_contact_shows_the_changes_with_their_texts_to_whoever_sees_it(person):
    messages = [received(text) for text in ("STOP", "START", "stop")]
    page = person("view_contact").get(page_of(Contact.objects.get()))
    rows = re.findall(r'<tr><th scope="row".*?</tr>', page.text, re.DOTALL)
    said = [re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", row)).split() for row in rows]
    assert [row[-1] for row in said] == ["STOP", "START", "stop"]
    assert [" ".join(row[:2]) for row in said] == ["opted out", "opted in", "opted out"]
    assert all(the_text(one) in row for one, row in zip(messages, rows, strict=True))


def test_nobody_edits_the_changes_of_a_contact(superuser):
    received("STOP")
    contact = Contact.objects.get()
    page = superuser.get(page_of(contact)).text
    assert "consent_changes-0-became" not in page
    assert "consent_changes-0-DELETE" not in page
    one = {"became": "opted_in", "DELETE": "on", "id": contact.consent_changes.get().pk}
    given = {f"consent_changes-0-{field}": value for field, value in one.items()}
    counts = {"consent_changes-TOTAL_FORMS": "1", "consent_changes-INITIAL_FORMS": "1"}
    response = superuser.post(page_of(contact), {"name": "Ngozi"} | counts | given)
    assert response.status_code == 302
    assert contact.consent_changes.get().became == "opted_out"
    contact.refresh_from_db()
    assert contact.name == "Ngozi"


def test_editing_a_contact_does_not_undo_that_they_opted_out_meanwhile(superuser, conversation):
    def opt_out(instance, **_):
        Contact.objects.filter(pk=instance.pk).update(opted_out_at=timezone.now())

    pre_save.connect(opt_out, sender=Contact)
    superuser.post(page_of(conversation.contact), {"name": "Ngozi"} | NO_CHANGES)
    pre_save.disconnect(opt_out, sender=Contact)
    contact = Contact.objects.get()
    assert contact.name == "Ngozi"
    assert contact.opted_out_at is not None


# Messages and what was not understood


def test_messages_are_listed_the_newest_first(superuser):
    rows = [received("1"), received("<2>")]
    response = superuser.get(reverse("admin:django_ninebits_message_changelist"))
    assert list(response.context["cl"].result_list) == rows[::-1]
    assert "&lt;2&gt;" in response.text


@pytest.mark.parametrize("term", ["the-session", "the-ref", "0802 123 4567", "4567", ""])
def test_messages_are_found(superuser, term):
    wanted = received("1", session_id="the-session", ref_id="the-ref", from_="2348021234567")
    other = received("2", session_id="the-session-2", ref_id="the-ref-2", from_="2349099999999")
    response = superuser.get(reverse("admin:django_ninebits_message_changelist"), {"q": term})
    expected = [wanted] if term else [other, wanted]
    assert list(response.context["cl"].result_list) == expected


def test_the_list_of_messages_costs_the_same_queries_for_ten_and_more(superuser, conversation):
    address = reverse("admin:django_ninebits_message_changelist")
    superuser.get(address)
    many_messages(conversation, 9)
    with CaptureQueriesContext(connection) as ten:
        superuser.get(address)
    many_messages(conversation, 200)
    with CaptureQueriesContext(connection) as many:
        superuser.get(address)
    assert len(many) == len(ten)


def test_the_page_of_a_message_shows_every_field():
    shown = set(flatten(admin.site.get_model_admin(Message).fields or []))
    fields = {field.name for field in Message._meta.fields} - {"id"}
    translated = {"written", "problem", "delivered"}
    assert fields - {"text", "error", "delivery"} == shown - translated


def test_the_page_of_a_message_shows_its_text_and_the_bytes(superuser):
    message = received("<b>₦</b>\n x")
    page = superuser.get(page_of(message)).text
    assert "&lt;b&gt;₦&lt;/b&gt;\n x</div>" in page
    assert "&quot;session_id&quot;: &quot;67543uhn3&quot;" in page


def test_the_page_of_a_reply_has_no_bytes_to_show(superuser, conversation):
    page = superuser.get(page_of(services.reply(conversation, "On its way"))).text
    assert "On its way" in page
    assert "nb-bytes" not in page


def test_the_page_of_a_message_shows_its_attempts(person, conversation):
    message = services.reply(conversation, "On its way")
    message.tries.create(
        number=1,
        began_at=timezone.now(),
        seconds=0.25,
        outcome="not_accepted",
        http_status=503,
        answer="9bits answered 503: <b>Busy</b>",
    )
    page = person("view_message").get(page_of(message)).text
    assert [word in page for word in ("not accepted", "0.25", "503")] == [True] * 3
    assert "9bits answered 503: &lt;b&gt;Busy&lt;/b&gt;" in page
    assert 'name="tries-0-seconds"' not in page


def test_bytes_that_are_no_text_can_be_read(superuser):
    row = QuarantinedDelivery.objects.create(body=b"\xff\x00<b>\xe2\x80\xaeab\n", errors="No\nNo")
    page = superuser.get(page_of(row)).text
    assert "\\xff\\x00&lt;b&gt;\\u202eab\n</pre>" in page
    listing = superuser.get(reverse("admin:django_ninebits_quarantineddelivery_changelist")).text
    assert "\\xff\\x00&lt;b&gt;" in listing


@pytest.mark.parametrize(("chosen", "count"), [("no", 1), ("yes", 1), ("x", 2), ("", 2)])
def test_what_was_taken_in_can_be_picked(superuser, quarantined, conversation, chosen, count):
    message = conversation.messages.get()
    QuarantinedDelivery.objects.create(body=b"x", errors="x", message=message)
    address = reverse("admin:django_ninebits_quarantineddelivery_changelist")
    response = superuser.get(address, {"taken_in": chosen})
    assert response.context["cl"].result_count == count


# Taking in again


def take_in_again(client, quarantined, **more):
    name = "admin:django_ninebits_quarantineddelivery_take_in_again"
    return client.post(reverse(name, args=[quarantined.pk]), **more)


@pytest.fixture
def curable():
    return QuarantinedDelivery.objects.create(body=body(message="At last"), errors="A bug.")


def test_what_is_understood_now_is_taken_in(person, curable):
    clerk = person("view_quarantineddelivery", "change_quarantineddelivery", "view_conversation")
    response = take_in_again(clerk, curable, follow=True)
    message = Message.objects.get()
    curable.refresh_from_db()
    assert (message.text, curable.message) == ("At last", message)
    assert f'Taken in: <a href="{page_of(message.conversation)}">' in response.text
    assert "Take in again" not in response.text
    assert f'href="{page_of(message)}"' in response.text


def test_what_was_there_already_is_said(superuser, curable):
    first = inbox.take_in(bytes(curable.body)).message
    assert "It was there already:" in take_in_again(superuser, curable, follow=True).text
    curable.refresh_from_db()
    assert (curable.message, Message.objects.count()) == (first, 1)


def test_the_button_is_for_those_who_may_change(person, curable):
    assert "Take in again" not in person("view_quarantineddelivery").get(page_of(curable)).text
    assert "Take in again" in person("change_quarantineddelivery").get(page_of(curable)).text


def test_taking_in_needs_the_change_permission(person, curable):
    assert take_in_again(person("view_quarantineddelivery"), curable).status_code == 403
    assert not Message.objects.exists()


def test_taking_in_needs_a_post(superuser, curable):
    name = "admin:django_ninebits_quarantineddelivery_take_in_again"
    response = superuser.get(reverse(name, args=[curable.pk]))
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert not Message.objects.exists()


def test_what_is_still_not_understood_stays(superuser, quarantined):
    page = take_in_again(superuser, quarantined, follow=True).text
    assert "It is still not understood:" in page
    assert "MTN" in page
    assert "Take in again" in page
    quarantined.refresh_from_db()
    assert (quarantined.message, bytes(quarantined.body)) == (None, NOT_UNDERSTOOD)


def test_taking_in_twice_changes_nothing(superuser, curable):
    take_in_again(superuser, curable)
    assert "taken in already" in take_in_again(superuser, curable, follow=True).text
    assert Message.objects.count() == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (inbox.CannotStoreNow(), "Try again in half a minute."),
        (OperationalError("disk of +2348020000000 full"), "(OperationalError)"),
    ],
)
def test_what_cannot_be_stored_stays(superuser, curable, monkeypatch, caplog, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(inbox, "_store", fail)
    page = take_in_again(superuser, curable, follow=True).text
    assert said in page
    assert "disk of" not in page + caplog.text
    curable.refresh_from_db()
    assert (curable.message, curable.taken_in_at) == (None, None)
