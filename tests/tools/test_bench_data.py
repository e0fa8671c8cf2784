"""tools/bench.py data: a small run writes every figure; a bar that is missed ends it with 1."""

import json
from pathlib import Path

import pytest
from bench import main
from benches import data

from tests.video.conftest import write_clip


def run(tmp_path: Path, *args: object) -> tuple[int, dict]:
    folder = tmp_path / "clips"
    folder.mkdir(exist_ok=True)
    small = ["--rendered", 2, "--frames", 4, "--size", 56, "--rounds", 1, "--reads", 20]
    given = ["data", "--clips", folder, *small, *args, "--json", tmp_path / "data.json"]
    code = main([str(arg) for arg in given])
    return code, json.loads((tmp_path / "data.json").read_text())


def test_a_small_run(tmp_path, capsys):
    pytest.importorskip("decord")
    code, found = run(tmp_path)
    assert code == (0 if all(bar["is_met"] for bar in found["bars"]) else 1)
    speed, pixels, memory = found["tables"]
    assert [row[0] for row in speed["rows"]] == ["2 rendered"]
    assert all(value > 0 for row in speed["rows"] for value in row[1:])
    assert found["notes"] == [f"real clips: {tmp_path / 'clips'} holds none"]
    equal, one_off, most = pixels["rows"][0][1:]
    assert equal + one_off > 99.9 and most <= 4
    assert [row[0] for row in memory["rows"]] == list(range(2, 21, 2))
    assert len(found["bars"]) == 5
    assert set(found["ratios"]) == {"old_way_vs_cold_rendered", "old_way_vs_cache_rendered"}
    assert "### A clip until it is pixel values" in capsys.readouterr().out


def test_a_missed_bar_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "WITHIN_ONE", 1.01)
    code, _ = run(tmp_path, "--parts", "pixels")
    assert code == 1
    assert "Bar, NOT REACHED: rendered clips" in capsys.readouterr().out


def test_real_clips_are_those_of_h264_and_its_sizes(tmp_path):
    write_clip(tmp_path / "small.mp4", num_frames=2)
    assert data._real_clips(tmp_path) == []
    assert data._real_clips(tmp_path / "absent") == []
