"""A clip file becomes uint8 frames; every failure is an UnreadableClipError with one line of reason.

In: a path, and how frames are chosen. Out: the frames, their indices and times.
Must hold: an index counts the frames that can be decoded (headers lie), no frame stands in for another one silently,
and only the chosen frames are kept in memory.

decord is the quick reader (it seeks). It is trusted only where the packets of the file give no reason for doubt;
everywhere else PyAV reads the clip through from its beginning, or a long one from the keyframes before the chosen
frames (keyframes.py), where an index counts the packets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.container import ClipInfo, PacketScan, UnreadableClipError, one_line, open_video, scan_packets
from vlm_crash.video.frame_sampling import EmptyWindowError, FrameSampling
from vlm_crash.video.keyframes import read_from_keyframes, worth_seeking
from vlm_crash.video.motion import Motion, clip_motion
from vlm_crash.video.pixels import Chosen

__all__ = ["READERS", "Frames", "UnreadableClipError", "check_reader", "probe", "read_frames"]

logger = logging.getLogger(__name__)

#: What decodes clips: auto takes what is right for each.
READERS = ("auto",)
_DECORD_PART = 16  # frames


@dataclass(frozen=True)
class Frames:
    """Frames of one clip: `frames_FHWC` [F, H, W, 3] uint8 RGB, their indices, their times from the first frame on."""

    frames_FHWC: np.ndarray
    indices: tuple[int, ...]
    times_s: tuple[float, ...]
    info: ClipInfo
    reader: str


def probe(path: str | Path) -> ClipInfo:
    """What a clip is, read from its packets, after decoding its first frame.

    Raises:
        UnreadableClipError: nothing of it can be decoded.
    """
    scan = scan_packets(Path(path))
    for _frame in _decode(scan.info.path):
        return scan.info
    raise UnreadableClipError(path, "no frame of it can be decoded")


def read_frames(path: str | Path, sampling: FrameSampling, reader: str = "auto") -> Frames:
    """Read the chosen frames.

    Args:
        sampling: which ones.
        reader: what decodes them, one of READERS.

    Raises:
        UnreadableClipError: nothing of it can be decoded, or it ends before the window begins.
        ValueError: there is no such reader.
    """
    check_reader(reader)
    scan = scan_packets(Path(path))
    choose = partial(_choose, scan, sampling, clip_motion(scan.info.path) if sampling.needs_motion else None)
    doubt = scan.doubt
    if doubt is None:
        indices = choose(scan.info.num_frames)
        frames = _read_decord(scan.info, indices)
        if isinstance(frames, np.ndarray):
            return _frames(scan, frames, indices, "decord")
        doubt = frames
    logger.debug("%s: read through with PyAV (%s)", path, doubt)
    return _read_pyav(scan, choose)


def check_reader(reader: str) -> None:
    """ValueError where there is no such reader."""
    if reader not in READERS:
        raise ValueError(f"reader={reader!r} is not one of {list(READERS)}; take one of them")


def _choose(scan: PacketScan, sampling: FrameSampling, motion: Motion | None, num_frames: int) -> list[int]:
    """Indices among so many frames that can be decoded."""
    times_s = scan.times_s[np.minimum(np.arange(num_frames), len(scan.times_s) - 1)]
    try:
        return sampling.choose(times_s, motion)
    except EmptyWindowError as error:
        raise UnreadableClipError(scan.info.path, str(error)) from error


def _frames(scan: PacketScan, frames_FHWC: np.ndarray, indices: Sequence[int], reader: str) -> Frames:
    last = len(scan.times_s) - 1
    times_s = tuple(float(scan.times_s[min(i, last)]) for i in indices)
    return Frames(frames_FHWC, tuple(indices), times_s, scan.info, reader)


def _read_decord(info: ClipInfo, indices: Sequence[int]) -> np.ndarray | str:
    """[F, H, W, 3] frames, or why decord cannot be believed here."""
    try:
        import decord  # not built for every platform; PyAV alone reads everything, slower
    except ImportError:
        return "decord is not installed"
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(info.path.absolute()), num_threads=1)
        if len(reader) != info.num_frames:
            return f"decord counts {len(reader)} frames, the packets {info.num_frames}"
        frames_FHWC = _in_parts(reader, indices)
    except UnicodeEncodeError:
        return "decord takes no name that is not UTF-8"
    except (decord.DECORDError, RuntimeError, IndexError) as error:  # DECORDError is no RuntimeError
        return one_line(str(error))
    return frames_FHWC


def _in_parts(reader: Any, indices: Sequence[int]) -> np.ndarray:
    """[F, H, W, 3]: decord's own copy is of a part only. IndexError where it gives too few."""
    first_FHWC = reader.get_batch(list(indices[:_DECORD_PART])).asnumpy()
    frames_FHWC = np.empty((len(indices), *first_FHWC.shape[1:]), np.uint8)
    for start in range(0, len(indices), _DECORD_PART):
        part = list(indices[start : start + _DECORD_PART])
        part_FHWC = reader.get_batch(part).asnumpy() if start else first_FHWC
        if len(part_FHWC) != len(part):
            raise IndexError(f"decord gave {len(part_FHWC)} of {len(part)} frames")
        frames_FHWC[start : start + len(part)] = part_FHWC
    return frames_FHWC


def _decode(path: Path) -> Iterator[Any]:
    """Frames of the first video stream in display order; damaged packets are left out."""
    with open_video(path) as (container, stream):
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue
            yield from frames


def _read_pyav(scan: PacketScan, choose: Callable[[int], list[int]]) -> Frames:
    """Decode from the beginning, keep the chosen frames; once more where the packets promised another count."""
    expected = scan.info.num_frames
    indices = choose(expected)
    if worth_seeking(scan, indices):
        frames_FHWC = read_from_keyframes(scan, indices)
        if frames_FHWC is not None:
            return _frames(scan, frames_FHWC, indices, "pyav")
        logger.debug("%s: not what its packets promise", scan.info.path)
    for _attempt in range(2):
        indices = choose(expected)
        chosen = Chosen(indices)
        count = 0
        for frame in _decode(scan.info.path):
            chosen.put(count, frame)
            count += 1
        if count == 0:
            raise UnreadableClipError(scan.info.path, "no frame of it can be decoded")
        if count == expected:
            if count != scan.info.num_frames:
                logger.warning(
                    "%s: damaged: %d of %d frames can be decoded", scan.info.path, count, scan.info.num_frames
                )
                scan = scan.shortened(count)
            return _frames(scan, chosen.frames_FHWC, indices, "pyav")
        expected = count
    raise UnreadableClipError(scan.info.path, "two passes over it decoded different numbers of frames")
