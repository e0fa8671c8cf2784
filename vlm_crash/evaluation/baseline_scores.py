"""Baselines beside every score: the majority class, metadata only, and the same model on black frames.

Enters: scored clips, answers of the baselines. Leaves: `baselines` of each field, mean and the event in metrics.json.
Must hold: a baseline is scored over the clips that the model is scored over, by the same rules and the same draws; one
that cannot be computed is null with its reason.
Suffixes: N clips of an event, K its fields, R draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.evaluation.bootstrap import NO_SPREAD, Array, Resamples, interval, row_means
from vlm_crash.evaluation.joining import JoinedClip, join
from vlm_crash.evaluation.loading import load_predictions
from vlm_crash.evaluation.metadata_baseline import MetadataAnswers
from vlm_crash.evaluation.scoring import ScoredEvent, score_clips
from vlm_crash.evaluation.summary import rights_of, untold_clips
from vlm_crash.metrics.calibration import exact_interval
from vlm_crash.metrics.functional import comparable, is_scored
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import UNKNOWN, Schema

NOT_GIVEN = "no predictions on black frames were given (--blind)"
NO_TEXTS = "a classifier of metadata writes no texts"
NOTHING = "nothing to score it on, or to fit it on"


@dataclass(frozen=True)
class Baseline:
    """One baseline's scores, as the model's own.

    Attributes:
        fields_NK: by event; NaN where a clip is not counted for a field, or the baseline has no answer to give.
        events_N1: by event: 1 where the baseline names it, else 0.
        reason: why a score is null.
        text_reason: the same of text fields.
        given_NK: as fields_NK, given the event; None: fields_NK is.
    """

    fields_NK: Mapping[str, Array]
    events_N1: Mapping[str, Array]
    reason: str = NOTHING
    text_reason: str = NOTHING
    given_NK: Mapping[str, Array] | None = None


def majority(metrics: Mapping[str, Any], scored: Sequence[ScoredEvent], embedder: SentenceEmbedder | None) -> Baseline:
    """Always the most frequent truth among these very clips, as `baseline_answer` says it; given the event."""
    fields, events = {}, {}
    most = max((len(event.clips) for event in scored), default=0)
    first = next((event.event.name for event in scored if len(event.clips) == most), "")
    for event in scored:
        scores_NK = np.full((len(event.clips), len(event.event.fields)), np.nan)
        for k, field in enumerate(event.event.fields):
            answer = metrics[event.event.name]["fields"][field.name]["baseline_answer"]
            truths = [clip.joined.annotation.values[field.name] for clip in event.clips]
            known = [n for n, truth in enumerate(truths) if truth != UNKNOWN]
            if answer is None or not known:
                continue
            if is_scored(field):
                right = comparable(field, answer)
                scores_NK[known, k] = [comparable(field, truths[n]) == right for n in known]
            elif embedder is not None:
                cosine_N = embedder.cosine([answer] * len(known), [truths[n] for n in known])
                scores_NK[known, k] = cosine_N.double().numpy()
        fields[event.event.name] = scores_NK
        events[event.event.name] = np.full((len(event.clips), 1), float(event.event.name == first))
    return Baseline(fields, events, text_reason="text scores are turned off, or no clip has a known truth")


def metadata(answers: MetadataAnswers, scored: Sequence[ScoredEvent]) -> Baseline:
    """The classifier's answers, scored given the event."""
    fields, events = {}, {}
    for event in scored:
        name = event.event.name
        scores_NK = np.full((len(event.clips), len(event.event.fields)), np.nan)
        for k, field in enumerate(event.event.fields):
            said = answers.fields.get(name, {}).get(field.name)
            for n, clip in enumerate(event.clips if said is not None else ()):
                truth = clip.joined.annotation.values[field.name]
                if said is not None and truth != UNKNOWN:
                    scores_NK[n, k] = said[n] == comparable(field, truth)
        fields[name] = scores_NK
        told = answers.events.get(name, [None] * len(event.clips))
        events[name] = np.array([[np.nan if one is None else float(one == name)] for one in told]).reshape(-1, 1)
    return Baseline(fields, events, answers.reason or NOTHING, NO_TEXTS)


def blind_clips(
    paths: Sequence[Path], schema: Schema, clips: Sequence[JoinedClip], embedder: SentenceEmbedder | None
) -> list[ScoredEvent] | None:
    """Predictions on black frames of these very clips, judged as the model's own; None where none are given.

    Raises:
        ValueError, FileNotFoundError: they cannot be read, or a clip has none.
    """
    if not paths:
        return None
    joined = join(load_predictions(list(map(Path, paths)), schema), [clip.truth for clip in clips])
    if absent := [clip for clip in joined.clips if clip.loaded is None]:
        raise ValueError(
            f"blind: {len(absent)} of {len(clips)} evaluated clips have no prediction in {', '.join(map(str, paths))} "
            f"(the first: {absent[0].event}/{absent[0].truth.video}), and would make the baseline weaker than it is; "
            "predict the same clips with --data.blank_frames true"
        )
    return score_clips(schema, joined.clips, embedder)


def blind(scored: Sequence[ScoredEvent] | None, model: Sequence[ScoredEvent]) -> Baseline:
    """The same model on black frames, end to end; no score without its predictions."""
    if scored is None:
        empty = {e.event.name: np.full((len(e.clips), len(e.event.fields)), np.nan) for e in model}
        return Baseline(empty, {name: none[:, :1] for name, none in empty.items()}, NOT_GIVEN, NOT_GIVEN)
    events = {event.event.name: rights_of(scored, event.event.name) for event in scored}
    fields, given = ({e.event.name: getattr(e, way) for e in scored} for way in ("end_to_end_NK", "given_event_NK"))
    return Baseline(fields, events, given_NK=given)


def add_baselines(
    metrics: dict[str, Any],
    scored: Sequence[ScoredEvent],
    resamples: Mapping[str, Resamples],
    baselines: Mapping[str, Baseline],
) -> None:
    """Put `baselines` into the entries of the fields, the means, "overall" and "event"."""
    asked = set(untold_clips(scored))
    for name, baseline in baselines.items():
        draws: dict[str, Array] = {}
        for event in scored:
            scores_NK = baseline.fields_NK[event.event.name]
            draws[event.event.name] = resamples[event.event.name].means(scores_NK)
            for k, field in enumerate(event.event.fields):
                reason = baseline.reason if is_scored(field) else baseline.text_reason
                found = _entry([_mean(scores_NK[:, k])], draws[event.event.name][:, [k]], reason)
                if is_scored(field) and found["score"] in (0, 1):
                    found.pop("reason", None)
                    num_units = resamples[event.event.name].num_units(~np.isnan(scores_NK[:, k]))
                    found["low"], found["high"] = exact_interval(round(found["score"] * num_units), num_units)
                if baseline.given_NK is not None:
                    found["given_event"] = _known_mean([_mean(baseline.given_NK[event.event.name][:, k])])
                metrics[event.event.name]["fields"][field.name].setdefault("baselines", {})[name] = found
            _add_means(metrics[event.event.name], name, [event], baseline, draws)
        _add_means(metrics["overall"], name, scored, baseline, draws)
        right_RE = [resamples[e].means(baseline.events_N1[e]) for e in baseline.events_N1 if e in asked]
        recalls = [_mean(baseline.events_N1[e]) for e in baseline.events_N1 if e in asked]
        entry = metrics["event"]
        if entry["balanced_accuracy"] is None:
            found = _entry([], np.zeros((1, 0)), entry["reasons"]["balanced_accuracy"])
        else:
            found = _entry(recalls, np.concatenate(right_RE, axis=1), baseline.reason)
        entry.setdefault("baselines", {})[name] = found


def _add_means(
    place: dict[str, Any], name: str, events: Sequence[ScoredEvent], baseline: Baseline, draws: Mapping[str, Array]
) -> None:
    for key, exact in (("mean", True), ("text_mean", False)):
        columns = [
            (event.event.name, k)
            for event in events
            for k, field in enumerate(event.event.fields)
            if is_scored(field) == exact
        ]
        points = [_mean(baseline.fields_NK[event][:, k]) for event, k in columns]
        drawn = [draws[event][:, [k]] for event, k in columns]
        found = _entry(points, np.concatenate(drawn, axis=1) if drawn else np.zeros((1, 0)),
                       baseline.reason if exact else baseline.text_reason)  # fmt: skip
        if baseline.given_NK is not None:
            found["given_event"] = _known_mean([_mean(baseline.given_NK[event][:, k]) for event, k in columns])
        place[key].setdefault("baselines", {})[name] = found


def _entry(points: Sequence[float], draws_RK: Array, reason: str) -> dict[str, Any]:
    """Mean of the scores that are known, with its interval; null with the reason where none is."""
    score = _known_mean(points)
    if score is None:
        return {"score": None, "low": None, "high": None, "reason": reason}
    if (limits := interval(row_means(draws_RK))) is None:
        return {"score": score, "low": None, "high": None, "reason": NO_SPREAD}
    return {"score": score, "low": limits[0], "high": limits[1]}


def _known_mean(points: Sequence[float]) -> float | None:
    known = [point for point in points if not np.isnan(point)]
    return float(np.mean(known)) if known else None


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan
