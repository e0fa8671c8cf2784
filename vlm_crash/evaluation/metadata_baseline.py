"""Answers that a small classifier gives from a clip's file alone: duration, size, frame rate, bitrate, file name.

Enters: scored clips, the train split where there is one. Leaves: an answer for each clip and each categorical or count
field, given the true event; and an event for each clip. Must hold: no clip's own truth has helped to answer it.
A field that this baseline answers as well as the model does can be told without watching.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm_crash.data.clip_metadata import clip_metadata, metadata_features
from vlm_crash.data.clip_table import rows_in
from vlm_crash.data.metadata_classifier import NUM_FOLDS, cross_predict, fit_and_predict
from vlm_crash.data.prepared import DATA_FILE, load_prepared
from vlm_crash.evaluation.grouping import group_key
from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.metrics.functional import comparable, is_scored
from vlm_crash.schema.fields import UNKNOWN, Field, Schema
from vlm_crash.schema.records import VideoSample

Features = NDArray[np.float64]


@dataclass(frozen=True)
class MetadataAnswers:
    """What the baseline answers.

    Attributes:
        fields: event -> field -> answer to each clip of that event, in the form in which answers are compared; a field
            that is not in it could not be fitted.
        events: event -> the event that is answered for each clip of that event.
        fitted_on: what it was fitted on, in words.
        reason: why there are no answers; None: there are.
    """

    fields: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)
    events: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    fitted_on: str | None = None
    reason: str | None = None


def metadata_answers(
    schema: Schema,
    scored: Sequence[ScoredEvent],
    truth: Sequence[Path],
    groups: Mapping[str, str],
    settings: EvaluationSettings,
) -> MetadataAnswers:
    """Fit on the train split of the truth's dataset where another split is scored, else on each fold's other clips.

    Args:
        schema: as the dataset was prepared with it, without terms of the clips.
        groups: id -> group; clips of one are not parted by the folds.
    """
    train = _train_split(truth, schema, settings.split)
    folders = [path if path.is_dir() else path.parent for path in truth]
    rows = {key: row for found in rows_in(folders).values() for key, row in found.items()}
    samples = [_where_it_lies(clip) for event in scored for clip in event.clips]
    files = clip_metadata([*samples, *train], rows)
    if absent := [s.path for s, known in zip([*samples, *train], files, strict=True) if known is None]:
        return MetadataAnswers(reason=f"{len(absent)} of {len(files)} clips are not there (the first: {absent[0]})")
    features_NP = metadata_features([known for known in files if known is not None])
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    with threadpool_limits(1):
        if train:
            fitted_on = f"the {len(train)} clips of the train split"
            return _of_train(scored, train, features_NP, settings.seed, fitted_on)
        fitted_on = f"the evaluated clips, cross-fitted in {NUM_FOLDS} folds"
        return _cross_fitted(scored, samples, features_NP, groups, settings.seed, fitted_on)


def _train_split(truth: Sequence[Path], schema: Schema, split: str | None) -> list[VideoSample]:
    if split in (None, "train"):
        return []
    folders = {path if path.is_dir() else path.parent for path in truth}
    found = [s for f in sorted(folders) if (f / DATA_FILE).is_file() for s in load_prepared(f, schema)["train"]]
    return [sample for sample in found if sample.annotation is not None]


def _where_it_lies(clip: ScoredClip) -> VideoSample:
    """The truth's sample with the path of its file: as predicted, where that is there."""
    predicted = Path(clip.prediction.path) if clip.prediction is not None and clip.prediction.path else None
    truth = clip.joined.truth
    return replace(truth, path=predicted) if predicted is not None and predicted.is_file() else truth


def _labels(field: Field, samples: Sequence[VideoSample]) -> list[str]:
    values = [s.annotation.values[field.name] if s.annotation else UNKNOWN for s in samples]
    return [value if value == UNKNOWN else comparable(field, value) for value in values]


def _of_train(
    scored: Sequence[ScoredEvent],
    train: Sequence[VideoSample],
    features_NP: Features,
    seed: int,
    fitted_on: str,
) -> MetadataAnswers:
    num_scored = len(features_NP) - len(train)
    fit_MP = features_NP[num_scored:]
    events = fit_and_predict(fit_MP, [str(sample.event) for sample in train], features_NP[:num_scored], seed)
    fields: dict[str, dict[str, list[str]]] = {}
    for event, own in zip(scored, _slices(scored), strict=True):
        here = [m for m, sample in enumerate(train) if sample.event == event.event.name]
        fields[event.event.name] = {}
        for field in filter(is_scored, event.event.fields):
            labels = _labels(field, [train[m] for m in here])
            known = [k for k, label in enumerate(labels) if label != UNKNOWN]
            if known:
                fit_on = np.array(here)[known]
                said = fit_and_predict(fit_MP[fit_on], [labels[k] for k in known], features_NP[own], seed)
                fields[event.event.name][field.name] = said
    return MetadataAnswers(fields, _by_event(scored, events), fitted_on)


def _cross_fitted(
    scored: Sequence[ScoredEvent],
    samples: Sequence[VideoSample],
    features_NP: Features,
    groups: Mapping[str, str],
    seed: int,
    fitted_on: str,
) -> MetadataAnswers:
    keys = [group_key(groups, sample.id) for sample in samples]
    events = cross_predict(features_NP, [str(sample.event) for sample in samples], keys, seed)
    fields: dict[str, dict[str, list[str]]] = {}
    for event, own in zip(scored, _slices(scored), strict=True):
        fields[event.event.name] = {}
        for field in filter(is_scored, event.event.fields):
            labels = _labels(field, samples[own])
            known = [k for k, label in enumerate(labels) if label != UNKNOWN]
            here = [own.start + k for k in known]
            said = cross_predict(features_NP[here], [labels[k] for k in known], [keys[n] for n in here], seed)
            if said is not None:
                answers = dict(zip(known, said, strict=True))
                fields[event.event.name][field.name] = [answers.get(k, UNKNOWN) for k in range(len(labels))]
    if events is None:
        return MetadataAnswers(fields, reason="the clips are of one group: there are no others to fit on")
    return MetadataAnswers(fields, _by_event(scored, events), fitted_on)


def _slices(scored: Sequence[ScoredEvent]) -> list[slice]:
    """Places of each event's clips among all."""
    ends = np.cumsum([len(event.clips) for event in scored]).tolist()
    return [slice(end - len(event.clips), end) for event, end in zip(scored, ends, strict=True)]


def _by_event(scored: Sequence[ScoredEvent], events: Sequence[str]) -> dict[str, Sequence[str]]:
    return {event.event.name: events[own] for event, own in zip(scored, _slices(scored), strict=True)}
