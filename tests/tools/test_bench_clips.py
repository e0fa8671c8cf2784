"""tools/bench.py clips: a small run writes every figure."""

import json
from pathlib import Path

import pytest
from bench import main
from benches.clips import work

from tests.video.conftest import write_clip
from vlm_crash.video.other_readers import missing_reason


def test_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/1.mp4")
    args = ["clips", "--clips", tmp_path / "clips", "--frames", 2, "--rounds", 1, "--hours", 0.1, "--long_frames", 2]
    args += ["--parts", "guard", "long", "--json", tmp_path / "clips.json"]
    assert main([str(arg) for arg in args]) == 0
    found = json.loads((tmp_path / "clips.json").read_text())
    assert set(found["ratios"]) == {"guarded_vs_plain_2_frames", "from_keyframes_vs_read_through"}
    _, hours = found["tables"]
    assert "10,800 packets" in hours["what"]
    assert [row[1] for row in hours["rows"]] == [2, 2, 2]
    assert all(min(row[2], row[3]) > 0 and row[5] == pytest.approx(2 * 180 * 320 * 3 / 2**20) for row in hours["rows"])
    through, keyframes, _ = (row[2] for row in hours["rows"])
    assert found["ratios"]["from_keyframes_vs_read_through"] == pytest.approx(through / keyframes)
    assert "### Hours of video" in capsys.readouterr().out


def test_figures_of_one_clip(tmp_path: Path) -> None:
    seconds, packets, peak, frames = work(write_clip(tmp_path / "1.mkv"), 4, "plain")
    assert seconds > 0 and packets > 0
    assert peak >= 0 and frames == pytest.approx(4 * 64 * 48 * 3 / 2**20)


def test_readers_side_by_side(tmp_path: Path) -> None:
    """Where torchcodec does not load it says so, and measures nothing."""
    args = ["clips", "--parts", "readers", "--clips", tmp_path, "--frames", 2, "--rounds", 1]
    assert main([str(arg) for arg in [*args, "--json", tmp_path / "clips.json"]]) == 0
    found = json.loads((tmp_path / "clips.json").read_text())
    reason = missing_reason("torchcodec")
    if reason is not None:
        assert found["notes"] == [reason] and found["tables"] == []
        return
    assert set(found["ratios"]) == {"auto_vs_torchcodec_rendered"}  # the folder holds no real clip
    assert [row[0] for row in found["tables"][0]["rows"]] == ["8 rendered"] * 3
