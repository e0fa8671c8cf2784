import json
from dataclasses import replace
from pathlib import Path

import pytest

from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.evaluation.tables import _calibrated_event
from vlm_crash.schema.fields import Schema

WET = {"Weather": "Rainy", "Lanes": "2", "Crash_reason": "Ice on the road"}
WEATHER = {"Rainy": 0.71428571, "Clear": 0.2847142, "Snowy": 0.00100009, "Foggy": 0.0}


def test_records_hold_the_probabilities_of_the_event_that_was_told(
    schema: Schema, say, write_csv, write_lines, tmp_path: Path
):
    """Small terms are left out. None: another event told, no prediction, a failed one, a free answer, a text."""
    truth = write_csv("crash", {f"{n}.mp4": WET for n in range(1, 5)})
    given = {"Weather": WEATHER, "Lanes": {"2": 0.3, "3": 0.7}}
    right = replace(say("1.mp4", "crash", WET, "crash"), field_probabilities=given)
    other = replace(say("2.mp4", "nearmiss", {"Weather": "Rainy"}, "crash"), field_probabilities=given)
    failed = replace(say("3.mp4", "crash", {}, "crash", status="failed"), field_probabilities={}, event=None)
    free = say("4.mp4", "crash", WET, "crash")
    lines = write_lines([right, other, failed, free])
    evaluate([lines], [truth], tmp_path / "out", schema, EvaluationSettings(None))
    clips = json.loads((tmp_path / "out" / "records.json").read_text())["clips"]
    first = clips[0]["fields"]
    assert first["Weather"]["probabilities"] == {"Rainy": 0.7143, "Clear": 0.2847, "Snowy": 0.001}
    assert list(first["Weather"]["probabilities"]) == ["Rainy", "Clear", "Snowy"]
    assert first["Weather"]["probability"] == pytest.approx(0.7143)
    assert first["Lanes"]["probability"] == 0.3  # of the answer, which is not the most probable one here
    nothing = {(one["probability"], one["probabilities"]) for clip in clips[1:] for one in clip["fields"].values()}
    assert nothing == {(None, None)} == {tuple(first[name][k] for k in ("probability", "probabilities"))
                                         for name in ("Crash_reason", "Road_type")}  # fmt: skip
    assert clips[1]["fields"]["Weather"]["answer"] == "Rainy"  # read from the text, given the true event


def test_a_first_event_among_three_is_calibrated_with_the_other_two(say):
    """(0.5, 0.25, 0.25) to the power of 1 / 0.3; the pair (0.5, 0.5) would stay as it is."""
    three = {"sinking": 0.5, "collision": 0.25, "grounding": 0.25}
    said = say("1.mp4", "crash", WET, event_probability=0.5, event_probabilities=three)
    assert _calibrated_event(said, tuple(three), 0.3) == {"event_probability_calibrated": 0.8344}
    pair = replace(said, event_probability=0.8, event_probabilities={})
    assert _calibrated_event(pair, ("crash", "nearmiss"), 0.5) == {"event_probability_calibrated": 0.9412}
    assert _calibrated_event(pair, tuple(three), 0.5) == {}  # how the rest is shared out is not known
