"""A clip file becomes uint8 frames; every failure is an UnreadableClipError with one line of reason.

In: a path, and how frames are chosen. Out: the frames, their indices and times.
Must hold: an index counts the frames that can be decoded (headers lie), no frame stands in for another one silently,
and only the chosen frames are kept in memory.

The rule of `auto` (docs/reading.md): PyAV, whose FFmpeg comes with it, decodes what the chosen frames need and tells
frames apart by their time stamps (keyframes.py); a clip that has none, or is not what its packets promise, is read
through from its beginning, and its frames are counted. decord and torchcodec are what somebody asks for by name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.container import (
    ClipInfo,
    OutsideWindowError,
    PacketScan,
    UnreadableClipError,
    open_video,
    packets_of,
    scan_packets,
)
from vlm_crash.video.counting import counted
from vlm_crash.video.frame_sampling import EmptyWindowError, FrameSampling
from vlm_crash.video.keyframes import read_needed
from vlm_crash.video.motion import Look, look_through
from vlm_crash.video.other_readers import OTHER_READERS, missing_reason
from vlm_crash.video.pixels import Chosen

__all__ = ["READERS", "Frames", "UnreadableClipError", "check_reader", "probe", "read_frames"]

logger = logging.getLogger(__name__)

#: What decodes clips: auto is right on all that can be read, and pyav is what it takes.
READERS = ("auto", "decord", "pyav", "torchcodec")


@dataclass(frozen=True)
class Frames:
    """Frames of one clip: `frames_FHWC` [F, H, W, 3] uint8 RGB, their indices, their times from the first frame on.

    Of a damaged clip, which is read through, `info` counts the frames that were decoded.

    Args:
        num_damaged: packets that are marked as damaged, or that the decoder refuses.
        num_bad: frames that the decoder gives, and calls damaged: part of the picture is made up.
        num_bad_chosen: those of them that are among these frames.
        num_missing: frames that were promised, and did not come.
    """

    frames_FHWC: np.ndarray
    indices: tuple[int, ...]
    times_s: tuple[float, ...]
    info: ClipInfo
    reader: str
    num_damaged: int = 0
    num_bad: int = 0
    num_bad_chosen: int = 0
    num_missing: int = 0

    @property
    def damage(self) -> str | None:
        """What is wrong with them or their clip, in one line; None: nothing that was seen."""
        said, count = [], self.info.num_frames
        if self.num_missing:
            said.append(f"{count} of {count + self.num_missing} frames can be decoded")
        if self.num_damaged:
            said.append(f"bad packets: {self.num_damaged}")
        if self.num_bad:
            chosen = f"{self.num_bad_chosen} of the {len(set(self.indices))} chosen ones"
            said.append(f"{self.num_bad} of {count} frames show damage, {chosen}")
        return "; ".join(said) or None


def probe(path: str | Path) -> ClipInfo:
    """What a clip is, read from its packets, after decoding its first frame.

    Raises:
        UnreadableClipError: nothing of it can be decoded.
    """
    scan = scan_packets(Path(path))
    for _frame in _Decoding(scan.info.path).frames():
        return scan.info
    raise UnreadableClipError(path, "no frame of it can be decoded")


def read_frames(path: str | Path, sampling: FrameSampling, reader: str = "auto") -> Frames:
    """Read the chosen frames.

    Args:
        sampling: which ones.
        reader: what decodes them, one of READERS.

    Raises:
        UnreadableClipError: nothing of it can be decoded, it ends before the window begins, or the reader asked for
            cannot read it.
        ValueError: there is no such reader here.
    """
    check_reader(reader)
    scan = scan_packets(Path(path))
    _mention(scan.info)
    look = _look(scan.info.path) if sampling.needs_motion else None
    choose = partial(_choose, sampling, look)
    if reader in OTHER_READERS:
        indices = choose(scan)
        frames = _frames(scan, OTHER_READERS[reader](scan, indices), indices, reader)
    else:
        frames = _read_pyav(scan, choose)
    if look is not None and len(look.moved) != frames.info.num_frames:
        text = "%s: its motion was seen in %d frames, and %d are shown; they are chosen as if nothing moved in it"
        logger.warning(text, path, len(look.moved), frames.info.num_frames)
    return frames


def check_reader(reader: str) -> None:
    """ValueError where there is no such reader, or its library is not installed."""
    if reader not in READERS:
        raise ValueError(f"reader={reader!r} is not one of {list(READERS)}; take one of them")
    reason = missing_reason(reader) if reader in OTHER_READERS else None
    if reason is not None:
        raise ValueError(f"reader={reader!r}: {reason}")


@lru_cache(maxsize=4096)
def _mention(info: ClipInfo) -> None:
    """Say, once a clip, what a user would not expect of it."""
    if info.num_videos > 1:
        logger.warning("%s: %d video streams are in it; the first one is read", info.path, info.num_videos)
    if info.told_fps is not None:
        text = (
            "%s: its time stamps say %.0f frames a second, which cannot be; it is taken to have %g, and to last %.2f s"
        )
        logger.warning(text, info.path, info.told_fps, info.fps, info.duration_s)
    if info.num_jumps:
        text = "%s: its clock jumps (%s): what follows is taken to go on from there, and the clip to last %.2f s"
        logger.warning(text, info.path, counted(info.num_jumps, "time"), info.duration_s)
    if info.header_frames is not None and info.header_frames != info.num_frames:
        told, true = info.header_frames, info.num_frames
        logger.info("%s: its header promises %d frames, and %d are shown", info.path, told, true)


def _look(path: Path) -> Look:
    """At the motion of the whole clip; at no frame where that fails: the chosen ones may be readable all the same."""
    try:
        return look_through(_Decoding(path).frames())
    except UnreadableClipError as error:
        logger.debug("%s: not looked through (%s)", path, error.reason)
        return look_through([])


def _choose(sampling: FrameSampling, look: Look | None, scan: PacketScan) -> list[int]:
    try:
        return sampling.choose(scan.times_s, None if look is None else look.motion(scan))
    except EmptyWindowError as error:
        raise OutsideWindowError(scan.info.path, str(error)) from error


def _frames(scan: PacketScan, frames_FHWC: np.ndarray, indices: Sequence[int], reader: str, **damage: int) -> Frames:
    times_s = tuple(scan.times_s[list(indices)].tolist())
    return Frames(frames_FHWC, tuple(indices), times_s, scan.info, reader, **damage)


def _read_pyav(scan: PacketScan, choose: Callable[[PacketScan], list[int]]) -> Frames:
    """What is needed, where the packets tell it; else all, and once more where they promised other frames."""
    path = scan.info.path
    indices = choose(scan)
    frames_FHWC = read_needed(scan, indices)
    if frames_FHWC is not None:
        return _frames(scan, frames_FHWC, indices, "pyav")
    logger.debug("%s: read through (%s)", path, scan.problem or "not what its packets promise")
    promised = scan
    for _attempt in range(2):
        chosen = Chosen(indices, scan.info.sample_aspect)
        decoding, pts, bad, num_interlaced = _Decoding(path), list[int | None](), set[int](), 0
        for frame in decoding.frames():
            chosen.put(len(pts), frame)
            if frame.is_corrupt:
                bad.add(len(pts))
            num_interlaced += frame.interlaced_frame
            pts.append(frame.pts)
        if not pts:
            raise UnreadableClipError(path, "no frame of it can be decoded")
        told = scan.decoded(pts, decoding.time_base)
        if len(pts) == scan.info.num_frames and chosen.is_complete and not scan.is_misled(told):
            frames = _frames(
                scan, chosen.frames_FHWC, indices, "pyav",
                num_damaged=decoding.num_damaged, num_bad=len(bad), num_bad_chosen=len(bad.intersection(indices)),
                num_missing=promised.num_missing(pts, num_interlaced),
            )  # fmt: skip
            if frames.damage is not None:
                logger.warning("%s: damaged: %s", path, frames.damage)
            return frames
        scan = told
        indices = choose(scan)
    raise UnreadableClipError(path, "two passes over it decoded different numbers of frames")


class _Decoding:
    """One pass over the first video stream of a clip.

    Attributes:
        num_damaged: packets that are marked as damaged, or could not be decoded (these are left out), so far; one more
            where reading stops before the end of the file.
        time_base: seconds of a tick.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_damaged = 0
        self.time_base = 1.0

    def frames(self) -> Iterator[Any]:
        """All that can be decoded, in display order."""
        with open_video(self.path) as (container, stream):
            self.time_base = float(stream.time_base)
            packets = packets_of(container, stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.error.FFmpegError:  # no packet comes after it
                    self.num_damaged += 1
                    return
                if packet is None:
                    return
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:  # of a bad packet H.263, DV and ProRes say "operation not permitted"
                    self.num_damaged += 1
                    continue
                self.num_damaged += bool(packet.is_corrupt)
                yield from frames
