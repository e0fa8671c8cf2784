"""Which clips train, validate and test: stratified by event, grouped, seeded, frozen.

In: samples, the group of each, and the assignment of an earlier run. Out: ids by split.
Must hold: clips of one group stand in one split; a clip that was assigned once never moves; the same input and seed
give the same splits in whatever order the samples come.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vlm_crash.schema.records import VideoSample

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS = (0.7, 0.1, 0.2)
#: From this many clips on, every split with a fraction gets at least one.
MIN_CLIPS_FOR_ALL = 10


@dataclass(frozen=True)
class _Group:
    key: str
    ids: tuple[str, ...]
    event: str  # of its clips; "crash+nearmiss" where both occur


def check_fractions(fractions: Sequence[float]) -> None:
    """Raises ValueError unless these are three shares that sum to 1, with something to train on."""
    legal = len(fractions) == 3 and all(math.isfinite(f) and f >= 0 for f in fractions)
    if not legal or abs(sum(fractions) - 1) > 1e-6 or fractions[0] <= 0:
        raise ValueError(
            f"fractions={list(fractions)}: need three shares (train, val, test) that sum to 1, such as "
            f"{list(DEFAULT_FRACTIONS)}, with train above 0"
        )


def make_splits(
    samples: Sequence[VideoSample],
    groups: Mapping[str, str],
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    frozen: Mapping[str, str] | None = None,
) -> dict[str, list[str]]:
    """Assign every sample to train, val or test.

    Args:
        samples: with distinct ids.
        groups: id -> group; clips of one group are not parted. An id that is not in it is a group of its own.
        fractions: shares of train, val and test; they hold for each event as well as its groups allow.
        seed: decides between equally good assignments.
        frozen: id -> split of an earlier run; ids that are no more among the samples are ignored.

    Returns:
        ids by split, in the order of the samples.

    Raises:
        ValueError: the fractions are none, or an id is there twice.
    """
    check_fractions(fractions)
    twice = [id for id, count in Counter(sample.id for sample in samples).items() if count > 1]
    if twice:
        raise ValueError(f"ids that are there twice: {', '.join(twice[:10])}; each clip needs its own")
    assigned = {sample.id: frozen[sample.id] for sample in samples if frozen and sample.id in frozen}
    waiting = _follow_frozen(_groups(samples, groups), assigned)
    placed = _place(waiting, samples, assigned, fractions, seed)
    _fill_empty(placed, assigned, fractions, seed)
    for group, split in placed.items():
        assigned.update(dict.fromkeys(group.ids, split))
    return {split: [sample.id for sample in samples if assigned[sample.id] == split] for split in SPLITS}


def unite(labels: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """id -> group, where ids that share the label of any mapping come into one group (named by its least id).

    >>> unite([{"a": "x", "b": "x", "c": "y"}, {"c": "1", "d": "1"}])
    {'a': 'a', 'b': 'a', 'c': 'c', 'd': 'c'}
    """
    parent: dict[str, str] = {}

    def root(id: str) -> str:
        while parent.setdefault(id, id) != id:
            parent[id] = parent[parent[id]]
            id = parent[id]
        return id

    for mapping in labels:
        first: dict[str, str] = {}
        for id, label in mapping.items():
            low, high = sorted((root(id), root(first.setdefault(label, id))))
            parent[high] = low
    return {id: root(id) for id in parent}


def _groups(samples: Sequence[VideoSample], groups: Mapping[str, str]) -> list[_Group]:
    members: dict[tuple[bool, str], list[VideoSample]] = defaultdict(list)
    for sample in samples:
        members[sample.id in groups, groups.get(sample.id, sample.id)].append(sample)
    return [
        # The least id names the group in the draw: it does not depend on how groups are labelled.
        _Group(min(s.id for s in same), tuple(s.id for s in same), "+".join(sorted({str(s.event) for s in same})))
        for same in members.values()
    ]


def _follow_frozen(groups: list[_Group], assigned: dict[str, str]) -> list[_Group]:
    """New clips of an old group go where it is; the groups without old clips are returned."""
    waiting = []
    for group in groups:
        old = Counter(assigned[id] for id in group.ids if id in assigned)
        if not old:
            waiting.append(group)
            continue
        if len(old) > 1:
            logger.warning("the group of %s is parted by the frozen splits (%s)", group.key, ", ".join(sorted(old)))
        split = max(old, key=lambda name: (old[name], -SPLITS.index(name)))
        assigned.update({id: split for id in group.ids if id not in assigned})
    return waiting


def _place(
    waiting: list[_Group],
    samples: Sequence[VideoSample],
    assigned: Mapping[str, str],
    fractions: Sequence[float],
    seed: int,
) -> dict[_Group, str]:
    """Each group, in drawn order, goes where its event lacks most; of equals, where the whole lacks most."""
    shares = dict(zip(SPLITS, fractions, strict=True))
    event_of = {sample.id: str(sample.event) for sample in samples} | {i: g.event for g in waiting for i in g.ids}
    sizes = Counter(event_of.values())
    lack = {(event, split): size * shares[split] for event, size in sizes.items() for split in SPLITS}
    lack_all = {split: len(samples) * shares[split] for split in SPLITS}
    for id, split in assigned.items():
        lack[event_of[id], split] -= 1
        lack_all[split] -= 1
    placed: dict[_Group, str] = {}
    for group in sorted(waiting, key=lambda group: _draw(seed, group)):
        allowed = [split for split in SPLITS if shares[split] > 0]
        split = max(allowed, key=lambda name: (round(lack[group.event, name], 9), lack_all[name]))
        placed[group] = split
        lack[group.event, split] -= len(group.ids)
        lack_all[split] -= len(group.ids)
    return placed


def _fill_empty(placed: dict[_Group, str], assigned: Mapping[str, str], fractions: Sequence[float], seed: int) -> None:
    """Give an empty split the smallest group of the fullest one, where there are clips enough."""
    counts = Counter(assigned.values())
    for group, split in placed.items():
        counts[split] += len(group.ids)
    if counts.total() < MIN_CLIPS_FOR_ALL:
        empty = [split for split, share in zip(SPLITS, fractions, strict=True) if share and not counts[split]]
        if empty:
            few = f"so few clips ({counts.total()}); from {MIN_CLIPS_FOR_ALL} on, each split gets one"
            logger.warning("no clip in %s, as there are %s", " and ".join(empty), few)
        return
    for split, share in zip(SPLITS, fractions, strict=True):
        if share == 0 or counts[split]:
            continue
        in_split = Counter(placed.values())
        giving = [group for group, at in placed.items() if in_split[at] > 1]
        if not giving:
            logger.warning("the split %s stays empty: the clips stand in too few groups", split)
            continue
        group = min(giving, key=lambda g: (len(g.ids), -counts[placed[g]], _draw(seed, g)))
        counts[placed[group]] -= len(group.ids)
        counts[split] += len(group.ids)
        placed[group] = split


def _draw(seed: int, group: _Group) -> str:
    return hashlib.sha256(f"{seed}:{group.key}".encode()).hexdigest()
