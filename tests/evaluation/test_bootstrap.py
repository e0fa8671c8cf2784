import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from vlm_crash.evaluation import bootstrap
from vlm_crash.evaluation.bootstrap import (
    NO_SPREAD,
    ONE_GROUP,
    Resamples,
    counted_share_interval,
    draw_counts,
    interval,
    no_interval,
    ranking_scores,
    row_means,
    share_interval,
)


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
    resamples = Resamples.of_clips(9, 20, seed=4)
    (counts_RN,) = resamples.blocks()
    fast_RK = resamples.means(scores_NK)
    for counts_N, means_K in zip(counts_RN.astype(int), fast_RK, strict=True):
        drawn_NK = np.repeat(scores_NK, counts_N, axis=0)
        assert means_K[0] == pytest.approx(drawn_NK[:, 0].mean())
        known = drawn_NK[~np.isnan(drawn_NK[:, 1]), 1]
        assert means_K[1] == pytest.approx(known.mean()) if len(known) else np.isnan(means_K[1])
    assert np.isnan(fast_RK[:, 2]).all()
    np.testing.assert_allclose(row_means(fast_RK), np.nanmean(fast_RK[:, :2], axis=1))


def test_interval_is_as_wide_as_the_binomial_says():
    scores_N1 = np.repeat([1.0, 0.0], [60, 40])[:, None]
    limits = interval(Resamples.of_clips(100, 4000, seed=0).means(scores_N1)[:, 0])
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


def test_clips_of_a_group_are_drawn_together():
    group_N = np.array([0, 0, 0, 2, 1])
    resamples = Resamples(group_N, 3, 40, seed=1)
    (counts_RG,) = resamples.blocks()
    np.testing.assert_array_equal(resamples.sums(np.eye(5)), counts_RG[:, group_N])
    assert (counts_RG.sum(1) == 3).all()
    # Four equal clips a group are worth one: the interval is that of the groups, twice as wide.
    rng = np.random.default_rng(0)
    of_group_G = rng.random(100)
    by_clip = interval(Resamples.of_clips(400, 2000, 0).means(np.repeat(of_group_G, 4)[:, None])[:, 0])
    by_group = interval(
        Resamples(np.repeat(np.arange(100), 4), 100, 2000, 0).means(np.repeat(of_group_G, 4)[:, None])[:, 0]
    )
    assert (by_group[1] - by_group[0]) / (by_clip[1] - by_clip[0]) == pytest.approx(2, rel=0.1)


def test_draws_are_the_same_in_whatever_blocks(monkeypatch):
    scores_NK = np.random.default_rng(0).random((11, 2))
    whole = Resamples.of_clips(11, 30, seed=7).means(scores_NK)
    monkeypatch.setattr(bootstrap, "_MOST_COUNTS", 44)
    assert [len(block) for block in Resamples.of_clips(11, 30, seed=7).blocks()] == [4] * 7 + [2]
    np.testing.assert_allclose(Resamples.of_clips(11, 30, seed=7).means(scores_NK), whole)


def test_a_share_without_a_mistake_has_an_interval():
    """36 of 36 right: every draw is 1, and the exact limit is that of which 36 of 36 comes once in forty times."""
    resamples = Resamples.of_clips(40, 200, seed=0)
    right_N1 = np.array([[1.0]] * 36 + [[np.nan]] * 4)
    num_units = resamples.num_units(~np.isnan(right_N1[:, 0]))
    low, high = share_interval(resamples.means(right_N1)[:, 0], num_units)
    assert (num_units, high) == (36, 1) and low**36 == pytest.approx(0.025)
    assert share_interval(resamples.means(1 - right_N1)[:, 0], num_units) == pytest.approx((0, 1 - low))
    right_N1[0] = 0
    draws_R = resamples.means(right_N1)[:, 0]
    assert share_interval(draws_R, num_units) == interval(draws_R)
    pairs = Resamples(np.arange(40) // 2, 20, 200, seed=0)  # two clips of a trip are one draw
    assert pairs.num_units(np.arange(40) < 36) == 18


def test_no_interval_has_a_width_of_zero():
    """Only a share that is 0 or 1 has limits where all draws are the same: exact ones."""
    same_R = np.full(100, 0.5)
    assert interval(same_R) is None is interval(np.ones(100)) and interval(np.full(3, np.nan)) is None
    assert share_interval(same_R, 1) is None and no_interval(1) == ONE_GROUP and no_interval(2) == NO_SPREAD
    assert share_interval(np.ones(100), 36) == pytest.approx((0.9026, 1), abs=1e-4)
    assert interval(1 + np.linspace(-1e-7, 1e-7, 100)) is None  # a cosine's rounding
    one_group = Resamples(np.zeros(4, dtype=np.int64), 1, 50, 0)
    assert share_interval(one_group.means(np.array([[0.0], [1], [1], [0]]))[:, 0], 1) is None


def test_a_counted_share_knows_its_groups():
    """Ten groups of four equal answers are worth ten answers, not forty, and never less than the exact limits say."""
    right_N = np.repeat(np.arange(10) < 7, 4)
    counted_N = np.ones(40, dtype=bool)
    alone, grouped = Resamples.of_clips(40, 2000, 0), Resamples(np.repeat(np.arange(10), 4), 10, 2000, 0)
    exact = counted_share_interval(right_N, counted_N, alone)
    assert exact == pytest.approx((0.5347, 0.8344), abs=1e-4)  # Clopper and Pearson, 28 of 40
    wide = counted_share_interval(right_N, counted_N, grouped)
    assert wide == pytest.approx((0.4, 1.0), abs=0.11) and wide[0] < exact[0] and wide[1] > exact[1]
    assert counted_share_interval(counted_N, counted_N, grouped) == pytest.approx((0.6915, 1.0), abs=1e-4)  # 10 of 10
    assert counted_share_interval(~counted_N, counted_N, alone) == pytest.approx((0.0, 0.0881), abs=1e-4)  # 0 of 40
    one = Resamples(np.zeros(40, dtype=int), 1, 2000, 0)
    assert counted_share_interval(right_N, counted_N, one) is None
    both = Resamples.joint([alone, Resamples.of_clips(40, 2000, 1)])
    assert both.num_groups == 80 and Resamples.joint([grouped, grouped]).num_units(np.ones(80, dtype=bool)) == 10


def test_shares_of_the_same_clips_take_the_same_draws_once(monkeypatch):
    """A grouped evaluation asks for some forty shares; too many to be kept are made anew, the same ones."""
    made = []
    monkeypatch.setattr(bootstrap, "draw_counts", lambda *of: made.append(of[:2]) or draw_counts(*of))
    right_N, counted_N = np.arange(60) % 3 > 0, np.arange(60) % 5 > 0
    grouped = Resamples(np.arange(60) // 2, 30, 500, seed=8731)
    shares = [counted_share_interval(right_N & counted_N, counted_N, grouped) for _ in range(3)]
    assert made == [(30, 500)] and len(set(shares)) == 1
    (counts_RG,) = grouped.blocks()
    np.testing.assert_array_equal(counts_RG, draw_counts(30, 500, np.random.default_rng(8731)))
    monkeypatch.setattr(bootstrap, "_MOST_KEPT", 30 * 500 - 1)
    assert counted_share_interval(right_N & counted_N, counted_N, grouped) == shares[0] and len(made) == 2
