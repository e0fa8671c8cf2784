"""Which clips stay together, in the draws of the bootstrap and in the folds of the metadata baseline: those of equal
bytes and whatever else the dataset's splits.json names, and all that share a cell of the group column.

Enters: the truth's files, the joined clips. Leaves: the draws of each event's clips. Must hold: a group is drawn whole,
also where its clips are of several events; a clip without a group is a group of its own; without any clips that belong
together each is drawn by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlm_crash.data.annotations import read_rows
from vlm_crash.data.prepared import DATA_FILE, SPLITS_FILE, load_groups, read_json
from vlm_crash.data.splits import unite
from vlm_crash.evaluation.bootstrap import Resamples
from vlm_crash.evaluation.joining import JoinedClip
from vlm_crash.evaluation.loading import event_of_file_name, load_truth, truth_files
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.schema.fields import Schema


@dataclass(frozen=True)
class ClipGroups:
    """Groups of the evaluated clips.

    Attributes:
        labels: id of a truth's sample -> its group; empty where every clip is by itself.
        said: what a group is, in words; None: there are none.
    """

    labels: Mapping[str, str]
    said: str | None


def clip_groups(truth: Sequence[Path], schema: Schema, column: str | None, clips: Sequence[JoinedClip]) -> ClipGroups:
    """The groups of the column, if one is given, united with those that a prepared dataset's splits.json names.

    Raises:
        ValueError: a file has no such column, or a dataset was prepared without it, or its splits.json is none.
    """
    cells = column_cells(truth, schema, column)
    return united(cells, kept_together(truth), column, [clip.truth.id for clip in clips])


def column_cells(truth: Sequence[Path], schema: Schema, column: str | None) -> dict[str, str]:
    """id -> cell of the group column, of all clips of the truth; empty without a column."""
    return {} if column is None else _cells(truth, schema, column)


def groups_by_clip(truth: Sequence[Path], schema: Schema, cells: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """(event, video) -> group of every clip of the truth that has one, evaluated or not."""
    samples = load_truth(truth, schema)[0]
    labels = united(cells, kept_together(truth), None, [sample.id for sample in samples]).labels
    return {(str(s.event), s.video): f"group {labels[s.id]}" for s in samples if s.id in labels}


def united(
    cells: Mapping[str, str], kept: Sequence[Mapping[str, str]], column: str | None, ids: Sequence[str]
) -> ClipGroups:
    """Groups of these ids: by their cells of the column, and by what each dataset keeps together.

    >>> united({}, [{"a": "x", "b": "x"}], None, ["a", "b", "c"]).labels
    {'a': 'clips with a', 'b': 'clips with a'}
    >>> united({}, [{"a": "x", "b": "x"}], None, ["a", "c"])
    ClipGroups(labels={}, said=None)
    >>> united({"a": "trip 2", "c": "trip 1"}, [{"a": "x", "b": "x"}], "Trip", ["a", "b", "c"]).labels
    {'a': 'trip 2', 'c': 'trip 1', 'b': 'trip 2'}
    """
    parts = unite([cells, *kept])
    sizes = Counter(parts[id] for id in ids if id in parts)
    names: dict[str, str] = {}
    for id, cell in cells.items():  # a part has its least cell's name, so that a column alone groups as it says
        names[parts[id]] = min(cell, names.get(parts[id], cell))
    labels = {
        id: names.get(part, f"clips with {part}") for id, part in parts.items() if part in names or sizes[part] > 1
    }
    num_kept = sum(sizes[part] for part in {parts[id] for one in kept for id in one} if sizes[part] > 1)
    said = [f"equal cells of {column}"] if column else []
    if num_kept:
        said.append(f"the {num_kept} clips that splits.json keeps together (equal bytes, or one group of `prepare`)")
    return ClipGroups(labels, " and ".join(said) or None)


def _prepared_folder(path: Path) -> Path | None:
    folder = path if path.is_dir() else path.parent
    return folder if path.suffix.lower() != ".csv" and (folder / DATA_FILE).is_file() else None


def kept_together(truth: Sequence[Path]) -> list[dict[str, str]]:
    """Of each prepared dataset id -> group, by its splits.json; nothing where an older `prepare` has not named them."""
    return [_named_groups(folder) for folder in dict.fromkeys(filter(None, map(_prepared_folder, truth)))]


def _named_groups(folder: Path) -> dict[str, str]:
    splits = read_json(folder / SPLITS_FILE, {})
    groups = splits.get("groups", {}) if isinstance(splits, dict) else None
    if not isinstance(groups, dict):
        raise ValueError(f'{folder / SPLITS_FILE}: need {{"groups": {{id: group}}}}; restore it, or `prepare` again')
    return {str(id): str(group) for id, group in groups.items()}


def _cells(truth: Sequence[Path], schema: Schema, column: str) -> dict[str, str]:
    """Id of a truth's sample -> its cell of the column."""
    groups: dict[str, str] = {}
    for path in truth:
        if (folder := _prepared_folder(path)) is not None:
            groups |= load_groups(folder, column)
            continue
        for file in truth_files(path):
            if file.suffix.lower() != ".csv":
                raise ValueError(f"group_column={column!r}: {file} has no columns; give the annotation CSV as --truth")
            rows, _ = read_rows(file, event_of_file_name(file, schema), schema, None, column, may_lack=True)
            groups |= {row.sample.id: row.group for row in rows if row.group}
    return groups


def resamples_by_event(
    schema: Schema, clips: Sequence[JoinedClip], groups: ClipGroups, settings: EvaluationSettings
) -> dict[str, Resamples]:
    """Draws of the clips of each event of the schema, in their order.

    Without groups the clips are resampled within each event. With them the groups of all events are resampled as one,
    so that each draw of an event goes with the same draw of the others.
    """
    seed, num_draws = settings.seed, settings.num_draws
    by_event = {name: [clip for clip in clips if clip.event == name] for name in schema.event_names}
    if groups.said is None:
        return {
            name: Resamples.of_clips(len(found), num_draws, seed + number)
            for number, (name, found) in enumerate(by_event.items())
        }
    # Keys of two kinds: no label is the id of a clip without one.
    keys = {name: [group_key(groups.labels, clip.truth.id) for clip in found] for name, found in by_event.items()}
    place = {key: number for number, key in enumerate(sorted({key for found in keys.values() for key in found}))}
    return {
        name: Resamples(np.array([place[key] for key in found], dtype=np.int64), len(place), num_draws, seed)
        for name, found in keys.items()
    }


def group_key(groups: Mapping[str, str], id: str) -> str:
    """What stands for a clip's group; of a clip without one nothing else has it.

    >>> group_key({"crash_1": "trip 3"}, "crash_1"), group_key({}, "crash_1")
    ('group trip 3', 'clip crash_1')
    """
    return f"group {groups[id]}" if id in groups else f"clip {id}"
