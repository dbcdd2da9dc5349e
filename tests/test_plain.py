import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_ninebits.plain import MARKS, PLAIN, plain
from django_ninebits.segments import GSM, GSM_EXTENSION, segments

GSM_TEXTS = st.text(st.sampled_from(sorted(GSM | GSM_EXTENSION)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("₦500", "N500"),
        ("Ẹ jọ̀ọ́, ẹ̀yin Ṣọlá", "E joo, eyin Sola"),
        ("“now” ‘then’ it’s", "\"now\" 'then' it's"),
        ("1\u20132 \u2014 3\u00a04…", "1-2 - 3 4..."),
        ("Ɓarna ƙasa ɗaya", "Barna kasa daya"),
        ("ç Č", "c C"),
        ("a\u200bb\u00adc\ufeff", "abc"),
        ("a\tb", "a b"),
    ],
)
def test_a_text_becomes_plain(text, expected):
    assert plain(text) == expected
    assert segments(plain(text)).encoding == "GSM-7"


@pytest.mark.parametrize("text", ["🙏", "你好", "й", "ά", "مرحبا", "°"])
def test_what_nothing_stands_for_stays(text):
    assert plain(text) == text


def test_a_mark_that_the_alphabet_has_with_its_letter_stays():
    assert plain("o\u0300 e\u0301 n\u0303 \u2126") == "ò é ñ Ω"


@given(GSM_TEXTS)
def test_a_plain_text_stays_what_it_is(text):
    assert plain(text) == text


@given(st.text())
def test_what_is_plain_becomes_no_plainer(text):
    assert plain(plain(text)) == plain(text)


def test_what_stands_for_a_character_is_of_the_alphabet_and_the_character_is_not():
    alphabet = GSM | GSM_EXTENSION
    assert set("".join(PLAIN.values())) <= alphabet
    assert not alphabet & PLAIN.keys()


def test_every_mark_has_the_category_of_marks():
    first, last = map(ord, MARKS)
    assert {unicodedata.category(chr(code)) for code in range(first, last + 1)} == {"Mn"}
