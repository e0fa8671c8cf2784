"""What needs no understanding of the clip: the majority class, and a logistic regression on two tiny pictures.

A model that does not beat these has learnt nothing that a lookup or a colour average would not give.
Suffixes: N clips, P features of a clip, Q of its projection, F frames, H height, W width, C channels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_crash.metrics.field_match import FieldMatch
from vlm_crash.metrics.functional import comparable, is_scored, majority
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import Field, Schema
from vlm_crash.schema.records import Answer, ParsedResponse, VideoSample
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.guarded import probe, read_frames

logger = logging.getLogger(__name__)

SIDE = 32  # pixels of the two pictures
MAX_FRAMES = 64  # of a longer clip so many are taken, evenly (the last one 1/128 before its end); others are read whole
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # C of the regression: 6,144 standardised features need a small one


@dataclass(frozen=True)
class MajorityBaseline:
    """Always the most frequent truth. `score` is a share, or the mean cosine for a text field; None without truths."""

    value: str | None
    score: float | None


def majority_baseline(field: Field, truths: Sequence[str], embedder: SentenceEmbedder | None) -> MajorityBaseline:
    """The score of the answer that is most frequent among these very truths (the best constant answer, or nearly)."""
    if is_scored(field):
        most = majority([comparable(field, truth) for truth in truths])
        if most is None:
            return MajorityBaseline(None, None)
        shown = next(truth for truth in truths if comparable(field, truth) == most[0])
        return MajorityBaseline(shown, most[1] / len(truths))
    most = majority(list(truths))
    if most is None or embedder is None:
        return MajorityBaseline(None if most is None else most[0], None)
    cosine_N = embedder.cosine([most[0]] * len(truths), truths)
    return MajorityBaseline(most[0], float(cosine_N.double().mean()))


@dataclass(frozen=True)
class LinearBaseline:
    """Shares of right answers on the test clips; exact match is the mean over categorical and count fields."""

    event_balanced_accuracy: float
    exact_match: float
    exact_match_given_event: float
    num_train: int
    num_test: int


def linear_baseline(
    train: Sequence[VideoSample], test: Sequence[VideoSample], schema: Schema, seed: int = 0
) -> LinearBaseline:
    """Logistic regression on the 32x32 mean frame and last frame, scored exactly as a model is.

    One classifier for the event, one per categorical or count field of each event, fitted on `train`. End to end, the
    event is predicted too and its fields count only where it is right.

    Raises:
        ValueError: no clips with event and annotation to fit or to score.
        UnreadableClipError: a clip that cannot be read (both sides need every clip).
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    train, test = ([s for s in samples if s.event and s.annotation] for samples in (train, test))
    if not train or not test:
        raise ValueError(
            f"the linear baseline needs clips with truth on both sides: {len(train)} to fit, {len(test)} to score"
        )
    features_NP = clip_features([sample.path for sample in [*train, *test]])
    fit_NQ, score_NQ = _project(features_NP[: len(train)], features_NP[len(train) :])
    events_N = [str(sample.event) for sample in train]
    # One thread: the matrices are so small that several only wait for each other (90 s against 3 s on a busy machine).
    with threadpool_limits(1):
        said_events = _Regression(seed).fit(fit_NQ, events_N).predict(score_NQ)
        said_fields = {name: _fit_fields(schema, name, train, fit_NQ, score_NQ, seed) for name in schema.event_names}
    targets = [sample.annotation for sample in test if sample.annotation is not None]
    scores = {}
    for given_event in (False, True):
        metric = FieldMatch(schema, embedder=None, given_event=given_event)
        metric.update([_response(said_fields[t.event], n, said_events[n]) for n, t in enumerate(targets)], targets)
        scores[given_event] = metric.compute()
    return LinearBaseline(
        event_balanced_accuracy=float(scores[False]["event/balanced_accuracy"]),
        exact_match=float(scores[False]["mean"]),
        exact_match_given_event=float(scores[True]["mean"]),
        num_train=len(train),
        num_test=len(test),
    )


def clip_features(paths: Sequence[Path]) -> NDArray[np.float32]:
    """[N, 2 * 32 * 32 * 3]: the mean frame and the last frame of each clip, RGB from 0 to 1."""
    features = []
    for path in paths:
        frames_FHWC = read_frames(path, FrameSampling(min(probe(path).num_frames, MAX_FRAMES))).frames_FHWC
        small_FHWC = np.stack([_shrink(frame_HWC) for frame_HWC in frames_FHWC])
        features.append(np.concatenate([small_FHWC.mean(0).ravel(), small_FHWC[-1].ravel()]))
    return np.stack(features)


def _shrink(frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    from PIL import Image

    small = Image.fromarray(frame_HWC).resize((SIDE, SIDE), Image.Resampling.BOX)
    return (np.asarray(small) / 255).astype(np.float32)


def _fit_fields(
    schema: Schema, event: str, train: Sequence[VideoSample], fit_NQ: NDArray[Any], score_NQ: NDArray[Any], seed: int
) -> dict[str, list[str]]:
    """For each categorical or count field of an event, the answer to every clip to be scored."""
    said = {}
    for field in schema.event(event).fields:
        known = [
            n for n, s in enumerate(train) if s.event == event and s.annotation and field.name in s.annotation.known
        ]
        if is_scored(field) and known:
            truths = [train[n].annotation.values[field.name] for n in known]  # type: ignore[union-attr]
            said[field.name] = _Regression(seed).fit(fit_NQ[known], truths).predict(score_NQ)
    return said


def _response(said: dict[str, list[str]], n: int, event: str) -> ParsedResponse:
    answers = {name: Answer("value", values[n], values[n], None) for name, values in said.items()}
    return ParsedResponse(event, answers)


def _project(fit_NP: NDArray[Any], score_NP: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Standardise by the clips to fit, then turn into the space that these span: at most N dimensions, nothing lost.

    L2-penalised regression is the same in any rotation of its features, so this changes nothing but the time.
    """
    mean_P, spread_P = fit_NP.mean(0), fit_NP.std(0)
    spread_P[spread_P == 0] = 1
    fit_NP, score_NP = (fit_NP - mean_P) / spread_P, (score_NP - mean_P) / spread_P
    values, vectors = np.linalg.eigh(fit_NP.astype(np.float64) @ fit_NP.T)
    kept = values > max(values[-1], 1e-12) * 1e-9
    axes_PQ = fit_NP.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    return fit_NP @ axes_PQ, score_NP @ axes_PQ


class _Regression:
    """Logistic regression whose C is chosen by 3-fold cross-validation; constant where there is one class."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, features_NQ: NDArray[Any], labels_N: Sequence[str]) -> _Regression:
        self.labels = np.asarray(labels_N)
        self.constant = str(self.labels[0]) if len(set(labels_N)) == 1 else None
        if self.constant is None:
            self.classifier = self._classifier(self._best_strength(features_NQ)).fit(features_NQ, self.labels)
        return self

    def predict(self, features_NQ: NDArray[Any]) -> list[str]:
        if self.constant is not None:
            return [self.constant] * len(features_NQ)
        return [str(label) for label in self.classifier.predict(features_NQ)]

    @staticmethod
    def _classifier(strength: float) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=strength, max_iter=200, tol=1e-3)

    def _best_strength(self, features_NQ: NDArray[Any]) -> float:
        fold_N = np.random.default_rng(self.seed).permutation(len(features_NQ)) % 3
        right = dict.fromkeys(STRENGTHS, 0)
        for fold in range(3):
            fit, held = fold_N != fold, fold_N == fold
            if len(set(self.labels[fit])) < 2 or not held.any():
                continue
            for strength in STRENGTHS:
                classifier = self._classifier(strength).fit(features_NQ[fit], self.labels[fit])
                right[strength] += int((classifier.predict(features_NQ[held]) == self.labels[held]).sum())
        return max(STRENGTHS, key=lambda strength: right[strength])
