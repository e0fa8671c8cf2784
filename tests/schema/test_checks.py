"""Every mistake of a YAML is reported, with its place, and all of them at once."""

import copy

import pytest

from vlm_crash.schema import Schema, SchemaError
from vlm_crash.schema.checks import schema_problems

GOOD = {
    "events": {
        "fall": {"title": "Fall", "opening": "Somebody fell.", "openings": ["fell"], "fields": ["Helmet", "Riders"]},
        "stop": {"title": "Stop", "opening": "Somebody stopped.", "openings": ["stopped"], "fields": ["Helmet", "Why"]},
    },
    "fields": {
        "Helmet": {
            "label": "Helmet worn",
            "section": "People",
            "kind": "categorical",
            "vocabulary": ["Yes", "No"],
            "wordings": {"No": ["bare headed"]},
            "partial": [{"terms": ["Yes", "No"], "wordings": ["hair"]}],
        },
        "Riders": {"label": "Number of riders", "section": "People", "kind": "count"},
        "Why": {"label": "Why", "section": "Story", "kind": "text"},
    },
}


def changed(path: str, value: object) -> dict:
    data = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    at = data
    for key in parents:
        at = at[key]
    at[last] = value
    return data


def test_the_good_one_is_good():
    assert schema_problems(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "place", "what"),
    [
        ("event", {}, "event", "unknown key; nearest: 'events'"),
        ("events", {}, "events", "missing or empty"),
        ("fields", None, "fields", "missing or empty"),
        ("fields/Why/lable", "Why", "fields.Why.lable", "unknown key; nearest: 'label'"),
        ("fields/Why/label", None, "fields.Why.label", "missing"),
        ("fields/Why/kind", "txt", "fields.Why.kind", "'txt' does not exist; nearest: 'text'"),
        ("fields/Why/kind", "", "fields.Why.kind", "is not a text"),
        ("fields/Why/section", "two\nlines", "fields.Why.section", "write 'two lines'"),
        ("fields/Why/old_metric", "cosine", "fields.Why.old_metric", "'cosine' does not exist"),
        ("fields/Why/columns", "Why", "fields.Why.columns", "is not a list"),
        ("fields/Why/vocabulary", ["a"], "fields.Why.vocabulary", "a text field has none"),
        ("fields/Riders/wordings", {"2": ["pair"]}, "fields.Riders.wordings", "a count field has none"),
        ("fields/Why", "text", "fields.Why", "must hold at least label, section, kind"),
        ("fields/Why not", {"label": "W", "section": "S", "kind": "text"}, "fields.Why not", "letters, digits and _"),
        ("events/event", GOOD["events"]["fall"], "events.event", "the name is taken"),
        ("events/Overall", GOOD["events"]["fall"], "events.Overall", "choose another, as Overall_seen"),
        ("fields/Spare", {"label": "S", "section": "S", "kind": "text"}, "fields.Spare", "in no event"),
        ("fields/Why/label", "Why: so", "fields.Why", "label 'Why: so' cannot be read back"),
        ("fields/Why/label", "1. Why", "fields.Why", "label '1. Why' cannot be read back"),
        ("fields/Why/aliases", ["**Why**"], "fields.Why", "label '**Why**' cannot be read back"),
        ("fields/Why/label", "W" * 300, "fields.Why", "cannot be read back"),
        ("fields/Why/section", "Note: so", "fields.Why.section", "cannot be read back"),
        ("fields/Helmet/vocabulary", ["Yes", "No", "no"], "fields.Helmet.vocabulary", "'no' and 'No' differ in case"),
        ("fields/Helmet/vocabulary", ["Yes", "No", "No"], "fields.Helmet.vocabulary", "leave one"),
        ("fields/Helmet/vocabulary", ["Yes", "No", "Unknown"], "fields.Helmet.vocabulary", "not known; leave it out"),
        ("fields/Helmet", {"label": "H", "section": "S", "kind": "categorical", "closed": True}, "fields.Helmet.closed",
         "there is no vocabulary"),
        ("fields/Helmet/closed", "perhaps", "fields.Helmet.closed", "write true or false"),
        ("fields/Helmet/wordings", {"Nope": ["x"]}, "fields.Helmet.wordings",
         "'Nope' is not in the vocabulary; nearest: 'No'"),
        ("fields/Helmet/wordings", {"No": "x"}, "fields.Helmet.wordings.No", "is not a list"),
        ("fields/Helmet/wordings", ["x"], "fields.Helmet.wordings", "must map each term"),
        ("fields/Helmet/wordings", {"No": ["yes"]}, "fields.Helmet.wordings", "is the term 'Yes' itself"),
        ("fields/Helmet/wordings", {"No": ["the x"], "Yes": ["X!"]}, "fields.Helmet.wordings",
         "stands for No and for Yes"),
        ("fields/Helmet/wordings", {"No": ["hair"]}, "fields.Helmet.partial", "stands for No and for Yes or No"),
        ("fields/Helmet/wordings", {"No": ["(!)"]}, "fields.Helmet.wordings", "has no word in it"),
        ("fields/Helmet/whole", {"Maybe": ["x"]}, "fields.Helmet.whole", "'Maybe' is not in the vocabulary"),
        ("fields/Helmet/partial", [{"terms": ["Maybe"], "wordings": ["x"]}],
         "fields.Helmet.partial", "'Maybe' is not in"),
        ("fields/Helmet/partial", [{"term": ["No"], "wordings": ["x"]}],
         "fields.Helmet.partial[0].term", "nearest: 'terms'"),
        ("fields/Helmet/doubts", "off", "fields.Helmet.doubts", "is not a list"),
        ("fields/Riders/doubts", ["off"], "fields.Riders.doubts", "a count field has none"),
        ("fields/Helmet/partial", {"terms": []}, "fields.Helmet.partial", "must be a list"),
        ("events/fall/title", "", "events.fall.title", "is not a text"),
        ("events/fall", ["Helmet"], "events.fall", "must hold title, opening, openings, fields"),
        ("events/a fall", GOOD["events"]["fall"], "events.a fall", "letters, digits and _"),
        ("events/fall/feilds", [], "events.fall.feilds", "unknown key; nearest: 'fields'"),
        ("events/fall/fields", ["Helmt"], "events.fall.fields", "'Helmt' is not in `fields`; nearest: 'Helmet'"),
        ("events/fall/fields", ["Helmet", "Helmet"], "events.fall.fields", "listed twice"),
        ("events/fall/fields", [], "events.fall.fields", "empty"),
        ("events/fall/openings", [], "events.fall.openings", "empty"),
        ("events/fall/openings", ["fell", "stopped"], "events.stop.openings", "'stopped' tells 'fall' too"),
        ("events/fall/openings", ["fell", "!"], "events.fall.openings", "'!' has no word in it"),
        ("events/fall/opening", "Somebody tripped.", "events.fall.opening", "tells no event"),
        ("events/fall/opening", "Nobody fell.", "events.fall.opening", "tells no event"),
        ("events/fall/opening", "Somebody stopped.", "events.fall.opening", "tells 'stop'"),
        ("events/fall/opening", "Why: he fell.", "events.fall.opening", "reads as a label"),
        ("events/fall/opening", "People: he fell.", "events.fall.opening", "reads as a label or heading"),
        ("fields/Riders/aliases", ["HELMET-worn"], "events.fall",
         "label 'HELMET-worn' belongs to 'Helmet' and to 'Riders'"),
        ("fields/Riders/columns", ["Helmet"], "events.fall", "column 'Helmet' belongs to 'Helmet' and to 'Riders'"),
    ],
)  # fmt: skip
def test_each_mistake_is_reported_with_its_place(path, value, place, what):
    problems = schema_problems(changed(path, value))
    assert any(problem.startswith(f"{place}: ") and what in problem for problem in problems), problems


def test_one_label_in_fields_of_different_events_is_no_clash():
    assert schema_problems(changed("fields/Why/aliases", ["Number of riders"])) == []


def test_all_mistakes_are_reported_in_one_message():
    data = changed("fields/Why/kind", "txt")
    data["fields"]["Riders"]["label"] = "helmet_worn"
    data["fields"]["Helmet"]["wordings"] = {"Nope": ["x"]}
    data["events"]["fall"]["feilds"] = []
    data["events"]["stop"]["opening"] = "He stops."
    with pytest.raises(SchemaError) as caught:
        Schema.from_dict(data, "mine.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "mine.yaml: 5 problems"
    for part in (
        "'txt' does not exist",
        "belongs to 'Helmet'",
        "'Nope' is not in",
        "feilds: unknown key",
        "tells no event",
    ):
        assert sum(part in line for line in lines) == 1, part


@pytest.mark.parametrize("junk", [None, 3, "text", [], {}, [1], {"a": 1}, {"events": [1], "fields": "x"}, True])
@pytest.mark.parametrize(
    "path",
    ["", "events", "fields", "events/fall", "fields/Helmet", "fields/Helmet/wordings/No"]
    + [f"events/fall/{key}" for key in ("title", "fields", "openings", "opening")]
    + [f"fields/Helmet/{key}" for key in ("label", "section", "kind", "vocabulary", "aliases", "columns")]
    + [f"fields/Helmet/{key}" for key in ("wordings", "whole", "partial", "closed", "old_metric", "description")],
)
def test_no_shape_of_a_yaml_breaks_the_check(path, junk):
    problems = schema_problems(changed(path, junk) if path else junk)
    assert all(isinstance(problem, str) for problem in problems)
