"""Which clips are drawn together by the bootstrap: each by itself, or all that share a cell of the group column.

Enters: the truth's files, the joined clips. Leaves: the draws of each event's clips. Must hold: a group is drawn whole,
also where its clips are of several events; a clip without a group is a group of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm_crash.data.annotations import read_rows
from vlm_crash.data.prepared import DATA_FILE, load_groups
from vlm_crash.evaluation.bootstrap import Resamples
from vlm_crash.evaluation.joining import JoinedClip
from vlm_crash.evaluation.loading import event_of_file_name, truth_files
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.schema.fields import Schema


def clip_groups(truth: Sequence[Path], schema: Schema, column: str | None) -> dict[str, str]:
    """Id of a truth's sample -> its group; empty without a column.

    Raises:
        ValueError: a file has no such column, or a dataset was prepared without it.
    """
    groups: dict[str, str] = {}
    for path in truth if column else ():
        assert column is not None
        folder = path if path.is_dir() else path.parent
        if path.suffix.lower() != ".csv" and (folder / DATA_FILE).is_file():
            groups |= load_groups(folder, column)
            continue
        for file in truth_files(path):
            if file.suffix.lower() != ".csv":
                raise ValueError(f"group_column={column!r}: {file} has no columns; give the annotation CSV as --truth")
            rows, _ = read_rows(file, event_of_file_name(file, schema), schema, None, column, may_lack=True)
            groups |= {row.sample.id: row.group for row in rows if row.group}
    return groups


def resamples_by_event(
    schema: Schema, clips: Sequence[JoinedClip], groups: Mapping[str, str], settings: EvaluationSettings
) -> dict[str, Resamples]:
    """Draws of the clips of each event of the schema, in their order.

    Without a group column the clips are resampled within each event. With one the groups of all events are resampled
    as one, so that each draw of an event goes with the same draw of the others.
    """
    seed, num_draws = settings.seed, settings.num_draws
    by_event = {name: [clip for clip in clips if clip.event == name] for name in schema.event_names}
    if settings.group_column is None:
        return {
            name: Resamples.of_clips(len(found), num_draws, seed + number)
            for number, (name, found) in enumerate(by_event.items())
        }
    # Keys of two kinds: no label is the id of a clip without one.
    keys = {name: [group_key(groups, clip.truth.id) for clip in found] for name, found in by_event.items()}
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
