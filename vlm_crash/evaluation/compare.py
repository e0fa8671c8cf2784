"""Two evaluations of the same clips -> paired differences, and whether they tell the two models apart.

Enters: two folders that `evaluate` wrote. Leaves: a dictionary (comparison.json). Must hold: only clips of both are
compared, and each of the others is named; both judge by the same truths; a difference counts as one only where its p,
corrected for all that are asked, is below LEVEL.
Suffixes: N clips of an event, K fields, R draws, G groups.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.data.multiple_testing import holm
from vlm_crash.data.splits import unite
from vlm_crash.evaluation.bootstrap import NO_SPREAD, Array, Resamples, interval, row_means
from vlm_crash.evaluation.folder import EvaluationFolder, Key
from vlm_crash.evaluation.paired_ranking import EXCHANGE, TOLD, ranking_rows
from vlm_crash.evaluation.paired_tests import (
    LEVEL,
    NO_DIFFERENCE,
    all_for_one,
    decide,
    differences,
    empty_row,
    flips_for,
    mcnemar,
    num_differing,
    sign_flip,
)
from vlm_crash.evaluation.ranking import SCORES
from vlm_crash.evaluation.settings import EvaluationSettings

logger = logging.getLogger(__name__)

#: Of the event: accuracy, AUROC, average precision.
_EVENT_ROWS = 1 + len(SCORES)
NO_SCORES = "no clip has a score in both"
OTHER_EMBEDDER = "the text scores are of different embedders, or turned off; evaluate both with the same --embedder"


@dataclass(frozen=True)
class _Paired:
    """Scores of the clips of one event that both have; NaN where one of them has none."""

    event: str
    names: tuple[str, ...]
    exact_K: tuple[bool, ...]
    a_NK: Array
    b_NK: Array
    resamples: Resamples

    @property
    def difference_NK(self) -> Array:
        return differences(self.a_NK, self.b_NK)


def compare(a: Path, b: Path, num_draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Compare two evaluations, clip by clip.

    Args:
        a, b: folders of `evaluate`.
        num_draws: resamples of the bootstrap, and flips of the sign test, of which many rows have more.
        seed: of both.

    Returns:
        What comparison.json holds; a difference is A minus B, its 95 % interval not corrected for being one of many.

    Raises:
        ValueError: the two judge by different truths, have no clip in common, or a number cannot be.
        FileNotFoundError: a folder is no evaluation.
    """
    EvaluationSettings(seed=seed, num_draws=num_draws)  # says what is wrong with the numbers
    folders = EvaluationFolder.read(a), EvaluationFolder.read(b)
    _check_same_truth(*folders)
    both = [key for key in folders[0].clips if key in folders[1].clips]
    groups, said, note = shared_groups(folders, both)
    if note is not None:
        logger.warning("%s", note)
    grouped = groups is not None
    paired = _paired(folders, both, groups, num_draws, seed)
    rng = np.random.default_rng(seed)
    num_flips = flips_for(sum(len(event.names) for event in paired) + _EVENT_ROWS, num_draws)
    rows = [row for event in paired for row in _field_rows(event, grouped, num_flips, rng)]
    rows.append(_event_row(folders, both, paired, grouped, num_flips, rng))
    # Draws of their own, so that the rows above are what they are without a ranking.
    drawn = {event.event: event.resamples for event in paired}
    rows += ranking_rows(folders, both, groups, drawn, num_flips, np.random.default_rng(seed + 1))
    means = [_mean_row([event], event.event, grouped, num_flips, rng) for event in paired if any(event.exact_K)]
    means += [_mean_row(paired, "all", grouped, num_flips, rng)] if len(means) > 1 else []
    tested = [row for row in rows if row["p"] is not None]
    corrected = holm([row["p"] for row in tested])
    for row, p_holm in zip(tested, corrected, strict=True):
        row["p_holm"] = p_holm
    decide(tested, corrected, grouped)
    for mean in means:
        if mean["p"] is not None:
            decide([mean], [mean["p"]], grouped)
    first, second = folders
    return {
        "a": str(first.path), "b": str(second.path), "n": len(both),
        "only_in_a": _only(first, second), "only_in_b": _only(second, first), "fields": rows, "means": means,
        "settings": {
            "level": LEVEL, "draws": num_draws, "flips": num_flips, "seed": seed,
            "groups": said, "groups_note": note,
            "difference": "A minus B; paired 95 % percentile bootstrap, each interval by itself; "
            "exact where one is right in every clip and the other in none",
            "p": ("sign flips of whole groups" if grouped else "exact McNemar; texts and means by sign flips of clips")
            + f"; {EXCHANGE} of {'groups' if grouped else 'clips'}",
            "p_holm": f"Holm over the {len(tested)} rows of fields and event with a p; the means are not among them",
        },
    }  # fmt: skip


def _check_same_truth(a: EvaluationFolder, b: EvaluationFolder) -> None:
    remedy = "evaluate both against the same files"
    if a.fields != b.fields:
        named = sorted(
            f"{event}/{name}"
            for event in {*a.fields, *b.fields}
            for name in {*a.fields.get(event, {}), *b.fields.get(event, {})}
            if a.fields.get(event, {}).get(name) != b.fields.get(event, {}).get(name)
        )
        raise ValueError(f"{a.path} and {b.path} are of different schemas (they differ in {_some(named)}); {remedy}")
    both = [key for key in a.clips if key in b.clips]
    if not both:
        raise ValueError(f"{a.path} and {b.path} have no clip in common; {remedy}")
    differing = [
        f"{event}/{video} {name}: {said['truth']!r} and {b.clips[event, video]['fields'][name]['truth']!r}"
        for event, video in both
        for name, said in a.clips[event, video]["fields"].items()
        if said["truth"] != b.clips[event, video]["fields"][name]["truth"]
    ]
    if differing:
        raise ValueError(
            f"{a.path} and {b.path} judge by different truths, in {len(differing)} values of {len(both)} clips: "
            f"{_some(differing)}; {remedy}"
        )


def _some(named: Sequence[str], most: int = 5) -> str:
    return "; ".join(named[:most]) + (f"; and {len(named) - most} more" if len(named) > most else "")


def _only(here: EvaluationFolder, there: EvaluationFolder) -> dict[str, Any]:
    clips = [f"{event}/{video}" for event, video in here.clips if (event, video) not in there.clips]
    return {"n": len(clips), "clips": clips}


def shared_groups(
    folders: tuple[EvaluationFolder, EvaluationFolder], both: Sequence[Key]
) -> tuple[list[str] | None, str | None, str | None]:
    """Of each clip the group that it is drawn with, what a group is, and where the two folders differ in it.

    Clips that either evaluation drew together are drawn together here: two clips of one trip are one, whoever has said
    so. None, None where no two clips belong together.
    """
    told = [folder.settings.get("groups") or folder.settings.get("group_column") for folder in folders]
    labels = [
        {str(n): str(folder.clips[key]["group"]) for n, key in enumerate(both) if said and "group" in folder.clips[key]}
        for folder, said in zip(folders, told, strict=True)
    ]
    of_a, of_b, of_either = ([unite(some).get(str(n), str(n)) for n in range(len(both))]
                             for some in (labels[:1], labels[1:], labels))  # fmt: skip
    note = None
    if of_a != of_b:
        sides = [
            f"{name} by {said}" if said else f"{name} without groups" for name, said in zip("AB", told, strict=True)
        ]
        note = (
            f"the two were evaluated with different groups ({'; '.join(sides)}): clips that either keeps together are "
            "drawn together; evaluate both with the same --group_column"
        )
    if len(set(of_either)) == len(both):
        return None, None, note
    return of_either, "; or ".join(dict.fromkeys(str(said) for said in told if said)), note


def _paired(
    folders: tuple[EvaluationFolder, EvaluationFolder],
    both: Sequence[Key],
    groups: Sequence[str] | None,
    num_draws: int,
    seed: int,
) -> list[_Paired]:
    first, second = folders
    same_texts = first.settings.get("embedder") == second.settings.get("embedder") is not None
    place = {group: number for number, group in enumerate(dict.fromkeys(groups or ()))}
    found = []
    for number, (event, kinds) in enumerate(first.fields.items()):
        here = [n for n, key in enumerate(both) if key[0] == event]
        if not here:
            continue
        exact_K = tuple(kind != "text" for kind in kinds.values())
        scores = []
        for folder in folders:
            clips = [folder.clips[both[n]]["fields"] for n in here]
            scores_NK = np.array([[_number(clip[name]["score"]) for name in kinds] for clip in clips])
            scores_NK[:, [not exact and not same_texts for exact in exact_K]] = np.nan
            scores.append(scores_NK)
        resamples = Resamples.of_clips(len(here), num_draws, seed + number)
        if groups is not None:
            resamples = Resamples(np.array([place[groups[n]] for n in here]), len(place), num_draws, seed)
        found.append(_Paired(event, tuple(kinds), exact_K, scores[0], scores[1], resamples))
    return found


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _field_rows(event: _Paired, grouped: bool, num_flips: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    difference_NK = event.difference_NK
    draws_RK = event.resamples.means(difference_NK)
    sums_GK = event.resamples.grouped(np.nan_to_num(difference_NK))
    differing_K = num_differing(sums_GK)
    flipped_K = np.ones(len(event.names))
    asked_K = [k for k, exact in enumerate(event.exact_K) if grouped or not exact]  # the others have McNemar
    flipped_K[asked_K] = sign_flip(sums_GK[:, asked_K], num_flips, rng)
    rows = []
    for k, (name, exact) in enumerate(zip(event.names, event.exact_K, strict=True)):
        known_N = ~np.isnan(difference_NK[:, k])
        a_N, b_N = event.a_NK[known_N, k], event.b_NK[known_N, k]
        num_units = event.resamples.num_units(known_N) if exact else None
        metric = "exact_match" if exact else "cosine_similarity"
        row = _row(event.event, name, metric, a_N, b_N, draws_RK[:, k], num_units)
        if len(a_N):
            row["p"], row["num_differing"] = float(flipped_K[k]), int(differing_K[k])
            if exact:
                row["only_a_right"], row["only_b_right"], p = mcnemar(a_N > 0, b_N > 0)
                row["p"] = row["p"] if grouped else p
        elif not exact:
            row["reason"] = OTHER_EMBEDDER
        rows.append(row)
    return rows


def _row(
    event: str, field: str, metric: str, a_N: Array, b_N: Array, draws_R: Array, num_units: int | None = None
) -> dict[str, Any]:
    """A row without its p; num_units: clips or groups that count, of scores that are right or wrong."""
    if not len(a_N):
        return empty_row(event, field, metric, 0, NO_SCORES)
    a, b = float(a_N.mean()), float(b_N.mean())
    row = empty_row(event, field, metric, len(a_N)) | {"a": a, "b": b, "difference": a - b}
    if (limits := interval(draws_R)) is not None:
        return row | {"low": limits[0], "high": limits[1]}
    if num_units is not None and abs(a - b) == 1:
        low, high = all_for_one(num_units)
        return row | ({"low": low, "high": high} if a > b else {"low": -high, "high": -low})
    if not differences(a_N, b_N).any():
        return row | {"difference": 0.0, "reason": NO_DIFFERENCE}
    return row | {"reason": NO_SPREAD}


def _event_row(
    folders: tuple[EvaluationFolder, EvaluationFolder],
    both: Sequence[Key],
    paired: Sequence[_Paired],
    grouped: bool,
    num_flips: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Whether the event was named, over the clips of which neither model was told it."""
    right = {
        key: tuple(float(folder.clips[key]["predicted_event"] == key[0]) for folder in folders)
        for key in both
        if not any(folder.clips[key]["event_told"] for folder in folders)
    }
    a_N, b_N = (np.array([pair[side] for pair in right.values()], dtype=np.float64) for side in (0, 1))
    draws_R = np.zeros(paired[0].resamples.num_draws)
    sums_G1: list[Array] = []
    units: set[tuple[str, int]] = set()
    for event in paired:
        pairs = [right.get(key, (np.nan, np.nan)) for key in both if key[0] == event.event]
        difference_N1 = np.array([[first - second] for first, second in pairs])
        known = int((~np.isnan(difference_N1)).sum())
        if known:
            draws_R += event.resamples.means(difference_N1)[:, 0] * known / len(right)
            sums_G1.append(event.resamples.grouped(np.nan_to_num(difference_N1)))
            here_N = event.resamples.group_N[~np.isnan(difference_N1[:, 0])]
            # Groups are shared by the events, clips are not.
            units |= {("" if grouped else event.event, int(group)) for group in here_N}
    row = _row("event", "event", "accuracy", a_N, b_N, draws_R, len(units))
    if not right:
        return row | {"reason": TOLD}
    row["only_a_right"], row["only_b_right"], row["p"] = mcnemar(a_N > 0, b_N > 0)
    row["num_differing"] = row["only_a_right"] + row["only_b_right"]
    if grouped:
        sum_G1 = np.sum(sums_G1, axis=0)
        row["p"], row["num_differing"] = float(sign_flip(sum_G1, num_flips, rng)[0]), int(num_differing(sum_G1)[0])
    return row


def _mean_row(
    events: Sequence[_Paired], name: str, grouped: bool, num_flips: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Mean over the categorical and count fields, each weighing the same; p by flips of whole clips."""
    a: list[float] = []
    b: list[float] = []
    draws, weighed = [], []
    for event in events:
        columns = [
            k for k, exact in enumerate(event.exact_K) if exact and not np.isnan(event.difference_NK[:, k]).all()
        ]
        difference_NK = event.difference_NK[:, columns]
        known_NK = ~np.isnan(difference_NK)
        for scores_NK, means in ((event.a_NK, a), (event.b_NK, b)):
            means += np.nanmean(np.where(known_NK, scores_NK[:, columns], np.nan), axis=0).tolist()
        draws.append(event.resamples.means(difference_NK))
        weighed.append(event.resamples.grouped((np.nan_to_num(difference_NK) / known_NK.sum(0)).sum(1, keepdims=True)))
    num_clips = sum(len(event.a_NK) for event in events)
    row = _row(name, "mean", "exact_match", np.array(a), np.array(b), row_means(np.concatenate(draws, axis=1)))
    # Groups are shared by the events, clips are not.
    sums_G1 = np.sum(weighed, axis=0) if grouped else np.concatenate(weighed)
    if row["difference"] is None:
        return row
    row["n"] = num_clips
    exact_differences = [np.nan_to_num(one.difference_NK[:, list(one.exact_K)]) for one in events]
    if row.get("reason") == NO_DIFFERENCE and any(difference_NK.any() for difference_NK in exact_differences):
        row["reason"] = NO_SPREAD  # clips differ, and cancel
    row["p"], row["num_differing"] = float(sign_flip(sums_G1, num_flips, rng)[0]), int(num_differing(sums_G1)[0])
    return row
