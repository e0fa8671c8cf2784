"""docs/record.md is what the shipped schema says."""

import subprocess
import sys
from pathlib import Path

from vlm_crash.schema.fields import load_schema

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/make_record_page.py"


def test_the_page_is_the_schemas():
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_field_of_each_event_has_a_row():
    page = (ROOT / "docs/record.md").read_text(encoding="utf-8")
    for event, section in zip(load_schema().events, page.split("\n## ")[1:], strict=True):
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert [row.split(" | ")[1].strip("`") for row in rows] == [field.label for field in event.fields]
        assert all(row.count("|") == 6 and not row.endswith("|  |") for row in rows)


def test_a_page_that_says_something_else_is_noticed(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/record.md").write_text("# The record\n")
    copy = tmp_path / "tools" / TOOL.name
    copy.write_text(TOOL.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run([sys.executable, copy, "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "record.md is not what the schema says" in done.stderr
