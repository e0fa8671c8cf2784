import csv
from dataclasses import replace
from pathlib import Path

import pytest

from vlm_crash.evaluation.consistency import NOT_SPARED, consistency_line
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.settings import EvaluationSettings

PAGE = Path(__file__).parents[2] / "docs" / "consistency.md"
DRY_SNOW = {"Weather": "Snowy", "Road_surface_condition": "Dry"}
WET_RAIN = {"Weather": "Rainy", "Road_surface_condition": "Wet"}


@pytest.fixture
def found(say, write_csv, write_lines, schema, tmp_path):
    truth = [
        write_csv("crash", {f"{n}.mp4": WET_RAIN for n in range(1, 6)}),
        write_csv("nearmiss", {"1.mp4": DRY_SNOW, "2.mp4": WET_RAIN}),
    ]
    hurt = say("1.mp4", "nearmiss", WET_RAIN, "nearmiss")
    lines = [
        say("1.mp4", "crash", {**DRY_SNOW, "Total_number_of_vehicles": "1", "Crash_with": "Truck"}, "crash"),
        say("2.mp4", "crash", {"Weather": "Snowy"}, "crash"),  # says too little to break it
        say("3.mp4", "nearmiss", DRY_SNOW, "crash"),  # of another event: judged as what it says it is
        say("4.mp4", "crash", WET_RAIN, "crash"),
        say("5.mp4", "crash", {}, "crash", status="failed", error="no video stream"),
        replace(hurt, response=hurt.response + "\n- Crash severity: Injury"),
        say("2.mp4", "nearmiss", WET_RAIN, "nearmiss"),
    ]
    settings = EvaluationSettings(embedder=None, num_draws=100)
    return evaluate([write_lines(lines)], truth, tmp_path / "out", schema, settings)["consistency"]


def rule(found, name, event):
    return next(one for one in found["rules"] if (one["name"], one["event"]) == (name, event))


def test_answers_are_counted_beside_truths(found):
    snow = rule(found, "snow_on_dry_road", "crash")
    assert (snow["n"], snow["violations"], snow["truth_n"], snow["truth_violations"]) == (2, 1, 5, 0)
    assert snow["rate"] == 0.5 and snow["low"] == pytest.approx(0.0126, abs=1e-3) and not snow["flags"]
    snow = rule(found, "snow_on_dry_road", "nearmiss")
    assert (snow["n"], snow["violations"], snow["truth_n"], snow["truth_violations"]) == (3, 1, 2, 1)
    assert snow["flags"] == [NOT_SPARED]  # one of two truths breaks it too
    severity = rule(found, "near_miss_with_a_severity", "nearmiss")
    assert (severity["n"], severity["violations"], severity["truth_n"], severity["truth_rate"]) == (3, 1, 0, None)
    assert "truth_rate" in severity["reasons"]
    assert (found["answers"]["n"], found["answers"]["violations"]) == (6, 3)
    assert (found["truths"]["n"], found["truths"]["violations"]) == (7, 1)


def test_every_clip_is_listed(found, tmp_path):
    with (tmp_path / "out" / "consistency.csv").open(newline="", encoding="utf-8") as file:
        rows = [(r["of"], r["event"], r["video"], r["answered_event"], r["rule"]) for r in csv.DictReader(file)]
    assert rows == [
        ("answer", "crash", "1.mp4", "crash", "snow_on_dry_road"),
        ("answer", "crash", "1.mp4", "crash", "one_vehicle_meets_another"),
        ("answer", "crash", "3.mp4", "nearmiss", "snow_on_dry_road"),
        ("answer", "nearmiss", "1.mp4", "nearmiss", "near_miss_with_a_severity"),
        ("truth", "nearmiss", "1.mp4", "nearmiss", "snow_on_dry_road"),
    ]
    assert found["violations"][0]["values"] == DRY_SNOW
    assert consistency_line(found) == (
        "3 of 6 answers contradict themselves; of the truths 1 of 7 (consistency.csv). "
        "Most often: snow_on_dry_road, 1 of 2"
    )


def test_the_page_tells_every_rule(schema):
    text = PAGE.read_text(encoding="utf-8")
    assert [one.name for one in schema.rules if f"| `{one.name}` | {one.sentence} |" not in text] == []
