"""Small clips that the tests write themselves: a frame's grey level tells its number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

LEVEL_STEP = 4  # grey levels between two frames: far more than the coding noise


def write_clip(path: Path, num_frames: int = 40, fps: int = 10, codec: str = "libx264", **options: str) -> Path:
    """A grey clip of 64x48; frame i has level 16 + 4 i, so up to 50 frames are told apart."""
    muxing = {key: options.pop(key) for key in ("movflags",) if key in options}
    with av.open(str(path), "w", options=muxing) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for number in range(num_frames):
            pixels = np.full((48, 64, 3), 16 + LEVEL_STEP * number, np.uint8)
            pixels[:, :4] = 255  # a white edge on the left: a turned or mirrored picture is seen
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_flipped(path: Path) -> Path:
    """Moving noise in one GOP, of which some bits are flipped: all frames come, and many show damage."""
    noise_HWC = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0", "g": "60", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(60):
            picture_HWC = np.ascontiguousarray(np.roll(noise_HWC, 3 * number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for packet in packets[20:40]:
            content[packet.pos + packet.size // 2] ^= 0x10
    path.write_bytes(content)
    return path


def write_noise(path: Path, codec: str, size: tuple[int, int], pix_fmt: str, options: dict[str, str]) -> Path:
    """20 frames of moving noise."""
    noise_HWC = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        (stream.width, stream.height), stream.pix_fmt = size, pix_fmt
        for number in range(20):
            picture_HWC = np.ascontiguousarray(np.roll(noise_HWC, 3 * number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode())
    return path


def call_all_keyframes(path: Path) -> Path:
    """Say in an AVI's index (AVIIF_KEYFRAME) that all of its packets are keyframes, as some writers do."""
    content = bytearray(path.read_bytes())
    index = content.rfind(b"idx1") + 8
    for entry in range(index, index + int.from_bytes(content[index - 4 : index], "little"), 16):
        content[entry + 4] |= 0x10
    path.write_bytes(content)
    return path


def frame_numbers(frames_FHWC: np.ndarray) -> list[int]:
    return [round((float(frame[8:40, 16:].mean()) - 16) / LEVEL_STEP) for frame in frames_FHWC]


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "clip.mp4", **settings) -> Path:
        return write_clip(tmp_path / name, **settings)

    return make


@pytest.fixture
def numbers() -> Callable[[np.ndarray], list[int]]:
    return frame_numbers
