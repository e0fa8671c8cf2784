"""A clip's bits: blank frames have none, a mirror image has the mirrored ones."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vlm_crash.video.fingerprint import fingerprint
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
    assert (one.times_s, one.num_blank) == ((1.0, 1.25, 1.5, 1.75), 4)
    assert np.bitwise_count(one.hashes_FW[0] ^ mirrored.mirrored_FW[0]).sum() <= 30  # encoding is not symmetric
    assert np.bitwise_count(one.hashes_FW[0] ^ mirrored.hashes_FW[0]).sum() > 60


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no clip")
    with pytest.raises(UnreadableClipError, match=r"a\.mp4"):
        fingerprint(path, timeout_s=60)
