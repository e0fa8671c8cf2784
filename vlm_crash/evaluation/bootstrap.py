"""Percentile bootstrap by clip, seeded and vectorised: all draws are one matrix product.

Suffixes: R draws, N clips, K scores. A draw is a vector of N counts (how often each clip was drawn).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.95


def draw_counts(num_clips: int, num_draws: int, rng: np.random.Generator) -> Array:
    """[R, N]: how often each clip stands in each resample of N clips with replacement."""
    if num_clips == 0:
        return np.zeros((num_draws, 0))
    return rng.multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=num_draws).astype(np.float64)


def resampled_means(scores_NK: Array, counts_RN: Array) -> Array:
    """[R, K]: mean of each column in each draw. NaN scores are not counted; NaN where a draw has none."""
    known_NK = ~np.isnan(scores_NK)
    totals_RK = counts_RN @ known_NK
    sums_RK = counts_RN @ np.where(known_NK, scores_NK, 0.0)
    return np.divide(sums_RK, totals_RK, out=np.full_like(sums_RK, np.nan), where=totals_RK > 0)


def interval(draws_R: Array) -> tuple[float, float] | None:
    """95 % percentile interval; None where no draw has a value."""
    draws_R = draws_R[~np.isnan(draws_R)]
    if draws_R.size == 0:
        return None
    low, high = np.quantile(draws_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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
