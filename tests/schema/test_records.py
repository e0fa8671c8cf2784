import dataclasses
import json
import math
from pathlib import Path

import pytest

from vlm_crash.schema import UNKNOWN, Annotation, Prediction, VideoSample, cell_value


def test_what_is_not_given_is_unknown(shipped):
    record = Annotation.of(
        shipped, "nearmiss", {"Weather": "Clear", "Lanes": "", "Guilty": None, "Avoid_reason": "NaN"}
    )
    assert list(record.values) == list(shipped.event("nearmiss").field_names)
    assert record.known == {"Weather": "Clear"}
    assert {record.values[name] for name in ("Lanes", "Guilty", "Avoid_reason", "Road_type")} == {UNKNOWN}


@pytest.mark.parametrize("cell", ["", "  ", "nan", "NaN", "none", "None", "NULL", "unknown", "Unknown", None, math.nan])
@pytest.mark.parametrize("name", ["Weather", "Lanes", "Note", "Crash_with"])
def test_empty_cells(shipped, name, cell):
    assert cell_value(shipped.field(name), cell) == UNKNOWN


def test_cells_of_a_table_come_as_numbers(shipped):
    assert Annotation.of(shipped, "crash", {"Lanes": 2.0, "Total_number_of_vehicles": 3}).known == {
        "Lanes": "2",
        "Total_number_of_vehicles": "3",
    }


def test_values_are_brought_to_their_terms_and_texts_to_one_line(shipped):
    record = Annotation.of(shipped, "crash", {"Weather": "overcast", "Note": " a\r\n  b ", "Crash_with": "**Tram**"})
    assert record.known == {"Weather": "Cloudy", "Note": "a b", "Crash_with": "Tram"}


def test_all_wrong_names_and_values_are_refused_at_once(filled):
    cells = {"Wether": "Clear", "Weather": "green", "Lanes": "2-3", "Crash_with": "Tram", "Avoid_reason": "x"}
    with pytest.raises(ValueError, match="crash record") as caught:
        Annotation.of(filled, "crash", cells)
    message = str(caught.value)
    assert "'Wether' is not a field of 'crash'; nearest: 'Weather'" in message
    assert "Weather: 'green' is not understood; allowed: Clear, Cloudy" in message
    assert "Lanes: '2-3' is not understood; write a whole number up to 99" in message
    assert "Crash_with: 'Tram' is not understood; allowed: Motorcycle" in message
    assert "'Avoid_reason' is not a field of 'crash'" in message


def test_records_are_frozen_and_one_line(shipped):
    record = Annotation("crash", {"Note": "a\n b", "Weather": ""})
    assert record.values == {"Note": "a b", "Weather": UNKNOWN}
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.event = "nearmiss"
    sample = VideoSample("crash_1", "1.mp4", Path("1.mp4"), "crash", record, None)
    assert hash(sample) == hash(dataclasses.replace(sample))
    assert sample != dataclasses.replace(sample, annotation=Annotation("crash", {"Note": "c", "Weather": ""}))


PREDICTION = Prediction(
    video="1.mp4",
    event="crash",
    event_probability=0.75,
    fields={"Weather": "Clear"},
    field_probabilities={"Weather": {"Clear": 0.5, "Rainy": 0.5}},
    response="This is a crash scenario.",
    status="ok",
    seconds=1.5,
    provenance="run",
    path="clips/1.mp4",
)


def test_a_prediction_survives_its_line():
    line = json.dumps(PREDICTION.to_json_dict())
    assert Prediction.from_json_dict(json.loads(line)) == PREDICTION
    assert list(json.loads(line))[:10] == [
        "video", "event", "event_probability", "fields", "field_probabilities", "response", "status", "error",
        "seconds", "provenance",
    ]  # fmt: skip


def test_a_prediction_needs_little():
    data = {"video": "1.mp4", "event": None, "fields": {}, "response": "", "status": "failed"}
    prediction = Prediction.from_json_dict(data)
    assert (prediction.event_probability, prediction.error, prediction.field_probabilities) == (None, None, {})


def test_all_that_is_wrong_with_a_prediction_is_said():
    with pytest.raises(ValueError, match="prediction line") as caught:
        Prediction.from_json_dict({"vidoe": "1.mp4", "event": "crash", "fields": [], "response": "", "status": "fine"})
    message = str(caught.value)
    for part in ("'video' is missing", "'vidoe' is unknown; nearest: 'video'", "'fields' must be an object", "'fine'"):
        assert part in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": {"Lanes": 2, "Weather": "Clear"}}, "'fields' must hold texts, not {'Lanes': 2}"),
        ({"event_probability": "0.9"}, "event_probability '0.9' is neither null nor a number from 0 to 1"),
        ({"event_probability": math.nan}, "event_probability nan is neither"),
        ({"event_probability": 1.5}, "event_probability 1.5 is neither"),
        ({"video": 1}, "'video' must be a text, not int"),
        ({"response": None}, "'response' must be a text, not NoneType"),
        ({"source_event": 1}, "'source_event' must be a text or null, not int"),
        ({"status": []}, r"status \[\] is neither 'ok' nor 'failed'"),
    ],
)
def test_values_of_a_wrong_kind_are_said(change, message):
    with pytest.raises(ValueError, match=message):
        Prediction.from_json_dict(PREDICTION.to_json_dict() | change)


@pytest.mark.parametrize("line", [[1], "text", None, 3])
def test_a_line_that_is_no_object_is_said(line):
    with pytest.raises(ValueError, match="it must be an object, not"):
        Prediction.from_json_dict(line)


@pytest.mark.parametrize(
    ("cell", "value"), [("99", "99"), ("007", "7"), ("100", None), ("9" * 5000, None), ("unknown", UNKNOWN)]
)
def test_a_count_above_the_largest_is_not_understood(shipped, cell, value):
    """A model cannot answer it (models/answer_form.py), and it is a slip."""
    assert cell_value(shipped.field("Lanes"), cell) == value
