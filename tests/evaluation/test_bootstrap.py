import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from vlm_crash.evaluation.bootstrap import draw_counts, interval, ranking_scores, resampled_means, row_means


def test_a_draw_counts_each_clip_and_is_seeded():
    counts_RN = draw_counts(7, 50, np.random.default_rng(3))
    assert counts_RN.shape == (50, 7)
    assert (counts_RN.sum(1) == 7).all()
    assert (counts_RN == draw_counts(7, 50, np.random.default_rng(3))).all()
    assert draw_counts(0, 5, np.random.default_rng(0)).shape == (5, 0)


def test_resampled_means_equal_the_slow_way():
    rng = np.random.default_rng(0)
    scores_NK = rng.random((9, 3))
    scores_NK[[0, 4, 5], 1] = np.nan
    scores_NK[:, 2] = np.nan
    counts_RN = draw_counts(9, 20, rng)
    fast_RK = resampled_means(scores_NK, counts_RN)
    for counts_N, means_K in zip(counts_RN.astype(int), fast_RK, strict=True):
        drawn_NK = np.repeat(scores_NK, counts_N, axis=0)
        assert means_K[0] == pytest.approx(drawn_NK[:, 0].mean())
        known = drawn_NK[~np.isnan(drawn_NK[:, 1]), 1]
        assert means_K[1] == pytest.approx(known.mean()) if len(known) else np.isnan(means_K[1])
    assert np.isnan(fast_RK[:, 2]).all()
    np.testing.assert_allclose(row_means(fast_RK), np.nanmean(fast_RK[:, :2], axis=1))


def test_interval_is_as_wide_as_the_binomial_says():
    scores_N1 = np.repeat([1.0, 0.0], [60, 40])[:, None]
    limits = interval(resampled_means(scores_N1, draw_counts(100, 4000, np.random.default_rng(0)))[:, 0])
    assert limits is not None
    spread = 1.96 * np.sqrt(0.6 * 0.4 / 100)
    assert limits == pytest.approx((0.6 - spread, 0.6 + spread), abs=0.012)
    assert interval(np.array([np.nan])) is None


def test_ranking_scores_equal_scikit_learn_with_weights_and_ties():
    rng = np.random.default_rng(1)
    probability_N = rng.integers(0, 6, 40) / 5
    positive_N = rng.random(40) < 0.3 + 0.4 * probability_N
    counts_RN = draw_counts(40, 25, rng)
    auroc_R, average_precision_R = ranking_scores(probability_N, positive_N, counts_RN)
    for weights, auroc, average_precision in zip(counts_RN, auroc_R, average_precision_R, strict=True):
        assert auroc == pytest.approx(roc_auc_score(positive_N, probability_N, sample_weight=weights))
        want = average_precision_score(positive_N, probability_N, sample_weight=weights)
        assert average_precision == pytest.approx(want)


def test_ranking_one_class_is_nan():
    auroc_R, average_precision_R = ranking_scores(np.array([0.2, 0.9]), np.array([True, True]), np.ones((1, 2)))
    assert np.isnan(auroc_R[0]) and np.isnan(average_precision_R[0])
