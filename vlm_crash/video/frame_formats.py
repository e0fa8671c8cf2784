"""Ways to keep resized frames on disk: each turns frames into bytes and back.

Enters: [F, S, S, 3] uint8 frames. Leaves: the bytes of a payload and the lengths of its parts; and the frames again.
Must hold: all but jpeg give back every pixel as it was. Sizes and speeds: `tools/bench.py cache`.
"""

# Suffixes: F frames, H height, W width, C colour channels.

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

#: Of 100; what it changes in answers: `tools/bench.py cache --parts answers`.
JPEG_QUALITY = 95
_ZSTD_LEVEL = 1  # level 3 takes twice as long to write and saves a tenth
#: In a part. What stands still is found in the frame before where that lies in level 1's window of 512 KiB: in frames
#: of up to about 400x400; of 448x448 each has 588 KiB, so that nothing is.
_ZSTD_FRAMES = 4


@dataclass(frozen=True)
class FrameFormat:
    """One way of keeping frames.

    Args:
        encode: [F, H, W, 3] uint8 -> parts, one after the other in the file.
        decode: the bytes of all parts [N] uint8, their lengths, and the frames' shape -> [F, H, W, 3] uint8, writable.
        is_lossless: every pixel comes back as it was.
    """

    encode: Callable[[np.ndarray], list[Any]]
    decode: Callable[[np.ndarray, Sequence[int], tuple[int, ...]], np.ndarray]
    is_lossless: bool = True


def _planes(frames_FHWC: np.ndarray) -> np.ndarray:
    """[F, 3, H, W], contiguous: what the model wants in the end, so that a read copies nothing around."""
    return np.ascontiguousarray(frames_FHWC.transpose(0, 3, 1, 2))


def _encode_raw(frames_FHWC: np.ndarray) -> list[Any]:
    return [_planes(frames_FHWC).data.cast("B")]


def _decode_raw(payload: np.ndarray, lengths: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    frames, height, width, colours = shape
    return payload.reshape(frames, colours, height, width).transpose(0, 2, 3, 1)


def _encode_zstd(frames_FHWC: np.ndarray) -> list[Any]:
    """What each pixel differs from the one above it, red and blue as what they differ from green; then Zstandard."""
    codec = _zstd()
    parts = []
    for start in range(0, len(frames_FHWC), _ZSTD_FRAMES):
        planes_FCHW = np.array(frames_FHWC[start : start + _ZSTD_FRAMES].transpose(0, 3, 1, 2), order="C")
        planes_FCHW[:, ::2] -= planes_FCHW[:, 1:2]
        rows_FCHW = planes_FCHW.copy()
        rows_FCHW[:, :, 1:] -= planes_FCHW[:, :, :-1]
        parts.append(codec.compress(rows_FCHW.data.cast("B"), asbytes=True))
    return parts


def _decode_zstd(payload: np.ndarray, lengths: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    frames, height, width, colours = shape
    planes_FCHW = np.empty((frames, colours, height, width), np.uint8)
    codec = _zstd()
    start = 0
    for number, length in enumerate(lengths):
        some_FCHW = planes_FCHW[number * _ZSTD_FRAMES : (number + 1) * _ZSTD_FRAMES]
        part = codec.decompress(payload[start : start + length].data, decompressed_size=some_FCHW.size)
        some_FCHW[:] = np.frombuffer(part, np.uint8).reshape(some_FCHW.shape)
        start += length
    for row in range(1, height):
        planes_FCHW[:, :, row] += planes_FCHW[:, :, row - 1]
    planes_FCHW[:, ::2] += planes_FCHW[:, 1:2]
    return planes_FCHW.transpose(0, 2, 3, 1)


def _zstd() -> Any:
    import pyarrow  # type: ignore[import-untyped]  # here: it takes a quarter of a second, and most runs have no cache

    return pyarrow.Codec("zstd", compression_level=_ZSTD_LEVEL)


def jpeg(quality: int) -> FrameFormat:
    """JPEG of that quality, of 100, with all colours in full (4:4:4): dashcams' red lights are small."""
    encode = partial(_encode_images, format="JPEG", quality=quality, subsampling=0)
    return FrameFormat(encode, _decode_images, is_lossless=False)


def _encode_images(frames_FHWC: np.ndarray, **options: Any) -> list[Any]:
    parts = []
    for frame_HWC in frames_FHWC:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(frame_HWC)).save(file, **options)
        parts.append(file.getvalue())
    return parts


def _decode_images(payload: np.ndarray, lengths: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    frames_FHWC = np.empty(shape, np.uint8)
    start = 0
    for number, length in enumerate(lengths):
        with Image.open(io.BytesIO(payload[start : start + length].tobytes())) as image:
            frames_FHWC[number] = np.asarray(image)
        start += length
    return frames_FHWC


def _encode_webp(frames_FHWC: np.ndarray) -> list[Any]:
    return _encode_images(frames_FHWC, format="WEBP", lossless=True, quality=0, method=0)  # the quickest to write


#: By name.
FRAME_FORMATS = {
    "raw": FrameFormat(_encode_raw, _decode_raw),
    "zstd": FrameFormat(_encode_zstd, _decode_zstd),
    "webp": FrameFormat(_encode_webp, _decode_images),
    "jpeg": jpeg(JPEG_QUALITY),
}
