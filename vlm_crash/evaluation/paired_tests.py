"""Tests of two models on the same clips, and their correction for being many.

Pure numbers. Suffixes: N clips, G groups (each clip its own unless told), K scores, R flips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_crash.data.multiple_testing import holm
from vlm_crash.evaluation.bootstrap import Array
from vlm_crash.metrics.calibration import exact_interval

#: A difference is one below it, after Holm's correction.
LEVEL = 0.05
A_BETTER, B_BETTER, UNDECIDED = "A better", "B better", "cannot tell apart"
NO_DIFFERENCE = "no clip differs"
#: Signs that are held at a time.
_MOST_SIGNS = 2**22
#: Two scores of a clip nearer to each other are the same: a cosine is a float32, and the same texts in other batches
#: come to some 1e-7 more or less.
SAME = 1e-6
#: Sums of such differences nearer to 0 are so by rounding (of float64: a clip's part of a mean may be small).
_ROUNDING = 1e-9


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


def all_for_one(num_units: int) -> tuple[float, float]:
    """95 % limits of a difference that was 1: of so many clips or groups, all right in one model alone.

    Clopper and Pearson's limits of their share; what the lower one leaves may all be for the other side, so the
    difference may be as low as twice that limit less 1.

    >>> [round(limit, 3) for limit in all_for_one(40)]
    [0.824, 1.0]
    """
    share, _ = exact_interval(num_units, num_units)
    return 2 * share - 1, 1.0


def flips_for(num_rows: int, num_draws: int) -> int:
    """How many flips are drawn for each of so many rows: at least num_draws.

    The least p that R flips can come to is 1 / (R + 1), and Holm's rule multiplies it by the number of rows. So that
    what flips do not decide is the clips' doing and never theirs, that least p is a tenth of what decides.

    >>> flips_for(31, 2000), flips_for(3, 2000)
    (6200, 2000)
    """
    return max(num_draws, math.ceil(10 * num_rows / LEVEL))


def differences(a: Array, b: Array) -> Array:
    """A minus B of the same shape: 0 where they are the same but for rounding, NaN where one has none.

    >>> differences(np.array([0.8, 0.8, np.nan]), np.array([0.8000001, 0.7, 1.0])).round(3).tolist()
    [0.0, 0.1, nan]
    """
    difference = a - b
    settled: Array = np.where(np.abs(difference) < SAME, 0.0, difference)
    return settled


def num_differing(sums_GK: Array) -> NDArray[np.int64]:
    """[K] groups of which A's score is not B's: the others say nothing, whichever way they are flipped."""
    return (np.abs(sums_GK) > _ROUNDING).sum(0)


def least_p(differing: int) -> float:
    """The least two-sided p of so many differing clips or groups: that of all for one side.

    >>> least_p(0), least_p(1), least_p(6)
    (1.0, 1.0, 0.03125)
    """
    return min(1.0, 2.0 ** (1 - differing))


def could_decide(p_values: Sequence[float], differing: Sequence[int]) -> list[bool]:
    """Whether each row could have been below LEVEL after Holm's rule, had all that differ been for one side.

    Args:
        p_values: of all rows; the others stay as they are.
        differing: clips or groups that differ, by row.

    >>> could_decide([1.0, 1.0], [6, 7])
    [False, True]
    """
    found = []
    for row, num in enumerate(differing):
        best = [*p_values[:row], min(p_values[row], least_p(num)), *p_values[row + 1 :]]
        found.append(holm(best)[row] < LEVEL)
    return found


def decide(rows: Sequence[dict[str, Any]], corrected: Sequence[float], grouped: bool) -> None:
    """Give rows that are corrected together their verdict, and where none could be reached the reason.

    Args:
        corrected: p of each, corrected for being one of them.
        grouped: it is groups that differ, not clips.
    """
    unit = "group" if grouped else "clip"
    possible = could_decide([row["p"] for row in rows], [row["num_differing"] for row in rows])
    for row, p, could in zip(rows, corrected, possible, strict=True):
        row["could_decide"] = could
        if p < LEVEL and row["difference"] != 0:
            row["verdict"] = A_BETTER if row["difference"] > 0 else B_BETTER
        elif not could and row.get("reason") != NO_DIFFERENCE:
            num, few = row["num_differing"], f"too few to tell {len(rows)} rows" if len(rows) > 1 else "too few to tell"
            said = f"{num or 'no'} {unit}{'' if num == 1 else 's'} differ{'s' if num == 1 else ''}: {few}"
            row["reason"] = "; ".join(filter(None, [row.get("reason"), said]))


def all_signs(num_groups: int) -> Array:
    """[2^(G-1), G]: every way of A and B in G groups, but for exchanging all, which no two-sided p sees.

    >>> all_signs(2).tolist()
    [[1.0, 1.0], [1.0, -1.0]]
    """
    ways_R1 = np.arange(2 ** (num_groups - 1))[:, None]
    signs_RG: Array = np.where(ways_R1 >> np.arange(num_groups)[::-1] & 1, -1.0, 1.0)
    return signs_RG


def is_enumerable(differing: int, num_flips: int) -> bool:
    """Whether all ways of so many groups are no more than the flips that would be drawn."""
    return 1 <= differing <= 1 + math.log2(num_flips)


def sign_flip(sums_GK: Array, num_flips: int, rng: np.random.Generator) -> Array:
    """[K] two-sided p of the total of each column, were A and B exchangeable in each group.

    Exact where few groups differ. Else which of two models gave which score is drawn anew for each group and flip; the
    data themselves count as one flip, so that p is never 0 (Phipson and Smyth 2010).
    """
    differing_K = num_differing(sums_GK)
    is_few_K = np.array([is_enumerable(int(num), num_flips) for num in differing_K], dtype=bool)
    p_K = np.ones(sums_GK.shape[1])
    for k in np.flatnonzero(is_few_K):
        sums_G1 = sums_GK[np.abs(sums_GK[:, k]) > _ROUNDING][:, [k]]
        p_K[k] = _at_least(all_signs(len(sums_G1)), sums_G1)[0] / 2 ** (len(sums_G1) - 1)
    many_K = np.flatnonzero(~is_few_K & (differing_K > 0))
    if len(many_K):
        at_least_K = sum(_at_least(signs_RG, sums_GK[:, many_K]) for signs_RG in _drawn(len(sums_GK), num_flips, rng))
        p_K[many_K] = (1 + at_least_K) / (num_flips + 1)
    return p_K


def _at_least(signs_RG: Array, sums_GK: Array) -> NDArray[np.int64]:
    """[K]: of these flips, those whose total is as far from 0 as the data's; one that is so up to rounding counts."""
    return (np.abs(signs_RG @ sums_GK) >= np.abs(sums_GK.sum(0)) * (1 - 1e-12) - 1e-12).sum(0)


def _drawn(num_groups: int, num_flips: int, rng: np.random.Generator) -> Iterator[Array]:
    """All flips, some at a time."""
    at_once = max(1, _MOST_SIGNS // max(num_groups, 1))
    for first in range(0, num_flips, at_once):
        signs_RG: Array = np.where(rng.integers(2, size=(min(at_once, num_flips - first), num_groups)), -1.0, 1.0)
        yield signs_RG
