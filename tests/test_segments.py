import smsutil
from hypothesis import example, given
from hypothesis import strategies as st

from django_ninebits.segments import GSM, GSM_EXTENSION, segments

GSM_TEXTS = st.text(st.sampled_from(sorted(GSM | GSM_EXTENSION)), min_size=1, max_size=700)
# Without ESC, which begins a character of the extension: the other one counts it as one by itself.
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\x1b")
TEXTS = st.text(
    st.one_of(st.sampled_from("ab€₦ẹ😀👩🏽‍🌾’"), ANY),
    min_size=1,
    max_size=400,
)


def lengths(text):
    return [len(part) for part in segments(text).parts]


@given(st.one_of(GSM_TEXTS, TEXTS))
@example("€" * 77)
@example("😀" * 34)
@example("\n")
def test_a_text_is_split_as_an_independent_implementation_splits_it(text):
    theirs = smsutil.split(text)
    ours = segments(text)
    assert list(ours.parts) == [part.content for part in theirs.parts]
    assert ours.encoding == {"gsm0338": "GSM-7", "utf_16_be": "UCS-2"}[theirs.encoding]


@given(TEXTS)
def test_the_parts_are_the_text(text):
    assert "".join(segments(text).parts) == text


def test_an_empty_text_is_one_empty_part():
    assert segments("").parts == ("",)


def test_a_short_text_of_the_gsm_alphabet_is_one_part():
    assert lengths("a" * 160) == [160]
    assert lengths("a" * 161) == [153, 8]


def test_a_character_of_the_extension_takes_two_places_and_stays_whole():
    assert lengths("€" * 80) == [80]
    assert lengths("a" * 152 + "€" * 10) == [152, 10]


def test_any_other_character_makes_the_parts_shorter():
    assert lengths("₦" + "a" * 69) == [70]
    assert lengths("₦" + "a" * 70) == [67, 4]


def test_an_emoji_takes_two_places_and_stays_whole():
    assert lengths("a" * 66 + "😀" * 3) == [66, 3]


def test_what_forces_the_shorter_parts_is_named_once_each():
    assert segments("Ẹ jọ̀ọ́, ₦500 – ₦900 “now”").forcing == "Ẹọ̀́₦–“”"
    assert segments("[plain] €5").forcing == ""
