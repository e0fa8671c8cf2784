"""The table of found copies is counted on clips that are copied here."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("measure_copies", Path(__file__).parents[2] / "tools/measure_copies.py")
measure_copies = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(measure_copies)


def test_the_table_counts_copies_and_pairs(demo_clips, monkeypatch):
    kinds = ("half the size", "mirrored")
    monkeypatch.setattr(measure_copies, "COPIES", {kind: measure_copies.COPIES[kind] for kind in kinds})
    lines = measure_copies.table([demo_clips / "nearmiss"], num_copied=1, seed=0)
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| half the size",
        "| mirrored",
        "| pairs of different clips",
    ]
    cells = [line.strip("| ").split(" | ") for line in lines[2:]]
    column = 2 + measure_copies.THRESHOLDS.index(measure_copies.MAX_BITS)
    assert [row[1] for row in cells] == ["1", "1", "45"]
    assert [row[column] for row in cells] == ["1", "1", "0"]


def test_a_clip_that_is_too_short_for_a_cut_is_no_copy(demo_clips, tmp_path, monkeypatch):
    monkeypatch.setattr(measure_copies, "MOST_S", 1)
    clip = demo_clips / "crash" / "1.mp4"
    assert not measure_copies.copy(clip, tmp_path / "a.mp4", "0.77 s and 0.5 s cut off")
    assert measure_copies.copy(clip, tmp_path / "a.mp4", "mirrored")
    assert measure_copies.fingerprint(tmp_path / "a.mp4").times_s[-1] + 0.125 == pytest.approx(1.0, abs=0.15)
