"""Frames by libraries that seek on their own: decord, as the old scripts saw a clip, and torchcodec.

In: what the packets say, and which frames are wanted. Out: the frames, as the library gives them. Must hold: a library
that counts other frames than the packets, or gives frames of other times, is not believed; what goes wrong in one is an
UnreadableClipError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from vlm_crash.video.container import PacketScan, UnreadableClipError, one_line

_DECORD_PART = 16  # frames


def missing_reason(reader: str) -> str | None:
    """Why that library cannot be used here, with the remedy; None: it can."""
    if find_spec(reader) is not None:
        return _load_problem() if reader == "torchcodec" else None
    how = {
        "decord": "pip install decord==0.6.0 (there are builds for Linux and Windows on x86-64)",
        "torchcodec": "pip install torchcodec, which needs FFmpeg's libraries of the system too",
    }
    return f"{reader} is not installed; {how[reader]}, or take reader=auto, which needs nothing more"


@lru_cache(maxsize=1)  # a library that does not load is tried again by each import
def _load_problem() -> str | None:
    """Why torchcodec is there and does not load, with the remedy; None: it does."""
    try:
        library = import_module("torchcodec")
    except (ImportError, OSError, RuntimeError) as error:  # to 0.15; later versions say it where a clip is opened
        reason = one_line(str(error).split("Likely causes")[0]).rstrip(".")
    else:
        if getattr(library, "ffmpeg_major_version", 0) is not None:
            return None
        reason = "no FFmpeg that it can use"
    return (
        f"torchcodec is installed and does not load ({reason}); install FFmpeg's libraries (apt-get install ffmpeg) "
        "and a torchcodec that was built for this torch, or take reader=auto, which needs neither"
    )


def read_decord(scan: PacketScan, indices: Sequence[int]) -> np.ndarray:
    """[F, H, W, 3] uint8, the very frames of `get_batch`; one thread.

    Raises:
        UnreadableClipError: decord cannot read the clip, or counts its frames wrong.
    """
    import decord

    path = scan.info.path
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
        _check_count(scan, "decord", len(reader))
        return _in_parts(reader, indices)
    except UnicodeEncodeError as error:
        raise UnreadableClipError(path, "decord takes no name that is not UTF-8") from error
    except (decord.DECORDError, RuntimeError, IndexError) as error:  # DECORDError is no RuntimeError
        raise UnreadableClipError(path, f"decord: {one_line(str(error))}") from error


def _in_parts(reader: Any, indices: Sequence[int]) -> np.ndarray:
    """[F, H, W, 3]: decord's own copy is of a part only. IndexError where it gives too few."""
    first_FHWC = reader.get_batch(list(indices[:_DECORD_PART])).asnumpy()
    frames_FHWC = np.empty((len(indices), *first_FHWC.shape[1:]), np.uint8)
    for start in range(0, len(indices), _DECORD_PART):
        part = list(indices[start : start + _DECORD_PART])
        part_FHWC = reader.get_batch(part).asnumpy() if start else first_FHWC
        if len(part_FHWC) != len(part):
            raise IndexError(f"gave {len(part_FHWC)} of {len(part)} frames")
        frames_FHWC[start : start + len(part)] = part_FHWC
    return frames_FHWC


def read_torchcodec(scan: PacketScan, indices: Sequence[int]) -> np.ndarray:
    """[F, H, W, 3] uint8 by torchcodec's exact mode; one thread.

    Raises:
        UnreadableClipError: torchcodec cannot read the clip, counts its frames wrong, or gives other ones.
    """
    from torchcodec.decoders import VideoDecoder

    path = scan.info.path
    try:
        decoder = VideoDecoder(str(path.absolute()), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        _check_count(scan, "torchcodec", len(decoder))
        found = decoder.get_frames_at(list(indices))
        _check_times(scan, indices, found.pts_seconds.numpy() - decoder.metadata.begin_stream_seconds)
        frames_FHWC: np.ndarray = found.data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, UnreadableClipError):
            raise
        raise UnreadableClipError(path, f"torchcodec: {one_line(str(error))}") from error
    return frames_FHWC


def _check_count(scan: PacketScan, reader: str, count: int) -> None:
    if count != scan.info.num_frames:
        raise UnreadableClipError(
            scan.info.path,
            f"{reader} counts {count} frames, its packets {scan.info.num_frames}: it would give wrong ones; "
            "reader=auto reads it",
        )


def _check_times(scan: PacketScan, indices: Sequence[int], times_s: np.ndarray) -> None:
    """Of MPEG-TS with one keyframe, and of B-frames in AVI, it gives other frames, and says their own times."""
    told_s, told_fps = scan.times_s, scan.info.told_fps
    if told_fps is not None:  # these are by the frame rate; the library has the broken ones
        told_s = (scan.pts - scan.pts[0]) / np.ptp(scan.pts) * (len(scan.pts) - 1) / told_fps
    found = np.searchsorted((told_s[1:] + told_s[:-1]) / 2, times_s)
    wrong = int((found != np.asarray(indices)).sum())
    if wrong:
        raise UnreadableClipError(
            scan.info.path,
            f"torchcodec gives frames of other times for {wrong} of {len(indices)}: they would be wrong; "
            "reader=auto reads it",
        )


#: By name.
OTHER_READERS: dict[str, Callable[[PacketScan, Sequence[int]], np.ndarray]] = {
    "decord": read_decord,
    "torchcodec": read_torchcodec,
}
