"""Times of a recording whose time stamps go back, are missing, leap or cannot be: named, the same wherever entered."""

from dataclasses import replace
from fractions import Fraction
from itertools import cycle, islice

import av
import numpy as np
import pytest

from tests.video.conftest import call_all_keyframes, frame_numbers, write_clip
from vlm_crash.demo.clips import encode
from vlm_crash.demo.drives import sample_drive
from vlm_crash.video.container import UnreadableClipError, scan_packets
from vlm_crash.video.cutting import cut_clip
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.frame_stream import FrameStream
from vlm_crash.video.windows import WindowGrid, read_window, read_windows

SECONDS, FPS, SIZE = 12.0, 10, (96, 54)
GRID = WindowGrid(window_s=4.0, stride_s=1.5, sampling=FrameSampling(3))


@pytest.fixture(scope="module")
def pictures():
    drive = replace(sample_drive(3, 40.0, 1), fps=FPS)
    return list(drive.pictures(0.0, SECONDS, SIZE))


@pytest.fixture(scope="module")
def recording(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "drive.mp4"
    encode(pictures, path, FPS, 3, SIZE)
    return path


def write(path, pictures, ticks, container, ticks_a_second=1000):
    """Frames at these ticks, which may be anything that the container takes; a keyframe a second."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream("libx264", rate=FPS, options={"g": "10", "bf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks_a_second)
        for picture, tick in zip(pictures, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, ticks_a_second)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def times(path, *where):
    stream = FrameStream(path)
    return [time_s for time_s, _ in stream.frames(*where)], stream


def steps(count, start=0):
    return [start + 100 * number for number in range(count)]


@pytest.fixture(scope="module")
def begins_anew(pictures, tmp_path_factory):
    """Two parts of a dashcam, one put behind the other as they are: the second one counts from 0 again."""
    folder = tmp_path_factory.mktemp("parts")
    write(folder / "1.ts", pictures[:70], steps(70), "mpegts")
    write(folder / "2.ts", pictures[70:], steps(50), "mpegts")
    (folder / "whole.ts").write_bytes((folder / "1.ts").read_bytes() + (folder / "2.ts").read_bytes())
    return folder / "whole.ts"


def test_time_stamps_that_begin_anew_go_on(begins_anew):
    found, stream = times(begins_anew)
    np.testing.assert_allclose(found, np.arange(120) / 10, atol=1e-3)
    assert stream.num_moved == 50 and "the time stamps of 50 of its frames" in stream.damage


def test_a_place_behind_it_is_the_same_wherever_reading_begins(begins_anew, recording, tmp_path):
    """Seeking by time stamps would find the place in the wrong part."""
    whole = list(read_windows(begins_anew, GRID))
    assert whole[-1].num_moved == 50 and whole[0].num_moved == 0 and whole[-1].is_last
    for first in (1, 5):
        for there, again in zip(whole[first:], read_windows(begins_anew, GRID, first), strict=True):
            assert there.frames.times_s == again.frames.times_s
            assert np.array_equal(there.frames.frames_FHWC, again.frames.frames_FHWC)
    window = whole[5]
    for is_steady in (False, None):
        again = read_window(begins_anew, GRID, window.start_s, window.end_s, is_steady)
        assert np.array_equal(again.frames_FHWC, window.frames.frames_FHWC)
    assert cut_clip(begins_anew, 8.0, 10.0, tmp_path / "cut.mp4", is_steady=False) == 20
    shown = next(FrameStream(tmp_path / "cut.mp4").frames())[1].to_ndarray(format="rgb24").astype(int)
    there = next(frame for time_s, frame in FrameStream(recording).frames() if time_s > 7.95)
    assert np.abs(shown - there.to_ndarray(format="rgb24")).mean() < 6


def test_a_packet_that_only_the_container_calls_a_keyframe_is_no_place_to_begin(tmp_path):
    path = call_all_keyframes(write_clip(tmp_path / "a.avi", codec="wmv2", g="25", b="8000000"))
    grid = WindowGrid(1.0, 1.0, FrameSampling(4))
    for start_s in (2.0, 3.0):
        entered, through = (read_window(path, grid, start_s, start_s + 1, is_steady) for is_steady in (True, False))
        assert entered.times_s == through.times_s
        np.testing.assert_array_equal(entered.frames_FHWC, through.frames_FHWC)
        assert frame_numbers(through.frames_FHWC) == [round(10 * time_s) for time_s in through.times_s]


def test_a_recording_without_time_stamps_has_its_frame_rate(pictures, tmp_path):
    path = write(tmp_path / "raw.h264", pictures[:40], steps(40), "h264")
    found, stream = times(path)
    np.testing.assert_allclose(found, np.arange(40) * stream.step_s, atol=1e-6)
    assert stream.end_s == pytest.approx(40 * stream.step_s)
    assert stream.num_moved in (0, 40)  # FFmpeg may count them itself, or leave it to us
    assert [round(window.start_s, 3) for window in read_windows(path, WindowGrid(0.5, 0.5, FrameSampling(2)))][:2] == [
        0.0,
        0.5,
    ]


@pytest.mark.parametrize("leap_s", [7_200, -5, 1_000_000])
def test_one_time_stamp_that_leaps_costs_no_other_frame_its_time(pictures, tmp_path, monkeypatch, leap_s):
    """No encoder writes it; a stream that was damaged has it."""
    path = write(tmp_path / "leaps.mp4", pictures[:60], steps(60), "mp4")
    decoded = FrameStream._decoded

    def damaged(self, container, stream):
        for number, frame in enumerate(decoded(self, container, stream)):
            if number == 30:
                frame.pts += round(leap_s / stream.time_base)
            yield frame

    monkeypatch.setattr(FrameStream, "_decoded", damaged)
    found, stream = times(path)
    np.testing.assert_allclose(found, np.arange(60) / 10, atol=1e-3)
    assert stream.num_moved == 1 and "of 1 of its frames are missing, go back or leap" in stream.damage


def cycle_of(pictures, count):
    return islice(cycle(pictures), count)


@pytest.mark.parametrize(
    ("container", "ticks"),
    [("mp4", range(100)), ("mpegts", range(100)), ("mp4", [*range(0, 90_000, 1500), *range(90_000, 91_100)])],
)
def test_time_stamps_that_no_camera_makes_are_taken_as_reading_a_clip_takes_them(pictures, tmp_path, container, ticks):
    """The last has a second of true ones first: a header that counts 1,160 frames in it is looked into."""
    path = write(tmp_path / f"clip.{container}", cycle_of(pictures, len(ticks)), ticks, container, 90_000)
    clip = scan_packets(path)
    found, stream = times(path)
    np.testing.assert_allclose(found, clip.times_s, atol=1e-6)
    assert (stream.fps, stream.end_s) == (clip.info.fps, pytest.approx(clip.info.duration_s))
    said = f"its time stamps say {clip.info.told_fps:.0f} frames a second, which cannot be; it is taken to have"
    assert stream.damage == f"{said} {clip.info.fps:g}"
    grid = WindowGrid(2.0, 1.0, FrameSampling(2))
    windows = list(read_windows(path, grid))
    assert [window.start_s for window in windows[:2]] == [0.0, 1.0] and windows[-1].damage == stream.damage
    again = read_window(path, grid, 1.0, 3.0, is_steady=True)
    assert np.array_equal(again.frames_FHWC, windows[1].frames.frames_FHWC)
    assert cut_clip(path, 1.0, 2.0, tmp_path / "cut.mp4", is_steady=True) == round(clip.info.fps)


def test_a_stretch_of_time_stamps_that_cannot_be_ends_a_recording_by_its_name(pictures, tmp_path):
    """Over the whole of it they could be; held together, its frames would fill the memory."""
    ticks = [*range(0, 90_000 * 60, 90_000 * 2), *range(90_000 * 60, 90_000 * 60 + 1002)]
    path = write(tmp_path / "dense.mp4", cycle_of(pictures, len(ticks)), ticks, "mp4", 90_000)
    found = []
    with pytest.raises(UnreadableClipError, match=r"time stamps say more than 1000 frames a second, up to 60\.0 s"):
        found.extend(window.index for window in read_windows(path, WindowGrid(4.0, 2.0, FrameSampling(2))))
    assert found == list(range(29))


def test_a_hole_stays_a_hole(pictures, tmp_path):
    path = write(tmp_path / "hole.mp4", pictures[:60], [*steps(30), *steps(30, 23_000)], "mp4")
    found, stream = times(path)
    assert (found[29], found[30]) == (pytest.approx(2.9), pytest.approx(23.0)) and stream.num_moved == 0
    windows = list(read_windows(path, WindowGrid(2.0, 1.0, FrameSampling(2))))
    assert [window.index for window in windows] == [0, 1, 2, 22, 23, 24]


def test_no_window_has_the_frames_of_the_one_before(pictures, tmp_path):
    """A picture every two seconds, a window every half: three of four would show what the one before them shows."""
    path = write(tmp_path / "slow.mp4", pictures[:10], [2000 * number for number in range(10)], "mp4")
    grid = WindowGrid(4.0, 0.5, FrameSampling(2))
    windows = list(read_windows(path, grid))
    spans = [(window.index, [round(time_s) for time_s in window.frames.times_s]) for window in windows]
    assert spans[:3] == [(0, [0, 2]), (1, [2, 4]), (5, [4, 6])] and windows[-1].is_last
    shown = [window.frames.times_s for window in windows]
    assert len(set(shown)) == len(shown)
    for first in (1, 2, 5, 6):
        again = [window.index for window in read_windows(path, grid, first)]
        assert again == [window.index for window in windows if window.index >= first]
