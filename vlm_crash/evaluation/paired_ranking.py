"""How two models rank the same clips by P(first event): the differences of AUROC and of average precision.

Enters: two evaluations, the clips of both, their draws. Leaves: two rows of a comparison. Must hold: each clip is
ranked in both models or in neither, one without a probability as badly as can be (ranking.py); both models are drawn
with the same clips. Nothing is right or wrong here, so there is no McNemar: p is of the exchange of both models' ranks,
clip by clip or group by group (Bandos, Rockette and Gur, 2005, for the area under the curve).
Suffixes: N clips, R draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_crash.evaluation.bootstrap import NO_SPREAD, Array, Resamples, clip_draws, interval, ranking_scores
from vlm_crash.evaluation.folder import EvaluationFolder, Key
from vlm_crash.evaluation.paired_tests import NO_DIFFERENCE, all_signs, empty_row, is_enumerable
from vlm_crash.evaluation.ranking import SCORES, ranked

TOLD = "the models were told the event of these clips"
ONE_EVENT = "the clips are of one event"
#: What a row's p is, for the settings of a comparison.
EXCHANGE = "AUROC and average precision by exchanging the models' ranks"


def ranking_rows(
    folders: tuple[EvaluationFolder, EvaluationFolder],
    both: Sequence[Key],
    groups: Sequence[str] | None,
    resamples: Mapping[str, Resamples],
    num_flips: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """The rows of AUROC and of average precision, without their Holm-corrected p.

    Args:
        both: the clips of both, in their order.
        groups: of each of them; None: each is by itself.
        resamples: by event, of its clips of `both`.
        num_flips: exchanges that are drawn, where not all can be.
        rng: of the exchanges.
    """
    keys = [key for key in both if not any(folder.clips[key]["event_told"] for folder in folders)]
    keys = [key for event in folders[0].fields for key in keys if key[0] == event]  # as the draws have them
    if (reason := _reason(folders, keys)) is not None:
        return [empty_row("event", name, name, 0, reason) for name in SCORES]
    positive_N = np.array([event == next(iter(folders[0].fields)) for event, _ in keys])
    a_N, b_N = (_ranks(folder, keys, positive_N) for folder in folders)
    once = np.ones((1, len(keys)))
    a_2, b_2 = (np.concatenate(ranking_scores(ranks_N, positive_N, once)) for ranks_N in (a_N, b_N))
    draws_2R = _draws(a_N, b_N, positive_N, _places(keys, both, resamples))
    group_of = dict(zip(both, groups, strict=True)) if groups else {}
    place = {group: n for n, group in enumerate(dict.fromkeys(group_of.get(key, key) for key in keys))}
    group_N = np.array([place[group_of.get(key, key)] for key in keys])
    differing_G = np.unique(group_N[a_N != b_N])
    p_2 = _exchanged(a_N, b_N, positive_N, _swaps(group_N, differing_G, num_flips, rng))
    rows = []
    for k, name in enumerate(SCORES):
        row = empty_row("event", name, name, len(keys))
        row |= {"a": float(a_2[k]), "b": float(b_2[k]), "difference": float(a_2[k] - b_2[k]), "p": float(p_2[k])}
        row["num_differing"] = len(differing_G)
        if (limits := interval(draws_2R[k])) is not None:
            row |= {"low": limits[0], "high": limits[1]}
        else:
            row["reason"] = NO_DIFFERENCE if (a_N == b_N).all() else NO_SPREAD
        rows.append(row)
    return rows


def _reason(folders: Sequence[EvaluationFolder], keys: Sequence[Key]) -> str | None:
    """Why there is no ranking; None where there is one."""
    if (num_events := len(folders[0].fields)) != 2:
        return f"a probability ranks two events; the schema has {num_events}"
    if not keys:
        return TOLD
    for name, folder in zip("AB", folders, strict=True):
        if all(folder.clips[key]["event_probability"] is None for key in keys):
            return f"no prediction of {name} carries an event_probability"
    return ONE_EVENT if len({event for event, _ in keys}) == 1 else None


def _ranks(folder: EvaluationFolder, keys: Sequence[Key], positive_N: NDArray[np.bool_]) -> Array:
    """Places of the clips among each other, ties in their middle: what two models' probabilities have in common."""
    from scipy.stats import rankdata

    said = [folder.clips[key]["event_probability"] for key in keys]
    ranks_N: Array = rankdata([ranked(p, bool(is_positive)) for p, is_positive in zip(said, positive_N, strict=True)])
    return ranks_N


def _places(
    keys: Sequence[Key], both: Sequence[Key], resamples: Mapping[str, Resamples]
) -> list[tuple[Resamples, NDArray[np.int64]]]:
    """By event its draws, and which of its clips are ranked."""
    kept, found = set(keys), []
    for event, drawn in resamples.items():
        here = [key in kept for key in both if key[0] == event]
        if any(here):
            found.append((drawn, np.flatnonzero(here)))
    return found


def _draws(
    a_N: Array, b_N: Array, positive_N: NDArray[np.bool_], places: Sequence[tuple[Resamples, NDArray[np.int64]]]
) -> Array:
    """[2, R]: both differences in each draw."""
    parts = []
    for counts in clip_draws(places):
        counts_RN = np.concatenate(counts, axis=1)
        first, second = (np.stack(ranking_scores(ranks_N, positive_N, counts_RN)) for ranks_N in (a_N, b_N))
        parts.append(first - second)
    return np.concatenate(parts, axis=1)


def _swaps(
    group_N: NDArray[np.int64], differing_G: NDArray[np.int64], num_flips: int, rng: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """[N] at a time: whose ranks are exchanged. The first is the data; then all other ways of few differing groups
    (but for exchanging all of them), else so many that are drawn."""
    place_G = np.full(group_N.max() + 1, len(differing_G))
    place_G[differing_G] = np.arange(len(differing_G))
    if is_enumerable(len(differing_G), num_flips):
        for signs_G in all_signs(len(differing_G)):
            yield np.append(signs_G < 0, False)[place_G[group_N]]
        return
    yield np.zeros(len(group_N), dtype=bool)
    for _ in range(num_flips if len(differing_G) else 0):
        yield (rng.random(len(differing_G) + 1) < 0.5)[place_G[group_N]]


def _exchanged(a_N: Array, b_N: Array, positive_N: NDArray[np.bool_], swaps: Iterator[NDArray[np.bool_]]) -> Array:
    """[2] two-sided p of both differences: the share of the exchanges, the data among them, that come as far."""
    once = np.ones((1, len(a_N)))

    def difference_2(swapped_N: NDArray[np.bool_]) -> Array:
        sides = (np.where(swapped_N, b_N, a_N), np.where(swapped_N, a_N, b_N))
        first, second = (np.concatenate(ranking_scores(ranks_N, positive_N, once)) for ranks_N in sides)
        return np.abs(first - second)

    wanted_2 = difference_2(next(swaps)) - 1e-12
    others_R2 = np.array([difference_2(swapped_N) for swapped_N in swaps]).reshape(-1, 2)
    return (1 + (others_R2 >= wanted_2).sum(0)) / (1 + len(others_R2))
