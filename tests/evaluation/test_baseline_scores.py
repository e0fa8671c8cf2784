"""Baselines beside the scores, and draws by groups: on clips of which the file's size tells the weather."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.evaluation.conftest import write_clip
from vlm_crash.cli import main
from vlm_crash.data.prepared import load_prepared
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.report_table import field_table
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.evaluation.tables import format_table
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation, Prediction, VideoSample
from vlm_crash.schema.response import render

SCHEMA = load_schema()
NUM_CLIPS = 48


@dataclass(frozen=True)
class Data:
    csv: Path
    dataset: Path
    samples: tuple[VideoSample, ...]

    def predictions(self, path: Path, event: str = "crash", weather: str | None = None) -> Path:
        """Answers to all clips; Clear in truth unless the weather is given."""
        lines = []
        for sample in self.samples:
            values = {**sample.annotation.values, "Weather": weather or sample.annotation.values["Weather"]}
            text = render(SCHEMA, Annotation.of(SCHEMA, "crash", values))
            line = Prediction(sample.video, event, 0.7, {}, {}, text, "ok", path=str(sample.path), source_event="crash")
            lines.append(json.dumps(line.to_json_dict()) + "\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
        return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Rainy clips have larger files; two clips a trip; lanes are as they come."""
    folder = tmp_path_factory.mktemp("baselines")
    content = write_clip(folder / "one.mp4", (90, 120, 150)).read_bytes()
    (folder / "clips").mkdir()
    event = SCHEMA.event("crash")
    rows = [",".join(["video_id", "Trip", *(field.columns[0] for field in event.fields)])]
    for n in range(NUM_CLIPS):
        is_rainy = n % 3 == 0
        # What follows the last box of a container is nobody's, and makes each content its own.
        (folder / "clips" / f"{n}.mp4").write_bytes(content + bytes([n]) * (9000 if is_rainy else 100))
        values = {"Weather": "Rainy" if is_rainy else "Clear", "Lanes": str(1 + n * 7 % 5 % 3)}
        rows.append(",".join([str(n), f"trip {n // 2}", *(values.get(field.name, "") for field in event.fields)]))
    csv = folder / "AV_crash_modified_r.csv"
    csv.write_text("\n".join(rows) + "\n")
    dataset = folder / "dataset"
    command = [
        "prepare",
        "--crash_csv",
        csv,
        "--crash_dir",
        folder / "clips",
        "--out",
        dataset,
        "--group_column",
        "Trip",
    ]
    assert main(list(map(str, command))) == 0
    splits = load_prepared(dataset, SCHEMA)
    return Data(csv, dataset, tuple(sample for split in splits.values() for sample in split))


def test_metadata_are_fitted_on_the_train_split_or_on_the_other_folds(data: Data, tmp_path: Path):
    answers = data.predictions(tmp_path / "predictions.jsonl", weather="Clear")
    of_train = evaluate([answers], [data.dataset], tmp_path, SCHEMA, EvaluationSettings(None, split="test"))
    crossed = evaluate([answers], [data.csv], tmp_path, SCHEMA, EvaluationSettings(None))
    assert "of the train split" in of_train["settings"]["baselines"]["metadata"]
    assert "cross-fitted in 5 folds" in crossed["settings"]["baselines"]["metadata"]
    for metrics in (of_train, crossed):
        weather = metrics["crash"]["fields"]["Weather"]
        assert weather["baselines"]["metadata"]["score"] == 1  # the file's size is enough
        assert weather["baselines"]["majority"]["score"] == weather["baseline"] == weather["score"] < 0.9
        assert weather["baselines"]["majority"]["low"] == weather["low"]  # the same answers, the same draws
        assert metrics["crash"]["fields"]["Lanes"]["baselines"]["metadata"]["score"] < 0.8
        assert metrics["crash"]["fields"]["Note"]["baselines"]["metadata"] == {
            "score": None, "low": None, "high": None, "reason": "a classifier of metadata writes no texts"
        }  # fmt: skip
        assert metrics["crash"]["mean"]["baselines"]["metadata"]["score"] == pytest.approx(
            (1 + metrics["crash"]["fields"]["Lanes"]["baselines"]["metadata"]["score"]) / 2
        )
    assert "no predictions on black frames" in crossed["overall"]["mean"]["baselines"]["blind"]["reason"]


def test_clips_that_are_not_there_leave_metadata_without_a_score(data: Data, tmp_path: Path):
    answers = data.predictions(tmp_path / "predictions.jsonl")
    answers.write_text(answers.read_text().replace(str(data.samples[0].path), ""))
    metrics = evaluate([answers], [data.csv], tmp_path, SCHEMA, EvaluationSettings(None))
    baseline = metrics["crash"]["fields"]["Weather"]["baselines"]["metadata"]
    assert baseline["score"] is None and "1 of 48 clips are not there" in baseline["reason"]


def test_blind_predictions_are_scored_by_the_same_rules(data: Data, tmp_path: Path):
    answers = data.predictions(tmp_path / "seen" / "predictions.jsonl")
    blind = data.predictions(tmp_path / "blind" / "predictions.jsonl", weather="Clear")
    alone = evaluate([blind], [data.csv], tmp_path / "a", SCHEMA, EvaluationSettings(None))
    metrics = evaluate([answers], [data.csv], tmp_path / "b", SCHEMA, EvaluationSettings(None, blind=(blind.parent,)))
    for name in ("Weather", "Lanes"):
        field = alone["crash"]["fields"][name]
        wanted = {key: field[key] for key in ("score", "low", "high", "given_event")}
        assert metrics["crash"]["fields"][name]["baselines"]["blind"] == wanted
    # A blind model that names the wrong event is 0 end to end, and no weaker for it beside baselines that are told it.
    blind = data.predictions(tmp_path / "blind" / "predictions.jsonl", weather="Clear", event="nearmiss")
    metrics = evaluate([answers], [data.csv], tmp_path / "b", SCHEMA, EvaluationSettings(None, blind=(blind.parent,)))
    weather = metrics["crash"]["fields"]["Weather"]
    given = weather["baselines"]["blind"]["given_event"]
    assert weather["baselines"]["blind"]["score"] == 0 < given
    captions, _, header, *lines = format_table(metrics, SCHEMA).splitlines()
    cells = next(line for line in lines if line.startswith("Weather"))
    first, second = header.index("blind"), header.rindex("blind")
    assert captions.index("end to end") < first < captions.index("- given the event -") < second
    assert (cells[first : first + 5], cells[second : second + 5]) == ("0.000", f"{given:.3f}")
    row = field_table(SCHEMA.event("crash"), metrics["crash"])["rows"][[*metrics["crash"]["fields"]].index("Weather")]
    assert (row["cells"]["blind"]["sort"], row["cells"]["blind_given"]["sort"]) == (0, given)
    blind.write_text("".join(blind.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(ValueError, match=r"blind: 3 of 48 evaluated clips have no prediction .* --data.blank"):
        evaluate([answers], [data.csv], tmp_path / "c", SCHEMA, EvaluationSettings(None, blind=(blind,)))


def test_draws_by_groups_are_the_same_from_the_csv_and_the_dataset(data: Data, tmp_path: Path):
    answers = data.predictions(tmp_path / "predictions.jsonl", weather="Clear")
    by_trip = EvaluationSettings(None, group_column="Trip")
    of_csv = evaluate([answers], [data.csv], tmp_path / "a", SCHEMA, by_trip)
    of_dataset = evaluate([answers], [data.dataset], tmp_path / "b", SCHEMA, by_trip)
    by_clip = evaluate([answers], [data.csv], tmp_path / "c", SCHEMA, EvaluationSettings(None))
    weather, other, alone = (m["crash"]["fields"]["Weather"] for m in (of_csv, of_dataset, by_clip))
    assert (weather["low"], weather["high"]) == (other["low"], other["high"])
    assert weather["score"] == alone["score"] and (weather["low"], weather["high"]) != (alone["low"], alone["high"])
    assert "24 groups" in weather["flags"][0]
    assert of_csv["settings"]["interval"].endswith("resampled whole: equal cells of Trip")
    unasked = evaluate([answers], [data.dataset], tmp_path / "d", SCHEMA, EvaluationSettings(None))
    assert "48 clips that splits.json keeps together" in unasked["settings"]["groups"]
    assert "24 groups" in unasked["crash"]["fields"]["Weather"]["flags"][0]
    records = json.loads((tmp_path / "a" / "records.json").read_text())["clips"]
    assert len({clip["group"] for clip in records}) == 24
    with pytest.raises(ValueError, match=r"keeps the groups of 'Trip'.*or set --group_column to 'Trip'"):
        evaluate([answers], [data.dataset], tmp_path, SCHEMA, EvaluationSettings(None, group_column="Driver"))
    with pytest.raises(ValueError, match="missing columns: Driver"):
        evaluate([answers], [data.csv], tmp_path, SCHEMA, EvaluationSettings(None, group_column="Driver"))
