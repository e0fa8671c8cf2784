"""A long recording as overlapping windows, in one pass: each frame is decoded once, and only a window is held.

In: a path, how long windows are and how often one begins, how many frames each shows. Out: windows in order of time.
Must hold: a window [start, end) has the frames shown in it, and of these the ones that the frame rule takes from a clip
of that span; no moment of the recording is outside all windows; the last window says so, and what was wrong with the
recording.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.video.container import ClipInfo
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.frame_stream import FrameStream
from vlm_crash.video.motion import frames_motion
from vlm_crash.video.pixels import to_rgb
from vlm_crash.video.reader import Frames

_CLOSE_S = 1e-6  # times are floats: 0.1 + 0.2 is not a later moment than 0.3


@dataclass(frozen=True)
class WindowGrid:
    """Windows of `window_s` seconds, one every `stride_s`, whose frames are chosen as those of clips.

    >>> WindowGrid(6.0, 1.5, FrameSampling(8)).span(2)
    (3.0, 9.0)
    """

    window_s: float
    stride_s: float
    sampling: FrameSampling

    def span(self, index: int) -> tuple[float, float]:
        """Start and end of a window in seconds."""
        return index * self.stride_s, index * self.stride_s + self.window_s


@dataclass(frozen=True)
class Window:
    """One window of a recording.

    Attributes:
        index: its number; the last one may begin before its place, so that the recording's end is seen, too.
        is_last: no window comes after it.
        damage: of the last one: what was wrong with the recording; None: nothing.
    """

    index: int
    start_s: float
    end_s: float
    frames: Frames
    is_last: bool = False
    damage: str | None = None


def read_windows(path: str | Path, grid: WindowGrid, first: int = 0) -> Iterator[Window]:
    """Windows of a recording from number `first` on; one that shows no frame (a hole in the recording) is left out.

    A recording shorter than a window is one window.

    Raises:
        UnreadableClipError: nothing of it can be decoded.
    """
    stream = FrameStream(path)
    waiting: Window | None = None
    for window in _windows(stream, grid, first):
        if waiting is not None:
            yield waiting
        waiting = window
    if waiting is not None:
        yield replace(waiting, is_last=True, damage=stream.damage)


def read_window(path: str | Path, grid: WindowGrid, start_s: float, end_s: float) -> Frames:
    """The frames of one window again.

    Raises:
        UnreadableClipError: nothing of it can be decoded any more.
    """
    stream, held = FrameStream(path), []
    for time_s, frame in stream.frames(max(0.0, start_s)):
        if time_s >= end_s - _CLOSE_S:
            break
        if time_s >= start_s - _CLOSE_S:
            held.append((time_s, frame))
    return _chosen(stream, grid, held)


def _windows(stream: FrameStream, grid: WindowGrid, first: int) -> Iterator[Window]:
    held: deque[tuple[float, Any]] = deque()
    index = first
    seen_until_s = 0.0
    # One stride more than a window is held: the last window begins before its place.
    for time_s, frame in stream.frames(max(0.0, grid.span(first - 1)[0])):
        while time_s >= grid.span(index)[1] - _CLOSE_S:
            yield from _window(stream, grid, index, grid.span(index), held)
            seen_until_s = grid.span(index)[1]
            index += 1
            while held and held[0][0] < grid.span(index - 1)[0] - _CLOSE_S:
                held.popleft()
        held.append((time_s, frame))
    end_s = stream.end_s
    if end_s >= grid.span(index)[1] - stream.step_s / 2:
        yield from _window(stream, grid, index, grid.span(index), held)
    elif end_s > seen_until_s + stream.step_s / 2 or index == first:
        yield from _window(stream, grid, index, (max(0.0, end_s - grid.window_s), end_s), held)


def _window(
    stream: FrameStream, grid: WindowGrid, index: int, span: tuple[float, float], held: Sequence[tuple[float, Any]]
) -> Iterator[Window]:
    shown = [(time_s, frame) for time_s, frame in held if span[0] - _CLOSE_S <= time_s < span[1] - _CLOSE_S]
    if shown:
        yield Window(index, *span, _chosen(stream, grid, shown))


def _chosen(stream: FrameStream, grid: WindowGrid, shown: Sequence[tuple[float, Any]]) -> Frames:
    """The frames that the rule takes from those shown; sized as the first one (a stream may change its size)."""
    times_s = [time_s for time_s, _ in shown]
    motion = frames_motion(shown) if grid.sampling.needs_motion else None
    indices = grid.sampling.choose(np.array(times_s) - times_s[0], motion)
    size = (shown[0][1].width, shown[0][1].height)
    rgb = {index: to_rgb(shown[index][1], size) for index in sorted(set(indices))}
    step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else stream.step_s
    duration_s = times_s[-1] - times_s[0] + step_s
    info = ClipInfo(stream.path, len(shown), stream.fps, duration_s, *size, stream.codec)
    frames_FHWC = np.stack([rgb[index] for index in indices])
    return Frames(frames_FHWC, tuple(indices), tuple(times_s[index] for index in indices), info, "pyav")
