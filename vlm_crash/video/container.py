"""What stands in a clip's container, read from its packets without decoding.

In: a path. Out: codec, size, what the header promises, frames by their packets, display times, and where to enter.
Must hold: whatever is wrong with the file leaves as an UnreadableClipError with one line of reason.
"""

from __future__ import annotations

import re
import stat
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

# Beyond this a header is broken; it would only exhaust the memory.
_MAX_PIXELS = 16384 * 16384
#: Frames a second that no dashcam takes: time stamps that say more are broken.
MOST_FPS = 1000.0
#: Packets of a recording by which it is told whether all of them have to be looked at.
_FIRST_PACKETS = 64
#: Where they are broken, the most that is believed of what else the file says, and what is taken if that is more.
_MOST_OTHER_FPS, _USUAL_FPS = 240.0, 25.0


class UnreadableClipError(ValueError):
    """A clip that cannot be read. `path` says which, `reason` why, in one line."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = Path(path)
        self.reason = one_line(reason)
        super().__init__(f"{self.path}: {self.reason}")

    def __reduce__(self) -> tuple[Any, ...]:  # so that it survives the way back from a DataLoader worker
        return type(self), (self.path, self.reason)


class OutsideWindowError(UnreadableClipError):
    """A clip with which nothing is wrong: it ends before the window begins."""


@dataclass(frozen=True)
class ClipInfo:
    """What a clip is. `num_frames` counts what its packets promise; `duration_s` is seconds of picture, not sound.

    Args:
        width, height: as it is stored; what is shown may be turned, and wider by the sample aspect ratio.
        header_frames: how many its header promises, those that an edit list hides among them; None: it does not say.
        num_videos: video streams in it; the first one is read.
        sample_aspect: width of a stored pixel by its height.
        told_fps: frames a second by its time stamps, which cannot be right, so that `fps` gives the times; None: they
            are believed, or there are none.
    """

    path: Path
    num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    codec: str
    header_frames: int | None = None
    num_videos: int = 1
    sample_aspect: float = 1.0
    told_fps: float | None = None


@dataclass(frozen=True)
class PacketScan:
    """What the packets say without decoding. `times_s` is in display order, one entry a frame, from 0 on.

    `pts` are the same times as the container has them, in its ticks, and `keyframes` those of the keyframes, ascending;
    None: the clip cannot be entered at them with certainty. `is_timed`: each frame has a time of its own, by which it
    can be told. `problem` says what is wrong with the packets; None: nothing that can be seen. `num_hidden` of them are
    not to be shown (an edit list). `is_closed`: nothing is shown before a keyframe that comes after it. `container` is
    FFmpeg's name of the file's format.
    """

    info: ClipInfo
    times_s: np.ndarray
    pts: np.ndarray
    keyframes: np.ndarray | None
    is_timed: bool
    problem: str | None
    num_hidden: int = 0
    is_closed: bool = False
    container: str = ""

    @property
    def promised(self) -> int:
        """Frames that there should be: by the packets, or by the header, where a file that was cut off has fewer."""
        return max(self.info.num_frames, (self.info.header_frames or 0) - self.num_hidden)

    def decoded(self, pts: Sequence[int | None], time_base: float) -> PacketScan:
        """The scan of a clip of which only these frames can be decoded; their time stamps in display order."""
        stamps = np.array([stamp or 0 for stamp in pts])
        timeless = None in pts or bool((np.diff(stamps) < 0).any())
        times_s = display_times(stamps, timeless, time_base, self.info.fps)
        step_s = self.info.duration_s - float(self.times_s[-1])
        info = replace(self.info, num_frames=len(pts), duration_s=float(times_s[-1]) + step_s)
        return replace(self, info=info, times_s=times_s)


def one_line(reason: str) -> str:
    """First telling line, without C++ source positions and stack traces.

    >>> one_line("[10:20:30] /src/video_reader.cc:270: [a.gif] Failed to measure\\n\\nStack trace returned 3 entries:")
    '[a.gif] Failed to measure'
    >>> one_line("/src/Decoder.cpp:1493, Could not push packet")
    'Could not push packet'
    """
    text = re.split(r"stack trace", reason, flags=re.IGNORECASE)[0]
    text = re.sub(r"^\s*(?:\[[\d:]+\]\s*)?(?:\S+\.(?:cc|h|cpp):\d+[:,]\s*)+", "", text)
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
        if not _is_real(stream):
            continue
        if context is None:
            raise UnreadableClipError(path, "its video codec is not supported")
        if not 0 < context.width * context.height <= _MAX_PIXELS:
            raise UnreadableClipError(path, f"frame size {context.width}x{context.height} cannot be right")
        context.thread_count = 1  # one thread a worker: the loader has as many workers as it wants
        return stream
    raise UnreadableClipError(path, "there is no video stream in it")


def _is_real(stream: Any) -> bool:
    """Whether it is a film, and no picture of its cover."""
    return not stream.disposition & av.stream.Disposition.attached_pic


def scan_packets(path: Path) -> PacketScan:
    """Read the packets, decode nothing: true count, times, and where the clip can be entered."""
    with open_video(path) as (container, stream):
        packets = _Packets()
        try:
            for packet in container.demux(stream):
                if packet.size:
                    packets.add(packet)
        except av.error.FFmpegError as error:
            packets.problem = f"the packets end early: {error.strerror}"
            packets.is_regular = False
        if not packets.pts:
            raise UnreadableClipError(path, "its video stream holds no frames")
        pts = np.sort(packets.pts)
        told_fps = None if packets.timeless else impossible_fps((pts - pts[0]) * float(stream.time_base))
        fps = frame_rate(stream, told_fps is not None)
        times_s = display_times(pts, packets.timeless, float(stream.time_base), fps)
        step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / fps
        context = stream.codec_context
        info = ClipInfo(
            path,
            len(pts),
            fps,
            float(times_s[-1]) + (step or 1 / fps),
            context.width,
            context.height,
            context.name,
            stream.frames or None,
            sum(_is_real(video) for video in container.streams.video),
            float(stream.sample_aspect_ratio or 1),
            told_fps,
        )
        form = container.format.name
    return PacketScan(
        info,
        times_s,
        pts,
        packets.keyframes(pts),
        is_timed=not packets.timeless and bool((np.diff(pts) > 0).all()),
        problem=packets.problem,
        num_hidden=packets.num_hidden,
        is_closed=packets.is_closed(pts),
        container=form,
    )


def broken_times(path: Path) -> ClipInfo | None:
    """What a clip is whose time stamps are not believed; None: they are.

    All packets are read where the header or the first of them say more frames than a camera takes, and else not: a
    recording of hours has many.
    """
    with open_video(path) as (container, stream):
        ticks: list[int] = []
        with suppress(av.error.FFmpegError):  # whoever decodes it says what is wrong
            for packet in islice(container.demux(stream), _FIRST_PACKETS):
                ticks += [] if packet.pts is None else [packet.pts]
        told_fps = impossible_fps(np.array(ticks) * float(stream.time_base))
        if told_fps is None and float(stream.average_rate or 0) <= MOST_FPS:
            return None
    info = scan_packets(path).info
    return info if info.told_fps is not None else None


class _Packets:
    """Time stamps of a stream's packets, eight bytes each: hours of video have hundreds of thousands."""

    def __init__(self) -> None:
        self.pts, self.keys, self._key_numbers = array("q"), array("q"), array("q")
        self.timeless = False
        self.is_regular = True
        self.problem: str | None = None
        self.num_hidden = 0
        self._last_dts: int | None = None

    def add(self, packet: Any) -> None:
        pts, dts = packet.pts, packet.dts
        if packet.is_discard:  # an edit list: what is left out may still be needed to decode
            self.is_regular = False
            self.num_hidden += 1
            return
        if pts is None:
            self.timeless = True
        self.pts.append(pts or 0)
        if packet.is_keyframe:
            self._key_numbers.append(len(self.pts) - 1)
            self.keys.append(pts or 0)
        if packet.is_corrupt:
            self.problem, self.is_regular = "damaged packets", False
        if dts is not None and self._last_dts is not None and dts <= self._last_dts:
            self.is_regular = False
        self._last_dts = self._last_dts if dts is None else dts  # Matroska leaves some out

    def keyframes(self, ordered: np.ndarray) -> np.ndarray | None:
        """Ascending; None where time stamps are absent, the same or leap, or the first frame shown is none."""
        keys = np.array(self.keys)
        if self.timeless or not self.is_regular or not len(keys) or keys[0] != ordered[0]:
            return None
        return keys if bool((np.diff(ordered) > 0).all() and (np.diff(keys) > 0).all()) else None

    def is_closed(self, ordered: np.ndarray) -> bool:
        """Whether each keyframe has as many frames shown before it as packets."""
        return bool((np.searchsorted(ordered, np.array(self.keys)) == np.array(self._key_numbers)).all())


def display_times(pts: np.ndarray, timeless: bool, time_base: float, fps: float) -> np.ndarray:
    """Seconds from the first shown frame on; by the frame rate where the container has no time stamps, or broken ones.

    Args:
        pts: ticks, ascending.
        timeless: some of the packets have none.
    """
    if timeless or (len(pts) > 1 and pts[0] == pts[-1]):
        return np.arange(len(pts)) / fps
    return believed_times(np.asarray((pts - pts[0]) * time_base), fps)


def believed_times(times_s: np.ndarray, fps: float) -> np.ndarray:
    """[N] seconds from 0 on, as they are; by the frame rate where they cannot be right."""
    return times_s if impossible_fps(times_s) is None else np.arange(len(times_s)) / fps


def impossible_fps(times_s: np.ndarray) -> float | None:
    """Frames a second by their times [N], where no camera takes so many; None: they may be right.

    >>> impossible_fps(np.arange(120) / 24), impossible_fps(np.arange(5) / 90_000)
    (None, 90000.0)
    """
    span_s = float(np.ptp(times_s)) if len(times_s) > 1 else 0.0
    return None if span_s == 0 or len(times_s) - 1 <= MOST_FPS * span_s else (len(times_s) - 1) / span_s


def frame_rate(stream: Any, has_broken_times: bool) -> float:
    """Frames a second: the container's average; 25 where there is none.

    The average comes from the time stamps; where these are broken, FFmpeg's guess and the codec's own rate go first.
    """
    average, guess = stream.average_rate, stream.guessed_rate
    if not has_broken_times:
        return float(average or guess or 0) or _USUAL_FPS
    rates = (float(rate or 0) for rate in (guess, stream.codec_context.framerate, average))
    return next((rate for rate in rates if 0 < rate <= _MOST_OTHER_FPS), _USUAL_FPS)
