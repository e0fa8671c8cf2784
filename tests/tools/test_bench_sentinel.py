"""tools/bench.py sentinel: steps of one batch and of several, off and on in turns, and its bar."""

import json
from pathlib import Path

import pytest
from bench import BAR_MISSED, main
from benches.sentinel import _bar

SIZES = ["--steps", "4", "--frames", "1", "--precisions", "32-true", "--accumulate", "1", "2"]


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["sentinel", *SIZES, "--json", str(tmp_path / "sentinel.json")])
    found = json.loads((tmp_path / "sentinel.json").read_text())
    rows = found["tables"][0]["rows"]
    assert [row[:2] for row in rows] == [["32-true", 1], ["32-true", 2]]
    assert [row[-1] for row in rows] == [2, 1], "as many off as on; half of the steps where they have two batches"
    assert all(off > 0 and on > 0 and share == pytest.approx(on / off) for _, _, off, on, share, _ in rows)
    assert found["ratios"]["on_over_off_32-true_of_2_batches"] == pytest.approx(rows[1][3] / rows[1][2])
    (bar,) = found["bars"]
    assert bar["is_met"] == (max(row[4] for row in rows) < 1.05)
    assert code == (0 if bar["is_met"] else BAR_MISSED)
    assert ("Bar, reached" if bar["is_met"] else "Bar, NOT REACHED") in capsys.readouterr().out


def test_the_bar_is_five_percent_in_every_row() -> None:
    assert _bar({"one": 1.049, "other": 0.9}).is_met
    missed = _bar({"one": 1.0, "other": 1.051})
    assert not missed.is_met and "other with 1.051" in missed.what
