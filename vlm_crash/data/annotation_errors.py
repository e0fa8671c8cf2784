"""Why the annotations of a CSV cannot be used as a whole.

Enters: its table, which columns name the clips, and what was found in its rows. Leaves: InputProblems, with what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlm_crash.data.clip_names import NAME_COLUMNS, NAMED_BY, Clips, clip_name, name_column
from vlm_crash.data.csv_table import QUOTES, Table
from vlm_crash.data.problems import InputProblems, Problem

#: What is wrong with a row that says nothing.
NO_VALUE = "no field has a value"


def check_group(table: Table, names: Sequence[int], group: int | None) -> None:
    """InputProblems where a row has its clip's name from the group column."""
    for row, cells in table.rows.items():
        index = name_column(cells, names)
        if index is not None and index == group:
            also = f"is also the one that names the clips (row {row}: {cells[index]!r})"
            what = f"the group column {table.header[index]!r} {also}"
            remedy = "name the clips in a column video_id, or call the group column otherwise"
            raise InputProblems("the annotations cannot be used", [Problem(str(table.path), None, "", what, remedy)])


def check_numbers(table: Table) -> None:
    """InputProblems where the CSV goes by row numbers and a row may be several, or a part of one."""
    if table.unsure:
        remedy = (
            f"{QUOTES}, or name the clips in a column video_id: by row numbers each label after this row may be "
            "another clip's, and nothing is taken"
        )
        problems = [Problem(str(table.path), row, "", what, remedy) for row, what in table.unsure.items()]
        raise InputProblems("the annotations cannot be used", problems)


def no_row(table: Table, problems: list[Problem]) -> InputProblems:
    """No row can be used; with one problem where all say nothing."""
    title = "the annotations cannot be used"
    if all(problem.problem == NO_VALUE for problem in problems):
        what = f"none of its {len(table.rows)} rows has a value in any field"
        return InputProblems(title, [Problem(str(table.path), None, "", what, "fill them in")])
    return InputProblems(title, problems)


def no_clip_matches(table: Table, names: Sequence[int], clips: Clips) -> InputProblems:
    """No row has its clip in the folder."""
    by = _named_by(table, names) or f"row number (the CSV has no column {NAMED_BY})"
    first = clip_name(next(iter(table.rows.values())), names, next(iter(table.rows)))
    there = ", ".join(path.name for path in clips.paths[:3])
    what = f"none of its {len(table.rows)} rows has its clip in {clips.folder}: named by {by}, the first is {first}"
    remedy = f"the folder has {there}{' ...' if len(clips.paths) > 3 else ''}: " + (
        f"write the names as they are there{_otherwise(table)}" if names else "name the clips in a column video_id"
    )
    return InputProblems("the annotations cannot be used", [Problem(str(table.path), None, "", what, remedy)])


def _named_by(table: Table, names: Sequence[int]) -> str:
    return " or ".join(table.header[i] for i in names)


def _otherwise(table: Table) -> str:
    """What else to do where the column of names is one of PATH_COLUMNS, which may mean something else."""
    return "" if table.column(NAME_COLUMNS) is not None else ", or call the column otherwise, if it does not name clips"


def only_doubles(table: Table, names: Sequence[int], doubled: list[Problem]) -> InputProblems:
    """All rows contradict others of the same clip."""
    by = _named_by(table, names)
    what = f"no row is left, as all name the clip of another and say different things: named by {by}"
    remedy = f"give each clip a row of its own{_otherwise(table)}"
    first = Problem(str(table.path), None, "", what, remedy)
    return InputProblems("the annotations cannot be used", [first, *sorted(doubled, key=lambda one: one.row or 0)])
