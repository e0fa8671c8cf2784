"""The rule `event` on clips with odd time stamps: it looks for the moment by the times that it chooses by."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vlm_crash.video import FrameSampling, UnreadableClipError, read_frames
from vlm_crash.video.frame_stream import FrameStream
from vlm_crash.video.motion import Motion


def write_jolt(path: Path, times_s: np.ndarray, first: int) -> Path:
    """Grey pictures, shown at those times, that flicker from `first` on for four frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10_000)
        for number, time_s in enumerate(times_s):
            level = 200 if number in (first, first + 2) else 60
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 10_000), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_leap_of_two_hours(tmp_path):
    times_s = np.arange(120) / 25 + 7200 * (np.arange(120) >= 60)
    frames = read_frames(write_jolt(tmp_path / "leap.mp4", times_s, 90), FrameSampling(8, "event"))
    np.testing.assert_allclose(frames.times_s, times_s[list(frames.indices)], atol=1e-3)
    assert sum(77 <= index <= 103 for index in frames.indices) >= 4


def test_a_stretch_that_cannot_be_is_no_reason_to_stop(tmp_path):
    """A recording with 1,050 frames in half a second is refused; a clip is not by `middle`, and so not by `event`."""
    times_s = np.concatenate([np.arange(50) / 25, 2 + np.arange(1050) / 2000, 3 + np.arange(50) / 25])
    path = write_jolt(tmp_path / "stretch.mp4", times_s, 1120)
    with pytest.raises(UnreadableClipError, match="more than 1000 frames a second"):
        for _shown in FrameStream(path).frames():
            pass
    for rule in ("middle", "event"):
        frames = read_frames(path, FrameSampling(8, rule))
        np.testing.assert_allclose(frames.times_s, times_s[list(frames.indices)], atol=1e-3)
    assert sum(1107 <= index <= 1133 for index in frames.indices) >= 4


def test_frames_that_cannot_be_counted_are_chosen_as_if_nothing_moved(tmp_path, caplog, monkeypatch):
    """Where the look through the clip ends otherwise than its packets promise, and the chosen frames are there."""
    path = write_jolt(tmp_path / "clip.mp4", np.arange(120) / 25, 90)
    still = FrameSampling(8, "event").choose(np.arange(120) / 25, Motion(np.arange(120) / 25, np.zeros(120)))
    seen = read_frames(path, FrameSampling(8, "event")).indices
    assert list(seen) != still and not caplog.records

    def fails(decoding):
        raise UnreadableClipError(decoding.path, "the packets end early")
        yield

    monkeypatch.setattr("vlm_crash.video.reader._Decoding.frames", fails)
    assert list(read_frames(path, FrameSampling(8, "event")).indices) == still
    assert (
        "its motion was seen in 0 frames, and 120 are shown; they are chosen as if nothing moved in it" in caplog.text
    )
