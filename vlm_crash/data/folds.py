"""A prepared dataset -> k datasets that share its clips and conversations, each with another part of them to test on.

Must hold: every clip is in the test split of exactly one fold; clips of one group (splits.json) are in one split of
every fold; the same dataset and seed give the same folds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_crash.data.clip_table import CLIPS_FILE
from vlm_crash.data.files import write_files
from vlm_crash.data.prepared import DATA_FILE, DATASET_FILE, SPLITS_FILE, existing, read_json
from vlm_crash.data.splits import make_splits, unite
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.guarded import content_hash

logger = logging.getLogger(__name__)


def groups_of(folder: Path, samples: Sequence[VideoSample]) -> dict[str, str]:
    """id -> group of the clips that must not be parted, as `prepare` wrote it, else the clips of equal bytes.

    Raises:
        ValueError: the dataset was grouped by a column, and its splits.json is too old to say how.
        UnreadableClipError: there is nothing to group by but the clips, and one cannot be read.
    """
    splits: Any = read_json(folder / SPLITS_FILE, {})
    if "groups" in splits:
        return dict(splits["groups"])
    if (by := splits.get("group_by", "clip content")) != "clip content":
        raise ValueError(
            f"{folder / SPLITS_FILE} does not say which clips share their {by!r}; run `prepare` again: it keeps the "
            "splits and adds the groups"
        )
    logger.info("%s names no groups; %d clips are read to find those of equal bytes", folder, len(samples))
    hashes = {sample.id: content_hash(sample.path) for sample in samples}
    sizes = Counter(hashes.values())
    return unite([{id: digest for id, digest in hashes.items() if sizes[digest] > 1}])


def make_folds(samples: Sequence[VideoSample], groups: Mapping[str, str], num_folds: int, seed: int) -> dict[str, int]:
    """id -> the fold that tests on it, of num_folds; each event is spread as evenly as its groups allow.

    Raises:
        ValueError: fewer than two folds, or fewer groups than folds.
    """
    members: dict[str, list[VideoSample]] = defaultdict(list)
    for sample in samples:
        # A clip of its own may have an id that is another group's name.
        members[f"group {groups[sample.id]}" if sample.id in groups else f"clip {sample.id}"].append(sample)
    if not 2 <= num_folds <= len(members):
        raise ValueError(f"folds={num_folds} must be from 2 to the number of groups of clips, {len(members)}")

    def drawn(name: str) -> tuple[int, str]:
        """The large groups first, for they are the hardest to place; within a size by lot."""
        least = min(sample.id for sample in members[name])
        return -len(members[name]), hashlib.sha256(f"{seed}:fold:{least}".encode()).hexdigest()

    by_event: Counter[tuple[str, int]] = Counter()
    in_all: Counter[int] = Counter()
    fold_of: dict[str, int] = {}
    for name in sorted(members, key=drawn):
        events = Counter(str(sample.event) for sample in members[name])
        main = max(sorted(events), key=lambda event: events[event])
        fold = min(range(num_folds), key=lambda number: (by_event[main, number], in_all[number], number))
        for event, count in events.items():
            by_event[event, fold] += count
        in_all[fold] += len(members[name])
        fold_of |= {sample.id: fold for sample in members[name]}
    return {sample.id: fold_of[sample.id] for sample in samples}


def fold_splits(
    samples: Sequence[VideoSample],
    groups: Mapping[str, str],
    fold_of: Mapping[str, int],
    fold: int,
    val_fraction: float,
    seed: int,
) -> dict[str, str]:
    """id -> split of one fold: its clips test, a share of the others validates, the rest trains.

    Raises:
        ValueError: val_fraction is not a share, or leaves nothing to train on.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must be from 0 to below 1")
    rest = [sample for sample in samples if fold_of[sample.id] != fold]
    parts = make_splits(rest, groups, (1 - val_fraction, val_fraction, 0.0), seed)
    split_of = {id: split for split, ids in parts.items() for id in ids}
    return {sample.id: split_of.get(sample.id, "test") for sample in samples}


def write_fold(source: Path, out: Path, splits: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """A dataset folder whose conversations and clips are those of `source`; what `check` found there is taken along.

    Args:
        source: folder of the prepared dataset.
        out: of the fold; made when missing.
        splits: id -> split.
        about: what splits.json says beside them.

    Raises:
        OSError: it cannot be written.
    """
    source = source.resolve()
    data = json.loads((source / DATA_FILE).read_text(encoding="utf-8-sig"))
    shared = {}
    for event, entry in data.items():
        annotation = existing(source, entry["annotation"], Path(entry["annotation"]).name)
        root = existing(source, entry["root"], entry.get("root_relative"))
        kept = {name: value for name, value in entry.items() if name != "root_relative"}
        shared[event] = {**kept, "root": str(root.resolve()), "annotation": str(annotation.resolve())}
    texts = {
        out / DATA_FILE: json.dumps(shared, ensure_ascii=False, indent=1) + "\n",
        out / SPLITS_FILE: json.dumps({**about, "assign": dict(splits)}, ensure_ascii=False, indent=1) + "\n",
    }
    write_files(texts)
    for name in (DATASET_FILE, CLIPS_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
