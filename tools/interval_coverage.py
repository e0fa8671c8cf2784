"""How often the 95 % intervals of `evaluate` hold the true value, on drawn clips of which it is known.

Enters: nothing. Leaves: tables on stdout, the same each time. Shares of single clips are not drawn, but summed over all
that could be right of n. Beside each, another way: Wilson's interval for shares, percentiles for rankings.

    .venv/bin/python tools/interval_coverage.py
"""

import numpy as np
from scipy.stats import binom, norm

from vlm_crash.evaluation.bootstrap import (
    Array,
    Resamples,
    draw_counts,
    interval,
    logit_interval,
    ranking_scores,
    share_interval,
)

#: Draws of shares are as many as by default.
DEFAULT_DRAWS, NUM_DRAWS, NUM_REPEATS, SEED = 2000, 400, 600, 0


def share_coverage(n: int, p: float) -> tuple[float, float]:
    """Of the table's interval, and of Wilson's."""
    resamples, z = Resamples.of_clips(n, DEFAULT_DRAWS, SEED), norm.ppf(0.975)
    ours = wilson = 0.0
    for right in range(n + 1):
        limits = share_interval(resamples.means((np.arange(n) < right)[:, None].astype(float))[:, 0], n)
        assert limits is not None
        centre, half = right / n + z * z / (2 * n), z * np.sqrt(right / n * (1 - right / n) / n + z * z / (4 * n * n))
        chance = float(binom.pmf(right, n, p))
        ours += chance * (limits[0] <= p <= limits[1])
        wilson += chance * bool(centre - half <= p * (1 + z * z / n) <= centre + half)
    return ours, wilson


def group_coverage(num_groups: int, rng: np.random.Generator) -> float:
    """Of a share of groups of five clips, whose groups are right to a share of a Beta(2, 1) each: 2/3 in the mean."""
    held = 0
    for repeat in range(NUM_REPEATS):
        share_G1 = rng.beta(2, 1, (num_groups, 1))
        right_N1 = (rng.random((num_groups, 5)) < share_G1).reshape(-1, 1).astype(float)
        resamples = Resamples(np.repeat(np.arange(num_groups), 5), num_groups, NUM_DRAWS, repeat)
        limits = share_interval(resamples.means(right_N1)[:, 0], num_groups)
        held += limits is not None and limits[0] <= 2 / 3 <= limits[1]
    return held / NUM_REPEATS


def auroc_coverage(n: int, distance: float, rng: np.random.Generator) -> tuple[float, float, int]:
    """Of the table's interval and of percentiles; and how many repeats have none: no crash is below another."""
    true, held_2, without = norm.cdf(distance / np.sqrt(2)), np.zeros(2), 0
    for _ in range(NUM_REPEATS):
        probability_N: Array = np.concatenate([rng.normal(distance, 1, n), rng.normal(0, 1, n)])
        positive_N = np.arange(2 * n) < n
        counts_RN = np.concatenate([draw_counts(n, NUM_DRAWS, rng) for _ in range(2)], axis=1)
        point = float(ranking_scores(probability_N, positive_N, np.ones((1, 2 * n)))[0][0])
        draws_R = ranking_scores(probability_N, positive_N, counts_RN)[0]
        both = logit_interval(point, draws_R), interval(draws_R)
        if both[0] is None or both[1] is None:
            without += 1
            continue
        held_2 += [limits[0] <= true <= limits[1] for limits in both if limits is not None]
    ours, percentile = held_2 / (NUM_REPEATS - without)
    return float(ours), float(percentile), without


def main() -> None:
    """Print the tables."""
    print("| a share: clips, truth | held | Wilson's |\n|---|---:|---:|")
    for n in (15, 36, 100):
        for p in (0.5, 0.8, 0.9, 0.95):
            print(f"| {n}, {p} | {share_coverage(n, p)[0]:.3f} | {share_coverage(n, p)[1]:.3f} |")
    rng = np.random.default_rng(SEED)
    print("\n| a share: groups of five | held |\n|---|---:|")
    for num_groups in (5, 8, 15, 30):
        print(f"| {num_groups} | {group_coverage(num_groups, rng):.3f} |")
    print("\n| AUROC: clips a side, truth | held | percentiles | without |\n|---|---:|---:|---:|")
    for n in (15, 36, 100):
        for distance in (1, 2, 3):
            ours, percentile, without = auroc_coverage(n, distance, rng)
            print(f"| {n}, {norm.cdf(distance / np.sqrt(2)):.3f} | {ours:.3f} | {percentile:.3f} | {without} |")


if __name__ == "__main__":
    main()
