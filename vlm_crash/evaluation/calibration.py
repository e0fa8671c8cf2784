"""Forecasts -> `calibration` of metrics.json: can a probability be trusted, and which answers need nobody's look.

Temperatures and thresholds are chosen on other clips (`calibrate_on`) and reported on these; without others there is
no temperature, and a threshold chosen on these very clips is called so. Where there is a temperature, thresholds are of
the calibrated probabilities, which records.json has as well; else of the probabilities as predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vlm_crash.evaluation.bootstrap import Array, Resamples, counted_share_interval, no_interval
from vlm_crash.evaluation.forecasts import Forecasts, event_forecasts, field_forecasts
from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.metrics.calibration import (
    Flags,
    apply_temperature,
    brier_score,
    calibration_error,
    error_if_calibrated,
    fit_temperature,
    lowest_threshold,
    reliability_bins,
    risk_coverage,
)
from vlm_crash.metrics.functional import is_scored
from vlm_crash.schema.fields import Schema

#: With fewer clips to fit it on, a temperature is none.
MIN_CLIPS = 10
NOT_GIVEN = "no other clips to fit it on; give predictions of the val split as --calibrate_on"
VALIDATION, THESE = "the clips of calibrate_on", "these very clips, which flatters it"
NO_ANSWER = "no answer of this field has a probability"
NONE_ACCEPTED = "no answer is accepted"


@dataclass(frozen=True)
class _Accepted:
    """Answers of one event that the thresholds accept, those of them that are right, of how many."""

    accepted: int
    right: int
    total: int
    counts_N2: Array  # of each clip of the event: right, accepted


def add_calibration(
    metrics: dict[str, Any],
    schema: Schema,
    scored: Sequence[ScoredEvent],
    held_out: Sequence[ScoredEvent] | None,
    resamples: Mapping[str, Resamples],
    settings: EvaluationSettings,
) -> None:
    """Put `calibration` into the entries of the event and of each categorical and count field.

    Args:
        metrics: as `summarise` makes it; overall gets "operating_point" (all fields of all events together) and, where
            there are other clips, "calibrated_on" (how many, and failed ones, on which nothing is fitted).
        held_out: the scored clips of `calibrate_on`, by event as `scored`; None: not given.
        resamples: draws of the clips of each event.

    Raises:
        ValueError: calibrate_on is given, and there are no probabilities to calibrate.
    """
    others: Sequence[ScoredEvent | None] = held_out or [None] * len(scored)
    parts, found = [], False
    for one, other in zip(scored, others, strict=True):
        columns = []
        for field in (field for field in one.event.fields if is_scored(field)):
            forecasts = field_forecasts(one, field)
            fitted_on = field_forecasts(other, field) if other is not None else None
            drawn = resamples[one.event.name].of(forecasts.clip_N)
            entry = calibration_entry(forecasts, fitted_on, settings, drawn)
            _put(metrics[one.event.name]["fields"][field.name], entry, forecasts)
            columns.append((forecasts, entry))
            found |= entry is not None
        parts.append(_accepted(columns, len(one.clips)))
    forecasts = event_forecasts(schema, [clip for clip in _clips(scored) if _is_untold(clip)])
    fitted_on = None
    if held_out is not None:
        fitted_on = event_forecasts(schema, [clip for clip in _clips(held_out) if _is_untold(clip)])
    joint = Resamples.joint([resamples[one.event.name] for one in scored])
    untold_N = np.array([_is_untold(clip) for clip in _clips(scored)], dtype=bool)
    entry = calibration_entry(forecasts, fitted_on, settings, joint.of(untold_N))
    _put(metrics["event"], entry, forecasts)
    if held_out is not None and not found and entry is None:
        raise ValueError("calibrate_on has no effect: no prediction carries probabilities; leave it out")
    if held_out is not None:
        clips = _clips(held_out)
        failed = sum(clip.prediction is None or clip.prediction.status != "ok" for clip in clips)
        metrics["overall"]["calibrated_on"] = {"n": len(clips), "failed": failed}
    metrics["overall"]["operating_point"] = _overall(parts, settings, held_out is not None, joint) if found else None
    if not found:
        metrics["overall"].setdefault("reasons", {})["operating_point"] = NO_ANSWER


def _put(entry: dict[str, Any], calibration: dict[str, Any] | None, forecasts: Forecasts) -> None:
    entry["calibration"] = calibration
    if calibration is None:
        counts = ", ".join(f"{reason}: {n}" for reason, n in forecasts.without.items())
        entry["reasons"]["calibration"] = f"no clip has probabilities ({counts or 'no clip with a known truth'})"


def _clips(scored: Sequence[ScoredEvent]) -> list[ScoredClip]:
    return [clip for event in scored for clip in event.clips]


def _is_untold(clip: ScoredClip) -> bool:
    """Whether its event was not told to the model, so that it was predicted."""
    return clip.joined.loaded is None or not clip.joined.loaded.told_event


def calibration_entry(
    forecasts: Forecasts, fitted_on: Forecasts | None, settings: EvaluationSettings, resamples: Resamples
) -> dict[str, Any] | None:
    """One `calibration`; None where no clip has probabilities. `resamples`: draws of the clips of `forecasts`."""
    if not len(forecasts.probability_MK):
        return None
    after = _after(forecasts, fitted_on)
    temperature = applied_temperature(after)
    said_M, came_true_M = forecasts.reliability()
    bins = reliability_bins(said_M, came_true_M)
    confidence_A, right_A = forecasts.accepted_right(temperature)
    num_clips = len(forecasts.right_N)
    entry: dict[str, Any] = {
        "n": len(said_M),
        "n_without": num_clips - len(said_M),
        "without": dict(forecasts.without),
        "ece": calibration_error(bins),
        "ece_if_calibrated": error_if_calibrated(said_M, np.random.default_rng(settings.seed)),
        "brier": brier_score(forecasts.probability_MK, forecasts.truth_M),
        "bins": [asdict(one) for one in bins],
        **after,
        "risk_coverage": risk_coverage(confidence_A, right_A, num_clips),
        "operating_point": _operating_point(forecasts, fitted_on, settings.wanted_accuracy, temperature, resamples),
    }
    return entry


def applied_temperature(entry: Mapping[str, Any] | None) -> float | None:
    """The temperature of a `calibration` that holds; None where there is none, or it ran to its bound."""
    return (
        None
        if entry is None or "temperature" in entry["reasons"] or "ece_after" in entry["reasons"]
        else entry["temperature"]
    )


def _after(forecasts: Forecasts, fitted_on: Forecasts | None) -> dict[str, Any]:
    """The temperature of the other clips, and what it does to these."""
    names = ("ece_after", "brier_after", "bins_after")
    after: dict[str, Any] = {"temperature": None, "temperature_n": 0, **dict.fromkeys(names)}
    if fitted_on is None:
        return after | {"reasons": dict.fromkeys(("temperature", *names), NOT_GIVEN)}
    after["temperature_n"] = n = len(fitted_on.truth_M)
    if n < MIN_CLIPS:
        reason = f"only {n} clips of calibrate_on have probabilities; {MIN_CLIPS} or more are needed"
        return after | {"reasons": dict.fromkeys(("temperature", *names), reason)}
    found = fit_temperature(fitted_on.probability_MK, fitted_on.truth_M)
    after["temperature"] = found.value
    if found.at_bound:
        always = (fitted_on.probability_MK.argmax(1) == fitted_on.truth_M).all()
        why = "; every truth is the most probable term there, which tells none" if always else ""
        reason = f"the temperature ran to its bound, {found.value:g}, on {n} clips{why}; it is not applied"
        return after | {"reasons": dict.fromkeys(("temperature", *names), reason)}
    bins = reliability_bins(*forecasts.reliability(found.value))
    after |= {
        "ece_after": calibration_error(bins),
        "brier_after": brier_score(apply_temperature(forecasts.probability_MK, found.value), forecasts.truth_M),
        "bins_after": [asdict(one) for one in bins],
    }
    return after | {"reasons": {}}


def _operating_point(
    forecasts: Forecasts, fitted_on: Forecasts | None, wanted: float, temperature: float | None, resamples: Resamples
) -> dict[str, Any]:
    """The lowest threshold that reached the wanted accuracy where it was chosen, and what it gives on these clips."""
    chosen_A, chosen_right_A = (forecasts if fitted_on is None else fitted_on).accepted_right(temperature)
    threshold = lowest_threshold(chosen_A, chosen_right_A, wanted)
    point: dict[str, Any] = {
        "wanted": wanted,
        "threshold": threshold,
        "is_calibrated": temperature is not None,
        "chosen_on": THESE if fitted_on is None else VALIDATION,
        "n_chosen_on": len(chosen_A),
        **dict.fromkeys(("coverage", "accuracy", "low", "high")),
        "reasons": {},
    }
    names = ("accuracy", "low", "high")
    if threshold is None:
        reason = f"no threshold reaches {wanted:g} on {point['chosen_on']}" if len(chosen_A) else NO_ANSWER
        return point | {"coverage": 0.0, "reasons": dict.fromkeys(("threshold", *names), reason)}
    accepted_N = forecasts.confidence(temperature) >= threshold
    right, num_accepted = int(forecasts.right_N[accepted_N].sum()), int(accepted_N.sum())
    point["coverage"] = num_accepted / len(accepted_N)
    if not num_accepted:
        return point | {"reasons": dict.fromkeys(names, NONE_ACCEPTED)}
    point["accuracy"] = right / num_accepted
    return point | _limits(forecasts.right_N & accepted_N, accepted_N, resamples)


def _limits(right_N: Array | Flags, accepted_N: Array | Flags, resamples: Resamples) -> dict[str, Any]:
    """`low` and `high` of the accuracy of what is accepted, or why there are none."""
    limits = counted_share_interval(right_N, accepted_N, resamples)
    if limits is not None:
        return {"low": limits[0], "high": limits[1]}
    return {"reasons": dict.fromkeys(("low", "high"), no_interval(resamples.num_units(accepted_N > 0)))}


def _accepted(columns: Sequence[tuple[Forecasts, dict[str, Any] | None]], num_clips: int) -> _Accepted:
    """Of fields and their `calibration`."""
    counts_N2 = np.zeros((num_clips, 2))
    for forecasts, entry in columns:
        threshold = None if entry is None else entry["operating_point"]["threshold"]
        confidence_N = forecasts.confidence(applied_temperature(entry))
        taken_N = confidence_N >= (np.inf if threshold is None else threshold)
        counts_N2[forecasts.clip_N] += np.stack([taken_N & forecasts.right_N, taken_N], axis=1)
    right, accepted = (int(count) for count in counts_N2.sum(0))
    total = sum(len(forecasts.right_N) for forecasts, _ in columns)
    return _Accepted(accepted, right, total, counts_N2)


def _overall(
    parts: Sequence[_Accepted], settings: EvaluationSettings, has_others: bool, resamples: Resamples
) -> dict[str, Any]:
    """All fields of all events at their thresholds; clips are resampled with all their answers."""
    accepted, right, total = (sum(getattr(part, name) for part in parts) for name in ("accepted", "right", "total"))
    point: dict[str, Any] = {
        "wanted": settings.wanted_accuracy,
        "chosen_on": VALIDATION if has_others else THESE,
        "n": total,
        "coverage": accepted / total,
        **dict.fromkeys(("accuracy", "low", "high")),
        "reasons": {},
    }
    if not accepted:
        return point | {"reasons": dict.fromkeys(("accuracy", "low", "high"), NONE_ACCEPTED)}
    counts_N2 = np.concatenate([part.counts_N2 for part in parts])
    return point | {"accuracy": right / accepted} | _limits(counts_N2[:, 0], counts_N2[:, 1], resamples)


def operating_sentence(point: dict[str, Any] | None) -> str:
    """One line for people; empty where no answer has a probability."""
    if point is None:
        return ""
    start = f"For {100 * point['wanted']:g} % of right answers (thresholds chosen on {point['chosen_on']}): "
    if point["accuracy"] is None:
        return start + "no answer is sure enough; look at all of them yourself."
    share, accuracy = 100 * point["coverage"], 100 * point["accuracy"]
    limits = f"{100 * point['low']:.1f} to {100 * point['high']:.1f}" if point["low"] is not None else "no interval"
    return (
        f"{start}auto-code {share:.0f} % of {point['n']:,} answers, of which {accuracy:.1f} % ({limits}) are right; "
        f"look at {100 - round(share):.0f} % yourself."
    )
