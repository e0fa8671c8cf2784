"""A schema with a word for nothing: it may have no fields, is told apart, and leaves other schemas as they were."""

import pytest

from vlm_crash.data.conversation import question
from vlm_crash.schema.fields import Schema, SchemaError, load_schema
from vlm_crash.schema.records import Annotation
from vlm_crash.schema.response import parse, render


def test_scan_yaml_is_the_shipped_form_with_one_event_more():
    shipped, scan = load_schema(), load_schema("scan.yaml")
    assert scan.events[:2] == shipped.events
    assert [event.name for event in scan.events] == ["crash", "nearmiss", "ordinary"]
    assert scan.background is scan.event("ordinary") and scan.background.fields == ()
    assert scan.form != shipped.form


def test_a_schema_without_a_background_says_what_it_said_before():
    shipped = load_schema()
    assert shipped.background is None
    assert all(
        set(entry) == {"title", "opening", "openings", "fields"} for entry in shipped.to_dict()["events"].values()
    )


def test_the_background_survives_the_way_there_and_back():
    scan = load_schema("scan.yaml")
    assert Schema.from_dict(scan.to_dict()) == scan


def test_an_event_without_fields_is_written_read_and_asked_for():
    scan = load_schema("scan.yaml")
    nothing = Annotation.of(scan, "ordinary", {})
    text = render(scan, nothing)
    assert text == "This is ordinary driving."
    assert parse(scan, text).event == "ordinary" and parse(scan, text).answers == {}
    assert "begin with: This is ordinary driving." in question(scan, "full")


FIELD = {"label": "Weather", "section": "Sky", "kind": "text"}
CRASH = {"title": "Crash", "opening": "A crash.", "openings": ["crash"], "fields": ["Weather"]}
CALM = {"title": "Calm", "opening": "A calm ride.", "openings": ["calm"], "fields": [], "background": "true"}


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ({"crash": CRASH, "calm": {**CALM, "background": "false"}}, "only an event with `background: true` has none"),
        ({"crash": CRASH, "calm": CALM, "idle": {**CALM, "opening": "Idle.", "openings": ["idle"]}}, "mark one"),
        ({"crash": {**CRASH, "background": "true"}}, "stands alone"),
        ({"crash": CRASH, "calm": {**CALM, "background": "perhaps"}}, "write true or false"),
    ],
)
def test_what_a_background_cannot_be(events, said):
    with pytest.raises(SchemaError, match=said):
        Schema.from_dict({"events": events, "fields": {"Weather": FIELD}})


def test_a_lab_extends_the_shipped_form_or_its_own(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: crash.yaml\nevents:\n  calm: {title: Calm, opening: A calm ride., openings: [calm ride], "
                   "fields: [], background: true}\n")  # fmt: skip
    assert load_schema(own).event_names == ("crash", "nearmiss", "calm")
    own.write_text("extends: crash.yaml\nevent: {}\n")
    with pytest.raises(SchemaError, match="event: give `extends`"):
        load_schema(own)
    (tmp_path / "twice.yaml").write_text("extends: scan.yaml\n")
    with pytest.raises(SchemaError, match="must be a whole schema itself"):
        load_schema(tmp_path / "twice.yaml")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_schema(tmp_path / "nowhere.yaml")
