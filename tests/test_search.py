import uuid

import pytest

from django_ninebits import inbox, search, services
from django_ninebits.models import Contact, Conversation, Message
from django_ninebits.search import find
from tests.deliveries import body

pytestmark = pytest.mark.django_db


def received(text="Hello", from_="2348021234567", **changes):
    given = {"from_": from_, "ref_id": uuid.uuid4().hex, **changes}
    return inbox.take_in(body(message=text, **given)).message


def texts(*said):
    """Each of another subscriber."""
    return [received(text, f"23480200{number:05}") for number, text in enumerate(said)]


def is_found(term, **more):
    """Alone, since another is beside it."""
    wanted = Conversation.objects.get(contact__phone_number="+2348021234567")
    received("Other", "2348099999999")
    return find(term, **more).ids == {wanted.pk}


@pytest.mark.parametrize(
    "term",
    [
        "08021234567",
        "8021234567",
        "2348021234567",
        "+2348021234567",
        "00234 802-123-4567",
        "+234 (0)802 123 4567",
        "0802123",
        "802123",
        "+234802123",
        "00234802123",
        "2348021",
        "4567",
        "34567",
        "1234567",
    ],
)
def test_a_number_is_found_by_its_beginning_or_its_end_in_any_writing(term):
    received()
    assert is_found(term)


@pytest.mark.parametrize(
    "term", ["7654", "67", "x4567", "14567", "0803", "+802", "+", "080212345678"]
)
def test_a_number_is_not_found_by_anything_else(term):
    received()
    assert find(term).ids == set()


@pytest.mark.parametrize("term", ["+999", "999", "+9991234567", "4567"])
def test_a_number_that_begins_with_nothing_but_nines_is_found(term):
    received(from_="9991234567")
    received("Other", "2348099990000")
    assert Contact.objects.get(pk__in=contacts(find(term))).phone_number == "+9991234567"


def contacts(found):
    return Conversation.objects.filter(pk__in=found.ids).values_list("contact")


def test_a_beginning_ends_where_the_next_number_begins():
    received(from_="2348029999999")
    received(from_="2348030000000")
    assert len(find("0802").ids) == 1


@pytest.mark.parametrize("term", ["Ngozi", "ngozi okon", "okonkwo", "Okonkwo Ngozi", "GOZ"])
def test_a_name_is_found_among_those_who_spoke_last_by_any_part_of_it(term):
    received()
    Contact.objects.update(name="Ngozi Okonkwo")
    assert is_found(term)


@pytest.mark.parametrize(("term", "count"), [("Ngozi", 1), ("ngozi ok", 1), ("Okonkwo", 0)])
def test_a_name_is_found_by_its_beginning_however_long_ago_it_spoke(term, count, monkeypatch):
    monkeypatch.setattr(search, "RECENT", 1)
    received()
    Contact.objects.update(name="Ngozi Okonkwo")
    texts("1", "2")
    assert len(find(term).ids) == count


@pytest.mark.parametrize("term", ["%", "_", "Ngozi Bola"])
def test_a_name_is_not_found_by_anything_else(term):
    received()
    Contact.objects.update(name="Ngozi Okonkwo")
    assert find(term).ids == set()


def test_a_session_and_a_reference_are_found_by_the_whole_of_them():
    received(session_id="5es5ion", ref_id="re7erence")
    assert is_found("5es5ion")
    assert is_found("re7erence")
    assert find("5es5").ids == find("re7e").ids == set()


def test_the_reference_of_a_reply_is_found():
    services.send_sms("08021234567", "Hello", ref_id="my-key")
    assert is_found("my-key")


@pytest.mark.parametrize("term", ["cinema", "TIME YOU WENT", "went cinema", "₦500", "?"])
def test_a_text_is_found_by_its_words_in_any_order(term):
    received("When was the last time you went to the cinema? ₦500")
    assert is_found(term)


def test_of_several_texts_the_newest_that_fits_is_given():
    for text in ("an order", "my order", "Thanks"):
        conversation = received(text).conversation
    assert find("order").texts == {conversation.pk: "my order"}


def test_bulk_is_found_among_the_texts():
    services.send_many([{"to": "08020000009", "text": "An offer"}])
    assert find("offer").ids == {Conversation.objects.get().pk}


# How far it looks


def test_all_texts_are_looked_through_where_they_are_few():
    first, *_others = texts("one", "two", "three")
    found = find("nothing")
    assert (found.back_to, found.further) == (first.created_at, None)


def test_where_there_is_no_text_it_looks_back_to_nothing():
    found = find("nothing")
    assert (found.ids, found.back_to, found.further) == (set(), None, None)


def test_it_looks_through_so_many_texts_and_says_where_it_ended(monkeypatch):
    monkeypatch.setattr(search, "TEXTS", 2)
    old, second, third = texts("an order", "an order", "an order")
    found = find("order")
    assert found.ids == {second.conversation_id, third.conversation_id}
    assert (found.back_to, found.further) == (second.created_at, second.pk)
    further = find("order", found.further)
    assert (further.ids, further.back_to, further.further) == (
        {old.conversation_id},
        old.created_at,
        None,
    )


def test_it_ends_where_enough_was_found_and_goes_on_there(monkeypatch):
    monkeypatch.setattr(search, "MOST", 2)
    said = texts("order 1", "order 2", "order 3", "order 4", "order 5")
    found = find("order")
    assert found.ids == {message.conversation_id for message in said[3:]}
    second = find("order", found.further)
    assert second.ids == {message.conversation_id for message in said[1:3]}
    last = find("order", second.further)
    assert (last.ids, last.further) == ({said[0].conversation_id}, None)


def test_a_search_that_goes_on_looks_only_through_texts():
    message = received("Hello", session_id="5es5ion")
    assert find("5es5ion", message.pk + 1).ids == find("4567", message.pk + 1).ids == set()


def test_a_search_that_goes_on_from_nowhere_finds_nothing():
    received("Hello")
    assert find("Hello", 0).ids == set()
    assert find("Hello", 10**30).texts.keys() == find("Hello").ids


def test_more_than_can_be_listed_is_cut(monkeypatch):
    monkeypatch.setattr(search, "MOST", 2)
    texts("1", "2", "3")
    found = find("0802000")
    assert (len(found.ids), found.is_cut) == (2, True)
    assert not find("080200000001").is_cut


# What it costs


def test_the_words_are_looked_for_among_the_newest_ids_only(django_assert_num_queries, monkeypatch):
    monkeypatch.setattr(search, "TEXTS", 3)
    texts(*"abcdef")
    with django_assert_num_queries(10) as captured:
        find("nothing at all")
    newest = Message.objects.latest("id").pk
    in_window = [query["sql"] for query in captured if f">= {newest - 2}" in query["sql"]]
    assert [sql for sql in in_window if "all%" in sql.lower()]
