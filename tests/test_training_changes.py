"""docs/training-changes.md: every departure names the test that holds it, and the test is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "training-changes.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(?:(tests/)?([\w/]*test_\w+\.py))?(?:::(test_\w+))?`")


def rows() -> list[str]:
    """The last cell of each row that is no heading."""
    cells = [line.rstrip(" |").rsplit("| ", 1)[-1] for line in TABLE.splitlines() if line.startswith("| ")]
    return [cell for cell in cells if cell != "test"]


def missing(cell: str) -> list[str]:
    """What a cell names and the repository lacks."""
    lacking, path = [], None
    for match in NAMED.finditer(cell):
        at_root, name, function = match.groups()
        if name:
            path = ROOT / ("tests" if at_root else "tests/parallel") / name
        if (
            path is None
            or not path.is_file()
            or (function and f"def {function}(" not in path.read_text(encoding="utf-8"))
        ):
            lacking.append(match.group())
    return lacking


def test_every_departure_names_a_test_that_is_there() -> None:
    assert len(rows()) > 25
    for cell in rows():
        assert "test_" in cell, f"no test is named in: {cell}"
        assert missing(cell) == []


def test_a_name_that_is_not_there_is_found() -> None:
    assert missing("`test_traps.py::test_no_autocast`, `::test_that_is_not_there`") == ["`::test_that_is_not_there`"]
    assert missing("`tests/models/test_nothing.py`") == ["`tests/models/test_nothing.py`"]
