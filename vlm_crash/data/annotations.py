"""Annotation CSV -> VideoSamples; every bad row is reported at once, none is replaced.

In: a CSV with one row a clip, the event it is about, and the folder of its clips. Out: samples in row order, and
a Problem for each row that was left out or whose cell was not understood.
Must hold: a cell without a value is UNKNOWN, never a term; a row and a clip belong together by name, or by the row
number only where the CSV names no clips.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlm_crash.data.annotation_errors import (
    NO_VALUE,
    check_group,
    check_numbers,
    no_clip_matches,
    no_row,
    only_doubles,
)
from vlm_crash.data.clip_names import (
    NAME_COLUMNS,
    NAMED_BY,
    Clips,
    check_row_numbers,
    clip_name,
    is_file,
    name_columns,
)
from vlm_crash.data.csv_table import Table, column_key, is_missing, read_table
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.schema.fields import MAX_COUNT, UNKNOWN, Event, Field, Schema
from vlm_crash.schema.records import Annotation, VideoSample, cell_value
from vlm_crash.schema.wording import closest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotatedRow:
    """A sample, the row it comes from, the row's cell of the group column, and its official split ("" without one)."""

    sample: VideoSample
    file: str
    row: int
    group: str = ""
    split: str = ""


def read_annotations(
    csv_path: Path, event: str, schema: Schema, clip_dir: Path | None, may_lack: bool = False
) -> tuple[list[VideoSample], list[Problem]]:
    """Samples of one annotation CSV, and what is wrong with its rows.

    Args:
        csv_path: comma-separated, UTF-8; file-name rules as in `clip_name`.
        event: which event its rows are about.
        schema: events and fields.
        clip_dir: folder of the clips; None: clips are not looked for (truth to score against).
        may_lack: columns of fields may be absent, as long as one is there; such a field is UNKNOWN in every row.

    Raises:
        InputProblems: (a ValueError) the file as a whole cannot be used: absent, another delimiter, missing columns,
            no rows, or a clip folder that is absent, empty or holds none of the clips.
    """
    rows, problems = read_rows(csv_path, event, schema, clip_dir, may_lack=may_lack)
    return [row.sample for row in rows], problems


def read_rows(
    csv_path: Path,
    event: str,
    schema: Schema,
    clip_dir: Path | None,
    group_column: str | None = None,
    may_lack: bool = False,
) -> tuple[list[AnnotatedRow], list[Problem]]:
    """As `read_annotations`, with where each sample comes from and its cell of `group_column`."""
    csv_path = Path(csv_path)
    table, problems = read_table(csv_path)
    columns = _columns(table, schema, event, group_column, may_lack)
    clips = None if clip_dir is None else Clips.of(csv_path, Path(clip_dir))
    if not columns.names:
        check_numbers(table)
        problems = [replace(problem, video=f"{problem.row}.mp4") for problem in problems]
        if clips is not None:
            check_row_numbers(table, columns.taken, clips)
        if clips is not None or group_column is None:  # else the same CSV is read again, for its groups
            logger.warning(
                "%s: no column names the clips (%s), so row 1 is taken for 1.mp4, row 2 for 2.mp4, and so on; where "
                "that is not so, name them in a column video_id", csv_path, NAMED_BY,
            )  # fmt: skip
    elif clips is None and group_column is None and table.column(NAME_COLUMNS) is None:
        column = table.header[columns.names[0]]
        logger.warning("%s: the column %r is taken for the clips' names; if it is not, name them in a column video_id",
                       csv_path, column)  # fmt: skip
    rows = []
    for number, cells in table.rows.items():
        row, found = _read_row(table, columns, number, cells, clips)
        problems += found
        if row is not None:
            rows.append(row)
    if clips is not None and table.rows and not rows:
        raise no_row(table, problems)
    if clips is not None and table.rows and not any(is_file(row.sample.path) for row in rows):
        raise no_clip_matches(table, columns.names, clips)
    rows, absent = _without_absent(rows, clips)
    there, doubled = without_doubles(rows)
    if rows and not there:
        raise only_doubles(table, columns.names, doubled)
    return there, sorted([*problems, *absent, *doubled], key=lambda problem: problem.row or 0)


@dataclass(frozen=True)
class _Columns:
    schema: Schema
    event: Event
    names: tuple[int, ...]
    fields: tuple[tuple[Field, int], ...]
    duration: int | None
    group: int | None

    @property
    def taken(self) -> set[int]:
        """Those that say something else than the clip's name, by the file and the schema alone: whoever reads the file,
        with a group column or without, has the same clips."""
        return {index for _, index in self.fields} | ({self.duration} if self.duration is not None else set())


def _columns(table: Table, schema: Schema, event_name: str, group_column: str | None, may_lack: bool) -> _Columns:
    event = schema.event(event_name)
    indices = [(field, table.column(field.columns)) for field in event.fields]
    wanted = [field.columns[0] for field, index in indices if index is None]
    if may_lack and len(wanted) < len(indices):
        if wanted:
            absent = "; ".join(f"{name}{_nearest(name, table.header)}" for name in wanted)
            logger.warning("%s has no columns %s: these fields have no truth", table.path, absent)
        wanted = []
    group = table.column([group_column]) if group_column else None
    if group_column and group is None:
        wanted.append(group_column)
    remedy = f"its header must have every field of the event {event.name}; empty cells are allowed"
    if wanted == [group_column]:
        remedy = f"give the name of one of its columns as the group column: {', '.join(filter(None, table.header))}"
    if wanted:
        missing = "; ".join(f"{name}{_nearest(name, table.header)}" for name in wanted)
        raise InputProblems(
            "the annotations cannot be used",
            [Problem(str(table.path), None, "", f"missing columns: {missing}", remedy)],
        )
    found = tuple((field, index) for field, index in indices if index is not None)
    columns = _Columns(schema, event, (), found, table.column(["duration"]), group)
    columns = replace(columns, names=name_columns(table, columns.taken))
    check_group(table, columns.names, columns.group)
    return columns


def _nearest(name: str, header: Sequence[str]) -> str:
    keys = {column_key(column): column for column in header}
    close = closest(column_key(name), keys)
    return f" (the nearest there is {keys[close]!r})" if close else ""


def _read_row(
    table: Table, columns: _Columns, number: int, cells: tuple[str, ...], clips: Clips | None
) -> tuple[AnnotatedRow | None, list[Problem]]:
    file = str(table.path)
    name = clip_name(cells, columns.names, number)
    if name is None:
        what = f"no clip name in {' or '.join(table.header[i] for i in columns.names)}"
        return None, [Problem(file, number, "", what, "fill in the name; the row is left out")]
    problems: list[Problem] = []
    values: dict[str, str] = {}
    for field, index in columns.fields:
        value = UNKNOWN if is_missing(cells[index]) else cell_value(field, cells[index])
        if value is None:
            what = f"{table.header[index]} is {cells[index].strip()!r}, which is no value of {field.name}"
            whole = f"write a whole number up to {MAX_COUNT}"
            remedy = whole if field.kind == "count" else f"use one of {', '.join(field.vocabulary)}"
            problems.append(Problem(file, number, name, what, f"{remedy}; the field counts as {UNKNOWN}"))
        values[field.name] = value or UNKNOWN
    annotation = Annotation.of(columns.schema, columns.event.name, values)
    if not annotation.known and columns.fields:
        problems.append(Problem(file, number, name, NO_VALUE, "fill in the row; it is left out"))
        return None, problems
    duration_s = None
    if columns.duration is not None and not is_missing(cells[columns.duration]):
        duration_s = _seconds(cells[columns.duration])
        if duration_s is None:
            what = f"duration is {cells[columns.duration]!r}"
            problems.append(Problem(file, number, name, what, "write seconds, such as 8.0; the clip's own is taken"))
    path = clips.find(name) if clips else Path(name)
    video = path.relative_to(clips.folder).as_posix() if clips and path.is_relative_to(clips.folder) else name
    sample = VideoSample(
        id=sample_id(columns.event.name, video), video=video, path=path, event=columns.event.name,
        annotation=annotation, duration_s=duration_s,
    )  # fmt: skip
    group = cells[columns.group].strip() if columns.group is not None else ""
    return AnnotatedRow(sample, file, number, "" if is_missing(group) else group), problems


def sample_id(event: str, video: str) -> str:
    """An id that stays when other clips come: `<event>_<stem>` for an mp4, else with the suffix.

    >>> sample_id("crash", "7.mp4"), sample_id("crash", "7.avi")
    ('crash_7', 'crash_7.avi')
    """
    return f"{event}_{video.removesuffix('.mp4')}"


def _seconds(cell: str) -> float | None:
    try:
        seconds = float(cell)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _without_absent(rows: list[AnnotatedRow], clips: Clips | None) -> tuple[list[AnnotatedRow], list[Problem]]:
    if clips is None:
        return rows, []
    there, problems = [], []
    for row in rows:
        if is_file(row.sample.path):
            there.append(row)
        else:
            what, remedy = clips.why_not(row.sample.video)
            problems.append(Problem(row.file, row.row, row.sample.video, what, f"{remedy}; the row is left out"))
    return there, problems


def without_doubles(rows: list[AnnotatedRow]) -> tuple[list[AnnotatedRow], list[Problem]]:
    """Rows of one clip that contradict each other all go; of equal ones the first stays."""
    by_video: dict[str, list[AnnotatedRow]] = defaultdict(list)
    for row in rows:
        by_video[row.sample.video].append(row)
    dropped: dict[int, Problem] = {}
    for video, same in by_video.items():
        equal = all((row.sample.annotation, row.split) == (same[0].sample.annotation, same[0].split) for row in same)
        numbers = ", ".join(str(row.row) for row in same)
        for row in same[1:] if equal else same if len(same) > 1 else ():
            what = f"rows {numbers} name the same clip" + (
                " and say the same" if equal else " and say different things"
            )
            remedy = "keep one of them; this one is left out" if equal else "keep the right one; all are left out"
            dropped[row.row] = Problem(row.file, row.row, video, what, remedy)
    return [row for row in rows if row.row not in dropped], list(dropped.values())
