"""How far probabilities can be trusted: reliability, Brier score, temperature, and what can be left to the model.

Pure numpy. Enters: probabilities that were given beside what came true. Leaves: numbers; nothing is rounded.
Suffixes: N clips, K terms, B bins, R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

NUM_BINS = 10
MAX_POINTS = 50
LEVEL = 0.95
#: Temperatures between which the best one is looked for; beyond them it says no more than "sharper" or "flatter".
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
#: Stands for a truth whose recorded probability is 0: half of the last of the ten decimals of predictions.jsonl.
LEAST_PROBABILITY = 5e-11


@dataclass(frozen=True)
class Bin:
    """Clips whose confidence is in [low, high) (the last bin has 1, too): how many, how sure, how often right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability_bins(confidence_N: Array, right_N: Flags, num_bins: int = NUM_BINS) -> list[Bin]:
    """Bins of equal width that have a clip, from the lowest on.

    >>> reliability_bins(np.array([0.7, 0.9, 1.0]), np.array([True, False, True]), num_bins=2)
    [Bin(low=0.5, high=1.0, n=3, confidence=0.8666666666666667, accuracy=0.6666666666666666)]
    """
    place_N = _bin_of(confidence_N, num_bins)
    bins = []
    for place in np.unique(place_N):
        inside_N = place_N == place
        bins.append(
            Bin(
                float(place / num_bins),
                float((place + 1) / num_bins),
                int(inside_N.sum()),
                float(confidence_N[inside_N].mean()),
                float(right_N[inside_N].mean()),
            )
        )
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over the bins, weighted by their clips.

    Raises:
        ValueError: no bin.
    """
    if not bins:
        raise ValueError("the calibration error of no clip is not defined")
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / sum(one.n for one in bins)


def error_if_calibrated(
    confidence_N: Array, rng: np.random.Generator, num_bins: int = NUM_BINS, num_draws: int = 200
) -> float:
    """Mean calibration error that such confidences have over so many clips where they are right as often as they say.

    It is above 0 by chance alone; an error that is not above it says nothing against a model.
    """
    place_N = _bin_of(confidence_N, num_bins)
    surplus_RN = (rng.random((num_draws, len(confidence_N))) < confidence_N) - confidence_N
    surplus_RB = np.stack([surplus_RN[:, place_N == place].sum(1) for place in np.unique(place_N)], axis=1)
    return float(np.abs(surplus_RB).sum(1).mean() / len(confidence_N))


def _bin_of(confidence_N: Array, num_bins: int) -> NDArray[np.intp]:
    edges = np.arange(1, num_bins) / num_bins
    return np.searchsorted(edges, confidence_N, side="right")


def brier_score(probability_NK: Array, truth_N: NDArray[np.intp]) -> float:
    """Mean over clips of the squared distance to the truth, summed over the terms: from 0 to 2 (Brier, 1950).

    A truth of -1 is none of the terms.
    """
    came_true_NK = truth_N[:, None] == np.arange(probability_NK.shape[1])
    squares_N = ((probability_NK - came_true_NK) ** 2).sum(1) + (truth_N < 0)
    return float(squares_N.mean())


@dataclass(frozen=True)
class Temperature:
    """What log-probabilities are divided by. at_bound: the likelihood still grows beyond it."""

    value: float
    at_bound: bool


def fit_temperature(probability_NK: Array, truth_N: NDArray[np.intp]) -> Temperature:
    """The temperature under which the truths are most likely (Guo et al., 2017, on probabilities instead of logits).

    The log-likelihood is concave in 1 / temperature, so there is one best. A truth with a probability of 0 (or of no
    term: -1) counts as LEAST_PROBABILITY; other terms of probability 0 keep it.
    """
    from scipy.optimize import brentq

    log_NK = _log(probability_NK)
    clips_N = np.arange(len(truth_N))
    of_truth_N = np.where(truth_N < 0, -np.inf, log_NK[clips_N, truth_N])
    of_truth_N = np.maximum(of_truth_N, np.log(LEAST_PROBABILITY))
    finite_NK = np.where(np.isfinite(log_NK), log_NK, 0.0)

    def slope(log_inverse: float) -> float:
        """Of the negative log-likelihood, in 1 / temperature."""
        weights_NK = _sharpened(log_NK, np.exp(log_inverse))
        return float(((weights_NK * finite_NK).sum(1) - of_truth_N).mean())

    flattest, sharpest = -np.log(MOST_TEMPERATURE), -np.log(LEAST_TEMPERATURE)
    if slope(sharpest) <= 0:
        return Temperature(LEAST_TEMPERATURE, at_bound=True)
    if slope(flattest) >= 0:
        return Temperature(MOST_TEMPERATURE, at_bound=True)
    return Temperature(float(np.exp(-brentq(slope, flattest, sharpest, xtol=1e-9))), at_bound=False)


def apply_temperature(probability_NK: Array, temperature: float) -> Array:
    """Rows to the power of 1 / temperature, summing to 1 again; their order stays.

    >>> apply_temperature(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.667, 0.333]]
    """
    return _sharpened(_log(probability_NK), 1 / temperature)


def _log(probability_NK: Array) -> Array:
    with np.errstate(divide="ignore"):
        logs: Array = np.log(probability_NK)
    return logs


def _sharpened(log_NK: Array, inverse: float) -> Array:
    powers_NK = np.exp(inverse * (log_NK - log_NK.max(1, keepdims=True)))
    shares: Array = powers_NK / powers_NK.sum(1, keepdims=True)
    return shares


def risk_coverage(
    confidence_N: Array, right_N: Flags, total: int, max_points: int = MAX_POINTS
) -> list[dict[str, Any]]:
    """What is accepted at each threshold: its share of `total` clips, and how much of it is right.

    Thresholds are confidences that occur, from the lowest on; of many, `max_points` that are even in coverage.

    >>> risk_coverage(np.array([0.6, 0.9]), np.array([False, True]), total=4)[0]
    {'threshold': 0.6, 'coverage': 0.5, 'accuracy': 0.5}
    """
    threshold_T, accepted_T, right_T = _accepted(confidence_N, right_N)
    if len(threshold_T) > max_points:
        wanted = np.linspace(accepted_T[-1], accepted_T[0], max_points)
        # From most to least accepted: the first threshold that accepts no more than wanted.
        chosen = np.unique(np.searchsorted(-accepted_T, -wanted))
        threshold_T, accepted_T, right_T = threshold_T[chosen], accepted_T[chosen], right_T[chosen]
    return [
        {"threshold": float(threshold), "coverage": float(accepted / total), "accuracy": float(right / accepted)}
        for threshold, accepted, right in zip(threshold_T, accepted_T, right_T, strict=True)
    ]


def lowest_threshold(confidence_N: Array, right_N: Flags, wanted: float) -> float | None:
    """The lowest confidence from which on the accepted answers are right as often as wanted; None where none is.

    >>> lowest_threshold(np.array([0.5, 0.6, 0.9]), np.array([False, True, True]), wanted=0.95)
    0.6
    """
    threshold_T, accepted_T, right_T = _accepted(confidence_N, right_N)
    reached_T = right_T >= wanted * accepted_T - 1e-9
    return float(threshold_T[reached_T][0]) if reached_T.any() else None


def _accepted(confidence_N: Array, right_N: Flags) -> tuple[Array, Array, Array]:
    """Each confidence that occurs, rising; how many clips have it or more, and how many of them are right."""
    threshold_T, first_T = np.unique(np.sort(confidence_N), return_index=True)
    rising_N = right_N[np.argsort(confidence_N, kind="stable")]
    right_after_N = rising_N[::-1].cumsum()[::-1]
    return threshold_T, (len(confidence_N) - first_T).astype(float), right_after_N[first_T].astype(float)


def exact_interval(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Clopper and Pearson, 1934): unlike resampling, not a point where all are right.

    >>> [round(limit, 3) for limit in exact_interval(20, 20)]
    [0.832, 1.0]
    """
    from scipy.stats import beta

    tail = (1 - LEVEL) / 2
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, n - right + 1))
    return low, 1.0 if right == n else float(beta.ppf(1 - tail, right + 1, n - right))
