"""Joined clips -> verdicts and score matrices: what the metrics, the tables and the page are all made of.

Two readings of every answer: end to end (an answer about another event has all its fields wrong) and given the true
event (the same text, read for the fields of the true event).
Suffixes: N clips of one event, K fields of that event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlm_crash.evaluation.bootstrap import Array
from vlm_crash.evaluation.joining import JoinedClip
from vlm_crash.metrics.functional import Verdict, clip_verdicts, is_scored
from vlm_crash.schema.fields import UNKNOWN, Event, Schema
from vlm_crash.schema.records import Answer, ParsedResponse, Prediction
from vlm_crash.schema.response import parse
from vlm_crash.schema.terminology import to_term

if TYPE_CHECKING:
    from vlm_crash.metrics.text_similarity import SentenceEmbedder

_NO_ANSWERS = ParsedResponse(event=None, answers={})


@dataclass(frozen=True)
class ScoredClip:
    """One clip with its verdicts.

    Attributes:
        predicted_event: what the model said; None where it said none or gave no answer.
        answers: per field of the true event, read given that event.
        verdicts, verdicts_given: per field, end to end and given the event.
    """

    joined: JoinedClip
    predicted_event: str | None
    answers: dict[str, Answer]
    verdicts: dict[str, Verdict]
    verdicts_given: dict[str, Verdict]

    @property
    def prediction(self) -> Prediction | None:
        return None if self.joined.loaded is None else self.joined.loaded.prediction

    @property
    def event_right(self) -> bool:
        return self.predicted_event == self.joined.event


@dataclass(frozen=True)
class ScoredEvent:
    """All clips of one true event. Scores are NaN where a clip is not counted for a field (or has no text score)."""

    event: Event
    clips: tuple[ScoredClip, ...]
    end_to_end_NK: Array
    given_event_NK: Array

    def verdicts(self, field: str, given_event: bool = False) -> list[Verdict]:
        return [(clip.verdicts_given if given_event else clip.verdicts)[field] for clip in self.clips]

    def truths(self, field: str) -> list[str]:
        """Known truths of a field."""
        values = (clip.joined.annotation.values[field] for clip in self.clips)
        return [value for value in values if value != UNKNOWN]


def with_seen_vocabularies(
    schema: Schema, joined: Sequence[JoinedClip], vocabularies: Mapping[str, Sequence[str]]
) -> Schema:
    """Open categorical fields take the terms of the dataset: those of `vocabularies`, else all that the truth has."""
    terms: dict[str, set[str]] = {
        name: set(known) for name, known in vocabularies.items() if not schema.field(name).closed
    }
    for event in schema.events:
        annotations = [clip.annotation for clip in joined if clip.event == event.name]
        for field in event.fields:
            if field.kind == "categorical" and not field.closed:
                seen = {annotation.values[field.name] for annotation in annotations} - {UNKNOWN}
                terms.setdefault(field.name, set(field.vocabulary)).update(seen)
    return schema.with_vocabularies({name: tuple(sorted(seen)) for name, seen in terms.items() if seen})


def score_clips(schema: Schema, joined: Sequence[JoinedClip], embedder: SentenceEmbedder | None) -> list[ScoredEvent]:
    """Judge every clip, event by event of the schema; all text fields are compared in one batch."""
    scored = [
        (event, tuple(_score_clip(schema, event, clip) for clip in joined if clip.event == event.name))
        for event in schema.events
    ]
    cosines = _cosines(scored, embedder)
    return [
        ScoredEvent(event, clips, _matrix(event, clips, cosines, False), _matrix(event, clips, cosines, True))
        for event, clips in scored
    ]


def _score_clip(schema: Schema, event: Event, joined: JoinedClip) -> ScoredClip:
    parsed = _NO_ANSWERS
    predicted_event = None
    loaded = joined.loaded
    if loaded is not None and loaded.prediction.status == "ok":
        parsed = ParsedResponse(event.name, answers_of(schema, event, loaded.prediction))
        if loaded.told_event:
            # The event was told, not predicted; only a text that contradicts what it was told is another event's.
            predicted_event = parse(schema, loaded.prediction.response).event or joined.event
        else:
            predicted_event = loaded.prediction.event
    as_said = ParsedResponse(predicted_event, parsed.answers) if predicted_event or parsed.answers else None
    return ScoredClip(
        joined=joined,
        predicted_event=predicted_event,
        answers=dict(parsed.answers),
        verdicts=clip_verdicts(event, joined.annotation, as_said),
        verdicts_given=clip_verdicts(event, joined.annotation, as_said, given_event=True),
    )


def answers_of(schema: Schema, event: Event, prediction: Prediction) -> dict[str, Answer]:
    """Answers for an event's fields: the record where it has a value, else what the text says."""
    answers = dict(parse(schema, prediction.response, event=event.name).answers)
    if prediction.event != event.name:
        return answers
    for field in event.fields:
        said = prediction.fields.get(field.name)
        found = answers.get(field.name)
        if said is None or (said == UNKNOWN and found is not None):
            continue
        term = said if field.kind == "text" else to_term(field, said)
        if found is None or found.value != term:
            answers[field.name] = Answer("not_understood" if term is None else "value", term, said)
    return answers


def _cosines(
    scored: Sequence[tuple[Event, tuple[ScoredClip, ...]]], embedder: SentenceEmbedder | None
) -> dict[tuple[str, str], float] | None:
    """Similarity of every (answer, truth) pair that is compared, each once."""
    if embedder is None:
        return None
    pairs = sorted(
        {
            (str(clip.answers[name].value), clip.joined.annotation.values[name])
            for _, clips in scored
            for clip in clips
            for name, verdict in clip.verdicts_given.items()
            if verdict is Verdict.COMPARED
        }
    )
    if not pairs:
        return {}
    cosine_N = embedder.cosine([said for said, _ in pairs], [truth for _, truth in pairs])
    return dict(zip(pairs, cosine_N.tolist(), strict=True))


def _matrix(
    event: Event, clips: Sequence[ScoredClip], cosines: dict[tuple[str, str], float] | None, given_event: bool
) -> Array:
    scores_NK = np.full((len(clips), len(event.fields)), np.nan)
    for n, clip in enumerate(clips):
        verdicts = clip.verdicts_given if given_event else clip.verdicts
        for k, field in enumerate(event.fields):
            verdict = verdicts[field.name]
            if not verdict.counted or (cosines is None and not is_scored(field)):
                continue
            if verdict is Verdict.COMPARED and cosines is not None:
                pair = (str(clip.answers[field.name].value), clip.joined.annotation.values[field.name])
                scores_NK[n, k] = cosines[pair]
            else:
                scores_NK[n, k] = float(verdict is Verdict.RIGHT)
    return scores_NK
