"""Real and broken clips that are not part of the repository; skipped where they are absent."""

import csv
from pathlib import Path

import numpy as np
import pytest

from vlm_crash.video import FrameSampling, UnreadableClipError, read_frames
from vlm_crash.video import reader as reader_module

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "clips"
pytestmark = pytest.mark.skipif(not CLIPS.is_dir(), reason="../shared/clips is absent: no real clips to try")

UNREADABLE = {"audio_only.mp4", "text_renamed.mp4", "trunc_moov_lost.mp4", "zero_byte.mp4"}
# Damage inside the pictures cannot be seen from outside; an edit list shifts what number a frame carries; a frame
# number that counts seconds; a delta-coded GIF blurs the strip; a turned picture carries it elsewhere.
STRIP_NOT_READ = {
    "anim.gif",
    "corrupt_200_bytes_spread.mp4",
    "corrupt_mid_3kB.mp4",
    "res_change_midway.ts",
    "rotation90.mp4",
}
SHIFT = {"editlist_trim_copy.mp4": 56}


def strip_number(frame_HWC: np.ndarray) -> int:
    """Number that a generated frame carries in its lowest twelfth: 12 cells, least significant bit first."""
    height, width, _ = frame_HWC.shape
    levels_W = frame_HWC[height - height // 12 :].mean(axis=(0, 2))
    cell = width / 16
    bits = [levels_W[int((i + 0.25) * cell) : int((i + 0.75) * cell)].mean() > 125 for i in range(12)]
    return sum(1 << i for i, bit in enumerate(bits) if bit)


def rows(folder: str) -> list[dict[str, str]]:
    manifest = CLIPS / folder / "manifest.csv"
    if not manifest.is_file():
        return []
    with manifest.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if (CLIPS / folder / row["file"]).is_file()]


@pytest.mark.parametrize("row", rows("real"), ids=lambda row: row["file"])
def test_real_clip_is_read(row):
    frames = read_frames(CLIPS / "real" / row["file"], FrameSampling(4))
    assert frames.info.num_frames == int(row["frames"])
    assert frames.frames_FHWC.shape == (4, int(row["height"]), int(row["width"]), 3)
    assert frames.info.duration_s == pytest.approx(float(row["duration_s"]), abs=0.1)


@pytest.mark.parametrize("row", rows("torture"), ids=lambda row: row["file"])
def test_torture_clip_gives_right_frames_or_a_named_error(row):
    name = row["file"]
    path = CLIPS / "torture" / name
    num_frames = 4 if name == "4k_1s.mp4" else 32
    if name in UNREADABLE:
        with pytest.raises(UnreadableClipError):
            read_frames(path, FrameSampling(num_frames))
        return
    frames = read_frames(path, FrameSampling(num_frames))
    if name == "corrupt_200_bytes_spread.mp4":  # decord hides the one frame that is lost
        assert frames.info.num_frames in (257, 258)
    else:
        assert frames.info.num_frames == int(row["true_frames_ffmpeg5.1"])
    if name in STRIP_NOT_READ:
        return
    seconds_per_number = 4 if name == "long_3h30.mp4" else 1
    expected = [(index // seconds_per_number + SHIFT.get(name, 0)) % 4096 for index in frames.indices]
    assert [strip_number(frame) for frame in frames.frames_FHWC] == expected


@pytest.mark.skipif(not (CLIPS / "torture" / "rotation90.mp4").is_file(), reason="the rotated clip is absent")
def test_both_readers_turn_a_clip_upright(monkeypatch):
    path = CLIPS / "torture" / "rotation90.mp4"
    quick = read_frames(path, FrameSampling(4))
    monkeypatch.setattr(reader_module, "_read_decord", lambda info, indices: "not today")
    slow = read_frames(path, FrameSampling(4))
    assert (quick.reader, slow.reader) == ("decord", "pyav")
    assert slow.frames_FHWC.shape == (4, 640, 360, 3)
    assert np.abs(quick.frames_FHWC.astype(int) - slow.frames_FHWC).mean() < 1
