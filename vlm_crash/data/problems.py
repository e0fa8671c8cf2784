"""What is wrong with a user's files: gathered as rows, written as problems.csv, or raised once as one error."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

MAX_SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `row` counts the data rows of the file from 1; None: the file as a whole."""

    file: str
    row: int | None
    video: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = self.file + (f", row {self.row}" if self.row is not None else "")
        return f"{place}{f' ({self.video})' if self.video else ''}: {self.problem}; {self.remedy}"


class InputProblems(ValueError):
    """Everything that is wrong with the input, in one error. `problems` has them one by one."""

    def __init__(self, title: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        more = f"\n  ... and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        super().__init__(f"{title}:\n  " + "\n  ".join(map(str, problems[:MAX_SHOWN])) + more)


def problems_csv(problems: Sequence[Problem]) -> str:
    """The text of problems.csv.

    >>> print(problems_csv([Problem("a.csv", 2, "2.mp4", "no such clip", "copy it")]).strip())
    file,row,video,problem,remedy
    a.csv,2,2.mp4,no such clip,copy it
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Problem)])
    writer.writerows(astuple(problem) for problem in problems)
    return text.getvalue()
