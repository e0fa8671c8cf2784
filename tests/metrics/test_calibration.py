import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from vlm_crash.metrics.calibration import (
    LEAST_TEMPERATURE,
    MOST_TEMPERATURE,
    apply_temperature,
    brier_score,
    calibration_error,
    error_if_calibrated,
    exact_interval,
    fit_temperature,
    lowest_threshold,
    reliability_bins,
    risk_coverage,
)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _draw(num_clips: int, num_terms: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities, and truths drawn by them."""
    rng = np.random.default_rng(seed)
    probability_NK = _softmax(rng.normal(0, 2, (num_clips, num_terms)))
    truth_N = (rng.random((num_clips, 1)) > probability_NK.cumsum(1)).sum(1).clip(max=num_terms - 1)
    return probability_NK, truth_N


@pytest.mark.parametrize("num_bins", [10, 15])
def test_error_and_bins_as_torchmetrics_and_sklearn_have_them(num_bins: int):
    probability_NK, truth_N = _draw(700, 4)
    given = torch.from_numpy(probability_NK), torch.from_numpy(truth_N)
    bins = reliability_bins(probability_NK.max(1), probability_NK.argmax(1) == truth_N, num_bins)
    theirs = multiclass_calibration_error(*given, num_classes=4, n_bins=num_bins)
    assert calibration_error(bins) == pytest.approx(float(theirs), abs=1e-6)
    first_N = probability_NK[:, 0]
    bins = reliability_bins(first_N, truth_N == 0, num_bins)
    theirs = binary_calibration_error(given[0][:, 0].contiguous(), given[1] == 0, n_bins=num_bins)
    assert calibration_error(bins) == pytest.approx(float(theirs), abs=1e-6)
    came_true, said = calibration_curve(truth_N == 0, first_N, n_bins=num_bins)
    assert [one.accuracy for one in bins] == pytest.approx(came_true)
    assert [one.confidence for one in bins] == pytest.approx(said)
    assert sum(one.n for one in bins) == 700


def test_edges_of_the_bins():
    bins = reliability_bins(np.array([0.0, 0.3, 0.7, 1.0]), np.ones(4, dtype=bool))
    assert [(one.low, one.high) for one in bins] == [(0.0, 0.1), (0.3, 0.4), (0.7, 0.8), (0.9, 1.0)]
    with pytest.raises(ValueError, match="of no clip"):
        calibration_error([])


def test_brier_score_as_sklearn_has_it():
    probability_NK, truth_N = _draw(300, 5)
    theirs = brier_score_loss(truth_N, probability_NK, labels=range(5), scale_by_half=False)
    assert brier_score(probability_NK, truth_N) == pytest.approx(theirs)
    assert brier_score(np.array([[0.5, 0.5]]), np.array([-1])) == 1.5  # the truth is a third term


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_known_temperature_is_found_and_mends_other_clips(temperature: float):
    """Probabilities made too sure (or too unsure) by a known temperature; fitted on some clips, applied to others."""
    calibrated_NK, truth_N = _draw(6000, 6)
    given_NK = apply_temperature(calibrated_NK, 1 / temperature)
    fit, held = slice(None, 3000), slice(3000, None)
    found = fit_temperature(given_NK[fit], truth_N[fit])
    assert not found.at_bound
    assert found.value == pytest.approx(temperature, rel=0.06)

    def loss(value: float) -> float:
        return -np.log(apply_temperature(given_NK[fit], value)[np.arange(3000), truth_N[fit]]).mean()

    assert loss(found.value) < min(loss(found.value * 1.01), loss(found.value / 1.01))

    def error(probability_NK: np.ndarray) -> float:
        answer_N = probability_NK.argmax(1)
        return calibration_error(reliability_bins(probability_NK.max(1), answer_N == truth_N[held]))

    before, after = error(given_NK[held]), error(apply_temperature(given_NK[held], found.value))
    by_chance = error_if_calibrated(calibrated_NK[held].max(1), np.random.default_rng(1))
    assert before > 0.1 > 2.5 * by_chance > after
    assert error(calibrated_NK[held]) < 2.5 * by_chance


def test_a_temperature_at_its_bound():
    sure_NK = np.array([[0.6, 0.4], [0.3, 0.7]])
    all_right, all_wrong = fit_temperature(sure_NK, np.array([0, 1])), fit_temperature(sure_NK, np.array([1, 0]))
    assert (all_right.value, all_right.at_bound) == (LEAST_TEMPERATURE, True)
    assert (all_wrong.value, all_wrong.at_bound) == (MOST_TEMPERATURE, True)


def test_probabilities_of_zero_are_taken_and_stay():
    """A truth that was given 0 makes a model less sure, and nothing infinite or NaN."""
    given_NK = np.array([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    found = fit_temperature(given_NK, np.array([0, 2, -1]))
    assert found.value > 1
    warmer_NK = apply_temperature(given_NK, 3.0)
    assert np.isfinite(warmer_NK).all() and (warmer_NK[:, 2] == 0).all()
    assert warmer_NK.sum(1) == pytest.approx([1, 1, 1])


def test_risk_and_coverage_count_every_clip():
    rng = np.random.default_rng(0)
    confidence_N = rng.random(400).round(2)  # with ties
    right_N = rng.random(400) < confidence_N
    points = risk_coverage(confidence_N, right_N, total=500)
    assert 40 <= len(points) <= 50
    assert points[0]["coverage"] == 0.8  # a hundred clips have no answer
    assert points[-1]["threshold"] == confidence_N.max()
    for point in points:
        accepted_N = confidence_N >= point["threshold"]
        assert point["coverage"] == accepted_N.sum() / 500
        assert point["accuracy"] == pytest.approx(right_N[accepted_N].mean())
    found = lowest_threshold(confidence_N, right_N, 0.8)
    assert found is not None
    reached = [t for t in np.unique(confidence_N) if right_N[confidence_N >= t].mean() >= 0.8]
    assert found == reached[0] > confidence_N.min()
    assert lowest_threshold(confidence_N, np.zeros(400, dtype=bool), 0.1) is None


@pytest.mark.parametrize("right", [0, 7, 30])
def test_exact_interval_as_scipy_has_it(right: int):
    theirs = binomtest(right, 30).proportion_ci(method="exact")
    assert exact_interval(right, 30) == pytest.approx((theirs.low, theirs.high))
