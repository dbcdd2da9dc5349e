import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ninebits.placeholders import filled, gaps, mistakes

ADA = {"name": "Ada", "number": "+2348020000000", "short_code": "48974", "me": "Bola Ade"}
NOBODY = dict.fromkeys(ADA, "")


def test_placeholders_are_filled_in():
    text = "Hello {name|there}, {number} on {short_code}: {me}"
    assert filled(text, ADA) == "Hello Ada, +2348020000000 on 48974: Bola Ade"


def test_where_nothing_is_known_what_is_behind_the_bar_stands_there():
    assert filled("Hello {name|dear friend}{me|}!", NOBODY) == "Hello dear friend!"


def test_a_gap_stays_where_there_is_nothing():
    text = filled("Hello {name}, {me|us}", NOBODY)
    assert text == "Hello {name}, us"
    assert gaps(text) == ["{name}"]


def test_what_is_filled_in_is_not_filled_in_again():
    assert filled("{name}", ADA | {"name": "{me}"}) == "{me}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{nmae} {name}", ["{nmae}"]),
        ("{Name}", ["{Name}"]),
        ("{ name }", ["{ name }"]),
        ("{}", ["{}"]),
        ("{name", ["{name"]),
        ("{name|{me}}", ["{name|…}"]),
        ("a } b", ["}"]),
        ("{name}{me|x}", []),
        ("no braces | at all", []),
    ],
)
def test_what_looks_like_a_placeholder_and_is_none_is_a_mistake(text, found):
    assert mistakes(text) == found


@given(st.text(st.sampled_from("{}|name me")))
def test_a_text_without_mistakes_or_gaps_is_left_alone(text):
    assert mistakes(text) or gaps(text) or filled(text, ADA) == text
