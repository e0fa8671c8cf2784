"""The 100 answers of tests/schema/legacy: each value is found, and each gives the term it stands for."""

import json
from pathlib import Path

import pytest

from vlm_crash.schema import UNKNOWN, load_schema, parse

FOLDER = Path(__file__).with_name("legacy")
MEANT = json.loads((FOLDER / "meant.json").read_text(encoding="utf-8"))
RESPONSES = {
    event: {
        r["video"]: r["response"] for r in json.loads((FOLDER / f"{event}_results.json").read_text(encoding="utf-8"))
    }
    for event in MEANT
}
ANSWERS = [(event, entry) for event in MEANT for entry in MEANT[event]]


def test_there_are_a_hundred():
    assert len(ANSWERS) == 100


@pytest.mark.parametrize(
    ("event", "entry"), ANSWERS, ids=lambda value: value if isinstance(value, str) else value["video"]
)
@pytest.mark.parametrize("told", [True, False], ids=["event given", "event from the text"])
def test_every_said_is_found_and_meant_is_given(event, entry, told):
    text = RESPONSES[event][entry["video"]]
    parsed = parse(load_schema(), text, event if told else None)
    failed = text == "Failed to load video"
    assert parsed.event == (None if failed and not told else event)
    assert {name: answer.said for name, answer in parsed.answers.items() if answer.said is not None} == entry["said"]
    for name, answer in parsed.answers.items():
        if answer.said is None:
            assert (answer.status, answer.value) == ("missing", None)
        elif answer.said == "Nighttime":  # lighted or not: it does not say
            assert (answer.status, answer.value) == ("not_understood", None)
        else:
            assert (answer.status, answer.value) == ("value", entry["meant"][name])
            assert text[slice(*answer.span)] == answer.said


def test_a_note_that_says_unknown_is_found():
    answer = parse(load_schema(), RESPONSES["crash"]["1.mp4"]).answers["Note"]
    assert (answer.said, answer.value, answer.status) == ("Unknown", UNKNOWN, "value")
