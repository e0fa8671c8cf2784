import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_crash.schema import UNKNOWN, load_schema, to_term

# field, wording, the term it stands for; "-": ambiguous, negated or beside the point, so that it stays unmapped
with Path(__file__).with_name("wordings.tsv").open(encoding="utf-8", newline="") as stream:
    WORDINGS = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("row", WORDINGS, ids=lambda row: f"{row['field']}: {row['wording']}")
def test_each_wording(row, filled):
    wanted = {"-": None, "UNKNOWN": UNKNOWN}.get(row["term"], row["term"])
    assert to_term(filled.field(row["field"]), row["wording"]) == wanted


def test_the_table_is_large_and_covers_every_field(shipped):
    counts = Counter(row["field"] for row in WORDINGS)
    unmapped = [row for row in WORDINGS if row["term"] == "-"]
    assert len(WORDINGS) >= 400
    assert len(unmapped) >= 150
    assert set(counts) == {field.name for field in shipped.fields}
    assert len({(row["field"], row["wording"]) for row in WORDINGS}) == len(WORDINGS)
    closed = {field.name: set(field.vocabulary) for field in shipped.fields if field.closed}
    for name, vocabulary in closed.items():
        assert vocabulary <= {row["term"] for row in WORDINGS if row["field"] == name}, name


def spellings(term):
    return [
        term,
        term.lower(),
        term.upper(),
        term.replace("_", " "),
        term.replace("_", "-"),
        f" {term.title()} ",
        f"**{term}**",
    ]


def test_every_term_maps_to_itself_in_any_spelling(filled):
    for field in filled.fields:
        for term in field.vocabulary:
            for spelling in spellings(term):
                assert to_term(field, spelling) == term, (field.name, spelling)


def test_every_wording_of_the_yaml_gives_its_term(filled):
    for field in filled.fields:
        for wording, term in {**field.wordings, **field.whole}.items():
            if term in field.vocabulary:
                assert to_term(field, wording) == term, (field.name, wording)


def test_a_wording_that_leaves_several_terms_open_gives_none_of_them(filled):
    for field in filled.fields:
        for wording, terms in field.partial.items():
            if wording not in field.whole:
                assert len(terms) != 1
                assert to_term(field, wording) is None, (field.name, wording)


def test_a_term_after_not_is_not_given(filled):
    for field in filled.fields:
        for term in field.vocabulary:
            if field.name != "Guilty":
                assert to_term(field, f"it is not {term}") is None, (field.name, term)
                assert to_term(field, f"neither {term} nor anything else") is None, (field.name, term)


def test_two_terms_give_none(filled):
    for field in filled.fields:
        for one in field.vocabulary:
            for two in set(field.vocabulary) - {one}:
                for joint in (" or ", ", ", " and ", "/"):
                    assert to_term(field, f"{one}{joint}{two}") is None, (field.name, one, two)


def test_an_open_field_keeps_its_text_until_a_dataset_fills_it(shipped, filled):
    assert to_term(shipped.field("Crash_with"), "  City\n tram ") == "City tram"
    assert to_term(shipped.field("Crash_with"), "none") == UNKNOWN
    assert to_term(filled.field("Crash_with"), "City tram") is None
    assert to_term(filled.field("Crash_with"), "a  TRUCK.") == "Truck"


def test_wordings_of_an_open_field_need_a_term_of_the_dataset(shipped):
    field = shipped.with_vocabularies({"Crash_with": ["Tram", "Lorry"]}).field("Crash_with")
    assert to_term(field, "lorry") == "Lorry"
    assert to_term(field, "motorbike") is None
    field = shipped.with_vocabularies({"Crash_with": ["Car"]}).field("Crash_with")
    assert to_term(field, "a passenger car") == "Car"  # a wording without its term hides nothing


def test_terms_that_differ_in_punctuation_only_are_kept_apart(mine):
    field = mine.field("Yield")
    assert (to_term(field, "C"), to_term(field, "c+")) == ("C", "C+")
    assert to_term(field, "(c)") is None


def test_none_can_be_a_term_of_a_lab(mine):
    assert to_term(mine.field("Pavement"), "None") == "none"


NAMES = [field.name for field in load_schema().fields]


@given(st.sampled_from(NAMES), st.text())
def test_a_term_is_understood_as_itself(filled, name, text):
    field = filled.field(name)
    term = to_term(field, text)
    assert term is None or to_term(field, term) == term
    assert term is None or not field.vocabulary or term in {*field.vocabulary, UNKNOWN}


@given(st.integers(min_value=0))
def test_every_count_is_read(number):
    assert to_term(load_schema().field("Lanes"), f"{number} lanes") == str(number)


def test_a_huge_count_is_no_trouble(shipped):
    assert to_term(shipped.field("Lanes"), "1" * 1_000_000) == "1" * 1_000_000
    assert to_term(shipped.field("Lanes"), "1" * 100_000 + ".0x") is None
