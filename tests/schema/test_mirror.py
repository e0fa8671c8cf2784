"""Sides of a mirrored clip: swapped where the schema's table is sure, left alone where they are none, else refused."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from vlm_crash.demo.clips import plan_dataset
from vlm_crash.demo.scene import sample_scene
from vlm_crash.schema import Annotation, SchemaError, load_schema
from vlm_crash.schema.mirror import Mirror, mirrored
from vlm_crash.schema.records import VideoSample

SCHEMA = load_schema()
LEGACY = Path(__file__).parents[1] / "evaluation/legacy/AV_crash_modified_r.csv"


def sample(event: str, values: dict[str, str], answer: str | None = None) -> VideoSample:
    annotation = Annotation.of(SCHEMA, event, values)
    return VideoSample("crash_1", "1.mp4", Path("1.mp4"), event, annotation, None, answer=answer)


def test_closed_terms_and_texts():
    said = {
        "Ego_pre_avoid_movement": "Making_left_turn",
        "Other_most_damaged_area": "Right_side",
        "Weather": "Rainy",
        "Lanes": "3",
        "Crash_reason": "The car on the right left its lane and cut in from the Left lane right in front of us.",
        "Note": "Turned LEFT LANE; right of way ignored.",
    }
    found = mirrored(SCHEMA, sample("crash", said))
    assert found is not None and found.annotation is not None
    assert {name: found.annotation.values[name] for name in said} == {
        **said,
        "Ego_pre_avoid_movement": "Making_right_turn",
        "Other_most_damaged_area": "Left_side",
        "Crash_reason": "The car on the left left its lane and cut in from the Right lane right in front of us.",
        "Note": "Turned RIGHT LANE; right of way ignored.",
    }
    assert found.annotation.values["Guilty"] == "Unknown"


def test_twice_is_identity_for_all_that_the_demo_says():
    """And all of it can be mirrored; about half of the records name a side."""
    changed = 0
    for event, number, seed in plan_dataset(300, seed=9):
        there = replace(sample(event, sample_scene(seed, event).values), id=str(number))
        mirror = mirrored(SCHEMA, there)
        assert mirror is not None, there
        assert mirrored(SCHEMA, mirror) == there
        changed += mirror != there
    assert changed > 100


def test_a_record_in_the_old_format():
    rows = list(csv.DictReader(LEGACY.open(encoding="utf-8")))
    texts = [value for row in rows for value in row.values() if value]
    for text in texts:
        mirror = SCHEMA.mirror.text(text)
        assert mirror is None or SCHEMA.mirror.text(mirror) == text


@pytest.mark.parametrize("text", ["It left.", "Nothing was left of it", "right", "He drove right", "lEfT lane of it"])
def test_what_may_be_a_side_or_not_is_not_mirrored(text):
    assert SCHEMA.mirror.text(text) is None
    assert mirrored(SCHEMA, sample("crash", {"Note": text})) is None
    assert mirrored(SCHEMA, sample("crash", {}, answer=f"This is a crash scenario. {text}")) is None


def test_an_answer_in_its_own_words():
    there = sample("nearmiss", {}, answer="This is a near-miss scenario.\n- Reason: swerved left, bright lights")
    assert mirrored(SCHEMA, there).answer == "This is a near-miss scenario.\n- Reason: swerved right, bright lights"


def test_another_labs_table(tmp_path):
    """Its own words, in its own language; the fingerprint of a schema does not depend on it."""
    data = {**SCHEMA.to_dict(), "mirror": {"pairs": [["links", "rechts"]], "unsure": ["linke"]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data, allow_unicode=True))
    mine = load_schema(tmp_path / "mine.yaml")
    assert mine.mirror.text("von Links, bei left") == "von Rechts, bei left"
    assert mine.mirror.text("die linke Spur") is None
    assert mine.fingerprint == SCHEMA.fingerprint and mine != SCHEMA
    assert load_schema("scan.yaml").mirror == SCHEMA.mirror
    assert SCHEMA.with_vocabularies({"Crash_with": ["Van"]}).mirror == SCHEMA.mirror
    del data["mirror"]
    assert type(SCHEMA).from_dict(data).mirror is None


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ([], "mirror: it is no mapping"),
        ({"pairs": []}, "mirror.pairs: it is no list of pairs"),
        ({"pairs": [["left"]]}, "mirror.pairs: it is no list of pairs"),
        ({"pairs": [["left", "right"]], "keep": []}, "mirror.keep: unknown key"),
        ({"pairs": [["left", "right"], ["Left", "L"]]}, "'left' stands in it twice"),
        ({"pairs": [["left", "right"]], "unsure": "left"}, "mirror.unsure: it is no list of texts"),
        ({"pairs": [["(a|b) left", "right"]]}, "are no pair: as many"),
        ({"pairs": [["left*", "right*"]]}, "are no pair: as many"),
        ({"pairs": [["Rainy", "Rainier"]]}, "'Rainy' is a term of Weather, and 'Rainier' is none"),
    ],
)
def test_a_table_that_cannot_be(table, problem):
    with pytest.raises(SchemaError, match=problem):
        type(SCHEMA).from_dict({**SCHEMA.to_dict(), "mirror": table})


def test_phrases_of_a_pair_are_as_long_as_each_other():
    mirror = Mirror((("on the left", "on the right"), ("left lane", "right lane")), unsure=("left", "right"))
    for text in ("on the left lane", "on the right lane"):
        assert mirror.text(mirror.text(text)) == text
