"""A recording, frame by frame in the order of time, each decoded once.

In: a path, and where to begin. Out: (seconds, frame) pairs; afterwards what was wrong with the recording.
Must hold: a time counts from the first frame shown, by presentation time stamps, and goes on from each frame to the
next; a recording that ends before its header says, has damaged packets, or time stamps that are missing, go back, leap
or cannot be right, says so; what was read from the middle has the times that it has read from the beginning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import av

from vlm_crash.video.container import ClipInfo, UnreadableClipError, broken_times, open_video, packets_of
from vlm_crash.video.frame_times import MOST_FPS, frame_rate

#: Seconds by which a header may promise more than there is: rounding, or sound that goes on after the picture.
_SLACK_S = 1.0
#: The longest hole in a recording, in seconds; a time stamp that leaps further is not believed.
_LONGEST_HOLE_S = 3600.0
#: FFmpeg's names of containers that are entered by an index of the whole file. In others a place is looked for by time
#: stamps, and where these begin anew (files put one behind the other) the wrong one may be found.
_INDEXED = frozenset({"mov", "mp4", "matroska"})


class FrameStream:
    """Frames of one recording with their times.

    Attributes:
        step_s: seconds from one frame to the next, where the recording does not say otherwise.
        end_s: where the last frame read ends.
        num_moved: frames read whose time stamp is missing, goes back or leaps; each is taken to follow the one before.
        broken: what it is, where its time stamps cannot be right, so that its frames follow each other at its `fps`, as
            reader.py has them; None: they are believed, or nothing was read yet.
        damage: what is wrong with the recording, as far as it was read; None: nothing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.fps, self.codec = 25.0, ""
        self.end_s = 0.0
        self.num_moved = 0
        self.broken: ClipInfo | None = None
        self._promised_s: float | None = None
        self._num_damaged = 0
        self._stopped: str | None = None

    @property
    def step_s(self) -> float:
        return 1.0 / self.fps

    @property
    def damage(self) -> str | None:
        said = [f"{self._num_damaged} of its packets cannot be decoded"] if self._num_damaged else []
        if self.broken is not None:
            told = f"its time stamps say {self.broken.told_fps:.0f} frames a second, which cannot be"
            said.append(f"{told}; it is taken to have {self.fps:g}")
        if self.num_moved:
            said.append(f"the time stamps of {self.num_moved} of its frames are missing, go back or leap")
        if self._stopped is not None:
            said.append(f"it cannot be read on from {self.end_s:.1f} s ({self._stopped})")
        elif self._promised_s is not None and self._promised_s > self.end_s + _SLACK_S:
            said.append(f"its header promises {self._promised_s:.1f} s, and it ends at {self.end_s:.1f} s")
        return "; ".join(said) or None

    def frames(self, start_s: float = 0.0, is_steady: bool | None = None) -> Iterator[tuple[float, Any]]:
        """(seconds, PyAV frame) from `start_s` on, or from any time before.

        Args:
            is_steady: whether the time stamps go on from the first to the last; None: nobody has looked. What is not
                steady is read through.

        Raises:
            UnreadableClipError: nothing of it can be decoded; or its time stamps were believed, and come to a stretch
                that cannot be right.
        """
        self.broken = broken_times(self.path)
        enters = start_s > 0 and is_steady is not False and self.broken is None
        origin = self._first_pts(is_steady) if enters else None
        if origin is not None:
            found = self._read(origin, start_s)
            # A packet that the container calls a keyframe may be none: what comes before a true one is no picture.
            first = next((one for one in found if one[1].key_frame or one[0] > start_s), None)
            if first is not None and first[0] <= start_s:
                yield first
                yield from found
                return
            found.close()  # it cannot be sought in: read through, and dropped up to there
        yield from self._read(None, 0.0)

    def _first_pts(self, is_steady: bool | None) -> int | None:
        """None: it cannot be entered in its middle."""
        with open_video(self.path) as (container, stream):
            if is_steady is None and _INDEXED.isdisjoint(container.format.name.split(",")):
                return None
            frame = next(self._decoded(container, stream), None)
        self._num_damaged, self._stopped = 0, None
        return None if frame is None else frame.pts

    def _read(self, origin: int | None, start_s: float) -> Generator[tuple[float, Any]]:
        self._num_damaged, self._stopped, self.end_s, self.num_moved = 0, None, 0.0, 0
        last_s: float | None = None
        second = deque[float](maxlen=round(MOST_FPS) + 1)
        with open_video(self.path) as (container, stream):
            self._describe(container, stream)
            if origin is not None:
                try:
                    container.seek(origin + int(start_s / stream.time_base), stream=stream, backward=True)
                except av.error.FFmpegError:
                    return
            for frame in self._decoded(container, stream):
                next_s = 0.0 if last_s is None else last_s + self.step_s
                if origin is None and frame.pts is not None:
                    origin = frame.pts - round(next_s / stream.time_base)
                time_s = None if frame.pts is None else float((frame.pts - origin) * stream.time_base)
                if self.broken is not None:
                    time_s = next_s
                elif time_s is None or (last_s is not None and not last_s < time_s <= last_s + _LONGEST_HOLE_S):
                    time_s = next_s
                    self.num_moved += 1
                last_s = time_s
                second.append(time_s)
                if len(second) > MOST_FPS and time_s - second[0] < 1:
                    said = f"its time stamps say more than {MOST_FPS:.0f} frames a second, up to {time_s:.1f} s"
                    raise UnreadableClipError(self.path, said)
                self.end_s = last_s + self.step_s
                yield last_s, frame
        if last_s is None:
            raise UnreadableClipError(self.path, "no frame of it can be decoded")

    def _describe(self, container: Any, stream: Any) -> None:
        self.fps = frame_rate(stream, has_broken_times=False) if self.broken is None else self.broken.fps
        self.codec = stream.codec_context.name
        if stream.duration is not None:
            self._promised_s = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            self._promised_s = container.duration / av.time_base

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        packets = packets_of(container, stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self._stopped = error.strerror
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                self._num_damaged += 1
