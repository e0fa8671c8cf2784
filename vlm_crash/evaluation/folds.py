"""Evaluations of several folds and seeds -> one table: what a run gives, how runs differ, and all clips pooled.

Pooled: every clip's score by the model that has not seen it, averaged over the seeds; groups of clips are resampled.
Nothing is made up for a run that is absent: its clips are not in the pool, and the table says how many are.
Suffixes: N clips, K quantities, R draws.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.evaluation.bootstrap import NO_SPREAD, Array, draw_counts, interval, row_means

NO_SCORE = "no clip has a score"


@dataclass(frozen=True)
class Run:
    """One finished evaluation: of which fold and seed, and what its metrics.json and records.json hold."""

    fold: int
    seed: int
    metrics: Mapping[str, Any]
    clips: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, fold: int, seed: int, folder: Path) -> Run:
        """Raises FileNotFoundError or ValueError where the folder holds no evaluation."""
        try:
            metrics, records = (
                json.loads((folder / name).read_text(encoding="utf-8")) for name in ("metrics.json", "records.json")
            )
            return cls(fold, seed, dict(metrics), records["clips"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} holds no evaluation ({error!r})") from error


@dataclass(frozen=True)
class _Quantity:
    """A row of the table that every clip of an event has its own score of (or none)."""

    event: str
    field: str  # "" for the event itself: told rightly, or not
    kind: str

    def of_clip(self, clip: Mapping[str, Any]) -> float:
        if clip["event"] != self.event:
            return np.nan
        if not self.field:
            return float(clip["predicted_event"] == clip["event"])
        score = clip["fields"][self.field]["score"]
        return np.nan if score is None else float(score)

    def of_run(self, run: Run, name: str = "score") -> float | None:
        if self.field:
            found: float | None = run.metrics[self.event]["fields"][self.field][name]
            return found
        return run.metrics["event"]["recall"].get(self.event) if name == "score" else None


def gather(
    runs: Sequence[Run], fold_of: Mapping[str, int], groups: Mapping[str, str], num_draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """The scores of all runs by field of each event, their means, and the event itself.

    Args:
        runs: each fold and seed once at most.
        fold_of: id of every clip of the dataset -> its fold.
        groups: id -> group of clips that are drawn together.

    Raises:
        ValueError: no run, or one that has scored other clips than those of its fold.
    """
    if not runs:
        raise ValueError("no fold has been evaluated, so there is nothing to gather")
    _check(runs, fold_of)
    clips: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        for clip in run.clips:
            clips[clip["id"]].append(clip)
    quantities = list(_quantities(runs[0]))
    scores_NK = np.array([[_mean([q.of_clip(c) for c in same]) for q in quantities] for same in clips.values()])
    events = [same[0]["event"] for same in clips.values()]
    draws_RK = _resampled(scores_NK, list(clips), events, groups, num_draws, seed)
    rows = [_row(q, scores_NK[:, k], draws_RK[:, k], runs) for k, q in enumerate(quantities)]
    rows += _mean_rows(quantities, scores_NK, draws_RK, runs)
    return {
        "runs": [{"fold": run.fold, "seed": run.seed, "clips": len(run.clips)} for run in runs],
        "clips": {"n": len(fold_of), "scored": len(clips)},
        "settings": {
            "num_draws": num_draws, "seed": seed, "groups": len({groups.get(id, f"clip {id}") for id in clips}),
            "interval": "95 % percentile bootstrap; groups of clips resampled within each event",
        },
        "notes": list(_equal_seeds(runs)),
        "rows": rows,
    }  # fmt: skip


def _equal_seeds(runs: Sequence[Run]) -> Iterator[str]:
    """Two seeds of a fold that gave the very same probabilities are one run, and their spread of 0 says nothing."""
    first: dict[tuple[int, str], int] = {}
    for run in runs:
        given = [
            [clip["event_probability"], *(f["probability"] for f in clip["fields"].values())] for clip in run.clips
        ]
        if any(value is not None for values in given for value in values):
            other = first.setdefault((run.fold, json.dumps(given)), run.seed)
            if other != run.seed:
                yield f"fold {run.fold}: seeds {other} and {run.seed} gave the same probabilities; the seed did nothing"


def _check(runs: Sequence[Run], fold_of: Mapping[str, int]) -> None:
    for run in runs:
        wanted, found = {id for id, fold in fold_of.items() if fold == run.fold}, {clip["id"] for clip in run.clips}
        if wanted != found:
            raise ValueError(
                f"the evaluation of fold {run.fold}, seed {run.seed} is not of the clips of that fold "
                f"({len(found - wanted)} others, {len(wanted - found)} absent: {sorted(wanted ^ found)[:5]}); "
                "delete its folder and run again"
            )


def _quantities(run: Run) -> Iterator[_Quantity]:
    """Of the events that the schema has, in its order: each field, then the event itself."""
    names = [name for name, entry in run.metrics.items() if isinstance(entry, dict) and "num_clips" in entry]
    for event in names:
        for field, entry in run.metrics[event]["fields"].items():
            yield _Quantity(event, field, entry["kind"])
    for event in names:
        yield _Quantity(event, "", "event")


def _resampled(
    scores_NK: Array, ids: Sequence[str], events: Sequence[str], groups: Mapping[str, str], num_draws: int, seed: int
) -> Array:
    """[R, K]: mean of each column in each draw; NaN without any; groups are drawn whole, within their events."""
    members: dict[str, list[int]] = defaultdict(list)
    for n, id in enumerate(ids):
        members[f"group {groups[id]}" if id in groups else f"clip {id}"].append(n)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for same in members.values():
        strata["+".join(sorted({events[n] for n in same}))].append(same)
    known_NK = ~np.isnan(scores_NK)
    values_NK = np.concatenate([np.where(known_NK, scores_NK, 0.0), known_NK], axis=1)
    sums_RK, rng = np.zeros((num_draws, values_NK.shape[1])), np.random.default_rng(seed)
    for stratum in sorted(strata):
        of_groups = np.stack([values_NK[same].sum(0) for same in strata[stratum]])
        sums_RK += draw_counts(len(of_groups), num_draws, rng) @ of_groups
    scores_RK, counts_RK = np.split(sums_RK, 2, axis=1)
    return np.divide(scores_RK, counts_RK, out=np.full_like(scores_RK, np.nan), where=counts_RK > 0)


def _row(quantity: _Quantity, scores_N: Array, draws_R: Array, runs: Sequence[Run]) -> dict[str, Any]:
    name, metric = quantity.field or "event", "cosine_similarity" if quantity.kind == "text" else "exact_match"
    values = [quantity.of_run(run) for run in runs]
    baseline = _known_mean([quantity.of_run(run, "baseline") for run in runs])
    label = {"event": quantity.event, "field": name, "kind": quantity.kind,
             "metric": metric if quantity.field else "recall"}  # fmt: skip
    n = int((~np.isnan(scores_N)).sum())
    return label | _entry(_known_mean(scores_N), draws_R, values, runs, baseline) | {"n": n}


def _mean_rows(
    quantities: Sequence[_Quantity], scores_NK: Array, draws_RK: Array, runs: Sequence[Run]
) -> Iterator[dict[str, Any]]:
    """Means over fields (each weighs the same) and over events; what has no score of single clips is not pooled."""
    kinds = np.array([quantity.kind for quantity in quantities])
    picks = {
        ("mean", "exact_match"): ((kinds != "text") & (kinds != "event"), ("overall", "mean", "score")),
        ("mean", "cosine_similarity"): (kinds == "text", ("overall", "text_mean", "score")),
        ("event", "balanced_accuracy"): (kinds == "event", ("event", "balanced_accuracy")),
    }
    for (field, metric), (picked_K, path) in picks.items():
        parts = [part for k in np.flatnonzero(picked_K) if (part := _known_mean(scores_NK[:, k])) is not None]
        # The balanced accuracy of one event alone is none, as in metrics.json.
        pooled = _known_mean(parts) if len(parts) > 1 or field == "mean" else None
        draws_R = row_means(draws_RK[:, picked_K]) if pooled is not None else np.zeros(0)
        n = int((~np.isnan(scores_NK[:, picked_K])).sum())
        label = {"event": "all", "field": field, "kind": "mean", "metric": metric}
        values = [_at(run.metrics, path) for run in runs]
        baselines = [_at(run.metrics, (*path[:-1], "baseline")) for run in runs]
        baseline = _known_mean([b.get(metric) if isinstance(b, Mapping) else b for b in baselines])
        yield label | _entry(pooled, draws_R, values, runs, baseline) | {"n": n}


def _entry(
    pooled: float | None,
    draws_R: Array,
    values: Sequence[float | None],
    runs: Sequence[Run],
    baseline: float | None,
) -> dict[str, Any]:
    """The pooled score with its interval; mean, least and most of the runs, and how much folds and seeds differ."""
    low, high = interval(draws_R) or (None, None)
    of_run = {(run.fold, run.seed): value for run, value in zip(runs, values, strict=True) if value is not None}
    known = list(of_run.values())
    entry: dict[str, Any] = {
        "pooled": pooled, "low": low, "high": high, "baseline": baseline,
        "mean": _known_mean(values), "least": min(known, default=None), "most": max(known, default=None),
        "spread_of_folds": _spread({(f, s): value for (f, s), value in of_run.items()}),
        "spread_of_seeds": _spread({(s, f): value for (f, s), value in of_run.items()}),
    }  # fmt: skip
    wanted = {f"spread_of_{name}": f"needs two {name} with a score, of the same {other}"
              for name, other in (("folds", "seeds"), ("seeds", "folds"))}  # fmt: skip
    wanted["baseline"] = "the evaluations have none"
    if pooled is not None:
        wanted |= dict.fromkeys(("low", "high"), NO_SPREAD)
    entry["reasons"] = {name: wanted.get(name, NO_SCORE) for name, value in entry.items() if value is None}
    return entry


def _spread(values: Mapping[tuple[int, int], float]) -> float | None:
    """Standard deviation of the means by first label, over the second ones that each of the first has.

    >>> _spread({(0, 0): 0.5, (0, 1): 1.5, (1, 0): 4.0, (1, 1): 2.0}), _spread({(0, 0): 0.5})
    (1.4142135623730951, None)
    """
    by_label: dict[int, set[int]] = defaultdict(set)
    for first, second in values:
        by_label[first].add(second)
    shared = set.intersection(*by_label.values()) if by_label else set()
    if len(by_label) < 2 or not shared:
        return None
    return float(np.std([np.mean([values[label, s] for s in shared]) for label in by_label], ddof=1))


def _at(tree: Any, path: Sequence[str]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _known_mean(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else None
