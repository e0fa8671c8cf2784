"""Labels that a file's name, size and container tell, without a look at its pictures.

Enters: samples, their files' metadata, and groups that must not be parted. Leaves: per field the cross-validated score
of a small classifier against the most frequent value. Must hold: a clip's own label helps to find none; what cannot be
tested says why. A field is called a shortcut where McNemar's exact test, corrected for all fields (Holm), says so.
Suffixes: R draws, N clips, G groups, K kinds of groups, P features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_crash.data.audit_findings import Finding
from vlm_crash.data.clip_metadata import FEATURE_GROUPS, FEATURE_NAMES, ClipMetadata, metadata_features
from vlm_crash.data.metadata_classifier import cross_predict
from vlm_crash.data.multiple_testing import holm
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import VideoSample

#: Clips that a field needs for a test.
LEAST_CLIPS = 20
#: Chance of calling a field a shortcut that is none, over all fields together.
ALPHA = 0.05
NUM_DRAWS = 2000
TOO_FEW = f"fewer than {LEAST_CLIPS} clips have a value"
ONE_VALUE = "all clips have one value"
ONE_GROUP = "all clips are of one group"


@dataclass(frozen=True)
class Shortcut:
    """How well metadata tells a field.

    Attributes:
        event: "" for the event itself.
        n: clips with a value, whose file is there.
        score: share of them that the classifier tells; `low`, `high`: its 95 % interval (`_interval`).
        majority: share of the most frequent value.
        p: of a score so much above the majority by chance, corrected for all fields; None where it was not tested.
        best: group of metadata that tells most by itself, and its score, where it is a shortcut.
        reason: why there is no score.
    """

    event: str
    field: str
    n: int
    score: float | None = None
    low: float | None = None
    high: float | None = None
    majority: float | None = None
    p: float | None = None
    best: tuple[str, float] | None = None
    reason: str | None = None

    @property
    def is_shortcut(self) -> bool:
        return self.p is not None and self.p < ALPHA

    def to_json(self) -> dict[str, Any]:
        """As a plain dict."""
        best = None if self.best is None else {"metadata": self.best[0], "score": self.best[1]}
        return {**self.__dict__, "best": best, "is_shortcut": self.is_shortcut}


def shortcuts(
    samples: Sequence[VideoSample],
    files: Sequence[ClipMetadata | None],
    groups: Mapping[str, str],
    schema: Schema,
    seed: int = 0,
) -> list[Shortcut]:
    """One entry for the event and for each categorical and count field.

    Args:
        files: of each sample; None: there is none.
        groups: id -> group, whose clips are never told by each other.
    """
    there = [n for n, one in enumerate(files) if one is not None]
    features_NP = metadata_features([one for one in files if one is not None])
    kept = [samples[n] for n in there]
    asked = [("", "event", {n: str(s.event) for n, s in enumerate(kept)})]
    for event in schema.events:
        for field in event.fields:
            if field.kind != "text":
                values = {
                    n: s.annotation.known[field.name] for n, s in enumerate(kept)
                    if s.event == event.name and s.annotation and field.name in s.annotation.known
                }  # fmt: skip
                asked.append((event.name, field.name, values))
    tested = [_test(event, name, values, kept, features_NP, groups, seed) for event, name, values in asked]
    places = [n for n, one in enumerate(tested) if one.p is not None]
    corrected = dict(zip(places, holm([float(tested[n].p or 0.0) for n in places]), strict=True))
    found = []
    for n, (one, (_, _, values)) in enumerate(zip(tested, asked, strict=True)):
        told = replace(one, p=corrected[n]) if n in corrected else one
        best = _best(values, kept, features_NP, groups, seed) if told.is_shortcut else None
        found.append(replace(told, best=best))
    return found


def shortcut_findings(found: Sequence[Shortcut]) -> Iterator[Finding]:
    """A warning for each field that metadata tells; and which could not be tested."""
    for one in found:
        if one.is_shortcut:
            assert one.score is not None and one.majority is not None and one.best is not None
            label = f"{one.event} {one.field}".strip()
            sentence = (
                f"{label} can be told without a look at the clip: name, size and container give {one.score:.3f} "
                f"({one.low:.3f} to {one.high:.3f}), the most frequent value {one.majority:.3f}; most by "
                f"{one.best[0]} ({one.best[1]:.3f}). A model that reads files may have learnt the source, not the "
                "crash: encode all clips in the same way, and compare with the metadata baseline of `evaluate`"
            )
            details = {"event": one.event, "field": one.field, "score": one.score, "majority": one.majority, "p": one.p}
            yield Finding("shortcut", "warning", sentence, one.n, details)


def _test(
    event: str,
    name: str,
    values: Mapping[int, str],
    samples: Sequence[VideoSample],
    features_NP: NDArray[np.float64],
    groups: Mapping[str, str],
    seed: int,
) -> Shortcut:
    if len(values) < LEAST_CLIPS:
        return Shortcut(event, name, len(values), reason=TOO_FEW)
    most, count = Counter(values.values()).most_common(1)[0]
    if count == len(values):
        return Shortcut(event, name, len(values), majority=1.0, reason=ONE_VALUE)
    right_N = _right(values, samples, features_NP, groups, seed)
    if right_N is None:
        return Shortcut(event, name, len(values), majority=count / len(values), reason=ONE_GROUP)
    majority_N = np.array([value == most for value in values.values()])
    group_of = [groups.get(samples[n].id, samples[n].id) for n in values]
    group_N = np.unique(group_of, return_inverse=True)[1]
    low, high = share_interval(right_N, group_N, seed)
    score, p = float(right_N.mean()), p_better(right_N, majority_N, group_N)
    return Shortcut(event, name, len(values), score, low, high, count / len(values), p)


def _right(
    values: Mapping[int, str],
    samples: Sequence[VideoSample],
    features_NP: NDArray[np.float64],
    groups: Mapping[str, str],
    seed: int,
) -> NDArray[np.bool_] | None:
    """[N] which clips the classifier tells."""
    labels = list(values.values())
    ids = [samples[n].id for n in values]
    said = cross_predict(features_NP[list(values)], labels, [groups.get(id, id) for id in ids], seed)
    return None if said is None else np.array([a == b for a, b in zip(said, labels, strict=True)])


def _best(
    values: Mapping[int, str],
    samples: Sequence[VideoSample],
    features_NP: NDArray[np.float64],
    groups: Mapping[str, str],
    seed: int,
) -> tuple[str, float]:
    """The group of metadata that tells most by itself."""
    scores = {}
    for group, names in FEATURE_GROUPS.items():
        columns = [FEATURE_NAMES.index(name) for name in names]
        right_N = _right(values, samples, features_NP[:, columns], groups, seed)
        scores[group] = 0.0 if right_N is None else float(right_N.mean())
    return max(scores.items(), key=lambda item: item[1])


def share_interval(right_N: NDArray[np.bool_], group_N: NDArray[np.intp], seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap of a share, whole groups drawn.

    Where all are right, or none is, every draw is the same, and says nothing: exact limits (Clopper and Pearson), for
    as many answers as there are groups.
    """
    from scipy.stats import binomtest

    sizes_G, rights_G = np.bincount(group_N), np.bincount(group_N, weights=right_N)
    num_groups, right = len(sizes_G), int(right_N.sum())
    if right in (0, len(right_N)):
        limits = binomtest(num_groups if right else 0, num_groups).proportion_ci(0.95, "exact")
        return float(limits.low), float(limits.high)
    # Groups of as many clips and as many right ones are alike: how many of each kind are drawn is all that counts.
    kinds_K2, num_K = np.unique(np.stack([sizes_G, rights_G], axis=1), axis=0, return_counts=True)
    drawn_RK = np.random.default_rng(seed).multinomial(num_groups, num_K / num_groups, size=NUM_DRAWS)
    num_R, right_R = (drawn_RK @ kinds_K2).T
    low, high = np.quantile(right_R / num_R, [0.025, 0.975])
    return float(low), float(high)


def p_better(right_N: NDArray[np.bool_], majority_N: NDArray[np.bool_], group_N: NDArray[np.intp]) -> float:
    """Does the classifier tell more? McNemar's exact test, one-sided; of groups of several clips the same sign test of
    the groups in which one of the two tells more.
    """
    from scipy.stats import binomtest

    more_G = np.bincount(group_N, weights=right_N.astype(float) - majority_N)
    gained, lost = int((more_G > 0).sum()), int((more_G < 0).sum())
    return float(binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0
