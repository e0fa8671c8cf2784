"""Counts of truths by answers -> balanced accuracy and macro-F1 of a categorical field.

Enters: counts, of one table or of many draws at once. Leaves: shares. Must hold: only terms that are true at least once
weigh, all the same; an answer that is missing, or of no such term, costs the recall of its truth.
As scikit-learn's `balanced_accuracy_score`, and `f1_score(average="macro")` with the terms among the truths as labels.
Suffixes: R draws (or any other leading dimensions), T terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def balanced_accuracy(hits_RT: Array, truths_RT: Array) -> Array:
    """[R] mean over the terms of the share of their truths that was answered so; NaN without truths.

    >>> balanced_accuracy(np.array([3.0, 1.0, 0.0]), np.array([4.0, 1.0, 0.0])).item()
    0.875
    """
    return _mean_over_true(hits_RT, truths_RT, truths_RT)


def macro_f1(hits_RT: Array, truths_RT: Array, answers_RT: Array) -> Array:
    """[R] mean over the terms of F1 = 2 hits / (truths + answers); NaN without truths.

    >>> macro_f1(np.array([3.0, 1.0]), np.array([4.0, 1.0]), np.array([3.0, 2.0])).round(4).item()
    0.7619
    """
    return _mean_over_true(2 * hits_RT, truths_RT + answers_RT, truths_RT)


def _mean_over_true(part_RT: Array, whole_RT: Array, truths_RT: Array) -> Array:
    is_true_RT = truths_RT > 0
    shares_RT = np.divide(part_RT, whole_RT, out=np.zeros_like(part_RT, dtype=np.float64), where=is_true_RT)
    num_true_R = is_true_RT.sum(-1)
    sums_R = shares_RT.sum(-1)
    return np.divide(sums_R, num_true_R, out=np.full_like(sums_R, np.nan), where=num_true_R > 0)


def matrix_scores(counts: Any) -> tuple[float, float]:
    """Balanced accuracy and macro-F1 of integer counts [T, T + any]: truths by answers, the same terms first."""
    counts_TA = np.asarray(counts, dtype=np.float64)
    hits_T, truths_T = counts_TA.diagonal(), counts_TA.sum(1)
    answers_T = counts_TA[:, : len(counts_TA)].sum(0)
    return float(balanced_accuracy(hits_T, truths_T)), float(macro_f1(hits_T, truths_T, answers_T))
