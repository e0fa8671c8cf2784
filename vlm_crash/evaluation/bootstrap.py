"""Percentile bootstrap by clip or by group, seeded and vectorised: all draws are one matrix product.

Suffixes: R draws, N clips, G groups (each clip its own unless told), K scores. A draw is a vector of counts: how often
each group was drawn, and with it all its clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_crash.metrics.calibration import exact_interval

Array = NDArray[np.float64]
Limits = tuple[float, float]
LEVEL = 0.95
ONE_GROUP = "all that counts is of one group (or is one clip), so that resampling says nothing of its spread"
NO_SPREAD = "every draw has the same score, so that resampling says nothing of its spread"
#: Counts that are held at a time (32 MiB), however many clips and draws there are.
_MOST_COUNTS = 2**22
#: Counts that are kept for the next time they are asked for, of each of the last four kinds of draws: 16 MiB in bytes.
_MOST_KEPT = 2**24
#: Of a normal distribution, the quantile at 0.975.
_TWO_SIDED = 1.959964
#: Limits that differ by less differ by rounding (a cosine has seven digits).
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Resamples:
    """Draws of the clips of one table; the same ones each time they are asked for.

    Tables whose clips share groups take the same `num_groups` and `seed`: then a draw of one is that of the other.

    Attributes:
        group_N: number of each clip's group, below num_groups.
        num_groups: of which as many are drawn, with replacement.
        num_draws: how often.
        seed: of the draws.
    """

    group_N: NDArray[np.int64]
    num_groups: int
    num_draws: int
    seed: int

    @classmethod
    def of_clips(cls, num_clips: int, num_draws: int, seed: int) -> Resamples:
        """Each clip a group of its own."""
        return cls(np.arange(num_clips), num_clips, num_draws, seed)

    @classmethod
    def joint(cls, parts: Sequence[Resamples]) -> Resamples:
        """Of the clips of several tables, one after the other; groups that the tables share stay groups."""
        first = parts[0]
        if len({(part.num_groups, part.seed) for part in parts}) == 1:
            return cls(np.concatenate([p.group_N for p in parts]), first.num_groups, first.num_draws, first.seed)
        return cls.of_clips(sum(len(part.group_N) for part in parts), first.num_draws, first.seed)

    def of(self, kept_N: NDArray[Any]) -> Resamples:
        """The same draws of some of the clips (places, or a mask)."""
        return Resamples(self.group_N[kept_N], self.num_groups, self.num_draws, self.seed)

    def blocks(self) -> Iterator[Array]:
        """All draws in order, [r, G] at a time: counts of the groups."""
        at_once = max(1, _MOST_COUNTS // max(self.num_groups, 1))
        asked = (self.num_groups, self.num_draws, self.seed, at_once)
        is_kept = self.num_groups * self.num_draws <= _MOST_KEPT
        for counts_RG in _kept_blocks(*asked) if is_kept else _drawn_blocks(*asked):
            yield counts_RG.astype(np.float64, copy=False)

    def num_units(self, counted_N: NDArray[np.bool_]) -> int:
        """Groups that the counted clips are of."""
        return len(np.unique(self.group_N[counted_N]))

    @property
    def num_groups_here(self) -> int:
        """Groups that these clips are of; others may be of other tables."""
        return len(np.unique(self.group_N))

    def grouped(self, values_NK: Array) -> Array:
        """[G, K]: sum of each column over the clips of each group; a block of draws times this are the draws' sums."""
        if self.num_groups == len(self.group_N) and (np.diff(self.group_N) == 1).all():
            return values_NK
        grouped_GK = np.zeros((self.num_groups, values_NK.shape[1]))
        np.add.at(grouped_GK, self.group_N, values_NK)
        return grouped_GK

    def sums(self, values_NK: Array) -> Array:
        """[R, K]: sum of each column over the clips of each draw; no value may be NaN."""
        grouped_GK = self.grouped(values_NK)
        return np.concatenate([counts_RG @ grouped_GK for counts_RG in self.blocks()])

    def means(self, scores_NK: Array) -> Array:
        """[R, K]: mean of each column in each draw. NaN scores are not counted; NaN where a draw has none."""
        known_NK = ~np.isnan(scores_NK)
        sums_RK = self.sums(np.concatenate([known_NK, np.where(known_NK, scores_NK, 0.0)], axis=1))
        totals_RK, sums_RK = np.split(sums_RK, 2, axis=1)
        return np.divide(sums_RK, totals_RK, out=np.full_like(sums_RK, np.nan), where=totals_RK > 0)


def _drawn_blocks(num_groups: int, num_draws: int, seed: int, at_once: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for first in range(0, num_draws, at_once):
        yield draw_counts(num_groups, min(at_once, num_draws - first), rng)


@lru_cache(maxsize=4)
def _kept_blocks(num_groups: int, num_draws: int, seed: int, at_once: int) -> list[NDArray[Any]]:
    """The same, each in the smallest whole numbers that hold it: a count is seldom above ten."""
    blocks = _drawn_blocks(num_groups, num_draws, seed, at_once)
    return [block.astype(np.min_scalar_type(int(block.max(initial=0)))) for block in blocks]


def draw_counts(num_clips: int, num_draws: int, rng: np.random.Generator) -> Array:
    """[R, N]: how often each clip stands in each resample of N clips with replacement."""
    if num_clips == 0:
        return np.zeros((num_draws, 0))
    return rng.multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=num_draws).astype(np.float64)


def clip_draws(tables: Sequence[tuple[Resamples, NDArray[np.int64]]]) -> Iterator[list[Array]]:
    """Draws of several tables side by side, some at a time: of each table [r, n], how often its chosen clips stand.

    Args:
        tables: draws, and places of the clips that are asked for.
    """
    first = tables[0][0]
    at_once = max(1, _MOST_COUNTS // max(sum(r.num_groups + len(chosen) for r, chosen in tables), 1))
    generators = [np.random.default_rng(resamples.seed) for resamples, _ in tables]
    for start in range(0, first.num_draws, at_once):
        size = min(at_once, first.num_draws - start)
        yield [
            draw_counts(resamples.num_groups, size, rng)[:, resamples.group_N[chosen_N]]
            for (resamples, chosen_N), rng in zip(tables, generators, strict=True)
        ]


def interval(draws_R: Array) -> tuple[float, float] | None:
    """95 % percentile interval; None where no draw has a value, or all have the same, for that is no certainty."""
    low, high = _limits(draws_R)
    return (low, high) if high - low >= _ROUNDING else None


def logit_interval(point: float, draws_R: Array) -> Limits | None:
    """95 % interval of a score that cannot leave 0 to 1, by the spread of its draws on the scale of log-odds.

    Near 1 the draws are skew, and their percentiles too narrow; tools/interval_coverage.py holds both to what they say.
    None where no draw differs, as at a score of 0 or 1.

    Args:
        point: the score itself.
        draws_R: the score in each draw; NaN where it has none.
    """
    draws_R = draws_R[~np.isnan(draws_R)]
    if not 0 < point < 1 or interval(draws_R) is None:
        return None
    half = _TWO_SIDED * float(draws_R.std(ddof=1)) / (point * (1 - point))
    at = np.log(point / (1 - point))
    low, high = 1 / (1 + np.exp(-np.array([at - half, at + half])))
    return float(low), float(high)


def _limits(draws_R: Array) -> tuple[float, float]:
    """Both NaN where no draw has a value."""
    draws_R = draws_R[~np.isnan(draws_R)]
    if draws_R.size == 0:
        return np.nan, np.nan
    low, high = np.quantile(draws_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def share_interval(draws_R: Array, num_units: int) -> tuple[float, float] | None:
    """95 % interval of a share of right answers: of its draws, or exact where every answer is right, or none is.

    There every draw is the same, which says nothing of how many answers it took; Clopper and Pearson's limits do.
    None where every draw is the same and neither: all that counts is of one group.

    Args:
        draws_R: the share in each draw.
        num_units: clips, or groups of clips, that were drawn and count.
    """
    low, high = _limits(draws_R)
    if low == high and low in (0.0, 1.0):
        return exact_interval(round(low * num_units), num_units)
    return interval(draws_R)


def counted_share_interval(right_N: NDArray[Any], counted_N: NDArray[Any], resamples: Resamples) -> Limits | None:
    """95 % interval of a share that is told of few answers: right ones of those that count.

    Where each answer is of a clip or group of its own: Clopper and Pearson's exact limits. Where several are of one,
    these are too narrow, and the wider of them and of the bootstrap by clip or group holds; where all are right there,
    or none is, exact limits for as many answers as there are groups, as if each said one thing only. None where that
    leaves nothing: one group, of which some answers are right, or draws that are all the same.

    Args:
        right_N, counted_N: of each clip of the draws, how many answers are right and how many count.
    """
    right, n = int(right_N.sum()), int(counted_N.sum())
    num_units = resamples.num_units(counted_N > 0)
    if right in (0, n):
        return exact_interval(num_units if right else 0, num_units)
    exact = exact_interval(right, n)
    if num_units == n:
        return exact
    sums_R2 = resamples.sums(np.stack([right_N, counted_N], axis=1).astype(np.float64))
    with np.errstate(invalid="ignore"):
        drawn = interval(sums_R2[:, 0] / sums_R2[:, 1])  # NaN: a draw without any
    return None if drawn is None else (min(exact[0], drawn[0]), max(exact[1], drawn[1]))


def no_interval(num_units: int) -> str:
    """Why a score of so many clips, or groups of clips, has no interval."""
    return ONE_GROUP if num_units < 2 else NO_SPREAD


def row_means(draws_RK: Array) -> Array:
    """[R]: mean over the columns that have a value; NaN where none has."""
    known_RK = ~np.isnan(draws_RK)
    num_known_R = known_RK.sum(1)
    sums_R = np.where(known_RK, draws_RK, 0.0).sum(1)
    return np.divide(sums_R, num_known_R, out=np.full(len(draws_RK), np.nan), where=num_known_R > 0)


def ranking_scores(probability_N: Array, positive_N: NDArray[np.bool_], counts_RN: Array) -> tuple[Array, Array]:
    """AUROC [R] and average precision [R] of each draw; ties share their rank, NaN where a draw has one class only.

    The same definitions as scikit-learn's `roc_auc_score` and `average_precision_score` with sample weights.
    """
    order = np.argsort(-probability_N, kind="stable")
    first_of_tie = np.flatnonzero(np.diff(probability_N[order], prepend=np.inf))
    positives_RT = np.add.reduceat(counts_RN[:, order] * positive_N[order], first_of_tie, axis=1)
    negatives_RT = np.add.reduceat(counts_RN[:, order] * ~positive_N[order], first_of_tie, axis=1)
    num_positive_R1 = positives_RT.sum(1, keepdims=True)
    num_negative_R1 = negatives_RT.sum(1, keepdims=True)
    negatives_below_RT = num_negative_R1 - negatives_RT.cumsum(1)
    pairs_won_R = (positives_RT * (negatives_below_RT + negatives_RT / 2)).sum(1)
    taken_RT = (positives_RT + negatives_RT).cumsum(1)
    precision_RT = np.divide(positives_RT.cumsum(1), taken_RT, out=np.zeros_like(taken_RT), where=taken_RT > 0)
    both_R = (num_positive_R1 * num_negative_R1)[:, 0] > 0
    nan_R = np.full(len(counts_RN), np.nan)
    auroc_R = np.divide(pairs_won_R, (num_positive_R1 * num_negative_R1)[:, 0], out=nan_R.copy(), where=both_R)
    precision_sum_R = (positives_RT * precision_RT).sum(1)
    average_precision_R = np.divide(precision_sum_R, num_positive_R1[:, 0], out=nan_R.copy(), where=both_R)
    return auroc_R, average_precision_R
