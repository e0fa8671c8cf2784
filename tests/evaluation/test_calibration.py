import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_crash.cli import main
from vlm_crash.data.jsonl import to_line
from vlm_crash.evaluation.calibration import MIN_CLIPS
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.probabilities import tempered
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.evaluation.tables import format_table
from vlm_crash.metrics.calibration import apply_temperature
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Annotation, Prediction, VideoSample

TERMS = ("Clear", "Cloudy", "Rainy", "Foggy", "Snowy")
TEMPERATURE = 2.5


@pytest.fixture
def make(schema: Schema, say, write_csv, write_lines, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Evaluate crash clips of which the weather alone is known, by rows (name, truth, prediction or None)."""

    def run(rows: list, others: list = (), **options: Any) -> dict[str, Any]:
        truth = write_csv("crash", {name: {"Weather": value} for name, value, _ in [*rows, *others]})
        lines = write_lines([said for *_, said in rows if said], "test/predictions.jsonl")
        if others:
            options["calibrate_on"] = (write_lines([said for *_, said in others], "val/predictions.jsonl"),)
        return evaluate([lines], [truth], tmp_path / "out", schema, EvaluationSettings(None, **options))

    return run


@pytest.fixture
def clip(say) -> Callable[..., tuple[str, str, Prediction]]:
    def one(name: str, truth: str, probabilities: dict[str, float], **more: Any) -> tuple[str, str, Prediction]:
        answer = max(probabilities, key=lambda term: probabilities[term])
        said = say(name, more.pop("event", "crash"), {"Weather": answer}, "crash", **more)
        return name, truth, replace(said, field_probabilities={"Weather": probabilities})

    return one


def _overconfident(clip: Callable[..., Any], names: str, num_clips: int, seed: int) -> list[Any]:
    """Truths drawn by calibrated probabilities; said are these, sharpened by a known temperature."""
    rng = np.random.default_rng(seed)
    calibrated_NK = apply_temperature(np.exp(rng.normal(0, 1.5, (num_clips, len(TERMS)))), 1.0)
    truth_N = (rng.random((num_clips, 1)) > calibrated_NK.cumsum(1)).sum(1).clip(max=len(TERMS) - 1)
    said_NK = apply_temperature(calibrated_NK, 1 / TEMPERATURE)
    return [
        clip(f"{names}{n}.mp4", TERMS[truth], dict(zip(TERMS, map(float, said_K), strict=True)))
        for n, (truth, said_K) in enumerate(zip(truth_N, said_NK, strict=True))
    ]


def test_an_overconfident_model_is_found_out_and_mended(make, clip, schema: Schema):
    rows, others = _overconfident(clip, "t", 400, seed=0), _overconfident(clip, "v", 400, seed=1)
    failed = replace(others[0][2], status="failed", fields={}, field_probabilities={}, event=None, response="")
    lost = ("lost.mp4", "Clear", replace(failed, video="lost.mp4"))
    metrics = make(rows, [*others, lost], only_predicted=True, wanted_accuracy=0.8)
    assert metrics["overall"]["calibrated_on"] == {"n": 401, "failed": 1}
    found = metrics["crash"]["fields"]["Weather"]["calibration"]
    assert (found["n"], found["n_without"], found["temperature_n"]) == (400, 0, 400)
    assert found["temperature"] == pytest.approx(TEMPERATURE, rel=0.15)
    assert found["ece"] > 0.15 > 3 * found["ece_if_calibrated"] > found["ece_after"]
    assert found["brier"] > found["brier_after"]
    assert sum(one["n"] for one in found["bins"]) == sum(one["n"] for one in found["bins_after"]) == 400
    assert found["risk_coverage"][0]["coverage"] == 1
    assert found["risk_coverage"][0]["accuracy"] == metrics["crash"]["fields"]["Weather"]["score"]
    point = found["operating_point"]
    assert point["is_calibrated"]
    rights = [
        (tempered(said.field_probabilities["Weather"], found["temperature"])[said.fields["Weather"]],
         said.fields["Weather"] == truth)
        for _, truth, said in others
    ]  # fmt: skip
    accepted = [right for confidence, right in rights if confidence >= point["threshold"]]
    assert np.mean(accepted) >= 0.8 > np.mean([right for _, right in rights])  # chosen on the others
    assert 0 < point["coverage"] < 1 and point["low"] < point["accuracy"] < point["high"]
    overall = metrics["overall"]["operating_point"]
    assert (overall["n"], overall["coverage"], overall["accuracy"]) == (400, point["coverage"], point["accuracy"])
    share = round(100 * point["coverage"])
    sentence = rf"chosen on the clips of calibrate_on\): auto-code {share} % of 400 answers, .* look at {100 - share} %"
    assert re.search(sentence, " ".join(format_table(metrics, schema).split()))


def test_clips_without_probabilities_are_said_and_accepted_by_nobody(make, clip, say):
    """Right, wrong, failed, absent, of another event, free, with an odd sum; and one whose truth is not known."""
    sure = {"Clear": 0.9, "Rainy": 0.1}
    rows = [clip(f"{n}.mp4", truth, sure) for n, truth in enumerate(["Clear", "Clear", "Clear", "Rainy"])]
    rows += [
        ("4.mp4", "Clear", say("4.mp4", "crash", {}, "crash", status="failed", error="no video stream")),
        ("5.mp4", "Clear", None),
        clip("6.mp4", "Clear", {"Clear": 0.95, "Rainy": 0.05}, event="nearmiss"),
        ("7.mp4", "Clear", say("7.mp4", "crash", {"Weather": "Clear"}, "crash")),
        clip("8.mp4", "Clear", {"Clear": 0.6}),
        clip("9.mp4", "", sure),  # no truth: in no count
    ]
    metrics = make(rows)
    found = metrics["crash"]["fields"]["Weather"]["calibration"]
    assert (found["n"], found["n_without"]) == (4, 5)
    assert found["without"] == {
        "failed": 1, "no prediction": 1, "another event was told": 1, "no probabilities": 1,
        "its probabilities do not sum to 1": 1,
    }  # fmt: skip
    assert found["ece"] == pytest.approx(0.15)
    assert found["brier"] == pytest.approx((3 * 0.02 + 1.62) / 4)
    assert found["temperature"] is None and "calibrate_on" in found["reasons"]["temperature"]
    # The near miss's record says Clear, too, and surest of all: whoever accepts 0.95 takes it, and it is wrong.
    assert found["risk_coverage"][-1] == {"threshold": 0.95, "coverage": 1 / 9, "accuracy": 0}
    assert found["risk_coverage"][0] == {"threshold": 0.6, "coverage": 6 / 9, "accuracy": pytest.approx(4 / 6)}
    point = found["operating_point"]
    assert (point["threshold"], point["coverage"], point["accuracy"]) == (None, 0, None)
    assert point["reasons"]["accuracy"] == "no threshold reaches 0.95 on these very clips, which flatters it"
    assert metrics["crash"]["fields"]["Lanes"]["calibration"] is None
    assert "no clip with a known truth" in metrics["crash"]["fields"]["Lanes"]["reasons"]["calibration"]


def test_the_event_and_its_probability(make, clip):
    """P(crash) beside the share of crashes, whichever event is named; confidence is that of the event named."""
    probabilities = [0.9, 0.9, 0.8, 0.3]
    rows = [
        clip(f"{n}.mp4", "Clear", {"Clear": 1.0}, event="crash" if p > 0.5 else "nearmiss", event_probability=p)
        for n, p in enumerate(probabilities)
    ]
    found = make(rows)["event"]["calibration"]
    assert [(one["n"], one["accuracy"]) for one in found["bins"]] == [(1, 1), (1, 1), (2, 1)]
    assert found["ece"] == pytest.approx((0.7 + 0.2 + 2 * 0.1) / 4)
    assert found["brier"] == pytest.approx(2 * (0.49 + 0.04 + 2 * 0.01) / 4)
    assert [(one["threshold"], one["coverage"]) for one in found["risk_coverage"]] == [
        (0.7, 1),
        (0.8, 0.75),
        (0.9, 0.5),
    ]
    assert (found["operating_point"]["threshold"], found["operating_point"]["accuracy"]) == (0.8, 1)


def test_too_few_or_too_good_clips_give_no_temperature(make, clip):
    rows = [clip("t.mp4", "Clear", {"Clear": 0.8, "Rainy": 0.2})]
    others = [clip(f"{n}.mp4", "Clear", {"Clear": 0.8, "Rainy": 0.2}) for n in range(MIN_CLIPS)]
    right = make(rows, others, only_predicted=True)["crash"]["fields"]["Weather"]["calibration"]
    assert (right["temperature"], right["ece_after"]) == (0.05, None)
    assert "ran to its bound, 0.05, on 10 clips; every truth is the most probable" in right["reasons"]["ece_after"]
    few = make(rows, others[1:], only_predicted=True)["crash"]["fields"]["Weather"]["calibration"]
    assert (few["temperature"], few["temperature_n"]) == (None, 9)
    assert "only 9 clips" in few["reasons"]["temperature"]


def test_what_cannot_be_calibrated_is_refused(make, clip, say, write_lines, tmp_path: Path, caplog):
    row = clip("t.mp4", "Clear", {"Clear": 0.8, "Rainy": 0.2}, provenance="a")
    with pytest.raises(ValueError, match=r"1 clips of calibrate_on are evaluated themselves \(crash/v.mp4\)"):
        make([row], [clip("v.mp4", "Clear", {"Clear": 1.0})])
    truth, test, val = tmp_path / "crash.csv", tmp_path / "test.jsonl", tmp_path / "val.jsonl"
    truth.write_text("video_id,Weather,Trip\nt,Clear,1\nv,Rainy,1\n")
    silent = replace(row[2], video="v.mp4", provenance="")
    write_lines([row[2]], test.name), write_lines([silent], val.name)
    for column in ("Trip", None):
        settings = EvaluationSettings(None, calibrate_on=(val,), only_predicted=True, group_column=column)
        if column:
            with pytest.raises(ValueError, match=r"1 clips of calibrate_on .* by the group column \(crash/v.mp4\)"):
                evaluate([test], [truth], tmp_path / "out", settings=settings)
        else:
            evaluate([test], [truth], tmp_path / "out", settings=settings)
            assert "1 predictions of calibrate_on do not say of which run they are" in caplog.text
    other = clip("v.mp4", "Clear", {"Clear": 1.0}, provenance="b")
    with pytest.raises(ValueError, match=r"of another model or of other settings \(run b; evaluated is a\)"):
        make([row], [other], only_predicted=True)
    free = [
        ("t.mp4", "Clear", say("t.mp4", "crash", {}, "crash")),
        ("v.mp4", "Clear", say("v.mp4", "crash", {}, "crash")),
    ]
    with pytest.raises(ValueError, match="calibrate_on has no effect: no prediction carries probabilities"):
        make(free[:1], free[1:], only_predicted=True)
    nowhere = ("v.mp4", "Clear", say("w.mp4", "crash", {}, "crash"))
    with pytest.raises(ValueError, match="none of the predictions of calibrate_on is of a clip in the truth"):
        make([row], [nowhere], only_predicted=True)
    with pytest.raises(ValueError, match=r"wanted_accuracy=95\.0 is not a share"):
        make([row], wanted_accuracy=95.0)
    with pytest.raises(ValueError, match=r"'field_probabilities\.Weather' must hold numbers, not \{'Clear': 'high'\}"):
        make([("t.mp4", "Clear", replace(row[2], field_probabilities={"Weather": {"Clear": "high"}}))])


def test_clips_that_prepare_keeps_together_are_on_one_side(clip, write_lines, schema: Schema, tmp_path: Path):
    """Three clips of a dataset, two of them of one group; each is predicted, and a pair of them is asked for."""
    data = tmp_path / "data"
    data.mkdir()
    samples = [
        VideoSample(id=f"crash_{n}", video=f"{n}.mp4", path=data / f"{n}.mp4", event="crash",
                    annotation=Annotation.of(schema, "crash", {"Weather": "Clear"}), duration_s=2.0)
        for n in range(3)
    ]  # fmt: skip
    (data / "crash_ft.jsonl").write_text("".join(to_line(sample, schema, "What?") + "\n" for sample in samples))
    (data / "diy_ft_data.json").write_text(json.dumps({"crash": {"annotation": "crash_ft.jsonl", "root": "."}}))
    assign = {sample.id: "test" for sample in samples}
    (data / "splits.json").write_text(json.dumps({"assign": assign, "groups": {"crash_0": "g", "crash_1": "g"}}))
    lines = [write_lines([clip(f"{n}.mp4", "Clear", {"Clear": 1.0})[2]], f"{n}/predictions.jsonl") for n in range(3)]

    def on(which: Path) -> dict[str, Any]:
        settings = EvaluationSettings(None, only_predicted=True, calibrate_on=(which,))
        return evaluate([lines[0]], [data], tmp_path / "out", schema, settings)

    with pytest.raises(ValueError, match=r"1 clips of .* evaluated groups, by splits\.json \(crash/1\.mp4\)"):
        on(lines[1])
    assert on(lines[2])["overall"]["calibrated_on"]["n"] == 1


def test_every_exact_interval_knows_the_groups(clip, write_lines, schema: Schema, tmp_path: Path):
    """Twenty clips of four trips, all right: as sure as four, whether it is one field, all of them, or the rules."""
    rows = [clip(f"{n}.mp4", "Clear", {"Clear": 0.8, "Rainy": 0.2}, event_probability=0.9) for n in range(20)]
    truth = tmp_path / "crash.csv"
    truth.write_text("video_id,Weather,Trip\n" + "".join(f"{n}.mp4,Clear,{n // 5}\n" for n in range(20)))
    lines = write_lines([said for *_, said in rows], "test/predictions.jsonl")
    settings = EvaluationSettings(None, num_draws=100, group_column="Trip")
    metrics = evaluate([lines], [truth], tmp_path / "out", schema, settings)
    weather, event = metrics["crash"]["fields"]["Weather"], metrics["event"]
    shares = [weather, *(one["operating_point"] for one in (weather["calibration"], event["calibration"]))]
    shares.append(metrics["overall"]["operating_point"])
    assert [one["low"] for one in shares] == pytest.approx([0.025 ** (1 / 4)] * 4)
    assert metrics["consistency"]["answers"]["high"] == pytest.approx(1 - 0.025 ** (1 / 4))


def test_new_clips_are_taken_by_the_rule_that_was_evaluated(make, clip, say, write_lines, tmp_path, capsys, caplog):
    """The share that `evaluate` accepted of these clips is the share that `triage` takes of the same ones, unseen."""
    rows, others = _overconfident(clip, "t", 300, seed=0), _overconfident(clip, "v", 300, seed=1)
    rows, others = ([(n, t, replace(said, provenance="a")) for n, t, said in part] for part in (rows, others))
    extra = ("x.mp4", "", replace(rows[0][2], video="x.mp4", provenance="z"))  # no truth: its run is not evaluated
    metrics = make([*rows, extra], others, only_predicted=True, wanted_accuracy=0.8)
    assert metrics["clips"]["without_truth"]["n"] == 1
    entry = metrics["crash"]["fields"]["Weather"]["calibration"]
    records = json.loads((tmp_path / "out" / "records.json").read_text())["clips"]
    first, (_, _, said) = records[0]["fields"]["Weather"], rows[0]
    wanted = tempered(said.field_probabilities["Weather"], entry["temperature"])[said.fields["Weather"]]
    assert (first["probability"], first["calibrated"]) == (pytest.approx(wanted, abs=1e-4), True)
    assert first["probability_as_predicted"] == pytest.approx(
        max(said.field_probabilities["Weather"].values()), abs=1e-4
    )
    assert max(first["probabilities"].values()) == first["probability"]
    failed = say("lost.mp4", "crash", {}, "crash", status="failed", error="no video", provenance="a")
    lines = write_lines([*(said for *_, said in rows), failed], "new/predictions.jsonl")
    command = ["triage", str(lines.parent), "--calibration", str(tmp_path / "out"), "--out", str(tmp_path / "triage")]
    assert main(command) == 0
    with (tmp_path / "triage" / "triage.csv").open(newline="") as file:
        found = {row["video"]: row for row in csv.DictReader(file)}
    taken = [name for name, row in found.items() if "Weather" not in row["look_at"] and row["status"] == "ok"]
    assert len(taken) / 300 == pytest.approx(entry["operating_point"]["coverage"])
    rights = {name: said.fields["Weather"] == truth for name, truth, said in rows}
    assert np.mean([rights[name] for name in taken]) == pytest.approx(entry["operating_point"]["accuracy"])
    assert float(found["t0.mp4"]["Weather p"]) == pytest.approx(wanted, abs=1e-4)
    assert (found["lost.mp4"]["look_at"], len(found)) == ("all", 301)
    counts = json.loads((tmp_path / "triage" / "triage.json").read_text())
    assert counts["answers"]["crash"]["Weather"] == {"answers": 300, "taken": len(taken)}
    said = capsys.readouterr().out
    assert "301 clips, 1 without an answer" in said and "where it was evaluated, " in said
    write_lines([replace(rows[0][2], provenance="b")], "new/predictions.jsonl")
    assert main(command) == 2
    assert "is of run b, and the calibration of a: another model" in capsys.readouterr().err
    write_lines([*(said for *_, said in rows[:3]), rows[1][2]], "new/predictions.jsonl")
    assert main(command) == 2
    message = "crash/t1.mp4 is predicted twice, and for the second time in "
    assert message + f"{lines}, line 4; keep one of the two lines" in capsys.readouterr().err
    lines.write_text("\n")
    assert main(command) == 2
    assert f"no predictions in {lines.parent}; expected predictions.jsonl" in capsys.readouterr().err
    assert main(["triage", "nowhere", *command[2:]]) == 2
    message = capsys.readouterr().err
    assert "no such predictions: nowhere; give the folder" in message and "cannot write" not in message
    assert len((tmp_path / "triage" / "triage.csv").read_text().splitlines()) == 302  # as it was
    assert "run id" not in caplog.text
    write_lines([replace(one, provenance="") for *_, one in rows[:3]], "new/predictions.jsonl")
    assert main(command) == 0 and caplog.text.count("line 1: the prediction has no run id") == 1
    assert caplog.text.count("run id") == 1
