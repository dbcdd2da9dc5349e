import phonenumbers
import pytest
from django.test import override_settings
from hypothesis import example, given
from hypothesis import strategies as st

from django_ninebits.exceptions import InvalidPhoneNumber
from django_ninebits.models import Contact, SubscriberNumber
from django_ninebits.phone import (
    inbound_number,
    is_possible,
    masked,
    service_number,
    subscriber_number,
)

LAGOS = "+2348020000000"

country_codes = st.sampled_from(sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)).map(str)
digits = st.text("0123456789", max_size=16)
number_like = st.builds(
    "".join,
    st.tuples(st.sampled_from(["", "+", "00", "0"]), country_codes | st.just(""), digits),
)
anything = st.text() | st.text("+0123456789 -().") | number_like


def read(reader, written):
    try:
        return reader(written)
    except InvalidPhoneNumber:
        return None


# A subscriber as people write one


@pytest.mark.parametrize(
    "written",
    [
        "08020000000",
        "8020000000",
        "2348020000000",
        "+2348020000000",
        "002348020000000",
        "0802 000 0000",
        "0802-000-0000",
        "+234 802 000 0000",
        "+234 (0) 802 000 0000",
        "(0802) 000.0000",
        " 802 000 0000\n",
        "0802\u00a0000\u20110000",
        "\u202a+2348020000000\u202c",
    ],
)
def test_every_way_to_write_a_nigerian_number_is_one_number(written):
    assert subscriber_number(written) == LAGOS


def test_international_digits_are_international():
    assert subscriber_number("14155552671") == "+14155552671"


def test_two_zeros_are_a_plus():
    assert subscriber_number("0014155552671") == "+14155552671"


def test_bare_digits_in_use_in_nigeria_win_over_a_merely_possible_country():
    assert subscriber_number("8103456789") == "+2348103456789"


def test_the_same_digits_with_a_plus_are_not_nigerian():
    assert subscriber_number("+8103456789") == "+8103456789"


def test_a_single_zero_is_nigerian_even_before_international_digits():
    assert read(subscriber_number, "014155552671") != "+14155552671"


@pytest.mark.parametrize("new_block", ["09210000000", "+2349210000000"])
def test_a_possible_number_of_an_unknown_block_is_accepted(new_block):
    assert not phonenumbers.is_valid_number(phonenumbers.parse("+2349210000000"))
    assert subscriber_number(new_block) == "+2349210000000"


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "+",
        "0",
        "00",
        "48974",
        "5502",
        "MTN",
        "0802",
        "0802000",
        "802000",
        "0802000000",
        "+1 555 0100",
        "+4915",
        "+999123456789",
        "++2348020000000",
        "+2348020000000;ext=5",
        "+2348020000000 ext 5",
        "0802000000a",
        "\u0660\u0668\u0660\u0662",
        "１４１５５５５２６７１",
        "tel:+2348020000000",
        "0" * 10_000,
        "\ud800",
    ],
)
def test_what_cannot_be_sent_to_is_refused(written):
    with pytest.raises(InvalidPhoneNumber, match="not a phone number that can be sent to"):
        subscriber_number(written)


def test_more_digits_than_an_international_number_has_are_refused():
    assert is_possible(phonenumbers.parse("+23425006610929593"))
    assert read(subscriber_number, "+23425006610929593") is None


@given(anything)
@example("4900060")
def test_reading_a_subscriber_raises_nothing_else_and_settles(written):
    number = read(subscriber_number, written)
    assert number is None or subscriber_number(number) == number


@given(anything)
def test_whoever_can_be_sent_to_is_the_same_person_when_they_text(written):
    number = read(subscriber_number, written)
    assert number is None or inbound_number(number.removeprefix("+")) == number


# A subscriber as 9bits writes one


@pytest.mark.parametrize(
    "written", ["2348020000000", "+2348020000000", "002348020000000", "+234 0802 000 0000"]
)
def test_an_inbound_number_is_international_with_or_without_a_plus(written):
    assert inbound_number(written) == LAGOS


@pytest.mark.parametrize("unlisted", ["+999123456789", "+2349210000000", "+2341234567"])
def test_an_inbound_number_is_not_judged_by_validity(unlisted):
    assert inbound_number(unlisted) == unlisted


@pytest.mark.parametrize(
    "written", ["MTN", "5502", "48974", "", "08020000000", "+0802000000", "1" * 16, "4900060"]
)
def test_what_is_no_international_number_is_none_inbound(written):
    with pytest.raises(InvalidPhoneNumber, match="not an international"):
        inbound_number(written)


def test_an_inbound_number_is_never_taken_for_a_nigerian_one():
    assert inbound_number("8103456789") == "+8103456789"


@given(anything)
@example("4900060")
@example("+0000000")
def test_reading_an_inbound_number_raises_nothing_else_and_settles(written):
    number = read(inbound_number, written)
    assert number is None or inbound_number(number) == number


@given(anything)
def test_a_number_is_found_again_as_it_was_stored(written):
    number = read(inbound_number, written)
    assert number is None or str(SubscriberNumber.read(number)) == number


# Short codes and sender IDs


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("48974", "48974"),
        ("+48974", "48974"),
        (" 48974 ", "48974"),
        ("MyShop", "MyShop"),
        ("My Shop", "My Shop"),
        ("0" * 32, "0" * 32),
        ("7", "7"),
        ("+shop", "+shop"),
    ],
)
def test_a_service_number_is_text_stored_in_one_way(written, stored):
    assert service_number(written) == stored


@pytest.mark.parametrize("written", ["", " ", "0" * 33, "ọjà", "a\nb", "a\0", "\ud800"])
def test_what_cannot_be_a_service_number_is_refused(written):
    with pytest.raises(InvalidPhoneNumber, match="not a short code or sender ID"):
        service_number(written)


@given(anything)
def test_a_service_number_settles(written):
    code = read(service_number, written)
    assert code is None or service_number(code) == code


def test_masking_leaves_four_digits():
    assert masked(LAGOS) == "…0000"


# The settings of the host


@pytest.mark.parametrize(
    "settings",
    [
        {"PHONENUMBER_DEFAULT_REGION": "US"},
        {"PHONENUMBER_DEFAULT_REGION": "NG", "PHONENUMBER_DB_FORMAT": "NATIONAL"},
        {"PHONENUMBER_DB_FORMAT": "RFC3966", "PHONENUMBER_DEFAULT_FORMAT": "NATIONAL"},
        {"PHONENUMBER_DB_FORMAT": "INTERNATIONAL", "PHONENUMBER_DEFAULT_FORMAT": "RFC3966"},
    ],
)
@pytest.mark.django_db
def test_the_phone_settings_of_the_host_never_matter(settings):
    with override_settings(**settings):
        contact = Contact.objects.create(phone_number="0802 000 0000")
        contact.refresh_from_db()
        assert str(contact.phone_number) == f"{contact}" == LAGOS
        assert Contact.objects.get(phone_number="2348020000000") == contact
    assert Contact.objects.extra(where=["phone_number = %s"], params=[LAGOS]).get() == contact
