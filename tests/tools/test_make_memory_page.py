"""docs/old-gpus.md is what the plan says."""

import subprocess
import sys
from pathlib import Path

from make_memory_page import PAGE, main

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_plans():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/make_memory_page.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_size_has_its_rows():
    """Of the page as it lies there, which the test above compares with the plan."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith(("| 1B", "| 2B", "| 4B", "| 8B"))]
    assert len(rows) == 4 * (2 + 2 + 3 + 2)
    assert any(row.startswith("| 8B | 64 |") for row in rows) and any(row.startswith("| 8B | 32 |") for row in rows)


def test_a_page_that_says_something_else_is_noticed(tmp_path, monkeypatch, capsys):
    other = tmp_path / "old-gpus.md"
    other.write_text(PAGE.read_text(encoding="utf-8").replace("GiB", "GB", 1))
    monkeypatch.setattr("make_memory_page.PAGE", other)
    assert main(["--check"]) == 1
    assert "is not what the plan says" in capsys.readouterr().out
