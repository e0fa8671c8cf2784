import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_crash.schema.wording import clean_text, is_unknown, nearest, normal_form, tokens, words


@given(st.text(alphabet=st.sampled_from("a*_ \n\t\u2028\x1c\x85b"), max_size=12) | st.text())
def test_cleaning_twice_changes_nothing_and_leaves_one_line(text):
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert len(cleaned.splitlines()) <= 1
    assert cleaned == cleaned.strip()


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("**a**", "a"),
        ("**a** b **c**", "**a** b **c**"),
        ("****", "****"),
        ("** a **", "a"),
        ("a**", "a**"),
        ("*a*", "*a*"),
    ],
)
def test_bold_is_taken_off_only_around_the_whole(raw, cleaned):
    assert clean_text(raw) == cleaned


def test_forms():
    assert normal_form("Rear-End_x  y") == "rear end x y"
    assert words("Don\u2019t un-signalize a/b, the C.") == ("dont", "un", "signalize", "or", "b", "c")
    assert tokens("wet - dry, 2.5 (x)") == ["wet", "\x00", "dry", "\x01", "2", "5", "\x00", "x", "\x00"]


@pytest.mark.parametrize(
    "text", ["", "NaN", "none", "NULL", "Unknown", "unknown.", "N/A", "Not  visible", "cannot be determined"]
)
def test_unknown_words(text):
    assert is_unknown(text)


@pytest.mark.parametrize("text", ["unknown driver", "no", "unclear", "nano", "Nobody"])
def test_words_that_are_not_unknown(text):
    assert not is_unknown(text)


def test_nearest_lists_all_where_none_is_near():
    assert nearest("Lenes", ["Lanes", "Note"]) == "; nearest: 'Lanes'"
    assert nearest("zzz", ["Lanes", "Note"]) == "; allowed: Lanes, Note"
    assert nearest("zzz", []) == "; allowed: none"
