"""Scored clips -> arrays of what was forecast and what came true: of one field of one event, or of the event itself.

Every clip with a known truth is in them: with its probabilities, or under the reason why it has none.
Suffixes: N clips of the choice, M those of them with probabilities, K terms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vlm_crash.evaluation.probabilities import (
    answer_probability,
    event_probabilities,
    tempered,
    term_of,
    term_probabilities,
)
from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent
from vlm_crash.metrics.calibration import Array, Flags, apply_temperature
from vlm_crash.metrics.functional import Verdict, comparable
from vlm_crash.schema.fields import Field, Schema

#: Why a clip has no probabilities of a choice.
ABSENT, FAILED, OTHER_EVENT = "no prediction", "failed", "another event was told"
NO_PROBABILITIES, NO_SUM = "no probabilities", "its probabilities do not sum to 1"


@dataclass(frozen=True)
class Forecasts:
    """One choice over clips with a known truth.

    Attributes:
        probability_MK: of the terms, by the clips that have them (of the true event).
        truth_M: place of the truth among the terms; -1: none of them.
        answer_M: place of the answer given; for the event, of the schema's first event: what P(crash) is about.
        told_N: of each clip the probabilities of its answer's field, whatever its event, and the answer's term; None:
            there is none, so nobody can accept it.
        right_N: whether the answer is right, end to end.
        clip_N: place of the clip among those of its event.
        without: reason -> clips that have no probabilities.
    """

    probability_MK: Array
    truth_M: NDArray[np.intp]
    answer_M: NDArray[np.intp]
    told_N: Sequence[tuple[Mapping[str, float], str] | None]
    right_N: Flags
    clip_N: NDArray[np.intp]
    without: Mapping[str, int]

    def confidence(self, temperature: float | None = None) -> Array:
        """[N] of the answers given; NaN where there is none."""
        return np.array([np.nan if t is None else tempered(t[0], temperature)[t[1]] for t in self.told_N], dtype=float)

    def accepted_right(self, temperature: float | None = None) -> tuple[Array, Flags]:
        """Confidence and rightness of the answers that could be accepted at some threshold."""
        confidence_N = self.confidence(temperature)
        has_N = ~np.isnan(confidence_N)
        return confidence_N[has_N], self.right_N[has_N]

    def reliability(self, temperature: float | None = None) -> tuple[Array, Flags]:
        """What was said of the answer (the event: of the first one), and whether it came true [M]."""
        raw_MK = self.probability_MK
        probability_MK = raw_MK if temperature is None else apply_temperature(raw_MK, temperature)
        said_M = probability_MK[np.arange(len(self.answer_M)), self.answer_M]
        return said_M, self.truth_M == self.answer_M


_comparable = lru_cache(maxsize=100_000)(comparable)


def field_forecasts(scored: ScoredEvent, field: Field) -> Forecasts:
    """Of a categorical or count field over the clips of its event."""
    counted = [(n, c) for n, c in enumerate(scored.clips) if c.verdicts[field.name] is not Verdict.OUT]
    rows, truths, answers, reasons = [], [], [], Counter[str]()
    for _, clip in counted:
        found, said = term_probabilities(clip, field), answer_probability(clip, field)
        reason = _reason(clip) or (None if clip.event_right else OTHER_EVENT) or _why_not(found, said)
        if reason is not None or found is None:
            reasons[reason or NO_PROBABILITIES] += 1
            continue
        rows.append([(_comparable(field, term), p) for term, p in found.items()])
        truths.append(_comparable(field, clip.joined.annotation.values[field.name]))
        answers.append(_comparable(field, str(clip.answers[field.name].value)))
    terms = {term: k for k, term in enumerate(dict.fromkeys(term for row in rows for term, _ in row))}
    return Forecasts(
        _matrix(rows, terms),
        np.array([terms.get(truth, -1) for truth in truths], dtype=np.intp),
        np.array([terms[answer] for answer in answers], dtype=np.intp),
        [_told(clip, field) for _, clip in counted],
        np.array([clip.verdicts[field.name] is Verdict.RIGHT for _, clip in counted], dtype=bool),
        np.array([n for n, _ in counted], dtype=np.intp),
        reasons,
    )


def event_forecasts(schema: Schema, clips: Sequence[ScoredClip]) -> Forecasts:
    """Of the event over clips that were not told theirs; confidence is that of the event named."""
    rows, truths, told, reasons = [], [], [], Counter[str]()
    for clip in clips:
        said = clip.prediction if clip.prediction is not None and clip.prediction.status == "ok" else None
        found = None if said is None else event_probabilities(said, schema.event_names)
        named = clip.predicted_event or ""
        told.append((found, named) if found and named in found else None)
        reason = _reason(clip) or _why_not(found, 1.0)
        if reason is not None or found is None:
            reasons[reason or NO_PROBABILITIES] += 1
            continue
        rows.append(list(found.items()))
        truths.append(schema.event_names.index(clip.joined.event))
    return Forecasts(
        _matrix(rows, {name: k for k, name in enumerate(schema.event_names)}),
        np.array(truths, dtype=np.intp),
        np.zeros(len(rows), dtype=np.intp),
        told,
        np.array([clip.event_right for clip in clips], dtype=bool),
        np.arange(len(clips)),
        reasons,
    )


def _told(clip: ScoredClip, field: Field) -> tuple[Mapping[str, float], str] | None:
    """Of the field in the record as it was told: an answer about another event would be accepted like any other."""
    if clip.event_right:
        found, answer = term_probabilities(clip, field), clip.answers.get(field.name)
        value = None if answer is None else answer.value
    else:
        found = clip.prediction.field_probabilities.get(field.name) if clip.prediction else None
        value = clip.prediction.fields.get(field.name) if clip.prediction else None
    term = term_of(field, found, value) if found and value is not None else None
    return None if found is None or term is None else (found, term)


def _reason(clip: ScoredClip) -> str | None:
    if clip.prediction is None:
        return ABSENT
    return FAILED if clip.prediction.status != "ok" else None


def _why_not(found: Mapping[str, float] | None, said: float | None) -> str | None:
    if found is None or said is None:
        return NO_PROBABILITIES
    fits = all(p >= 0 for p in found.values()) and abs(sum(found.values()) - 1) <= 1e-3
    return None if fits else NO_SUM


def _matrix(rows: Sequence[Sequence[tuple[str, float]]], terms: Mapping[str, int]) -> Array:
    """Two terms of one meaning (an open field's "Sedan" and "sedan") are one."""
    probability_MK = np.zeros((len(rows), len(terms)))
    for m, row in enumerate(rows):
        for term, p in row:
            probability_MK[m, terms[term]] += p
    return probability_MK
