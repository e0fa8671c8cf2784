"""A clip file becomes uint8 frames; every failure is an UnreadableClipError with one line of reason.

In: a path, a number of frames and the rule that chooses them. Out: the frames, their indices and times.
Must hold: an index counts the frames that can be decoded (headers lie), no frame stands in for another one silently,
and only the chosen frames are kept in memory.

decord is the quick reader (it seeks). It is trusted only where the packets of the file give no reason for doubt;
everywhere else PyAV reads the clip through from its beginning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.container import ClipInfo, PacketScan, UnreadableClipError, one_line, open_video, scan_packets
from vlm_crash.video.frame_sampling import FRAME_RULES

__all__ = ["Frames", "UnreadableClipError", "probe", "read_frames"]

logger = logging.getLogger(__name__)


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


def read_frames(path: str | Path, num_frames: int, rule: str = "middle") -> Frames:
    """Read `num_frames` frames; a shorter clip repeats some.

    Args:
        rule: which frames, a key of FRAME_RULES: by default the middles of equal intervals.

    Raises:
        UnreadableClipError: nothing of it can be decoded.
        ValueError: num_frames is below 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames={num_frames}: ask for at least 1 frame")
    scan = scan_packets(Path(path))
    doubt = scan.doubt
    if doubt is None:
        indices = FRAME_RULES[rule](scan.info.num_frames, num_frames)
        frames = _read_decord(scan.info, indices)
        if isinstance(frames, np.ndarray):
            return _frames(scan, frames, indices, "decord")
        doubt = frames
    logger.debug("%s: read through with PyAV (%s)", path, doubt)
    return _read_pyav(scan, num_frames, rule)


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
        frames_FHWC = reader.get_batch(list(indices)).asnumpy()
    except UnicodeEncodeError:
        return "decord takes no name that is not UTF-8"
    except (decord.DECORDError, RuntimeError, IndexError) as error:  # DECORDError is no RuntimeError
        return one_line(str(error))
    if frames_FHWC.shape[0] != len(indices):
        return f"decord gave {frames_FHWC.shape[0]} of {len(indices)} frames"
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


def _read_pyav(scan: PacketScan, num_frames: int, rule: str) -> Frames:
    """Decode from the beginning, keep the chosen frames; once more where the packets promised another count."""
    expected = scan.info.num_frames
    for _attempt in range(2):
        indices = FRAME_RULES[rule](expected, num_frames)
        chosen, count = _pick(scan.info, set(indices))
        if count == 0:
            raise UnreadableClipError(scan.info.path, "no frame of it can be decoded")
        if count == expected:
            if count != scan.info.num_frames:
                logger.warning(
                    "%s: damaged: %d of %d frames can be decoded", scan.info.path, count, scan.info.num_frames
                )
                scan = scan.shortened(count)
            return _frames(scan, np.stack([chosen[i] for i in indices]), indices, "pyav")
        expected = count
    raise UnreadableClipError(scan.info.path, "two passes over it decoded different numbers of frames")


def _pick(info: ClipInfo, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    chosen: dict[int, np.ndarray] = {}
    count = 0
    size = None
    for frame in _decode(info.path):
        size = size or (frame.width, frame.height)  # a stream may change its size midway: the first one holds
        if count in wanted:
            chosen[count] = to_rgb(frame, size)
        count += 1
    return chosen, count


def to_rgb(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """A frame of PyAV as [H, W, 3] uint8 RGB of that size (width, height), upright."""
    rgb = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
    # decord applies the display matrix, PyAV only reports it (degrees, counterclockwise).
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb
