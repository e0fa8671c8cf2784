"""Windows of a recording: the frames that a clip of their span would give, once each, in bounded memory."""

import shutil
import weakref
from dataclasses import replace

import av
import numpy as np
import pytest

from vlm_crash.demo.clips import encode
from vlm_crash.demo.drives import sample_drive
from vlm_crash.video import windows
from vlm_crash.video.cutting import cut_clip
from vlm_crash.video.frame_sampling import FrameSampling, card_frame_indices
from vlm_crash.video.frame_stream import FrameStream
from vlm_crash.video.pixels import to_rgb
from vlm_crash.video.reader import UnreadableClipError, probe, read_frames
from vlm_crash.video.windows import WindowGrid, read_window, read_windows

GRID = WindowGrid(window_s=6.0, stride_s=1.5, sampling=FrameSampling(4))
SECONDS, SIZE = 33.4, (160, 90)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "drive.mp4"
    drive = replace(sample_drive(3, 40.0, 1), fps=10)
    encode(drive.pictures(0.0, SECONDS, SIZE), path, 10, 3, SIZE)
    return path


@pytest.fixture(scope="module")
def all_windows(recording):
    return list(read_windows(recording, GRID))


def test_windows_overlap_and_the_last_one_ends_with_the_recording(all_windows):
    assert [window.index for window in all_windows] == list(range(20))
    assert [(w.start_s, w.end_s) for w in all_windows[:3]] == [(0.0, 6.0), (1.5, 7.5), (3.0, 9.0)]
    assert all_windows[-1].end_s == pytest.approx(SECONDS) and all_windows[-1].start_s == pytest.approx(SECONDS - 6)
    assert [window.is_last for window in all_windows] == [False] * 19 + [True]
    assert all_windows[-1].damage is None


@pytest.mark.parametrize("index", [2, 19])
def test_a_window_has_the_frames_that_a_clip_of_its_span_gives(recording, all_windows, tmp_path, index):
    window = all_windows[index]
    assert cut_clip(recording, window.start_s, window.end_s, tmp_path / "cut.mp4") == 60
    clip = read_frames(tmp_path / "cut.mp4", FrameSampling(4))
    assert window.frames.indices == clip.indices
    assert window.frames.info.duration_s == pytest.approx(clip.info.duration_s)
    np.testing.assert_allclose(np.array(window.frames.times_s) - window.start_s, clip.times_s, atol=1e-6)
    # Encoded twice: near, and nearer than any neighbour in time.
    assert np.abs(window.frames.frames_FHWC.astype(int) - clip.frames_FHWC).mean() < 4


def test_the_frame_rule_is_the_clips(recording):
    grid = WindowGrid(6.0, 6.0, FrameSampling(5, "card"))
    assert next(read_windows(recording, grid)).frames.indices == tuple(card_frame_indices(60, 5))


@pytest.mark.parametrize("first", [1, 9, 19])
def test_a_scan_that_goes_on_sees_what_it_would_have_seen(recording, all_windows, first):
    for there, again in zip(all_windows[first:], read_windows(recording, GRID, first), strict=True):
        assert (there.index, there.start_s, there.is_last) == (again.index, again.start_s, again.is_last)
        assert there.frames.times_s == again.frames.times_s
        assert np.array_equal(there.frames.frames_FHWC, again.frames.frames_FHWC)


def test_one_window_read_again_is_the_same(recording, all_windows):
    window = all_windows[7]
    again = read_window(recording, GRID, window.start_s, window.end_s)
    assert np.array_equal(again.frames_FHWC, window.frames.frames_FHWC) and again.info == window.frames.info


def test_every_frame_is_decoded_once_and_only_a_window_is_held(recording, monkeypatch):
    class Held:
        def __init__(self, frame):
            self.frame = frame

        def __getattr__(self, name):
            return getattr(self.frame, name)

    alive, counts = weakref.WeakSet(), []
    frames = FrameStream.frames

    def watched(self, start_s=0.0, is_steady=None):
        for time_s, frame in frames(self, start_s, is_steady):
            held = Held(frame)
            alive.add(held)
            counts.append(len(alive))
            yield time_s, held

    monkeypatch.setattr(FrameStream, "frames", watched)
    monkeypatch.setattr(windows, "to_rgb", lambda held, size: to_rgb(held.frame, size))
    assert len(list(read_windows(recording, GRID))) == 20
    assert len(counts) == round(SECONDS * 10)
    assert max(counts) <= (GRID.window_s + GRID.stride_s) * 10 + 2


def test_a_short_recording_is_one_window(tmp_path):
    drive = replace(sample_drive(3, 40.0, 1), fps=10)
    encode(drive.pictures(0.0, 2.0, SIZE), tmp_path / "short.mp4", 10, 3, SIZE)
    (window,) = read_windows(tmp_path / "short.mp4", GRID)
    assert (window.start_s, window.end_s, window.is_last) == (0.0, pytest.approx(2.0), True)


def test_a_recording_that_ends_before_its_header_says_is_named(recording, tmp_path):
    whole = tmp_path / "index_first.mp4"
    with av.open(str(recording)) as source, av.open(str(whole), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) * 6 // 10])
    windows = list(read_windows(whole, GRID))
    assert windows[-1].is_last and 15 < windows[-1].end_s < 25
    assert "promises 33.4 s" in windows[-1].damage or "cannot be read on" in windows[-1].damage


def test_a_file_that_is_no_recording_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UnreadableClipError):
        list(read_windows(tmp_path / "text.mp4", GRID))


def test_a_cut_is_whole_or_not_there(recording, tmp_path):
    with pytest.raises(UnreadableClipError, match=r"shows nothing from 50\.0"):
        cut_clip(recording, 50.0, 55.0, tmp_path / "late.mp4")
    assert list(tmp_path.iterdir()) == []
    cut_clip(recording, 10.05, 12.55, tmp_path / "part.mp4")
    info = probe(tmp_path / "part.mp4")
    assert (info.num_frames, info.codec, info.width) == (25, "h264", 160)
    assert [path.name for path in tmp_path.iterdir()] == ["part.mp4"]
    shutil.rmtree(tmp_path)
