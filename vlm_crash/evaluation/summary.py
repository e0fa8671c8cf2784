"""Scored clips -> the numbers of metrics.json: every score with its count, its baseline and its interval.

Scores are shares from 0 to 1. What cannot be computed is null, with the reason under "reasons"; it is never 0.
Suffixes: R draws, N clips, K fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_crash.evaluation.baselines import majority_baseline
from vlm_crash.evaluation.bootstrap import (
    NO_SPREAD,
    Array,
    Resamples,
    interval,
    no_interval,
    row_means,
    share_interval,
)
from vlm_crash.evaluation.class_table import add_class_tables
from vlm_crash.evaluation.ranking import Probabilities, add_ranking
from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent
from vlm_crash.metrics.functional import Verdict, is_scored
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import Field, Schema

NO_TRUTH = "no clip has a known truth for this field"
NO_EMBEDDER = "text scores are turned off (embedder=null)"
NO_TEXTS = "no text field has a score"
NO_FIELDS = "no categorical or count field has a known truth"
ONE_EVENT = "needs truths of at least two events"
TOLD = "the model was told the event of these clips (the old scripts' files), so none was predicted"


@dataclass(frozen=True)
class EventSummary:
    """One event's part of metrics.json, and the draws [R, K] that the overall mean is made of."""

    entry: dict[str, Any]
    end_to_end_RK: Array
    given_event_RK: Array


def summarise_event(scored: ScoredEvent, embedder: SentenceEmbedder | None, resamples: Resamples) -> EventSummary:
    """Per-field scores and means of one event."""
    draws_RK = resamples.means(scored.end_to_end_NK)
    given_RK = resamples.means(scored.given_event_NK)
    fields = {
        field.name: _field_entry(scored, k, field, (draws_RK[:, k], given_RK[:, k]), resamples, embedder)
        for k, field in enumerate(scored.event.fields)
    }
    add_class_tables(scored, fields, resamples)
    exact = np.array([is_scored(field) for field in scored.event.fields], dtype=bool)
    summary = EventSummary({"fields": fields, "num_clips": len(scored.clips)}, draws_RK, given_RK)
    summary.entry["mean"] = mean_entry([summary], exact=True, is_exact=[exact])
    summary.entry["text_mean"] = mean_entry([summary], exact=False, is_exact=[exact])
    return summary


def _field_entry(
    scored: ScoredEvent,
    k: int,
    field: Field,
    draws: tuple[Array, Array],
    resamples: Resamples,
    embedder: SentenceEmbedder | None,
) -> dict[str, Any]:
    """Draws: end to end, and given the event."""
    verdicts, given = Counter(scored.verdicts(field.name)), Counter(scored.verdicts(field.name, given_event=True))
    n = sum(count for verdict, count in verdicts.items() if verdict.counted)
    baseline = majority_baseline(field, scored.truths(field.name), embedder)
    num_units = resamples.num_units(~np.isnan(scored.end_to_end_NK[:, k]))
    limits, given_limits = (
        share_interval(drawn_R, num_units) if is_scored(field) else interval(drawn_R) for drawn_R in draws
    )
    score, score_given = _mean(scored.end_to_end_NK[:, k]), _mean(scored.given_event_NK[:, k])
    entry: dict[str, Any] = {
        "kind": field.kind,
        "score": score,
        **_limits(limits),
        "n": n,
        "missing": given[Verdict.MISSING],
        "not_understood": given[Verdict.NOT_UNDERSTOOD],
        "baseline": baseline.score,
        "legacy_score": None,  # legacy_scores.py has it
        "answered_unknown": given[Verdict.UNKNOWN],
        "wrong_event": verdicts[Verdict.WRONG_EVENT],
        "right": verdicts[Verdict.RIGHT] if is_scored(field) else None,
        "compared": None if is_scored(field) else verdicts[Verdict.COMPARED],
        "baseline_answer": baseline.value,
        "end_to_end": score,
        "given_event": score_given,
        **_limits(given_limits, "given_event_"),
        "reasons": {},
    }
    if is_scored(field):
        entry["reasons"]["compared"] = "an exact match is right or wrong, not similar"
    else:
        entry["reasons"]["right"] = "a text is scored by its similarity, it is not right or wrong"
    if score is not None:
        with_reasons(entry, no_interval(num_units), ("low", "high", "given_event_low", "given_event_high"))
    return with_reasons(entry, NO_TRUTH if n == 0 else NO_EMBEDDER)


def mean_entry(summaries: Sequence[EventSummary], exact: bool, is_exact: Sequence[Any]) -> dict[str, Any]:
    """Mean over the categorical and count fields (exact), or over the text fields, of the given events.

    Every field weighs the same. In each draw the mean is taken over the fields that have a score there. Where every
    draw has the same mean (all answers are right, say) there is no interval.
    """
    entries = [
        entry
        for summary, mask in zip(summaries, is_exact, strict=True)
        for entry, flag in zip(summary.entry["fields"].values(), mask, strict=True)
        if bool(flag) == exact and entry["score"] is not None
    ]
    columns = [mask if exact else ~mask for mask in is_exact]
    draws_RK = np.concatenate([s.end_to_end_RK[:, c] for s, c in zip(summaries, columns, strict=True)], axis=1)
    given_RK = np.concatenate([s.given_event_RK[:, c] for s, c in zip(summaries, columns, strict=True)], axis=1)
    score = _mean([entry["score"] for entry in entries])
    out = {
        "metric": "exact_match" if exact else "cosine_similarity",
        "score": score,
        **_limits(interval(row_means(draws_RK))),
        "n": sum(entry["n"] for entry in entries),
        "num_fields": len(entries),
        "baseline": _mean([entry["baseline"] for entry in entries]),
        "legacy_score": None,  # legacy_scores.py has it
        "end_to_end": score,
        "given_event": _mean([entry["given_event"] for entry in entries]),
        **_limits(interval(row_means(given_RK)), "given_event_"),
        "reasons": {},
    }
    if score is not None:
        with_reasons(out, NO_SPREAD, ("low", "high", "given_event_low", "given_event_high"))
    return with_reasons(out, NO_FIELDS if exact else NO_TEXTS)


def summarise_event_choice(
    schema: Schema, scored: Sequence[ScoredEvent], resamples: Mapping[str, Resamples]
) -> dict[str, Any]:
    """How well the event itself was told: accuracy, balanced accuracy, and ranking by its probability.

    A clip without a prediction, failed, or without an event counts as wrong; so it does in the ranking (ranking.py).

    Args:
        resamples: by event, of all its clips in their order.
    """
    by_event = untold_clips(scored)
    clips = [clip for found in by_event.values() for clip in found]
    rights = {name: np.array([c.event_right for c in found], dtype=float) for name, found in by_event.items()}
    recall_RE = np.concatenate(
        [np.zeros((next(iter(resamples.values())).num_draws, 0))]
        + [resamples[name].means(rights_of(scored, name)) for name in by_event],
        axis=1,
    )
    sizes_E = np.array([len(right) for right in rights.values()], dtype=float)
    units_E = [resamples[name].num_units(~np.isnan(rights_of(scored, name)[:, 0])) for name in by_event]
    recalls = {name: _mean(right_N) for name, right_N in rights.items()}
    many = len(rights) > 1
    entry: dict[str, Any] = {
        "balanced_accuracy": _mean(list(recalls.values())) if many else None,
        "n": len(clips),
        "accuracy": _mean([float(c.event_right) for c in clips]),
        "recall": recalls,
        "without_event": sum(c.predicted_event is None for c in clips),
        "baseline": {
            "balanced_accuracy": 1 / len(rights) if many else None,
            "accuracy": float(sizes_E.max() / sizes_E.sum()) if clips else None,
        },
        "intervals": {
            "balanced_accuracy": _recalls_interval(recall_RE, units_E) if many else None,
            "accuracy": share_interval(recall_RE @ (sizes_E / sizes_E.sum()), sum(units_E)) if clips else None,
        },
        "confusion": _event_confusion(schema, by_event),
        "reasons": {},
    }
    without = [name for name, limits in entry["intervals"].items() if limits is None and entry[name] is not None]
    entry["reasons"] |= {f"intervals.{name}": no_interval(sum(units_E)) for name in without}
    add_ranking(entry, schema.event_names, _probabilities(scored, by_event), resamples, (TOLD, ONE_EVENT))
    return with_reasons(entry, TOLD if not clips else ONE_EVENT)


def _recalls_interval(recall_RE: Array, units_E: Sequence[int]) -> tuple[float, float] | None:
    """Of the mean recall; where every event is always right, or never, the mean of the exact limits of each."""
    limits = interval(row_means(recall_RE))
    exact = [share_interval(recall_R, n) for recall_R, n in zip(recall_RE.T, units_E, strict=True)]
    if limits is not None or None in exact:
        return limits
    low_high_E2 = np.array(exact)
    return float(low_high_E2[:, 0].mean()), float(low_high_E2[:, 1].mean())


def untold_clips(scored: Sequence[ScoredEvent]) -> dict[str, list[ScoredClip]]:
    """By event the clips whose event was not told to the model; nothing where it was told of every predicted one."""
    untold = {
        event.event.name: [c for c in event.clips if c.joined.loaded is None or not c.joined.loaded.told_event]
        for event in scored
    }
    if not any(clip.joined.loaded is not None for found in untold.values() for clip in found):
        return {}
    return {name: found for name, found in untold.items() if found}


def rights_of(scored: Sequence[ScoredEvent], name: str) -> Array:
    """[N, 1] of all clips of an event: 1 where it was named, 0 where not, NaN where the model was told."""
    (event,) = [event for event in scored if event.event.name == name]
    told = [c.joined.loaded is not None and c.joined.loaded.told_event for c in event.clips]
    rights = [np.nan if t else float(c.event_right) for t, c in zip(told, event.clips, strict=True)]
    return np.array(rights, dtype=np.float64)[:, None]


def _probabilities(scored: Sequence[ScoredEvent], by_event: Mapping[str, Sequence[ScoredClip]]) -> Probabilities:
    """Of the clips whose event was not told: place among the event's, and P(first event)."""
    untold = {name: {id(clip) for clip in clips} for name, clips in by_event.items()}
    return {
        event.event.name: [
            (n, _probability(clip)) for n, clip in enumerate(event.clips) if id(clip) in untold[event.event.name]
        ]
        for event in scored
        if event.event.name in by_event
    }


def _probability(clip: ScoredClip) -> float | None:
    """P(first event) where the model was not told the event."""
    loaded = clip.joined.loaded
    return None if loaded is None or loaded.told_event else loaded.prediction.event_probability


def _event_confusion(schema: Schema, by_event: dict[str, list[ScoredClip]]) -> dict[str, dict[str, int]]:
    """Clips by true event, then by predicted event ("none": failed, absent, or not told)."""
    return {
        name: {
            said: sum((clip.predicted_event or "none") == said for clip in clips)
            for said in (*schema.event_names, "none")
        }
        for name, clips in by_event.items()
    }


def with_reasons(entry: dict[str, Any], reason: str, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Give every null of an entry (or of these names) its reason where it has none yet."""
    for name, value in entry.items():
        if value is None and (names is None or name in names):
            entry["reasons"].setdefault(name, reason)
    return entry


def _limits(limits: tuple[float, float] | None, prefix: str = "") -> dict[str, float | None]:
    low, high = limits if limits is not None else (None, None)
    return {f"{prefix}low": low, f"{prefix}high": high}


def _mean(values: Any) -> float | None:
    """Mean of the values that are known; None without any."""
    known = [float(value) for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else None
