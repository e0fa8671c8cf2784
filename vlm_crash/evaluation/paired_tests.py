"""Tests of two models on the same clips, and their correction for being many.

Pure numbers. Suffixes: N clips, G groups (each clip its own unless told), K scores, R random flips.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_crash.evaluation.bootstrap import Array

UNDECIDED = "cannot tell apart"
NO_DIFFERENCE = "no clip differs"
#: Signs that are held at a time.
_MOST_SIGNS = 2**22


def empty_row(event: str, field: str, metric: str, n: int, reason: str | None = None) -> dict[str, Any]:
    """A row of a comparison in which nothing is known yet, or never will be, for the reason."""
    empty = dict.fromkeys(("a", "b", "difference", "low", "high", "p", "p_holm"))
    row = {"event": event, "field": field, "metric": metric, "n": n, **empty, "verdict": UNDECIDED}
    return row if reason is None else row | {"reason": reason}


def mcnemar(right_a_N: NDArray[np.bool_], right_b_N: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Clips that only A has right, that only B has right, and the exact two-sided p of so uneven a share.

    >>> a, b = np.array([1, 1, 1, 1, 1, 1, 0, 1]) > 0, np.array([0, 0, 0, 0, 0, 0, 0, 1]) > 0
    >>> mcnemar(a, b), mcnemar(a, a)
    ((6, 0, 0.03125), (0, 0, 1.0))
    """
    from scipy.stats import binomtest

    only_a, only_b = int((right_a_N & ~right_b_N).sum()), int((right_b_N & ~right_a_N).sum())
    return only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def sign_flip(sums_GK: Array, num_flips: int, rng: np.random.Generator) -> Array:
    """[K] two-sided p of the total of each column, were A and B exchangeable in each group.

    Which of two models gave which score is drawn anew for each group and flip; the data themselves count as one flip,
    so that p is never 0 (Phipson and Smyth 2010).
    """
    wanted_K = np.abs(sums_GK.sum(0)) * (1 - 1e-12)  # a flip that gives the same total up to rounding counts
    at_least_K = np.ones(sums_GK.shape[1])
    at_once = max(1, _MOST_SIGNS // max(len(sums_GK), 1))
    for first in range(0, num_flips, at_once):
        signs_RG = rng.choice([-1.0, 1.0], size=(min(at_once, num_flips - first), len(sums_GK)))
        at_least_K += (np.abs(signs_RG @ sums_GK) >= wanted_K).sum(0)
    return at_least_K / (num_flips + 1)
