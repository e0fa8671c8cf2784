from typing import Any

import numpy as np
import pytest

from vlm_crash.evaluation.folds import Run, gather
from vlm_crash.evaluation.folds_table import folds_csv, folds_table

NUM_CLIPS = 40


def _run(fold: int, seed: int, rights: dict[str, float], event_rights: dict[str, bool]) -> Run:
    """An evaluation of clips of which one field is known, as evaluate would write it."""
    clips = [
        {
            "id": id, "event": id.split("_")[0],
            "predicted_event": id.split("_")[0] if event_rights[id] else None,
            "event_probability": 0.9 - seed / 10,
            "fields": {"Weather": {"score": right, "probability": None}, "Note": {"score": None, "probability": None}},
        }
        for id, right in rights.items()
    ]  # fmt: skip
    metrics: dict[str, Any] = {"clips": {}, "settings": {}}
    means = {}
    for event in ("crash", "nearmiss"):
        scores = [c["fields"]["Weather"]["score"] for c in clips if c["event"] == event]
        means[event] = float(np.mean(scores)) if scores else None
        weather = {"kind": "categorical", "score": means[event], "baseline": 0.4}
        fields = {"Weather": weather, "Note": {"kind": "text", "score": None, "baseline": None}}
        metrics[event] = {"num_clips": len(scores), "fields": fields}
    recall = {e: float(np.mean([event_rights[c["id"]] for c in clips if c["event"] == e])) for e in means if means[e]}
    metrics["event"] = {"recall": recall, "balanced_accuracy": float(np.mean(list(recall.values()))),
                        "baseline": {"balanced_accuracy": 0.5}}  # fmt: skip
    mean = float(np.mean([value for value in means.values() if value is not None]))
    metrics["overall"] = {"mean": {"score": mean, "baseline": 0.4}, "text_mean": {"score": None, "baseline": None}}
    return Run(fold, seed, metrics, clips)


@pytest.fixture
def made() -> tuple[list[Run], dict[str, int]]:
    """Two folds and two seeds; the second seed is a little worse, the second fold much."""
    rng = np.random.default_rng(0)
    ids = [f"{event}_{n}" for event in ("crash", "nearmiss") for n in range(NUM_CLIPS)]
    fold_of = {id: n % 2 for n, id in enumerate(ids)}
    runs = []
    for fold in range(2):
        for seed in range(2):
            own = [id for id in ids if fold_of[id] == fold]
            rights = {id: float(rng.random() < 0.9 - 0.3 * fold - 0.1 * seed) for id in own}
            runs.append(_run(fold, seed, rights, {id: bool(rng.random() < 0.8) for id in own}))
    return runs, fold_of


def _find(found: dict[str, Any], event: str, field: str) -> dict[str, Any]:
    rows = [row for row in found["rows"] if (row["event"], row["field"]) == (event, field)]
    return next(row for row in rows if row["metric"] != "cosine_similarity")


def test_every_clip_counts_once_in_the_pool_and_runs_stand_beside_it(made):
    runs, fold_of = made
    found = gather(runs, fold_of, {}, num_draws=500)
    assert found["clips"] == {"n": 80, "scored": 80}
    scores: dict[str, list[float]] = {}
    for run in runs:
        for clip in run.clips:
            scores.setdefault(clip["id"], []).append(clip["fields"]["Weather"]["score"])
    row = _find(found, "crash", "Weather")
    of_clips = [np.mean(same) for id, same in scores.items() if id.startswith("crash")]
    assert row["pooled"] == pytest.approx(np.mean(of_clips))
    assert (row["n"], row["baseline"]) == (NUM_CLIPS, pytest.approx(0.4))
    of_runs = np.array([run.metrics["crash"]["fields"]["Weather"]["score"] for run in runs]).reshape(2, 2)
    assert (row["mean"], row["least"], row["most"]) == pytest.approx((of_runs.mean(), of_runs.min(), of_runs.max()))
    assert row["spread_of_folds"] == pytest.approx(of_runs.mean(1).std(ddof=1))
    assert row["spread_of_seeds"] == pytest.approx(of_runs.mean(0).std(ddof=1))
    error = np.std(of_clips, ddof=1) / len(of_clips) ** 0.5  # the bootstrap of a mean is about so wide
    assert (row["high"] - row["low"]) == pytest.approx(2 * 1.96 * error, rel=0.15)
    mean, event = _find(found, "all", "mean"), _find(found, "all", "event")
    assert mean["pooled"] == pytest.approx((row["pooled"] + _find(found, "nearmiss", "Weather")["pooled"]) / 2)
    recalls = [_find(found, name, "event")["pooled"] for name in ("crash", "nearmiss")]
    assert event["pooled"] == pytest.approx(np.mean(recalls)) and event["low"] < event["pooled"] < event["high"]
    assert found["notes"] == []
    text = folds_table(found).splitlines()
    assert len(text) == len(found["rows"]) + 1 == len(folds_csv(found).splitlines())
    assert "0.400" in next(line for line in text if line.startswith("crash") and "Weather" in line)


def test_clips_of_a_group_are_drawn_together(made):
    """Ten clips that are one: the interval is that of a tenth of the clips."""
    runs, fold_of = made
    copies = {id: f"{id.split('_')[0]} {n // 20}" for n, id in enumerate(fold_of)}
    scores = {group: float(n % 2) for n, group in enumerate(dict.fromkeys(copies.values()))}
    runs = [_run(run.fold, 0, {c["id"]: scores[copies[c["id"]]] for c in run.clips}, dict.fromkeys(fold_of, True))
            for run in runs[::2]]  # fmt: skip
    together, apart = (_find(gather(runs, fold_of, g, 500), "crash", "Weather") for g in (copies, {}))
    assert together["pooled"] == apart["pooled"] == 0.5
    assert (together["low"], together["high"]) == (0, 1)
    assert 0.3 < apart["low"] < apart["high"] < 0.7
    assert together["spread_of_seeds"] is None and "two seeds" in together["reasons"]["spread_of_seeds"]


def test_a_run_that_is_absent_is_counted_and_not_made_up(made):
    runs, fold_of = made
    found = gather(runs[:1], fold_of, {}, num_draws=100)
    assert found["clips"] == {"n": 80, "scored": 40}
    row = _find(found, "crash", "Weather")
    assert (row["n"], row["spread_of_folds"]) == (20, None)
    three = _find(gather(runs[:3], fold_of, {}, num_draws=100), "crash", "Weather")
    first, second = (run.metrics["crash"]["fields"]["Weather"]["score"] for run in runs[:2])
    assert three["spread_of_seeds"] == pytest.approx(np.std([first, second], ddof=1))  # of the fold that has both
    for row in found["rows"]:
        assert all(name in row["reasons"] for name, value in row.items() if value is None)
    with pytest.raises(ValueError, match=r"fold 1, seed 0 is not of the clips of that fold \(40 others, 40 absent"):
        gather([Run(1, 0, runs[0].metrics, runs[0].clips)], fold_of, {})
    with pytest.raises(ValueError, match="no fold has been evaluated"):
        gather([], fold_of, {})


def test_two_seeds_that_gave_one_model_are_named(made):
    runs, fold_of = made
    again = Run(0, 1, runs[0].metrics, runs[0].clips)
    found = gather([runs[0], again, *runs[2:]], fold_of, {}, num_draws=100)
    assert found["notes"] == ["fold 0: seeds 0 and 1 gave the same probabilities; the seed did nothing"]
    assert folds_table(found).endswith(found["notes"][0])
