"""A CSV file becomes a header and numbered rows of text; nothing is guessed, no cell changes its type.

In: a path. Out: a Table, and a problem for each row that does not fit the header.
Raises: InputProblems for what spoils the whole file (absent, another delimiter, no UTF-8, no rows).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.data.swallowed_rows import first_kind, is_of_several_lines, may_hold_rows, swallowed_rows

MISSING = frozenset({"", "nan", "none", "null"})
_RUN = re.compile(r"'*[=+\-@]")
#: What a row is about, by kind of CSV.
_ROW = {"annotation": "clip", "correction": "label", "label": "clip and field"}
QUOTES = 'close the quote; one within a cell in quotes is written twice ("")'
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def column_key(name: str) -> str:
    """Columns are the same when they differ in case, blanks, underscores or hyphens only.

    >>> column_key(" Crash with ") == column_key("Crash_with")
    True
    """
    return re.sub(r"[\s_\-]+", "_", name.strip()).casefold()


def is_missing(cell: str) -> bool:
    """Empty, nan, none or null, in any case."""
    return cell.strip().casefold() in MISSING


def harmless(cell: str) -> str:
    """A cell that no spreadsheet runs: one that begins with = + - @ gets an apostrophe before it.

    >>> harmless("=1+1"), harmless("'=1"), harmless("1-1"), as_meant(harmless("'=1"))
    ("'=1+1", "''=1", '1-1', "'=1")
    """
    return "'" + cell if _RUN.match(cell) else cell


def as_meant(cell: str) -> str:
    """The cell before `harmless`."""
    return cell[1:] if cell.startswith("'") and _RUN.match(cell) else cell


@dataclass(frozen=True)
class Table:
    """Header and rows of a CSV.

    Attributes:
        rows: a row's number (from 1, blank lines do not count) -> its cells.
        unsure: number of a row that perhaps is several, or a part of one -> why. Where there is one, the numbers of
            those after it may be wrong.
    """

    path: Path
    header: tuple[str, ...]
    rows: Mapping[int, tuple[str, ...]]
    unsure: Mapping[int, str] = field(default_factory=dict)

    def column(self, names: Iterable[str]) -> int | None:
        """Index of the first of these columns that is there: as spelt, else up to case and blanks."""
        names = list(names)
        for name in names:
            if name in self.header:
                return self.header.index(name)
        keys = [column_key(column) for column in self.header]
        return next((keys.index(column_key(name)) for name in names if column_key(name) in keys), None)


def read_table(path: Path, kind: str = "annotation") -> tuple[Table, list[Problem]]:
    """Read a comma-separated UTF-8 file, with or without a byte order mark.

    Args:
        kind: what a row of it is, for messages: annotation, correction or label.

    Raises:
        InputProblems: the file as a whole cannot be used.
    """
    try:
        return _read(path, kind)
    except _UnusableError as error:
        raise InputProblems(f"the {kind}s cannot be used", [error.problem]) from error.__cause__


class _UnusableError(Exception):
    """What spoils the file as a whole."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = Problem(str(path), None, "", problem, remedy)


def _read(path: Path, kind: str) -> tuple[Table, list[Problem]]:
    try:
        lines = [cells for _, cells in whole_rows(io.StringIO(_text(path, kind), newline="")) if cells]
    except csv.Error as error:
        raise _UnusableError(path, *unusable_csv(error)) from error
    if not lines:
        raise _UnusableError(path, "it has no header", "the first line must name the columns")
    header = tuple(name.strip() for name in lines[0])
    _check_header(path, header)
    if len(lines) == 1:
        raise _UnusableError(path, "it has a header and no rows", f"add one row per {_ROW[kind]}")
    if any("," in name or len(header) == 1 for name in lines[0] if is_of_several_lines([name])):
        raise _UnusableError(path, "its header seems to have rows in a cell: a quote in it is not closed", QUOTES)
    rows, problems, unsure = {}, [], {}
    kinds = {first_kind(cells) for cells in lines[1:]}
    for number, cells in enumerate(lines[1:], start=1):
        if len(cells) == len(header) or (len(cells) > len(header) and not any(cells[len(header) :])):
            if may_hold_rows(cells, len(header)):
                unsure[number] = "a cell of it has several lines that may be rows: a quote before them is not closed"
            if swallowed := swallowed_rows(cells, len(header), kinds):
                problems.append(Problem(str(path), number, "", holds_rows(len(swallowed)), QUOTES))
            else:
                rows[number] = tuple(cells[: len(header)])
        else:
            what = f"{len(cells)} cells where the header has {len(header)}"
            if is_of_several_lines(cells) or len(cells) < len(header):  # a text's line break without quotes parts a row
                unsure[number] = what
            problems.append(Problem(str(path), number, "", what, "put quotes around cells that hold a comma"))
    return Table(path, header, rows, unsure), problems


def holds_rows(count: int) -> str:
    """What is wrong with a row whose cell has swallowed others."""
    lines = "1 line that looks like a row" if count == 1 else f"{count} lines that look like rows"
    return f"a cell of it holds {lines}: a quote before {'it' if count == 1 else 'them'} is not closed"


def whole_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The line that each row begins in, from 1, and its cells; none of a blank line.

    Raises:
        csv.Error: what is wrong, and in which lines; a quote that is opened and not closed, above all, as rows after it
            would be one cell.
    """
    held: list[str] = []  # lines of a row

    def taken() -> Iterator[str]:
        for line in lines:
            held.append(line)
            yield line

    reader = csv.reader(taken())
    while True:
        try:
            cells = next(reader, None)
            if len(held) > 1 or (held and held[0].count('"') % 2):
                next(csv.reader(held, strict=True))
        except csv.Error as error:
            before = "line" if len(held) == 1 else f"lines {_first(reader, held)} to"
            raise csv.Error(f"{before} {reader.line_num}: {error}") from error
        if cells is None:
            return
        yield _first(reader, held), cells
        held.clear()


def _first(reader: Any, held: Sequence[str]) -> int:
    return int(reader.line_num) - len(held) + 1


def unusable_csv(error: csv.Error) -> tuple[str, str]:
    """Problem and remedy of an error of `whole_rows`."""
    return f"it is no CSV ({error})", f"{QUOTES}; or save it again as comma-separated UTF-8"


def _text(path: Path, kind: str) -> str:
    if not path.is_file():
        where = "is a folder" if path.is_dir() else "does not exist"
        raise _UnusableError(path, f"it {where}", f"give the path of the {kind} CSV")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _UnusableError(
            path, f"line {line} is not UTF-8", "save it as CSV UTF-8 (a choice in the spreadsheet's export)"
        ) from error


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    if len(header) == 1:
        for mark, name in _OTHER_DELIMITERS.items():
            if mark in header[0]:
                raise _UnusableError(path, f"its columns seem to be separated by {name}", "save it with commas")
    named = [name for name in header if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise _UnusableError(path, f"columns that are there twice: {', '.join(twice)}", "keep one of each")
