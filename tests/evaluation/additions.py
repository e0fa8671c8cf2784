"""What later versions of `evaluate` add to metrics.json and records.json, put onto an evaluation that lacks it.

The page draws each part where it is and leaves it out where it is not; here all of them are there, with small numbers.
"""

from typing import Any

import numpy as np

BINS = 10


def add_all(metrics: dict[str, Any], records: dict[str, Any], seed: int = 0) -> None:
    """Every optional key, in place."""
    rng = np.random.default_rng(seed)
    for event in records["schema"]["events"]:
        for name, field in metrics[event]["fields"].items():
            clips = [clip for clip in records["clips"] if clip["event"] == event]
            _add_to_field(field, [clip["fields"][name] for clip in clips], rng)
    metrics["event"]["calibration"] = calibration(rng.uniform(0.5, 1, 60), rng.uniform(0, 1, 60) < 0.9)
    clip = records["clips"][0]
    metrics["consistency"] = {
        "rules": [
            {
                "name": "snow_dry", "sentence": "Snow & a dry road", "event": clip["event"], "n": 40, "violations": 1,
                "rate": 0.025, "low": 0.0, "high": 0.1, "truth_violations": 1, "truth_n": 40,
            }
        ],
        "violations": [
            {"event": clip["event"], "video": clip["video"], "rule": "snow_dry", "values": {"Weather": "<b>Snowy"}}
        ],
        "truth_violations": [
            {"event": clip["event"], "video": records["clips"][1]["video"], "rule": "snow_dry", "values": {}}
        ],
    }  # fmt: skip


def _add_to_field(field: dict[str, Any], rows: list[dict[str, Any]], rng: np.random.Generator) -> None:
    if field["score"] is None:
        return
    score = {"score": field["score"] / 2, "low": 0.1, "high": 0.5}
    field["baselines"] = {"majority": {"score": field["baseline"], "low": 0.1, "high": 0.6}, "metadata": score}
    field["baselines"]["blind"] = {"score": None, "low": None, "high": None, "reason": "no predictions were given"}
    field["flags"] = ["3 terms have fewer than 10 clips"]
    field["legacy_score"] = field["score"]
    if field["kind"] == "text":
        field["roles"] = {"score": 0.9, "low": 0.8, "high": 1.0, "n": field["n"], "swapped": 1}
        return
    score = {"value": field["score"], "low": 0.2, "high": 0.9, "baseline": 0.25}
    field["scores"] = {"balanced_accuracy": score, "macro_f1": score | {"value": field["score"] * 0.9}}
    field["kappa"] = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 30}
    known = [row for row in rows if row["answer"] and row["verdict"] != "out"]
    for row in known:
        p = float(rng.beta(6, 1.2))
        row["probability"] = p
        row["probabilities"] = {row["answer"]: p, "<i>Other": 1 - p}
    if known:
        right_N = np.array([row["verdict_given_event"] == "right" for row in known])
        field["calibration"] = calibration(np.array([row["probability"] for row in known]), right_N)


def calibration(confidence_N: np.ndarray, right_N: np.ndarray) -> dict[str, Any]:
    """Bins and curve of answers: their confidence, and whether they are right."""
    bins = []
    for k in range(BINS):
        low, high = k / BINS, (k + 1) / BINS
        inside = (confidence_N >= low) & ((confidence_N < high) | (k == BINS - 1))
        means = (float(confidence_N[inside].mean()), float(right_N[inside].mean())) if inside.any() else (None, None)
        bins.append({"low": low, "high": high, "n": int(inside.sum()), "confidence": means[0], "accuracy": means[1]})
    order = np.argsort(-confidence_N)
    accuracy = np.cumsum(right_N[order]) / np.arange(1, len(order) + 1)
    curve = [
        {"threshold": float(confidence_N[n]), "coverage": (k + 1) / len(order), "accuracy": float(accuracy[k])}
        for k, n in enumerate(order)
    ][:50]
    chosen = curve[len(curve) // 2]
    return {
        "n": len(confidence_N), "ece": 0.05, "brier": 0.1, "temperature": 1.3, "ece_after": 0.03, "brier_after": 0.09,
        "bins": bins, "bins_after": bins, "risk_coverage": curve,
        "operating_point": {"wanted": 0.9, **chosen, "low": 0.8, "high": 1.0},
    }  # fmt: skip
