"""List files -> rows, one after the other.

Enters: a text file (a path a line), a CSV, a JSONL or a Parquet file, of any length. Leaves: a ListRow for each row.
Must hold: a list is never in memory as a whole, no row is dropped in silence, and a row that cannot be used is named
by its number (of a text or JSONL its line; of a CSV or Parquet its data row; all from 1).
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from vlm_crash.data.clip_names import PATH_COLUMNS
from vlm_crash.data.csv_table import QUOTES, column_key, holds_rows, is_missing, unusable_csv, whole_rows
from vlm_crash.data.parquet import parquet_rows
from vlm_crash.data.problems import MAX_SHOWN, Problem
from vlm_crash.data.swallowed_rows import first_kind, swallowed_rows

log = logging.getLogger(__name__)

#: The one that holds the event, if there is one; not "event" alone, as in our predictions that is the answer.
EVENT_COLUMNS = ("source_event", "event")


class ListRow(NamedTuple):
    """A row of a list: its number, the path as it stands, and the event's name, None where it says none."""

    number: int
    path: str
    event: str | None


class BadRows:
    """Rows of a list that cannot be used: the first are kept, all are counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.shown: list[Problem] = []

    def add(self, number: int, problem: str, remedy: str) -> None:
        self.count += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(Problem(str(self.path), number, "", problem, remedy))

    def check(self) -> None:
        """ValueError with the rows, where there are any."""
        if self.count:
            more = f"\n  ... and {self.count - len(self.shown)} more" if self.count > len(self.shown) else ""
            raise ValueError(
                f"{self.count} rows of the list cannot be used:\n  " + "\n  ".join(map(str, self.shown)) + more
            )


class _BlankLines:
    """Lines of a list that hold nothing: the first are kept, all are counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.shown: list[int] = []

    def add(self, number: int) -> None:
        self.count += 1
        self.shown += [number] if len(self.shown) < MAX_SHOWN else []

    def tell(self) -> None:
        """Name them in the log, where there are any."""
        if self.count:
            more = ", ..." if self.count > len(self.shown) else ""
            log.warning(
                "%s: %d blank lines left out (%s%s)", self.path, self.count, ", ".join(map(str, self.shown)), more
            )


def is_list(path: Path) -> bool:
    """Whether a path that a user gave as clips is a list of them, as its name says."""
    return path.suffix.lower() in _READERS and path.is_file()


def list_rows(path: Path, events: tuple[str, ...]) -> Iterator[ListRow]:
    """The rows of a list, read as they are asked for.

    Args:
        path: .txt, .csv, .jsonl or .parquet.
        events: names that a row may give as its event.

    Raises:
        ValueError: the file as a whole cannot be used; or, when all rows are read, with those that cannot.
    """
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"{path}: it is UTF-16; save the list as UTF-8")
    bad = BadRows(path)
    num_rows = 0
    for num_rows, (number, cell, event) in enumerate(_READERS[path.suffix.lower()](path, bad), start=1):  # noqa: B007
        found = None if event is None or is_missing(event) else event.strip()
        if not cell:
            bad.add(number, "it names no clip", "give a path, or take the row out")
        elif "\0" in cell:
            bad.add(number, f"its path holds NUL ({cell[:40]!r})", "correct the path; save the list as UTF-8")
        elif found is not None and found not in events:
            bad.add(number, f"event {found!r} is not in the schema", f"give one of {', '.join(events)}, or nothing")
        else:
            yield ListRow(number, cell, found)
    bad.check()
    if not num_rows:
        raise ValueError(f"the list {path} has no rows; give one clip a row")


_Cells = Iterator[tuple[int, str, str | None]]


def _text(path: Path, bad: BadRows) -> _Cells:
    blank = _BlankLines(path)
    with path.open("rb") as file:
        for number, line in enumerate(_without_mark(file), start=1):
            cell = line.rstrip(b"\r\n")
            if cell.strip():
                yield number, os.fsdecode(cell), None
            else:
                blank.add(number)
    blank.tell()


def _without_mark(file: IO[bytes]) -> Iterator[bytes]:
    """Lines without the byte order mark of the first."""
    for number, line in enumerate(file):
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line


def _csv(path: Path, bad: BadRows) -> _Cells:
    # As names of files are: bytes that are no UTF-8 go through as they are.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        blank = _BlankLines(path)
        lines = _filled(whole_rows(file), blank)
        try:
            header = next(lines, [])
            clip, event = _columns(path, header)
            kinds: set[str | None] = set()  # of the rows so far: a list is never in memory as a whole
            for number, cells in enumerate(lines, start=1):
                if len(cells) < len(header) or any(cells[len(header) :]):
                    what = f"{len(cells)} cells where the header has {len(header)}"
                    bad.add(number, what, "put quotes around cells that hold a comma")
                elif swallowed := swallowed_rows(cells, len(header), kinds):
                    bad.add(number, holds_rows(len(swallowed)), QUOTES)
                else:
                    kinds.add(first_kind(cells))
                    yield number, cells[clip], None if event is None else cells[event]
        except csv.Error as error:
            raise ValueError(f"{path}: {'; '.join(unusable_csv(error))}") from error
        blank.tell()


def _filled(rows: Iterator[tuple[int, list[str]]], blank: _BlankLines) -> Iterator[list[str]]:
    """Rows without the blank lines; these are known by their line, as they are no data rows."""
    for line, row in rows:
        if row:
            yield row
        else:
            blank.add(line)


def _jsonl(path: Path, bad: BadRows) -> _Cells:
    blank = _BlankLines(path)
    with path.open("rb") as file:
        for number, line in enumerate(_without_mark(file), start=1):
            if not line.strip():
                blank.add(number)
                continue
            try:
                row: Any = json.loads(line)
            except ValueError as error:
                bad.add(number, f"it is not JSON ({error})", "correct the line")
                continue
            if not isinstance(row, dict):
                bad.add(number, f"it is no object but {type(row).__name__}", 'write {"path": "..."}')
                continue
            name = _first(PATH_COLUMNS, list(row))
            cell = None if name is None else row[name]
            if not isinstance(cell, str):
                bad.add(number, "it has no path", f"give one of the keys {', '.join(PATH_COLUMNS)}")
                continue
            event = _first(EVENT_COLUMNS, list(row))
            yield number, cell, None if event is None or row[event] is None else str(row[event])
    blank.tell()


def _parquet(path: Path, bad: BadRows) -> _Cells:
    def chosen(header: list[str]) -> list[str]:
        clip, event = _columns(path, header)
        return [header[clip], *([] if event is None else [header[event]])]

    for number, (cell, *event) in enumerate(parquet_rows(path, chosen), start=1):
        if isinstance(cell, str | None):
            yield number, cell or "", str(event[0]) if event and event[0] is not None else None
        else:
            bad.add(number, f"its path is no text but {type(cell).__name__}", "give the column as text")


def _columns(path: Path, header: list[str]) -> tuple[int, int | None]:
    """Places of the columns of the clip and of the event."""
    clip = _first(PATH_COLUMNS, header)
    if clip is None:
        named = ", ".join(repr(name[:40]) for name in header[:10]) or "no header"
        raise ValueError(
            f"{path}: none of its columns holds the clips (it has {named}); the first line must name the columns, "
            f"separated by commas, one of them {', '.join(PATH_COLUMNS)}"
        )
    event = _first(EVENT_COLUMNS, header)
    return header.index(clip), None if event is None else header.index(event)


def _first(names: tuple[str, ...], header: list[str]) -> str | None:
    """The first of these columns that is there, up to case and blanks."""
    known = {column_key(column): column for column in reversed(header)}
    return next((known[name] for name in names if name in known), None)


_READERS: dict[str, Callable[[Path, BadRows], _Cells]] = {
    ".txt": _text,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
