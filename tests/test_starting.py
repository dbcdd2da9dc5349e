"""A new conversation, begun in the inbox: its number, its short code, and its first text."""

import re
import threading
import uuid
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_ninebits import inbox, services, starting
from django_ninebits.admin import ConversationAdmin
from django_ninebits.models import CannedReply, Contact, Conversation, Message
from tests.deliveries import body
from tests.staff import client_of, user

pytestmark = pytest.mark.django_db

LIST = "/admin/django_ninebits/conversation/"
ADD = f"{LIST}add/"
NUMBER = "+2348020000001"


@pytest.fixture(autouse=True)
def deferred(settings):
    """Where nothing leaves before a worker comes."""
    deferring = {"DISPATCHER": "django_ninebits.dispatch.defer"}
    settings.NINEBITS = settings.NINEBITS | deferring


@pytest.fixture
def given(settings):
    """Change the settings of the app."""

    def change(**changes):
        settings.NINEBITS = settings.NINEBITS | changes

    return change


@pytest.fixture
def agent():
    """Somebody with what it takes, and no more."""
    return client_of(user("view_conversation", "reply_conversation"))


@pytest.fixture
def ada(admin_client):
    """Somebody who may do everything."""
    return admin_client


def ask(client, **query):
    return client.get(ADD, query)


def begun(client, to=NUMBER, **query):
    """The page that asks for the text."""
    response = client.get(ADD, {"to": to, **query}, follow=True)
    assert "form_address" in response.context
    return response


def send(client, page, text="Your parcel is here", **changes):
    """What the form of that page sends."""
    form = page.context["form"]
    given = {"text": text, "ref_id": str(form["ref_id"].value()), "seen": "", **changes}
    return client.post(page.context["form_address"], given, follow=True)


def problems(response, field="__all__"):
    return response.context["form"].errors[field]


def said(response):
    return [str(message) for message in response.context["messages"]]


def written(response):
    return response.context["form"]["text"].value()


def texts():
    return list(Message.objects.filter(direction="outbound").values_list("text", flat=True))


def stored():
    return Contact.objects.count(), Conversation.objects.count(), Message.objects.count()


def received(text="Hello?", **changes):
    changes = {"from_": NUMBER, "ref_id": uuid.uuid4().hex} | changes
    return inbox.take_in(body(message=text, **changes)).message


def thread_of(conversation):
    return reverse("admin:django_ninebits_conversation_change", args=[conversation.pk])


# Who may


@pytest.mark.parametrize("may", ["view_conversation", "change_conversation"])
def test_whoever_may_reply_is_offered_a_new_conversation(may):
    agent = client_of(user(may, "reply_conversation"))
    assert f'href="{ADD}" class="addlink">New conversation</a>' in agent.get(LIST).text
    assert ask(agent).status_code == 200


@pytest.mark.parametrize("may", [["view_conversation"], ["view_conversation", "add_conversation"]])
def test_nobody_else_who_sees_the_inbox_is(may):
    viewer = client_of(user(*may))
    assert ADD not in viewer.get(LIST).text
    assert ask(viewer, to=NUMBER).status_code == 403


@pytest.mark.parametrize("method", ["get", "post"])
def test_whoever_may_only_reply_begins_nothing(method):
    client = client_of(user("reply_conversation"))
    given = {"text": "Hello", "ref_id": str(uuid.uuid4())}
    assert getattr(client, method)(f"{ADD}?to=0802", given).status_code == 403
    assert stored() == (0, 0, 0)


def test_whoever_has_lost_the_right_meanwhile_sends_nothing(agent):
    page = begun(agent)
    User.objects.get().user_permissions.clear()
    assert send(agent, page).status_code == 403
    assert stored() == (0, 0, 0)


def test_the_list_is_gone_back_to_as_it_was(agent):
    filters = {"_changelist_filters": "folder=waiting"}
    page = ask(agent, **filters)
    assert f'href="{LIST}?folder=waiting"' in page.text
    assert '<input type="hidden" name="_changelist_filters" value="folder=waiting">' in page.text
    page = begun(agent, **filters)
    assert f'href="{LIST}?folder=waiting"' in page.text
    assert f'href="{LIST}?folder=waiting"' in send(agent, page).text


# The number


@pytest.mark.parametrize(
    "to",
    ["0802 000 0001", "802-000-0001", "2348020000001", "+234 (802) 000 0001", "00234 802 000 0001"],
)
def test_a_number_is_taken_in_any_way_of_writing_it(agent, to):
    send(agent, begun(agent, to))
    assert Contact.objects.get().phone_number == NUMBER


@pytest.mark.parametrize("to", ["MTN", "5502", "+234 802", "0802000000a", "<b>", "1" * 40])
def test_what_is_no_number_is_kept_and_said_what_to_do(agent, to):
    page = ask(agent, to=to)
    (problem,) = page.context["form"].errors["to"]
    assert problem == (
        f"{to!r} is not a phone number that can be sent to."
        " Write it as 0802 000 0000 or +234 802 000 0000."
    )
    assert page.context["form"]["to"].value() == to
    assert "<b>" not in page.context["form"]["to"].as_widget()


@pytest.mark.parametrize("to", ["", " "])
def test_nothing_is_no_number(agent, to):
    assert ask(agent, to=to).context["form"].errors["to"] == ["Write a number first."]


def test_the_page_begins_without_complaints(agent):
    form = ask(agent).context["form"]
    assert not form.is_bound
    assert "autofocus" in form["to"].as_widget()


@pytest.mark.parametrize("query", [{}, {"to": ""}])
def test_the_number_is_described_to_a_screen_reader(agent, query):
    page = ask(agent, **query)
    described = re.search(r'aria-describedby="([^"]+)"', page.context["form"]["to"].as_widget())
    assert described
    assert all(f'id="{one}"' in page.text for one in described[1].split())


def test_it_is_shown_as_it_is_read(agent):
    assert '<span class="nb-number" dir="ltr">+234 802 000 0001</span>' in begun(agent).text


def test_a_number_of_no_known_network_is_doubted_and_can_be_sent_to(agent):
    page = begun(agent, "+2342000000000")
    assert "No network is known" in page.text
    send(agent, page)
    assert texts() == ["Your parcel is here"]


def test_a_number_that_is_in_use_is_not_doubted(agent):
    assert "No network is known" not in begun(agent).text


def test_a_number_can_be_changed(agent):
    change = begun(agent).context["change"]
    form = agent.get(change).context["form"]
    assert (form["to"].value(), form["from"].value()) == (NUMBER, "48974")
    assert not form.is_bound


# The short code


def test_the_only_short_code_is_not_asked_for(agent):
    page = ask(agent)
    assert "on 48974" in page.text
    assert "<select" not in page.text
    send(agent, begun(agent))
    assert Conversation.objects.get().short_code == "48974"


def test_of_several_short_codes_one_is_chosen_the_default_first(agent, given):
    given(SHORT_CODES=["48975", "MyShop"])
    choices = ask(agent).context["form"].fields["from"].choices
    assert [code for code, _label in choices] == ["48974", "48975", "MyShop"]
    send(agent, begun(agent, **{"from": "MyShop"}))
    assert Conversation.objects.get().short_code == "MyShop"


def test_of_several_short_codes_none_is_taken_unasked(agent, given):
    given(SHORT_CODES=["48975"])
    form = ask(agent, to="0802 000 0001").context["form"]
    assert (form.is_bound, form["to"].value()) == (False, "0802 000 0001")
    assert "This field is required." in ask(agent, to=NUMBER, **{"from": ""}).text


@pytest.mark.parametrize("codes", [[], ["48975"]])
def test_another_short_code_is_refused(agent, given, codes):
    given(SHORT_CODES=codes)
    page = ask(agent, to=NUMBER, **{"from": "666"})
    assert "No conversation can be started from 666: choose another short code." in page.text


def test_short_codes_without_a_default_can_be_started_from(agent, given):
    given(SHORT_CODE=None, SHORT_CODES=["48975"])
    send(agent, begun(agent))
    assert Conversation.objects.get().short_code == "48975"


def test_without_a_short_code_the_page_says_what_to_set(agent, given):
    given(SHORT_CODE="")
    page = ask(agent, to=NUMBER)
    assert "sets SHORT_CODE, or SHORT_CODES, in NINEBITS." in page.text
    assert page.context["form"] is None


@pytest.mark.parametrize("key", ["SHORT_CODE", "SHORT_CODES"])
def test_a_malformed_short_code_is_named(agent, given, key):
    given(**{key: 48974})
    page = ask(agent, to=NUMBER)
    assert "the settings of this site are wrong: NINEBITS[&quot;SHORT_CODE" in page.text


def test_a_short_code_that_goes_while_one_writes_loses_no_text(agent, given):
    given(SHORT_CODES=["48975"])
    page = begun(agent, **{"from": "48975"})
    given(SHORT_CODES=[])
    response = send(agent, page, "\r\nOn its <way>")
    assert "No conversation can be started from 48975" in response.text
    assert 'readonly dir="auto">\n\nOn its &lt;way&gt;</textarea>' in response.text
    assert stored() == (0, 0, 0)


def test_a_host_says_which_short_codes_somebody_may_start_from(agent, monkeypatch):
    monkeypatch.setattr(ConversationAdmin, "get_short_codes", lambda self, request: ["MyShop"])
    send(agent, begun(agent))
    assert Conversation.objects.get().short_code == "MyShop"


# Whoever has talked before


@pytest.mark.parametrize("to", [NUMBER, "0802 000 0001"])
def test_whoever_has_talked_before_is_led_to_the_thread(agent, to):
    conversation = received().conversation
    response = agent.get(ADD, {"to": to}, follow=True)
    assert response.request["PATH_INFO"] == thread_of(conversation)
    assert said(response) == ["You have talked before: this is the conversation. Nothing was sent."]
    assert texts() == []


def test_a_sender_id_that_differs_in_case_only_is_the_same(agent, given):
    given(SHORT_CODE="MyShop")
    conversation = received(to="MYSHOP").conversation
    response = agent.get(ADD, {"to": NUMBER}, follow=True)
    assert response.request["PATH_INFO"] == thread_of(conversation)


def test_on_another_short_code_it_is_a_new_one(agent, given):
    given(SHORT_CODES=["48975"])
    received()
    send(agent, begun(agent, **{"from": "48975"}))
    assert sorted(Conversation.objects.values_list("short_code", flat=True)) == ["48974", "48975"]


@pytest.fixture(params=["get_queryset", "has_view_permission"])
def narrowed(request, monkeypatch):
    """Where staff see no conversation, in either of the ways in which hosts say so."""
    narrow = {
        "get_queryset": lambda self, request: Conversation.objects.none(),
        "has_view_permission": lambda self, request, obj=None: obj is None,
    }
    monkeypatch.setattr(ConversationAdmin, request.param, narrow[request.param])


def test_a_conversation_that_somebody_may_not_see_is_only_said_to_be_there(agent, narrowed):
    received("Secret")
    page = ask(agent, to=NUMBER)
    assert "you may not see it" in page.context["form"].errors["to"][0]
    assert "Secret" not in page.text


def test_one_that_begins_meanwhile_is_not_shown_either(agent, narrowed):
    page = begun(agent)
    received("Secret")
    response = send(agent, page)
    assert "you may not see it" in response.context["form"].errors["to"][0]
    assert "Your parcel is here</textarea>" in response.text
    assert "Secret" not in response.text
    assert texts() == []


# The page that asks for the text


def test_nothing_is_stored_before_it_is_sent(agent):
    page = begun(agent)
    send(agent, page, count="1")
    send(agent, page, "")
    assert stored() == (0, 0, 0)


def test_its_address_has_the_key_of_the_form(agent):
    page = begun(agent)
    key = page.context["form"]["ref_id"].value()
    query = urlencode({"to": NUMBER, "from": "48974", "compose": key})
    assert page.context["form_address"] == f"{ADD}?{query}"
    assert agent.get(f"{ADD}?{query}").context["form"]["ref_id"].value() == key


def test_a_known_contact_is_shown_by_name(agent):
    Contact.objects.create(phone_number=NUMBER, name="Amaka <3")
    assert '<bdi class="nb-name">Amaka &lt;3</bdi>' in begun(agent).text


def test_a_known_contact_is_led_to_by_whoever_may_see_it(agent, ada):
    contact = Contact.objects.create(phone_number=NUMBER)
    address = reverse("admin:django_ninebits_contact_change", args=[contact.pk])
    assert address in begun(ada).text
    assert address not in begun(agent).text


def test_somebody_who_opted_out_is_sent_nothing(agent, given):
    given(SHORT_CODES=["MyShop"])
    received("STOP")
    page = begun(agent, **{"from": "MyShop"})
    assert page.context["form"] is None
    assert "<strong>Opted out</strong> since" in page.text
    assert "<textarea" not in page.text


def test_somebody_who_opts_out_while_one_writes_is_sent_nothing(agent):
    contact = Contact.objects.create(phone_number=NUMBER)
    page = begun(agent)
    Contact.objects.filter(pk=contact.pk).update(opted_out_at=timezone.now())
    response = send(agent, page)
    assert problems(response, "text") == [
        "The subscriber has opted out, and only they can opt in again."
    ]
    assert written(response) == "Your parcel is here"
    assert "<strong>Opted out</strong> since" in response.text
    assert stored() == (1, 0, 0)


def test_whoever_only_asks_then_keeps_the_text(agent):
    contact = Contact.objects.create(phone_number=NUMBER)
    page = begun(agent)
    Contact.objects.filter(pk=contact.pk).update(opted_out_at=timezone.now())
    assert written(send(agent, page, count="1")) == "Your parcel is here"


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"text": " "}, "text", "Write a text first."),
        ({"text": "a" * 1531}, "text", "Not sent: the text takes 11 segments, and at most 10"),
        ({"text": "Hi {name}"}, "text", "Not sent: write what belongs in the place of {name}."),
        ({"send_at": "2000-01-01T00:00"}, "send_at", "Not sent: that time is past."),
        ({"ref_id": "x"}, "__all__", "Not sent: the form was incomplete"),
    ],
)
def test_what_cannot_be_sent_is_kept(agent, changes, field, problem):
    response = send(agent, begun(agent), **changes)
    assert problems(response, field)[0].startswith(problem)
    assert written(response) == changes.get("text", "Your parcel is here")
    assert stored() == (0, 0, 0)


@pytest.mark.parametrize(
    ("button", "text"), [("count", "₦500"), ("plain", "N500"), ("insert", "₦500 For Amaka, 48974")]
)
def test_the_buttons_of_the_composer_work_here_too(ada, button, text):
    canned = CannedReply.objects.create(title="For", text="For {name}, {short_code}")
    more = {button: "1", "canned": str(canned.pk), "contact_name": "Amaka"}
    response = send(ada, begun(ada), "₦500", **more)
    form = response.context["form"]
    assert (written(response), form["contact_name"].value()) == (text, "Amaka")
    assert stored() == (0, 0, 0)


# The name


def test_a_name_is_kept_with_the_first_message(ada):
    page = begun(ada)
    assert "Their name, if you know it" in page.text
    send(ada, page, contact_name=" Amaka ")
    contact = Contact.objects.get()
    assert contact.name == "Amaka"
    entry = LogEntry.objects.get(content_type__model="contact")
    assert (entry.object_repr, entry.get_change_message()) == ("Amaka", "Changed name.")


def test_a_name_is_not_needed(ada):
    send(ada, begun(ada))
    assert Contact.objects.get().name == ""
    assert not LogEntry.objects.filter(content_type__model="contact").exists()


def test_a_known_name_is_not_asked_for_and_not_changed(ada):
    Contact.objects.create(phone_number=NUMBER, name="Amaka")
    page = begun(ada)
    assert "Their name" not in page.text
    send(ada, page, contact_name="Emeka")
    assert Contact.objects.get().name == "Amaka"


def test_a_contact_without_a_name_gets_one(ada):
    Contact.objects.create(phone_number=NUMBER)
    send(ada, begun(ada), contact_name="Amaka")
    assert Contact.objects.get().name == "Amaka"


@pytest.mark.parametrize(("is_known", "may"), [(False, "change_contact"), (True, "add_contact")])
def test_whoever_may_not_write_contacts_is_not_asked(is_known, may):
    if is_known:
        Contact.objects.create(phone_number=NUMBER)
    agent = client_of(user("view_conversation", "reply_conversation", may))
    page = begun(agent)
    assert "Their name" not in page.text
    send(agent, page, contact_name="Amaka")
    assert Contact.objects.get().name == ""


def test_a_name_that_a_colleague_gave_meanwhile_stays(ada, monkeypatch):
    contact = Contact.objects.create(phone_number=NUMBER)
    before = starting.begin

    def begin(*args):
        Contact.objects.filter(pk=contact.pk).update(name="Ngozi")
        return before(*args)

    page = begun(ada)
    monkeypatch.setattr(starting, "begin", begin)
    send(ada, page, contact_name="Amaka")
    assert Contact.objects.get().name == "Ngozi"
    assert not LogEntry.objects.filter(content_type__model="contact").exists()


@pytest.mark.parametrize(("is_known", "may"), [(False, "add_contact"), (True, "change_contact")])
def test_whoever_may_write_contacts_is_asked(is_known, may):
    if is_known:
        Contact.objects.create(phone_number=NUMBER)
    agent = client_of(user("view_conversation", "reply_conversation", may))
    send(agent, begun(agent), contact_name="Amaka")
    assert Contact.objects.get().name == "Amaka"


def test_a_name_that_is_too_long_sends_nothing(ada):
    response = send(ada, begun(ada), contact_name="a" * 201)
    assert "at most 200 characters" in problems(response, "contact_name")[0]
    assert problems(response, "contact_name")[0] in response.text
    assert stored() == (0, 0, 0)


# Sent


def test_it_is_sent_and_its_thread_is_shown(agent):
    response = send(agent, begun(agent))
    message = Message.objects.get()
    assert response.request["PATH_INFO"] == thread_of(message.conversation)
    assert said(response) == ["Your message: queued."]
    assert (message.text, message.author_name) == ("Your parcel is here", "Ada")
    assert message.conversation.contact.phone_number == NUMBER
    assert message.conversation.assignee is None


def test_it_is_listed(agent):
    send(agent, begun(agent))
    assert "Your parcel is here" in agent.get(LIST).text


def test_the_history_says_who_began_it(agent):
    send(agent, begun(agent))
    entry = LogEntry.objects.get(content_type__model="conversation")
    assert (entry.user.first_name, entry.get_change_message()) == ("Ada", "Added.")
    assert entry.object_id == str(Conversation.objects.get().pk)


@pytest.mark.django_db(transaction=True)
def test_what_became_of_it_is_said(provider, agent, given):
    given(DISPATCHER="django_ninebits.dispatch.inline")
    response = send(agent, begun(agent))
    assert said(response) == ["Your message: accepted by 9bits."]
    (call,) = provider.calls
    assert call.body["ref_id"] == Message.objects.get().ref_id


def test_it_can_be_sent_later(agent):
    tomorrow = timezone.localtime() + timedelta(days=1)
    send(agent, begun(agent), send_at=f"{tomorrow:%Y-%m-%dT%H:%M}")
    assert Message.objects.get().send_at == tomorrow.replace(second=0, microsecond=0)


def test_the_same_form_again_sends_nothing_more(agent):
    page = begun(agent)
    send(agent, page)
    response = send(agent, page)
    assert said(response) == [
        "This message was taken before and is not sent a second time. Its status: queued."
    ]
    assert texts() == ["Your parcel is here"]
    assert LogEntry.objects.count() == 1


def test_another_text_from_the_same_form_is_looked_at_and_sent_once(agent):
    page = begun(agent)
    send(agent, page)
    for _again in range(2):
        looked = send(agent, page, "It is lost")
        assert problems(looked)[0].startswith("Not sent: another message was sent from this page")
        assert "Your parcel is here" in looked.text
        send(agent, looked, "It is lost", seen=looked.context["form"]["seen"].value())
    assert texts() == ["Your parcel is here", "It is lost"]


def test_a_key_of_another_conversation_sends_nothing(agent):
    page = begun(agent)
    services.send_sms("+2348020000009", "Hello", ref_id=str(page.context["form"]["ref_id"].value()))
    response = send(agent, page)
    assert problems(response)[0].startswith("Not sent: another message was sent from this page")
    assert "Hello" not in response.text
    assert stored() == (1, 1, 1)
    send(agent, response)
    assert texts() == ["Hello", "Your parcel is here"]


def test_wrong_settings_send_nothing_and_keep_the_text(agent, given):
    page = begun(agent)
    given(GIVE_UP_AFTER=24)
    response = send(agent, page)
    assert "the settings of this site are wrong" in problems(response)[0]
    assert written(response) == "Your parcel is here"
    assert stored() == (0, 0, 0)


# Somebody was quicker


def test_whoever_was_texted_meanwhile_looks_first(agent):
    page = begun(agent)
    conversation = received("Where is it?").conversation
    response = send(agent, page)
    assert problems(response) == [
        "Not sent: a conversation with this number has begun meanwhile. Look first, and press Send"
        " if your message is still needed."
    ]
    assert "Where is it?" in response.text
    assert written(response) == "Your parcel is here"
    for name in ("form_address", "note_address"):
        assert response.context[name].startswith(f"{thread_of(conversation)}?compose=")
    assert texts() == []


def test_whoever_has_looked_sends_it_in_the_thread(agent):
    page = begun(agent)
    received("Where is it?")
    looked = send(agent, page)
    send(agent, looked, seen=looked.context["form"]["seen"].value())
    assert texts() == ["Your parcel is here"]


def test_whoever_goes_back_after_that_sends_nothing_more(agent):
    page = begun(agent)
    received("Where is it?")
    looked = send(agent, page)
    send(agent, looked, seen=looked.context["form"]["seen"].value())
    assert "is not sent a second time" in said(send(agent, page))[0]
    assert texts() == ["Your parcel is here"]


def test_what_a_colleague_began_meanwhile_is_looked_at(agent, ada):
    page = begun(agent)
    send(ada, begun(ada), "We have your parcel")
    looked = send(agent, page)
    assert "We have your parcel" in looked.text
    assert texts() == ["We have your parcel"]


def test_what_comes_after_one_has_looked_is_looked_at_too(agent, ada):
    page = begun(agent)
    conversation = received().conversation
    looked = send(agent, page)
    services.reply(conversation, "We are closed.")
    again = send(agent, looked, seen=looked.context["form"]["seen"].value())
    assert problems(again)[0].startswith("Not sent: an automatic message left")
    assert texts() == ["We are closed."]


def test_a_text_with_the_key_of_the_form_is_looked_at_too(agent):
    page = begun(agent)
    received(ref_id=str(page.context["form"]["ref_id"].value()))
    assert "Look first" in problems(send(agent, page))[0]
    assert texts() == []


def test_so_is_one_to_a_sender_id_that_differs_in_case_only(agent, given):
    given(SHORT_CODE="MyShop")
    page = begun(agent)
    received(to="MYSHOP")
    assert "Look first" in problems(send(agent, page))[0]
    assert Conversation.objects.count() == 1


def test_a_button_that_only_asks_does_so_whoever_was_quicker(agent):
    page = begun(agent)
    received()
    counted = send(agent, page, count="1")
    assert counted.context["form"].errors == {}
    assert counted.context["form_address"] == page.context["form_address"]


def test_a_conversation_without_messages_is_looked_at_as_well(agent):
    page = begun(agent)
    Conversation.objects.between(NUMBER, "48974")
    looked = send(agent, page)
    send(agent, looked, seen=looked.context["form"]["seen"].value())
    assert texts() == ["Your parcel is here"]


def test_the_first_statement_is_a_write(agent):
    """Or else SQLite turns away whoever began a moment before somebody else has written."""
    page = begun(agent)
    with CaptureQueriesContext(connection) as captured:
        send(agent, page)
    statements = [query["sql"] for query in captured]
    begins = next(place for place, sql in enumerate(statements) if sql.startswith("SAVEPOINT"))
    assert statements[begins + 1].startswith("UPDATE")


def at_once(*calls):
    """Each in a thread of its own, all at the same instant."""
    start = threading.Barrier(len(calls))

    def run(call):
        start.wait()
        call()
        connection.close()

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_known", [True, False])
def test_of_several_who_begin_at_the_same_instant_one_sends(is_known):
    if is_known:
        Contact.objects.create(phone_number=NUMBER)
    agents = [client_of(user("view_conversation", "reply_conversation")) for _one in range(4)]
    pages = [begun(agent) for agent in agents]
    answers = []

    def press(agent, page):
        answers.append(send(agent, page, uuid.uuid4().hex).text)

    pairs = zip(agents, pages, strict=True)
    at_once(*(lambda pair=pair: press(*pair) for pair in pairs))
    assert stored() == (1, 1, 1)
    # Each of the others sees what the first has sent, and has their own text in the form.
    looked = [answer for answer in answers if "Look first" in answer]
    assert len(looked) == 3
    assert all(texts()[0] in answer for answer in answers)


@pytest.mark.django_db(transaction=True)
def test_a_form_that_is_sent_twice_at_the_same_instant_is_sent_once(agent):
    page = begun(agent)
    key = agent.cookies["sessionid"].value
    clients = [Client() for _one in range(3)]
    for client in clients:
        client.cookies["sessionid"] = key
    at_once(*(lambda client=client: send(client, page) for client in clients))
    assert texts() == ["Your parcel is here"]


@pytest.mark.django_db(transaction=True)
def test_a_text_that_arrives_at_the_same_instant_is_in_the_same_conversation(agent):
    page = begun(agent)
    at_once(received, lambda: send(agent, page))
    assert Conversation.objects.count() == 1
    assert Message.objects.filter(direction="inbound").count() == 1


# Whoever has been logged out


def test_a_text_whose_author_is_logged_out_is_shown_again(client, agent):
    address = begun(agent).context["form_address"]
    response = client.post(address, {"text": "On its <way>", "keep": "1"})
    assert response.status_code == 403
    assert "On its &lt;way&gt;</textarea>" in response.text
    assert f"/admin/login/?{urlencode({'next': address})}" in response.text
    assert stored() == (0, 0, 0)


@pytest.mark.parametrize("method", ["get", "post"])
def test_whoever_keeps_a_draft_is_led_to_the_login_and_back(client, method):
    address = f"{ADD}?{urlencode({'to': NUMBER})}"
    response = getattr(client, method)(address)
    assert response["Location"] == f"/admin/login/?{urlencode({'next': address}, safe='/')}"


def test_a_draft_of_a_new_conversation_is_one_of_its_thread(agent):
    page = begun(agent)
    draft = f'data-draft="{User.objects.get().pk}:{NUMBER}:48974"'
    assert draft in page.text
    assert draft in send(agent, page).text


# From the page of the contact


def contact_page(client, contact):
    return client.get(reverse("admin:django_ninebits_contact_change", args=[contact.pk])).text


LINK = f'<a href="{ADD}?to=%2B2348020000001" class="addlink">New conversation</a>'


def test_the_page_of_a_contact_leads_to_a_new_conversation():
    contact = Contact.objects.create(phone_number=NUMBER)
    agent = client_of(user("view_contact", "view_conversation", "reply_conversation"))
    assert LINK in contact_page(agent, contact)


@pytest.mark.parametrize("may", ["view_conversation", "reply_conversation"])
def test_for_whoever_may_begin_none_it_does_not(may):
    contact = Contact.objects.create(phone_number=NUMBER)
    page = contact_page(client_of(user("view_contact", may)), contact)
    assert "New conversation" not in page
    assert "History" in page


def test_a_contact_that_is_added_has_none_yet(ada):
    assert "New conversation" not in ada.get("/admin/django_ninebits/contact/add/").text


def test_where_conversations_are_not_in_the_admin_there_is_no_way_to_one(ada, monkeypatch):
    contact = Contact.objects.create(phone_number=NUMBER)
    monkeypatch.setattr(admin.site, "is_registered", lambda model: False)
    assert "New conversation" not in contact_page(ada, contact)


# From a search


def test_a_number_that_nobody_is_found_by_can_be_started_with(agent):
    page = agent.get(LIST, {"q": "0802 000 0001"})
    assert f'<a href="{ADD}?to=%2B2348020000001">New conversation with' in page.text


@pytest.mark.parametrize("term", ["0001", "Amaka"])
def test_what_is_no_number_cannot(agent, term):
    assert "New conversation with" not in agent.get(LIST, {"q": term}).text


def test_whoever_may_begin_none_is_not_offered_one():
    viewer = client_of(user("view_conversation"))
    assert "New conversation" not in viewer.get(LIST, {"q": "0802 000 0001"}).text
