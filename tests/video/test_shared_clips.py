"""Real and broken clips that are not part of the repository; skipped where they are absent."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vlm_crash.video import (
    Frames,
    FrameSampling,
    UnreadableClipError,
    guarded,
    other_readers,
    preflight,
    read_frames,
    reader,
)
from vlm_crash.video.comparison import decord_disagreements

CLIPS = Path(__file__).resolve().parents[3] / "shared" / "clips"
TORTURE = CLIPS / "torture"
pytestmark = pytest.mark.skipif(not CLIPS.is_dir(), reason="../shared/clips is absent: no real clips to try")

#: What is rejected, and what is said.
REJECTED = {
    "audio_only.mp4": "there is no video stream in it",
    "dangling.mp4": "no such file",
    "loop_a.mp4": "too many levels of symbolic links",
    "loop_b.mp4": "too many levels of symbolic links",
    "text_renamed.mp4": "not a video",
    "trunc_moov_lost.mp4": "cut off before its index was written",
    "x.mp4": "not a file",
    "zero_byte.mp4": r"the file is empty \(0 bytes\)",
}
#: Frames of which some cannot be decoded, and how many frames the header promises.
DAMAGED = {
    "corrupt_200_bytes_spread.mp4": 258,
    "corrupt_mid_3kB.mp4": 258,
    "second_half_zeroed.mp4": 258,
    "trunc_faststart_half.mp4": 258,
}
#: Numbers of the frames where they are not the indices: an edit list; a second of four frames; every third picture.
EXPECTED: dict[str, Callable[[int], int]] = {
    "editlist_trim_copy.mp4": lambda index: index + 56,
    "long_3h30.mp4": lambda index: index // 4,
    "anim.gif": lambda index: 3 * index + 1,
}
#: Height and width as they are shown, where that is not what is stored.
SHOWN = {"anamorphic_sar43.mp4": (360, 853), "rotation90.mp4": (640, 360)}
#: Quarter turns (clockwise) that bring the strip back to the bottom.
TURNED = {"rotation90.mp4": 1}
#: decord's mistakes by torture/readers.csv that concern 32 uniform frames, as `decord_disagreements` puts them.
DECORD_WRONG = {
    "anim.gif": "decord",
    "hevc_opengop_1s.mp4": "another picture",
    "opengop_bframes.mp4": "another picture",
    "editlist_trim_copy.mp4": "decord counts 120 frames, its packets 64",
    "anamorphic_sar43.mp4": "decord shows 640x360 pixels, a player 853x360",
    "dashcam.ts": "decord",  # it hangs, and is killed
}


def strip_number(frame_HWC: np.ndarray) -> int | None:
    """Number that a generated frame carries in its lowest twelfth, least significant bit first; None: unreadable."""
    height, width, _ = frame_HWC.shape
    levels_W = frame_HWC[height - height // 12 :].mean(axis=(0, 2))
    cell = width / 16
    bits = [levels_W[int((i + 0.25) * cell) : int((i + 0.75) * cell)].mean() > 125 for i in range(16)]
    number, check = (sum(1 << i for i, bit in enumerate(part) if bit) for part in (bits[:12], bits[12:]))
    return number if (number ^ number >> 4 ^ number >> 8 ^ 5) & 15 == check else None


def rows(folder: str) -> list[dict[str, str]]:
    manifest = CLIPS / folder / "manifest.csv"
    if not manifest.is_file():
        return []
    with manifest.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def torture(tmp_path_factory) -> Path:
    """The folder of all rows: names that travel badly are made here."""
    folder = tmp_path_factory.mktemp("torture")
    for row in rows("torture"):
        source = TORTURE / row["file"]
        if source.is_file():
            (folder / row["file"]).symlink_to(source)
        elif row["bytes"]:
            shutil.copy(TORTURE / "UPPER.MP4", folder / row["file"])
    (folder / "x.mp4").mkdir()
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    (folder / "loop_a.mp4").symlink_to("loop_b.mp4")
    (folder / "loop_b.mp4").symlink_to("loop_a.mp4")
    return folder


@pytest.mark.parametrize("row", rows("real"), ids=lambda row: row["file"])
def test_real_clip_is_read(row):
    frames = read_frames(CLIPS / "real" / row["file"], FrameSampling(4))
    assert frames.info.num_frames == int(row["frames"])
    assert (frames.info.height, frames.info.width) == (int(row["height"]), int(row["width"]))
    assert frames.frames_FHWC.shape[1] >= frames.info.height and frames.frames_FHWC.shape[2] >= frames.info.width
    assert frames.info.duration_s == pytest.approx(float(row["duration_s"]), abs=0.1)


@pytest.mark.parametrize("row", rows("torture"), ids=lambda row: row["file"].encode("unicode_escape").decode())
def test_every_torture_clip_is_read_right_or_rejected(row, torture, caplog):
    name = row["file"]
    if name in REJECTED:
        with pytest.raises(UnreadableClipError, match=f"(?i){REJECTED[name]}"):
            read_frames(torture / name, FrameSampling(32))
        return
    with caplog.at_level("WARNING"):
        frames = read_frames(torture / name, FrameSampling(4 if name == "4k_1s.mp4" else 32))
    true = int(row["true_frames_ffmpeg5.1"])
    assert frames.info.num_frames == true
    assert frames.frames_FHWC.dtype == np.uint8
    if name != "long_3h30.mp4":  # it takes too long as a whole
        facts = preflight.examine(torture / name)
        assert (frames.num_damaged, frames.num_bad) == (facts.bad_packets, facts.bad_frames)
    assert frames.frames_FHWC.shape[1:3] == SHOWN.get(name, (int(row["height"]), int(row["width"])))
    if name in DAMAGED:
        assert f"damaged: {true} of {DAMAGED[name]} frames can be decoded" in caplog.text
        assert (frames.num_damaged > 0) == (name != "corrupt_200_bytes_spread.mp4")
        assert frames.info.header_frames == DAMAGED[name]
        assert (frames.num_bad_chosen > 0) == (name == "corrupt_200_bytes_spread.mp4")
        if name != "corrupt_200_bytes_spread.mp4":  # pictures that nobody can read
            _check_damaged(frames)
        return
    if name == "res_change_midway.ts":  # a packet that the container marks, of which a right picture comes
        assert "damaged: bad packets: 1" in caplog.text
    else:
        assert "damaged" not in caplog.text and frames.damage is None
    _check_numbers(name, frames)


def _check_numbers(name: str, frames: Frames) -> None:
    again = 60 if name == "res_change_midway.ts" else 4096  # two recordings, one after the other
    expected = [EXPECTED.get(name, lambda index: index)(index) % again for index in frames.indices]
    found = [strip_number(np.rot90(frame, -TURNED.get(name, 0))) for frame in frames.frames_FHWC]
    assert found == expected


def _check_damaged(frames: Frames) -> None:
    """A frame whose strip can be read is the one of its time (24 a second), whatever was lost before it."""
    found = [strip_number(frame) for frame in frames.frames_FHWC]
    times = [round(time_s * 24) for time_s in frames.times_s]
    readable = [(number, time) for number, time in zip(found, times, strict=True) if number is not None]
    assert len(readable) >= 10
    assert sum(number == time for number, time in readable) >= 0.9 * len(readable)
    assert max(frames.indices) < frames.info.num_frames


def test_variable_frame_rate_is_sampled_by_time(torture):
    """100 frames in 3.3 s, 60 in 12 s: most of the time is in the second part."""
    frames = read_frames(torture / "vfr.mp4", FrameSampling(32))
    assert sum(index >= 100 for index in frames.indices) >= 20
    gaps = np.diff(frames.times_s)
    assert np.sort(gaps)[-2] <= 2 * frames.info.duration_s / 32 and gaps.max() <= 1.7 + frames.info.duration_s / 16


def test_broken_time_stamps_are_said_and_replaced(torture, caplog):
    """The pictures were taken at 24 a second, as H.264 itself says."""
    reader._mention.cache_clear()
    frames = read_frames(torture / "fps_90000_broken_timestamps.mp4", FrameSampling(32, "fps", fps=2.0))
    np.testing.assert_allclose(frames.times_s, 0.25 + np.arange(10) / 2, atol=1 / 24)
    assert frames.info.duration_s == pytest.approx(5.0)
    assert "its time stamps say 90000 frames a second, which cannot be; it is taken to have 24" in caplog.text


def test_levels_and_channels(torture):
    full = read_frames(torture / "full_range.mp4", FrameSampling(2)).frames_FHWC
    plain = read_frames(torture / "UPPER.MP4", FrameSampling(2)).frames_FHWC
    assert np.abs(full.astype(int) - plain).mean() < 4  # neither washed out nor clipped
    grey = read_frames(torture / "gray_h264.mp4", FrameSampling(2)).frames_FHWC
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 1] == grey[..., 2]).all()
    for deep in ("h264_10bit.mp4", "hevc_10bit.mp4"):
        assert np.abs(read_frames(torture / deep, FrameSampling(2)).frames_FHWC.astype(int) - plain).mean() < 8


def test_times_count_from_the_first_frame(torture):
    for name in ("start_offset_1000s.ts", "start_offset_10h.mkv", "editlist_delay5s_audio.mp4"):
        frames = read_frames(torture / name, FrameSampling(120))
        np.testing.assert_allclose(frames.times_s, np.arange(120) / 24, atol=0.002)


def test_a_second_camera_is_mentioned_and_a_cover_is_none(torture, caplog):
    reader._mention.cache_clear()  # it is said once a clip
    with caplog.at_level("WARNING"):
        frames = read_frames(torture / "two_video_streams.mp4", FrameSampling(2))
    assert frames.info.num_videos == 2
    assert "2 video streams are in it; the first one is read" in caplog.text
    assert read_frames(torture / "cover_art.mp4", FrameSampling(2)).info.num_videos == 1


@pytest.mark.parametrize("name", DECORD_WRONG)
def test_where_decord_would_be_wrong(name, torture):
    pytest.importorskip("decord")
    said = guarded.decord_disagreements(torture / name, FrameSampling(16), timeout_s=8)
    assert said is not None and DECORD_WRONG[name] in said


@pytest.mark.parametrize(
    "name", ["00_good_360p.mp4", "closedgop_bframes.mp4", "h264_10bit.mp4", "interlaced_tff.mp4", "rotation90.mp4"]
)
def test_where_decord_is_right(name, torture):
    pytest.importorskip("decord")
    assert decord_disagreements(torture / name, FrameSampling(32)) is None


@pytest.mark.parametrize("name", ["opengop_bframes.mp4", "hevc_opengop_1s.mp4", "hevc.mp4", "00_good_720p.mp4"])
def test_reader_decord_gives_what_the_old_scripts_saw(name, torture):
    """In one call of get_batch: what is wrong depends on what was read before."""
    decord = pytest.importorskip("decord")
    frames = read_frames(torture / name, FrameSampling(32), "decord")
    old = decord.VideoReader(str(torture / name), num_threads=1).get_batch(list(frames.indices)).asnumpy()
    np.testing.assert_array_equal(frames.frames_FHWC, old)


@pytest.mark.skipif(other_readers.missing_reason("torchcodec") is not None, reason="torchcodec does not load here")
def test_torchcodec_reads_right_or_says_that_it_cannot(torture):
    """In a clip with damage it says nothing of it, and nobody can read the numbers."""
    refused = set()
    for name in (row["file"] for row in rows("torture")):
        try:
            frames = read_frames(torture / name, FrameSampling(4 if name == "4k_1s.mp4" else 32), "torchcodec")
        except UnreadableClipError:
            refused.add(name)
            continue
        if name not in DAMAGED:
            _check_numbers(name, frames)
    cannot = {"dashcam.ts", "mpeg4_bframes.avi", "raw.h264", "res_change_midway.ts", "start_offset_1000s.ts"}
    assert refused - set(DAMAGED) == cannot | set(REJECTED)
