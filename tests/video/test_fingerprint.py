"""A clip's bits: blank frames have none, a mirror image has the mirrored ones."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vlm_crash.video.fingerprint import MAX_S, SAMPLING, fingerprint
from vlm_crash.video.guarded import UnreadableClipError


def write(path: Path, frames: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(4))
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def test_four_frames_a_second_without_the_blank_ones(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    picture = noise.repeat(16, axis=0).repeat(16, axis=1)
    black = np.zeros_like(picture)
    one = fingerprint(write(tmp_path / "a.mp4", [black] * 4 + [picture] * 4), timeout_s=60)
    mirrored = fingerprint(write(tmp_path / "b.mp4", [picture[:, ::-1]] * 4), timeout_s=60)
    assert (one.times_s, one.num_blank, one.is_whole) == ((1.0, 1.25, 1.5, 1.75), 4, True)
    assert np.bitwise_count(one.hashes_FW[0] ^ mirrored.mirrored_FW[0]).sum() <= 30  # encoding is not symmetric
    assert np.bitwise_count(one.hashes_FW[0] ^ mirrored.hashes_FW[0]).sum() > 60


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no clip")
    with pytest.raises(UnreadableClipError, match=r"a\.mp4"):
        fingerprint(path, timeout_s=60)


@pytest.mark.parametrize("duration_s", [10, 84, MAX_S, MAX_S + 200])
@pytest.mark.parametrize("fps", [10, 30])
def test_frames_stay_a_quarter_of_a_second_apart_however_long_a_clip_is(duration_s, fps):
    times_s = np.arange(duration_s * fps) / fps
    chosen_s = times_s[SAMPLING.choose(times_s)]
    assert len(chosen_s) == 4 * min(duration_s, MAX_S)
    assert np.abs(chosen_s - (np.arange(len(chosen_s)) + 0.5) / 4).max() < 1 / fps + 1e-6


def test_a_clip_that_goes_on_is_not_whole(tmp_path, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    path = write(tmp_path / "a.mp4", [picture] * 8)
    monkeypatch.setattr("vlm_crash.video.fingerprint.MAX_S", 1.0)
    monkeypatch.setattr("vlm_crash.video.fingerprint.SAMPLING", replace(SAMPLING, end_s=1.0))
    one = fingerprint(path, timeout_s=60)
    assert (one.times_s, one.is_whole) == ((0.0, 0.25, 0.5, 0.75), False)
