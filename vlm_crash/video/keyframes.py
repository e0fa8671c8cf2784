"""Frames of a long clip without decoding all of it: PyAV, from a keyframe before each chosen frame.

In: what the packets say, and which frames are wanted. Out: exactly those, or None where that is not certain.
Must hold: a frame is taken by its time stamp, never by counting from where a seek has landed; whatever is not as the
packets promised (a seek that lands late, a frame that does not come, a damaged packet) ends in None, and the clip is
read through instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import av
import numpy as np

from vlm_crash.video.container import PacketScan, open_video
from vlm_crash.video.pixels import Chosen

#: Shorter clips are read through, which also finds damage between the chosen frames.
MIN_FRAMES = 2000
_BEFORE_S = 10  # a time before the first frame: the beginning of the file


def worth_seeking(scan: PacketScan, indices: Sequence[int]) -> bool:
    """Whether the clip is long, can be entered at its keyframes, and most of it would be passed over."""
    if scan.keyframes is None or scan.info.num_frames < MIN_FRAMES:
        return False
    wanted = np.unique(indices)
    starts = np.searchsorted(scan.pts, scan.keyframes[_entries(scan, wanted)])
    # What lies before an entry and after the frame wanted before it is passed over.
    decoded = (
        wanted[0]
        - starts[0]
        + sum(after - max(before, start) for (before, after), start in zip(pairwise(wanted), starts[1:], strict=True))
    )
    return bool(decoded * 2 < scan.info.num_frames)


def _entries(scan: PacketScan, indices: np.ndarray) -> np.ndarray:
    """For each frame the keyframe to begin at, by its place among the keyframes: the one before the last.

    The last one would do by the standards. Files that call a picture a keyframe while others after it look behind it
    are the reason for one more.
    """
    assert scan.keyframes is not None
    last = np.searchsorted(scan.keyframes, scan.pts[indices], side="right") - 1
    return np.maximum(last - 1, 0)


def read_from_keyframes(scan: PacketScan, indices: Sequence[int]) -> np.ndarray | None:
    """[F, H, W, 3] uint8 frames at those indices of the display order, or None: read the clip through."""
    assert scan.keyframes is not None
    chosen = Chosen(indices)
    wanted = np.array(sorted(set(indices)))
    with open_video(scan.info.path) as (container, stream):
        frames: Iterator[Any] = iter(())
        shown = entered = -1
        for index, entry in zip(wanted.tolist(), _entries(scan, wanted).tolist(), strict=True):
            target = int(scan.pts[index])
            # Go on where the decoder is at or past the entry already, or jump.
            if entered < 0 or scan.keyframes[entry] > scan.pts[shown]:
                packets = _enter(container, stream, scan.keyframes, entry)
                if packets is None:
                    return None
                frames, entered = _decoded(packets), entry
            try:
                frame = next((frame for frame in frames if frame.pts is None or frame.pts >= target), None)
            except av.error.FFmpegError:
                return None
            if frame is None or frame.pts != target or frame.is_corrupt:
                return None
            if (frame.width, frame.height) != (scan.info.width, scan.info.height):
                return None  # a stream that changes its size: the first frame's holds
            chosen.put(index, frame)
            shown = index
    return chosen.frames_FHWC


def _enter(container: Any, stream: Any, keyframes: np.ndarray, entry: int) -> Iterator[Any] | None:
    """Packets from that keyframe on, or from one before it; None where no seek lands there."""
    before_all = int(keyframes[0]) - round(_BEFORE_S / stream.time_base)
    for earlier in (0, 1, 4, 16):
        target = int(keyframes[entry - earlier]) if earlier <= entry else before_all
        try:
            container.seek(target, stream=stream, backward=True)
            packets: Iterator[Any] = container.demux(stream)
            first = next((packet for packet in packets if packet.is_keyframe and packet.pts is not None), None)
        except av.error.FFmpegError:
            return None
        # MPEG-TS is searched by decoding times: it may land behind the keyframe.
        if first is not None and first.pts <= keyframes[entry]:
            return _chain(first, packets)
    return None


def _chain(first: Any, packets: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from packets


def _decoded(packets: Iterator[Any]) -> Iterator[Any]:
    for packet in packets:
        yield from packet.decode()
