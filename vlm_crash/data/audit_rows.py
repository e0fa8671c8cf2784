"""The annotation CSVs against the clips and the dataset: rows without a clip, clips without a row, groups, spellings.

Enters: CSVs by event, and the samples of the dataset. Leaves: findings; the group of each sample; the cells as spelt.
Must hold: nothing is guessed: a CSV that is not there any more is named, and what it would have told is left out.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vlm_crash.data.annotations import AnnotatedRow, read_rows
from vlm_crash.data.audit_findings import Finding, some
from vlm_crash.data.csv_table import is_missing, read_table
from vlm_crash.data.inspection import UNREADABLE, unlisted
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.counting import counted

logger = logging.getLogger(__name__)


@dataclass
class Rows:
    """What the CSVs of a dataset say.

    Attributes:
        rows: that can be used, whose clip is there.
        problems: of the others, and clips that no row names.
        groups: sample id -> cell of the group column.
        cells: (event, field) -> value of a categorical field as it stands -> rows.
        absent: events whose CSV is not there, with the reason.
    """

    rows: list[AnnotatedRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    cells: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def read_sources(
    csvs: Mapping[str, Path], samples: Sequence[VideoSample], schema: Schema, group_column: str | None
) -> Rows:
    """Read the CSVs again, with the folders where the dataset has its clips.

    Args:
        csvs: by event.
        group_column: as `prepare` was given it; None: there is none.

    Raises:
        InputProblems: (a ValueError) a CSV that is there cannot be used.
    """
    found = Rows()
    folders = _folders(samples)
    used: dict[str, tuple[Path, Path]] = {}
    fatal: list[Problem] = []
    for event in dict.fromkeys(str(sample.event) for sample in samples):
        csv = csvs.get(event)
        if csv is None or not csv.is_file():
            found.absent[event] = "the dataset names none" if csv is None else f"{csv} is not there"
            continue
        try:
            rows, problems = read_rows(csv, event, schema, folders[event], group_column)
        except InputProblems as error:
            fatal += error.problems
            continue
        used[event] = (csv, folders[event])
        found.rows += rows
        found.problems += problems
        found.cells |= _cells(csv, event, schema)
    if fatal:
        raise InputProblems("the CSVs of the dataset cannot be read again", fatal)
    if used:
        found.problems += unlisted(used, found.rows, found.problems)
    found.groups = {row.sample.id: row.group for row in found.rows if row.group}
    return found


def check_given(csvs: Mapping[str, Path], samples: Sequence[VideoSample]) -> None:
    """Raises ValueError where a CSV that was given is of no event of the dataset, or no file."""
    events = list(dict.fromkeys(str(sample.event) for sample in samples))
    for event, csv in csvs.items():
        if event not in events:
            raise ValueError(f"--csvs.{event}: {event!r} is no event of the dataset; allowed: {', '.join(events)}")
        if not csv.is_file():
            what = "it is a folder" if csv.is_dir() else "no such file"
            raise ValueError(f"--csvs.{event} {csv}: {what}; give the path of the annotation CSV, or leave it out")


def row_findings(rows: Rows, samples: Sequence[VideoSample], recorded: Sequence[Problem]) -> Iterator[Finding]:
    """Rows and clips that do not fit each other.

    Args:
        recorded: what `prepare` wrote into problems.csv; said of events whose CSV is not there.
    """
    absent_clips = [f"{sample.event}/{sample.video}" for sample in samples if not sample.path.is_file()]
    if absent_clips:
        what = f"{counted(len(absent_clips), 'clip')} of the dataset are not there: {some(absent_clips)}"
        yield Finding("rows", "warning", f"{what}; bring them back, or prepare anew", len(absent_clips),
                      {"clips": absent_clips})  # fmt: skip
    unreadable = [problem for problem in recorded if problem.problem.startswith(UNREADABLE)]
    problems = [*rows.problems, *unreadable] if rows.rows or rows.problems else list(recorded)
    if problems:
        what = f"{counted(len(problems), 'problem')} of rows and clips: {some([str(p) for p in problems], 3)}"
        yield Finding("rows", "warning", what, len(problems), {"problems": [problem.__dict__ for problem in problems]})
    in_csv = {row.sample.id for row in rows.rows}
    known = {sample.id for sample in samples}
    left_out = {(Path(problem.file).name, problem.row) for problem in unreadable}
    new = [row.sample.id for row in rows.rows
           if row.sample.id not in known and (Path(row.file).name, row.row) not in left_out]  # fmt: skip
    if new:
        what = f"{counted(len(new), 'row')} of the CSVs are not in the dataset: {some(new)}"
        yield Finding("rows", "warning", f"{what}; run `prepare` again (its splits stay)", len(new), {"ids": new})
    gone = [s.id for s in samples if s.event not in rows.absent and s.id not in in_csv]
    if gone:
        what = f"{counted(len(gone), 'clip')} of the dataset have no row any more: {some(gone)}"
        yield Finding("rows", "warning", f"{what}; run `prepare` again (its splits stay)", len(gone), {"ids": gone})
    if rows.absent:
        said = "; ".join(f"{event}: {reason}" for event, reason in rows.absent.items())
        sentence = f"the CSVs were not compared ({said}); give them with --csvs"
        yield Finding("rows", "note", sentence, len(rows.absent), {"events": dict(rows.absent)})


def group_findings(groups: Mapping[str, str], split_of: Mapping[str, str], column: str | None) -> Iterator[Finding]:
    """Groups of the CSVs' column whose clips stand in several splits: a leak."""
    members: dict[str, list[str]] = defaultdict(list)
    for id, group in groups.items():
        if id in split_of:
            members[group].append(id)
    parted = {group: ids for group, ids in members.items() if len({split_of[id] for id in ids}) > 1}
    if parted:
        placed = {group: ", ".join(f"{id} in {split_of[id]}" for id in ids[:3]) for group, ids in parted.items()}
        names = some([f"{group!r} ({clips})" for group, clips in placed.items()], 3)
        sentence = (
            f"{counted(len(parted), 'group')} of the column {column} stand in several splits: {names}; prepare into a "
            f"new folder with --group_column {column}"
        )
        yield Finding("groups", "leak", sentence, len(parted), {"column": column, "groups": parted})


def _folders(samples: Sequence[VideoSample]) -> dict[str, Path]:
    """event -> folder in which its clips are named."""
    return {str(s.event): s.path.parents[len(PurePosixPath(s.video).parts) - 1] for s in samples}


def _cells(csv: Path, event: str, schema: Schema) -> dict[tuple[str, str], Counter[str]]:
    table, _ = read_table(csv)
    cells = {}
    for one in schema.event(event).fields:
        column = table.column(one.columns)
        if one.kind == "categorical" and column is not None:
            values = (row[column].strip() for row in table.rows.values())
            cells[event, one.name] = Counter(value for value in values if not is_missing(value))
    return cells
