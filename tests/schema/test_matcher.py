import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_crash.schema.matcher import Matcher

PHRASES = {
    ("fog",): ["Foggy"],
    ("rain",): ["Rainy"],
    ("heavy", "rain"): ["Rainy"],
    ("clear",): ["Clear"],
    ("fog", "light"): [],
    ("night",): ["Lit", "Unlit"],
    ("lamps",): ["Lit"],
    ("no", "lamps"): ["Unlit"],
    ("no",): ["No"],
}
MATCHER = Matcher(PHRASES)


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("fog", "Foggy"),
        ("fogs", None),
        ("fog light", None),
        ("fog, fog light", "Foggy"),
        ("night", None),
        ("night, lamps", "Lit"),
        ("night, no lamps", "Unlit"),
        ("night without lamps", "Unlit"),
        ("not fog", None),
        ("not the fog but rain", "Rainy"),
        ("rain, not fog", "Rainy"),
        ("rain without fog", "Rainy"),
        ("rain rather than fog", "Rainy"),
        ("other than rain: fog", "Foggy"),
        ("no fog, rain or lamps", None),
        ("fog is absent", None),
        ("fog and rain are absent", None),
        ("clear; fog is absent", "Clear"),
        ("fog? no", None),
        ("fog. Nobody is there", "Foggy"),
        ("not without fog", None),
        ("not only fog", "Foggy"),
        ("not only fog but rain", None),
        ("no", "No"),
        ("No, fog", None),
        ("no fog", None),
        ("no way", None),
        ("fog or something", None),
        ("something or fog", None),
        ("fog or fog", "Foggy"),
        ("fog?", None),
        ("maybe fog", None),
        ("fog, maybe", None),
        ("fog (maybe)", None),
        ("Fog. Maybe.", None),
        ("maybe fog, but rain", None),
        ("fog which may have many causes", "Foggy"),
        ("What is it? Fog.", "Foggy"),
        ("Fog. It may lift.", "Foggy"),
        ("clear of fog, rain", "Rainy"),
        ("fog is unlikely, rain", "Rainy"),
        ("fog/rain", None),
        ("", None),
        ("...", None),
    ],
)
def test_what_a_text_says(text, term):
    assert MATCHER.term(text) == term


def test_a_word_can_leave_in_doubt_in_one_field_only():
    matcher = Matcher(PHRASES, doubts=[("off",), ("out", "of", "order")])
    assert matcher.term("night, lamps off") is None
    assert matcher.term("night, lamps out of order") is None
    assert matcher.term("night, lamps on") == MATCHER.term("night, lamps off") == "Lit"


PARTS = ["fog", "rain", "clear", "not", "no", "or", "and", ",", ".", "but", "lamps", "night", "light", "x", "without"]


@given(st.lists(st.sampled_from(PARTS), max_size=12))
def test_a_denied_or_second_term_is_never_given(parts):
    text = " ".join(parts)
    term = MATCHER.term(text)
    said = {t for word in parts for t in PHRASES.get((word,), [])} | {"Unlit" for _ in [0] if "lamps" in parts}
    assert term is None or term in said
    assert MATCHER.term(f"not {parts[0]}" if len(parts) == 1 else "not fog") is None


@given(st.text())
def test_any_text_can_be_asked(text):
    assert MATCHER.term(text) in {None, "Foggy", "Rainy", "Clear", "Lit", "Unlit", "No"}


@pytest.mark.parametrize(
    "unit",
    ["fog ", "not ", "fog and ", "no, ", "no! fog or ", "- ", ", or ", "fog and rain. no. ", "/", "\n", "fog light "],
)
def test_a_long_answer_takes_linear_time(unit):
    short, long = unit * (20_000 // len(unit)), unit * (400_000 // len(unit))
    start = time.process_time()
    MATCHER.term(short)
    middle = time.process_time()
    MATCHER.term(long)
    assert time.process_time() - middle < 20 * 8 * max(middle - start, 0.01)  # 20 times as long; quadratic would be 400
