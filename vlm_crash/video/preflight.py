"""What a clip is, and whether all of it can be read: decoded from beginning to end, in a process that may die of it.

In: a path, and how much time and memory the clip may take. Out: ClipFacts, or an UnreadableClipError with the reason.
Must hold: a frame counts only where it was decoded; what a header says stands apart from what was found; a decoder
that hangs, dies or eats memory costs one clip.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.container import NO_FRAMES, UnreadableClipError, num_uncounted, open_video, packets_of
from vlm_crash.video.counting import counted
from vlm_crash.video.frame_times import (
    decoded_times,
    display_times,
    frame_rate,
    impossible_fps,
    on_one_clock,
    told_rate,
)
from vlm_crash.video.guarded import CLIP_TIMEOUT_S, ReaderProcess
from vlm_crash.video.memory_limit import memory_limit
from vlm_crash.video.packets import Packets, come_in_pairs
from vlm_crash.video.reader import check_reader

#: What the process runs.
MODULE = "vlm_crash.video.preflight_process"
#: What is said of decord where it shows the same as we do.
RIGHT = "right"


@dataclass(frozen=True)
class ClipFacts:
    """What was found in a clip; None: its container does not say, or the clip has no times.

    Args:
        codec: FFmpeg's name of it.
        width, height: of the first frame, in pixels, as it is stored.
        fps: average frame rate, by the container.
        num_frames: frames that were decoded.
        header_frames: frames that the container's header promises.
        duration_s: from the first frame's beginning to the last one's end, in seconds; by a frame rate that can be
            right where the time stamps cannot.
        first_s, last_s: presentation times of the first and the last decoded frame, in the container's own seconds.
        bad_packets: packets that are marked as damaged, or that the decoder refuses.
        bad_frames: frames that the decoder gives, and calls damaged.
        hidden_packets: packets that the container says not to show, or leaves out for that (an edit list).
        sizes: different sizes of frames.
        end: why reading stopped before the end of the file; None: it did not.
        told_fps: frames a second by the time stamps, which cannot be right; None: they can.
        num_jumps: how often the container's clock jumps.
        packet_frames: frames that should come of its packets, at least: of interlaced ones two may make one.
    """

    codec: str
    width: int
    height: int
    fps: float | None
    num_frames: int
    header_frames: int | None
    duration_s: float | None
    first_s: float | None
    last_s: float | None
    bad_packets: int
    bad_frames: int
    hidden_packets: int
    sizes: int
    end: str | None
    told_fps: float | None = None
    num_jumps: int = 0
    packet_frames: int = 0

    @property
    def damage(self) -> str | None:
        """What is wrong with a clip that can be read, in one line; None: nothing."""
        said = []
        if self.bad_packets:
            said.append(counted(self.bad_packets, "damaged packet"))
        if self.bad_frames:
            said.append(counted(self.bad_frames, "damaged frame"))
        if self.end is not None:
            said.append(f"reading stops early ({self.end})")
        if self.told_fps is not None:
            said.append(f"the time stamps say {self.told_fps:.0f} frames a second")
        if self.num_jumps:
            jumps = f"the clock jumps ({counted(self.num_jumps, 'time')})"
            said.append(f"{jumps}: what follows is taken to go on from there")
        if self.sizes > 1:
            said.append(f"frames of {self.sizes} sizes")
        if self.header_frames is not None and self.header_frames - self.hidden_packets > self.num_frames:
            said.append(f"the header promises {self.header_frames} frames, {self.num_frames} can be decoded")
        elif self.packet_frames > self.num_frames:
            said.append(f"there are packets of {self.packet_frames} frames, {self.num_frames} can be decoded")
        return "; ".join(said) or None


@dataclass(frozen=True)
class Limits:
    """What one clip may cost.

    Args:
        timeout_s: most seconds; None or 0: no limit.
        memory_gib: most memory, in GiB, beside what the process itself takes; None or 0: no limit.
    """

    timeout_s: float | None = CLIP_TIMEOUT_S
    memory_gib: float | None = 4.0


class Preflight:
    """Looks at one clip after another, in a process that may die; it starts with the first."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process = ReaderProcess(MODULE)

    def content_hash(self, path: Path) -> str:
        """sha256 of the file, in hex; UnreadableClipError as `facts`."""
        return str(self._process.ask("content_hash", path, [], self.limits.timeout_s))

    def facts(self, path: Path, for_decord: bool = False) -> ClipFacts:
        """What is in a clip, decoded as a whole.

        Args:
            for_decord: `decord` is asked next; frames are kept for it, and not decoded again.

        Raises:
            UnreadableClipError: no frame of it can be decoded, or it goes over a limit, or the decoder dies of it.
            RuntimeError: the process cannot be started.
        """
        facts: ClipFacts = self._process.ask(
            "examine", path, [self.limits.memory_gib, for_decord], self.limits.timeout_s
        )
        return facts

    def decord(self, path: Path) -> str:
        """What decord would get wrong of a clip that has `facts`, or RIGHT; it may hang or die of it, too.

        Raises:
            ValueError: decord is not installed.
            RuntimeError: the process cannot be started.
        """
        check_reader("decord")
        try:
            wrong = self._process.ask("compare", path, [self.limits.memory_gib], self.limits.timeout_s)
        except UnreadableClipError as error:
            wrong = error.reason
        return RIGHT if wrong is None else str(wrong)

    def kill(self) -> None:
        """End the process under another thread that waits for it, which is told so."""
        pid = self._process.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the process, for which nobody waits."""
        self._process.stop()


def examine(path: Path, memory_gib: float | None = None, see: Callable[[Any], None] = lambda frame: None) -> ClipFacts:
    """Decode a whole clip in this process, which ends where it takes more memory than that; errors as Preflight's.

    Args:
        see: is given each frame that is decoded.
    """
    with memory_limit(memory_gib):
        return _examine(path, see)


def _examine(path: Path, see: Callable[[Any], None]) -> ClipFacts:
    with open_video(path) as (container, stream):
        found = _Found(container.format.name, stream.codec_context.name)
        fps = told_rate(stream)
        header_frames, time_base = stream.frames or None, float(stream.time_base)
        for frame in _decoded(container, stream, found):
            found.add(frame)
            see(frame)
        if not found.sizes:
            reason = found.end or "no frame of it can be decoded"
            raise UnreadableClipError(path, reason if found.packets.pts else NO_FRAMES)
        packet_pts, num_jumps = found.packets.on_one_clock(time_base)
        pts = on_one_clock(found.pts, time_base, found.form) if num_jumps else found.pts
        told_fps = impossible_fps(np.array([stamp for stamp in pts if stamp is not None]) * time_base)
        packets, rate = found.packets, frame_rate(stream, told_fps is not None)
        shown_s = decoded_times(pts, time_base, rate)
        if (packets.is_packed or found.form == "avi") and len(packet_pts) == len(pts):
            shown_s = display_times(np.sort(packet_pts), packets.timeless, time_base, rate)  # as reader.py has them
    num_cut = num_uncounted(path, found.form, header_frames, packets.num_read, packets.last_dts)
    stamped = [stamp for stamp in found.pts if stamp is not None]
    step_s = float(np.median(np.diff(shown_s))) if len(shown_s) > 1 else 1 / fps if fps else 0.0
    width, height = found.sizes[0]
    return ClipFacts(
        codec=found.codec,
        width=width,
        height=height,
        fps=fps,
        num_frames=len(found.pts),
        header_frames=header_frames,
        duration_s=float(np.ptp(shown_s)) + step_s if stamped else None,
        first_s=stamped[0] * time_base if stamped else None,
        last_s=stamped[-1] * time_base if stamped else None,
        bad_packets=found.bad_packets,
        bad_frames=found.bad_frames,
        hidden_packets=packets.num_hidden + num_cut,
        sizes=len(found.sizes),
        end=found.end,
        told_fps=told_fps,
        num_jumps=num_jumps,
        packet_frames=len(packet_pts) - (found.num_interlaced if come_in_pairs(packet_pts, found.pts) else 0),
    )


class _Found:
    """What has been counted so far; some bytes a frame.

    Args:
        form: FFmpeg's name of the container.
        codec: and of the codec.
    """

    def __init__(self, form: str, codec: str) -> None:
        self.form, self.codec, self.packets = form, codec, Packets(form, codec)
        self.bad_packets = self.bad_frames = self.num_interlaced = 0
        self.sizes: list[tuple[int, int]] = []
        self.pts: list[int | None] = []
        self.end: str | None = None

    def add(self, frame: Any) -> None:
        self.bad_frames += bool(frame.is_corrupt)
        self.num_interlaced += frame.interlaced_frame
        if (frame.width, frame.height) not in self.sizes:
            self.sizes.append((frame.width, frame.height))
        self.pts.append(frame.pts)


def _decoded(container: Any, stream: Any, found: _Found) -> Iterator[Any]:
    packets = packets_of(container, stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            found.end = str(error.strerror)
            return
        if packet is None:
            return
        found.packets.add(packet)
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            found.bad_packets += 1
            continue
        found.bad_packets += bool(packet.is_corrupt)
        yield from frames
