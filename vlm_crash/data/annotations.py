"""Annotation CSV -> VideoSamples; every bad row is reported at once, none is replaced.

In: a CSV with one row a clip, the event it is about, and the folder of its clips. Out: samples in row order, and
a Problem for each row that was left out or whose cell was not understood.
Must hold: a cell without a value is UNKNOWN, never a term; a row and a clip belong together by name, or by the row
number only where the CSV names no clips.
"""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlm_crash.data.csv_table import Table, column_key, is_missing, read_table
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.schema.fields import MAX_COUNT, UNKNOWN, Event, Field, Schema
from vlm_crash.schema.records import Annotation, VideoSample, cell_value
from vlm_crash.schema.wording import closest
from vlm_crash.video.clip_files import VIDEO_SUFFIXES, list_clips

logger = logging.getLogger(__name__)

#: Columns that may name the clip, in the order they are asked; without any of them the row number is the name.
NAME_COLUMNS = ("video_id", "filename", "Video_name")


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
    if not columns.names:
        problems = [replace(problem, video=f"{problem.row}.mp4") for problem in problems]
    clips = _clips(csv_path, clip_dir)
    rows = []
    for number, cells in table.rows.items():
        row, found = _read_row(table, columns, number, cells, clips)
        problems += found
        if row is not None:
            rows.append(row)
    if clips is not None and table.rows and not any(row.sample.path.is_file() for row in rows):
        raise _no_clip_matches(table, columns, clips)
    rows, absent = _without_absent(rows, clips)
    rows, doubled = without_doubles(rows)
    return rows, sorted([*problems, *absent, *doubled], key=lambda problem: problem.row or 0)


@dataclass(frozen=True)
class _Columns:
    schema: Schema
    event: Event
    names: tuple[int, ...]
    fields: tuple[tuple[Field, int], ...]
    duration: int | None
    group: int | None


@dataclass(frozen=True)
class _Clips:
    folder: Path
    paths: tuple[Path, ...]


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
    names = tuple(index for name in NAME_COLUMNS if (index := table.column([name])) is not None)
    found = tuple((field, index) for field, index in indices if index is not None)
    return _Columns(schema, event, names, found, table.column(["duration"]), group)


def _nearest(name: str, header: Sequence[str]) -> str:
    keys = {column_key(column): column for column in header}
    close = closest(column_key(name), keys)
    return f" (the nearest there is {keys[close]!r})" if close else ""


def _clips(csv_path: Path, clip_dir: Path | None) -> _Clips | None:
    if clip_dir is None:
        return None
    title = f"the clips of {csv_path} cannot be used"
    remedy = "give the folder that holds the video files"
    try:
        paths = list_clips(clip_dir)
    except FileNotFoundError as error:
        raise InputProblems(title, [Problem(str(clip_dir), None, "", "there is no such folder", remedy)]) from error
    if not paths:
        raise InputProblems(title, [Problem(str(clip_dir), None, "", "there are no clips in the folder", remedy)])
    return _Clips(Path(clip_dir), tuple(paths))


def clip_name(cells: Sequence[str], columns: Sequence[int], row: int) -> str | None:
    """File name that a row's name columns give; the row number where there are none; None: no cell has a name.

    >>> clip_name(["7"], [0], row=1), clip_name(["7.0"], [0], row=1), clip_name(["a.AVI"], [0], row=1)
    ('7.mp4', '7.mp4', 'a.AVI')
    >>> clip_name(["Clear"], [], row=3)
    '3.mp4'
    """
    if not columns:
        return f"{row}.mp4"
    name = next((cells[index].strip() for index in columns if not is_missing(cells[index])), None)
    if name is None or Path(name).suffix.lower() in VIDEO_SUFFIXES:
        return name
    return re.sub(r"^(\d+)\.0+$", r"\1", name) + ".mp4"  # "7.0": a spreadsheet took the id for a number


def _find(name: str, clips: _Clips) -> Path:
    """The clip of that name: as spelt, else the only one that differs in case or, for an id, in its suffix."""
    path = clips.folder / name
    if path.is_file():
        return path
    wanted = Path(name)
    same = [p for p in clips.paths if p.name.casefold() == wanted.name.casefold()]
    same = same or [p for p in clips.paths if p.stem == wanted.stem and wanted.suffix == ".mp4"]
    return same[0] if len(same) == 1 else path


def _read_row(
    table: Table, columns: _Columns, number: int, cells: tuple[str, ...], clips: _Clips | None
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
        problems.append(Problem(file, number, name, "no field has a value", "fill in the row; it is left out"))
        return None, problems
    duration_s = None
    if columns.duration is not None and not is_missing(cells[columns.duration]):
        duration_s = _seconds(cells[columns.duration])
        if duration_s is None:
            what = f"duration is {cells[columns.duration]!r}"
            problems.append(Problem(file, number, name, what, "write seconds, such as 8.0; the clip's own is taken"))
    path = _find(name, clips) if clips else Path(name)
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


def _no_clip_matches(table: Table, columns: _Columns, clips: _Clips) -> InputProblems:
    by = " or ".join(table.header[i] for i in columns.names) or "row number (the CSV has no column " + (
        ", ".join(NAME_COLUMNS) + ")"
    )
    first = clip_name(next(iter(table.rows.values())), columns.names, next(iter(table.rows)))
    there = ", ".join(path.name for path in clips.paths[:3])
    what = f"none of its {len(table.rows)} rows has its clip in {clips.folder}: named by {by}, the first is {first}"
    remedy = f"the folder has {there}{' ...' if len(clips.paths) > 3 else ''}: name the clips in a column video_id"
    return InputProblems("the annotations cannot be used", [Problem(str(table.path), None, "", what, remedy)])


def _without_absent(rows: list[AnnotatedRow], clips: _Clips | None) -> tuple[list[AnnotatedRow], list[Problem]]:
    if clips is None:
        return rows, []
    there = [row.sample.path.is_file() for row in rows]
    problems = [
        Problem(row.file, row.row, row.sample.video, f"no such clip in {clips.folder}",
                "copy the clip there or correct the name; the row is left out")
        for row, found in zip(rows, there, strict=True) if not found
    ]  # fmt: skip
    return [row for row, found in zip(rows, there, strict=True) if found], problems


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
