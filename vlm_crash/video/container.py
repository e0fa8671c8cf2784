"""What stands in a clip's container, read from its packets without decoding.

In: a path. Out: codec, size, true frame count, display times, and whether the quick reader may be trusted with it.
Must hold: whatever is wrong with the file leaves as an UnreadableClipError with one line of reason.
"""

from __future__ import annotations

import re
import stat
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

# decord 0.6.0 hangs on some MPEG-TS, cannot open GIF and miscounts AVI with B-frames: only these container families
# (FFmpeg's demuxer names) go to it.
_DECORD_CONTAINERS = frozenset({"mov", "mp4"})
# Beyond this a header is broken; it would only exhaust the memory.
_MAX_PIXELS = 16384 * 16384


class UnreadableClipError(ValueError):
    """A clip that cannot be read. `path` says which, `reason` why, in one line."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = Path(path)
        self.reason = one_line(reason)
        super().__init__(f"{self.path}: {self.reason}")

    def __reduce__(self) -> tuple[Any, ...]:  # so that it survives the way back from a DataLoader worker
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class ClipInfo:
    """What a clip is. `num_frames` counts what its packets promise; `duration_s` is seconds of picture, not sound."""

    path: Path
    num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    codec: str


@dataclass(frozen=True)
class PacketScan:
    """What the packets say without decoding. `times_s` is in display order, one entry a frame, from 0 on.

    `pts` are the same times as the container has them, in its ticks, and `keyframes` those of the keyframes, ascending;
    None: the clip cannot be entered at them with certainty.
    """

    info: ClipInfo
    times_s: np.ndarray
    doubt: str | None  # why decord must not be used, None: no reason
    pts: np.ndarray
    keyframes: np.ndarray | None

    def shortened(self, num_frames: int) -> PacketScan:
        """The scan of a clip of which only `num_frames` frames can be decoded."""
        end = min(num_frames, len(self.times_s)) - 1
        lost_s = float(self.times_s[-1] - self.times_s[end])
        info = replace(self.info, num_frames=num_frames, duration_s=self.info.duration_s - lost_s)
        return replace(self, info=info)


def one_line(reason: str) -> str:
    """First telling line, without C++ source positions and stack traces.

    >>> one_line("[10:20:30] /src/video_reader.cc:270: [a.gif] Failed to measure\\n\\nStack trace returned 3 entries:")
    '[a.gif] Failed to measure'
    """
    text = re.split(r"stack trace", reason, flags=re.IGNORECASE)[0]
    text = re.sub(r"^\s*(?:\[[\d:]+\]\s*)?(?:\S+\.(?:cc|h|cpp):\d+:\s*)+", "", text)
    return re.sub(r"\s+", " ", text).strip()[:300] or "cannot be read"


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV container and its first real video stream; PyAV's errors leave as UnreadableClipError."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UnreadableClipError(path, (getattr(error, "strerror", None) or str(error)).lower()) from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableClipError(path, "not a file")
    if status.st_size == 0:
        raise UnreadableClipError(path, "the file is empty (0 bytes)")
    try:
        # An absolute path: FFmpeg takes "a:b.mp4" for a protocol and "-a.mp4" is nobody's option here.
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            yield container, _video_stream(path, container)
    except UnreadableClipError:
        raise
    except av.error.InvalidDataError as error:
        raise UnreadableClipError(path, "not a video, or one cut off before its index was written") from error
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableClipError(path, getattr(error, "strerror", None) or str(error)) from error


def _video_stream(path: Path, container: Any) -> Any:
    for stream in container.streams.video:
        context = stream.codec_context
        if stream.disposition & av.stream.Disposition.attached_pic:
            continue
        if context is None:
            raise UnreadableClipError(path, "its video codec is not supported")
        if not 0 < context.width * context.height <= _MAX_PIXELS:
            raise UnreadableClipError(path, f"frame size {context.width}x{context.height} cannot be right")
        context.thread_count = 1  # one thread a worker: the loader has as many workers as it wants
        return stream
    raise UnreadableClipError(path, "there is no video stream in it")


def scan_packets(path: Path) -> PacketScan:
    """Read the packets, decode nothing: true count, times, and reasons to distrust decord."""
    with open_video(path) as (container, stream):
        container_names = set(container.format.name.split(","))
        videos = [s for s in container.streams.video if s.type == "video"]
        packets = _Packets()
        doubt = None if container_names & _DECORD_CONTAINERS else f"container {container.format.name}"
        if len(videos) > 1:
            doubt = "more than one video stream"
        last_key = None
        time_base = stream.time_base
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                if packet.is_discard:  # an edit list: what is left out may still be needed to decode
                    packets.is_regular = False
                    continue
                packets.add(packet)
                if packet.is_corrupt:
                    doubt = "damaged packets"
                if packet.is_keyframe:
                    last_key = packet.pts
                elif packet.pts is not None and last_key is not None and packet.pts < last_key:
                    # A frame shown before its keyframe: open GOP, where decord's seek lands up to 5 frames off.
                    doubt = "open GOP"
        except av.error.FFmpegError as error:
            doubt = f"the packets end early: {error.strerror}"
            packets.is_regular = False
        context = stream.codec_context
        fps = float(stream.average_rate or stream.guessed_rate or 0) or 25.0
        width, height, codec = context.width, context.height, context.name
    if not packets.pts:
        raise UnreadableClipError(path, "its video stream holds no frames")
    pts = np.sort(packets.pts)
    times_s = _display_times(pts, packets.timeless, float(time_base), fps)
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / fps
    info = ClipInfo(path, len(pts), fps, float(times_s[-1]) + (step or 1 / fps), width, height, codec)
    return PacketScan(info, times_s, doubt, pts, packets.keyframes(pts))


class _Packets:
    """Time stamps of a stream's packets, eight bytes each: hours of video have hundreds of thousands."""

    def __init__(self) -> None:
        self.pts, self.keys = array("q"), array("q")
        self.timeless = False
        self.is_regular = True
        self._last_dts: int | None = None

    def add(self, packet: Any) -> None:
        pts, dts = packet.pts, packet.dts
        if pts is None:
            self.timeless = True
        self.pts.append(pts or 0)
        if packet.is_keyframe:
            self.keys.append(pts or 0)
        if packet.is_corrupt or (dts is not None and self._last_dts is not None and dts <= self._last_dts):
            self.is_regular = False
        self._last_dts = self._last_dts if dts is None else dts  # Matroska leaves some out

    def keyframes(self, ordered: np.ndarray) -> np.ndarray | None:
        """Ascending; None where time stamps are absent, the same or leap, or the first frame shown is none."""
        keys = np.array(self.keys)
        if self.timeless or not self.is_regular or not len(keys) or keys[0] != ordered[0]:
            return None
        return keys if bool((np.diff(ordered) > 0).all() and (np.diff(keys) > 0).all()) else None


def _display_times(pts: np.ndarray, timeless: bool, time_base: float, fps: float) -> np.ndarray:
    """Seconds from the first shown frame on; from the frame rate where the container has no time stamps.

    Args:
        pts: ticks, ascending.
        timeless: some of the packets have none.
    """
    if timeless or (len(pts) > 1 and pts[0] == pts[-1]):
        return np.arange(len(pts)) / fps
    return np.asarray((pts - pts[0]) * time_base)
