"""Rows of a CSV that are text of a cell, as a quote that was not closed in its row is closed by chance in a later one.

Enters: the cells of one row as the CSV reader has them. Leaves: the lines within a cell that were rows.
Must hold: text of several lines is kept where it can be told from rows; `may_hold_rows` errs on the other side, for
files in which one lost row moves all after it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_BREAK = re.compile(r"\r\n|\r|\n")
#: What the first cell of a row may be. Of these two no line of prose begins so, with a comma after it.
_PLAIN = ("number", "file")


def is_of_several_lines(cells: Sequence[str]) -> bool:
    """Whether a cell has a line break."""
    return any(_BREAK.search(cell) for cell in cells)


def may_hold_rows(cells: Sequence[str], width: int) -> bool:
    r"""Whether a cell has line breaks, and as many commas as a row of `width` cells, or other cells are beyond these.

    A quote that opens in a column of one row and closes in the same of a later one takes in as many.

    >>> may_hold_rows(["1", "rain,x\n2,fog", "y"], 3), may_hold_rows(["1", "rain,\nand fog", "y"], 3)
    (True, False)
    """
    several = [cell for cell in cells if is_of_several_lines([cell])]
    return any(cell.count(",") >= width - 1 or len(cells) > width for cell in several)


def swallowed_rows(cells: Sequence[str], width: int, kinds: Collection[str | None]) -> list[str]:
    """Lines of a cell, but for its first, that plainly were rows of `width` cells: they begin as the others do.

    Where a quote opens in a column of one row and closes in the same of a later one, the cell begins with the rest of
    the one and ends with what the other has before that column; else the row has another number of cells.

    Args:
        kinds: `first_kind` of the file's other rows.
    """
    known = {*kinds, first_kind(cells)} - {None}
    found = []
    for ends_fit, line in _lines(cells, width):
        kind = _kind(line.split(",")[0])
        if (kind in known or not known) and (ends_fit or kind in _PLAIN):
            found.append(line)
    return found


def first_kind(cells: Sequence[str]) -> str | None:
    """What a row's first cell is: a number, a file, a word, a text or nothing; None: it has several lines."""
    return None if not cells or is_of_several_lines(cells[:1]) else _kind(cells[0])


def _lines(cells: Sequence[str], width: int) -> list[tuple[bool, str]]:
    """Lines that may be rows, each with whether its cell's first and last line fit together."""
    found = []
    for index, cell in enumerate(cells):
        first, *later = _BREAK.split(cell)
        if not later:
            continue
        ends_fit = first.count(",") == len(cells) - 1 - index and later[-1].count(",") == index
        for line in later:
            begins = line or (index == 0 and line is later[-1])  # with an empty cell; else the line is blank
            if (ends_fit and begins) or (width > 2 and line.count(",") == width - 1):
                found.append((ends_fit, line))
    return found


def _kind(cell: str) -> str:
    cell = cell.strip().strip('"').strip()
    if re.fullmatch(r"\d+(\.\d*)?", cell):
        return "number"
    if re.search(r"\w\.[A-Za-z]\w{1,4}$", cell):
        return "file"
    return "text" if re.search(r"\s", cell) else "word" if cell else "nothing"
