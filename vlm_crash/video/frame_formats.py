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
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

#: Of 100; what it changes in answers: `tools/bench.py cache --parts answers`.
JPEG_QUALITY = 95
_PACKED_FRAMES = 16  # at once; more save little, and take memory
_ORDER = (1, 0, 2)  # green comes first: the others stand as what they differ from it
_ZSTD_LEVEL = 1  # level 3 takes twice as long to write, and saves nothing here


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


def _packed(name: str, level: int | None = None) -> FrameFormat:
    """Of each pixel what it differs from the one above it, red and blue as what they differ from green; then packed.

    A part is some frames' one colour, [H, F, W]: a row lies next to the same row of the next frame, where what stands
    still is found, and a row of all of them is added up at once.

    Args:
        name: of pyarrow's codec.
        level: how hard it tries; None: it has one way.
    """

    def codec() -> Any:
        import pyarrow  # type: ignore[import-untyped]  # here: it takes a quarter of a second; most runs have no cache

        return pyarrow.Codec(name, compression_level=level)

    def encode(frames_FHWC: np.ndarray) -> list[Any]:
        parts: list[Any] = []
        for start in range(0, len(frames_FHWC), _PACKED_FRAMES):
            colours_CHFW = np.array(frames_FHWC[start : start + _PACKED_FRAMES].transpose(3, 1, 0, 2), order="C")
            colours_CHFW[::2] -= colours_CHFW[1]
            differences_CHFW = colours_CHFW.copy()
            differences_CHFW[:, 1:] -= colours_CHFW[:, :-1]
            parts += [codec().compress(differences_CHFW[colour].data.cast("B"), asbytes=True) for colour in _ORDER]
        return parts

    def decode(payload: np.ndarray, lengths: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
        frames, height, width, colours = shape
        planes_FCHW = np.empty((frames, colours, height, width), np.uint8)
        parts = iter(np.split(payload, np.cumsum(lengths)[:-1]))
        for start in range(0, frames, _PACKED_FRAMES):
            some_CFHW = planes_FCHW[start : start + _PACKED_FRAMES].swapaxes(0, 1)
            green_FHW: np.ndarray | None = None
            for colour in _ORDER:
                count = some_CFHW.shape[1]
                part = codec().decompress(next(parts).data, decompressed_size=count * height * width)
                rows = np.frombuffer(part, np.uint8).reshape(height, count * width)
                for above, row in pairwise(rows):
                    np.add(above, row, out=row)
                plane_FHW = rows.reshape(height, count, width).swapaxes(0, 1)
                if green_FHW is None:
                    some_CFHW[colour] = green_FHW = plane_FHW
                else:
                    np.add(plane_FHW, green_FHW, out=some_CFHW[colour])
        return planes_FCHW.transpose(0, 2, 3, 1)

    return FrameFormat(encode, decode)


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
    "lz4": _packed("lz4_raw"),
    "zstd": _packed("zstd", _ZSTD_LEVEL),
    "webp": FrameFormat(_encode_webp, _decode_images),
    "jpeg": jpeg(JPEG_QUALITY),
}
