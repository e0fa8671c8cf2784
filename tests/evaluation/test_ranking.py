"""The event's ranking: a clip without a probability is ranked as badly as can be, and never left out."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from vlm_crash.evaluation.bootstrap import Resamples, draw_counts, interval, logit_interval, ranking_scores
from vlm_crash.evaluation.ranking import NO_PROBABILITY, add_ranking, ranking_note


def ranked(crash: list[float | None], nearmiss: list[float | None]) -> dict:
    found = {name: list(enumerate(clips)) for name, clips in (("crash", crash), ("nearmiss", nearmiss)) if clips}
    resamples = {name: Resamples.of_clips(len(clips), 200, 0) for name, clips in found.items()}
    entry = {"n": len(crash) + len(nearmiss), "reasons": {}, "intervals": {}, "baseline": {}}
    add_ranking(entry, ("crash", "nearmiss"), found, resamples, ("told", "one event"))
    return entry


def test_failed_clips_are_ranked_worst_and_those_answered_have_names_of_their_own():
    entry = ranked([0.9] * 5 + [None] * 15, [0.1] * 5 + [None] * 15)
    truths, ranks = [1] * 20 + [0] * 20, [0.9] * 5 + [-1] * 15 + [0.1] * 5 + [2] * 15
    assert entry["auroc"] == pytest.approx(roc_auc_score(truths, ranks)) == pytest.approx(1 / 16)
    assert entry["average_precision"] == pytest.approx(average_precision_score(truths, ranks))
    assert entry["intervals"]["auroc"][0] < entry["auroc"] < entry["intervals"]["auroc"][1]
    assert (entry["auroc_answered"], entry["average_precision_answered"], entry["n_event_probability"]) == (1, 1, 10)
    assert entry["intervals"]["auroc_answered"] is None and "intervals.auroc_answered" in entry["reasons"]
    assert ranking_note(entry) == "10 of 40 have a probability"
    assert ranking_note(ranked([0.9], [0.1])) is None


def test_the_interval_near_one_is_as_wide_as_it_says():
    """36 clips a side, true AUROC 0.983: 95 % hold it, where percentiles of the same draws hold it far less often."""
    rng, true, held_2, num = np.random.default_rng(0), norm.cdf(3 / np.sqrt(2)), np.zeros(2), 0
    for _ in range(300):
        probability_N = np.concatenate([rng.normal(3, 1, 36), rng.normal(0, 1, 36)])
        counts_RN = np.concatenate([draw_counts(36, 200, rng), draw_counts(36, 200, rng)], axis=1)
        point, draws_R = (
            ranking_scores(probability_N, np.arange(72) < 36, c)[0] for c in (np.ones((1, 72)), counts_RN)
        )
        if (limits := logit_interval(point[0], draws_R)) is not None:
            held_2 += [low <= true <= high for low, high in (limits, interval(draws_R))]
            num += 1
    ours, percentile = held_2 / num
    assert num > 280 and ours >= 0.93 > percentile + 0.015
    assert logit_interval(1.0, np.ones(5)) is None


def test_what_has_no_ranking_says_why():
    for crash, nearmiss, reason in (([None], [None], NO_PROBABILITY), ([0.5], [], "one event"), ([], [], "told")):
        entry = ranked(crash, nearmiss)
        assert entry["auroc"] is entry["auroc_answered"] is None and ranking_note(entry) is None
        assert entry["reasons"]["auroc"] == entry["reasons"]["average_precision_answered"] == reason
    half = ranked([0.9, None], [None])
    assert half["auroc"] == 0 and half["reasons"]["auroc_answered"] == "one event"
