"""What stands in a clip's container, read from its packets without decoding.

In: a path. Out: codec, size, what the header promises, frames by their packets, display times, and where to enter.
Must hold: whatever is wrong with the file leaves as an UnreadableClipError with one line of reason.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.frame_times import MOST_FPS, decoded_times, display_times, frame_rate, impossible_fps, on_one_clock
from vlm_crash.video.packets import Packets, come_in_pairs, is_counted

# Beyond this a header is broken; it would only exhaust the memory.
_MAX_PIXELS = 16384 * 16384
#: Why a clip cannot be read in which no packet brings a frame.
NO_FRAMES = "its video stream holds no frames"
#: Packets of a recording by which it is told whether all of them have to be looked at.
_FIRST_PACKETS = 64
#: Seconds by which decoded frames may be moved from times of packets that were put in order: they have wrong ones, too.
_MOST_MOVED_S = 1.0


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
        num_jumps: how often its clock jumps; what follows is taken to go on from there.
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
    num_jumps: int = 0


@dataclass(frozen=True)
class PacketScan:
    """What the packets say without decoding. `times_s` is in display order, one entry a frame, from 0 on.

    `pts` are the same times as the container has them, in its ticks, and `keyframes` those of the keyframes, ascending;
    None: the clip cannot be entered at them with certainty. `is_timed`: each frame has a time of its own, by which it
    can be told. `problem` says what is wrong with the packets; None: nothing that can be seen. `num_hidden` of them are
    not to be shown (an edit list). `is_closed`: nothing is shown before a keyframe that comes after it. `container` is
    FFmpeg's name of the file's format. `most_moved_s`: seconds by which a decoded frame's time may differ from that of
    the packets, where these are believed; AVI has time stamps of packets only.
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
    most_moved_s: float = np.inf

    def num_missing(self, frame_pts: Sequence[int | None], num_interlaced: int) -> int:
        """Frames that there should be, by the packets or by the header, and that were not decoded.

        Args:
            frame_pts: time stamps of those that were.
            num_interlaced: of these; each may have come in two packets, a field in each.
        """
        num_pairs = num_interlaced if come_in_pairs(self.pts, frame_pts) else 0
        promised = max(self.info.num_frames - num_pairs, (self.info.header_frames or 0) - self.num_hidden)
        return max(0, promised - len(frame_pts))

    def is_misled(self, decoded: PacketScan) -> bool:
        """Whether wrong time stamps among the packets move frames from when they are shown."""
        return bool(np.abs(decoded.times_s - self.times_s).max() > self.most_moved_s)

    def decoded(self, pts: Sequence[int | None], time_base: float) -> PacketScan:
        """The scan of a clip of which only these frames can be decoded; their time stamps in display order."""
        if self.info.num_jumps:
            pts = on_one_clock(pts, time_base, self.container)
        times_s = decoded_times(pts, time_base, self.info.fps)
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
def open_video(path: Path, **options: str) -> Iterator[tuple[Any, Any]]:
    """PyAV container, opened with FFmpeg's options, and its first real video stream; PyAV's errors leave as
    UnreadableClipError.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UnreadableClipError(path, (getattr(error, "strerror", None) or str(error)).lower()) from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableClipError(path, "not a file but a folder; give a clip" if path.is_dir() else "not a file")
    if status.st_size == 0:
        raise UnreadableClipError(path, "the file is empty (0 bytes)")
    try:
        # An absolute path: FFmpeg takes "a:b.mp4" for a protocol and "-a.mp4" is nobody's option here.
        with av.open(str(path.absolute()), options=options, metadata_errors="replace") as container:
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


def packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a stream from where the container is, then one without data that empties the decoder.

    Empty ones are left out: what is there is shown on (Theora). FFmpeg's decoders refuse them.

    Raises:
        av.error.FFmpegError: there is no reading on.
    """
    while True:
        try:
            for packet in container.demux(stream):
                if packet.size or not packet.buffer_ptr:
                    yield packet
            return
        except IndexError:  # PyAV 18: a packet of a stream that MPEG-PS or -TS did not tell of; it is passed over
            continue


def scan_packets(path: Path) -> PacketScan:
    """Read the packets, decode nothing: true count, times, and where the clip can be entered."""
    with open_video(path) as (container, stream):
        form = container.format.name
        packets = Packets(form, stream.codec_context.name)
        try:
            for packet in packets_of(container, stream):
                packets.add(packet)
        except av.error.FFmpegError as error:
            packets.problem = f"the packets end early: {error.strerror}"
            packets.is_regular = False
        if not packets.pts:
            raise UnreadableClipError(path, NO_FRAMES)
        pts, num_jumps = packets.on_one_clock(float(stream.time_base))
        pts.sort()
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
            num_jumps,
        )
        is_packed = packets.is_packed
        counted = packets.timeless or packets.goes_back or num_jumps > 0 or is_packed or is_counted(form, context)
    num_hidden = packets.num_hidden + num_uncounted(path, form, info.header_frames, packets.num_read, packets.last_dts)
    return PacketScan(
        info,
        times_s,
        pts,
        None if counted else packets.keyframes(pts),
        is_timed=not counted and bool((np.diff(pts) > 0).all()),
        problem=packets.problem,
        num_hidden=num_hidden,
        is_closed=packets.is_closed(pts),
        container=form,
        most_moved_s=np.inf if is_packed or form == "avi" else _MOST_MOVED_S if packets.is_shifted else step / 2,
    )


def num_uncounted(path: Path, form: str, header_frames: int | None, num_read: int, last_dts: int | None) -> int:
    """Frames that a header counts, of which no packet is read, and which are not missing.

    FFmpeg leaves out what an edit list cuts off, unless a frame that is shown needs it; and AVI counts empty chunks, in
    whose place the frame before them is shown on.

    Args:
        form: PacketScan's container.
        num_read: packets with data.
        last_dts: of the last one.
    """
    if header_frames is None or header_frames <= num_read:
        return 0
    if form == "avi" and last_dts is not None and num_read > 1:
        return max(0, last_dts + round(last_dts / (num_read - 1)) - num_read)
    if "mov" not in form.split(","):
        return 0
    count = 0
    with open_video(path, ignore_editlist="1") as (container, stream), suppress(av.error.FFmpegError):
        for packet in packets_of(container, stream):
            count += packet.size > 0
    return max(0, count - num_read)


def broken_times(path: Path) -> ClipInfo | None:
    """What a clip is whose time stamps are not believed; None: they are.

    All packets are read where the header or the first of them say more frames than a camera takes, and else not: a
    recording of hours has many.
    """
    with open_video(path) as (container, stream):
        ticks: list[int] = []
        with suppress(av.error.FFmpegError):  # whoever decodes it says what is wrong
            for packet in islice(packets_of(container, stream), _FIRST_PACKETS):
                ticks += [] if packet.pts is None else [packet.pts]
        told_fps = impossible_fps(np.array(ticks) * float(stream.time_base))
        if told_fps is None and float(stream.average_rate or 0) <= MOST_FPS:
            return None
    info = scan_packets(path).info
    return info if info.told_fps is not None else None
