"""A long recording as overlapping windows, in one pass: each frame is decoded once, and only a window is held.

In: a path, how long windows are and how often one begins, how many frames each shows. Out: windows in order of time.
Must hold: a window [start, end) has the frames shown in it, and of these the ones that the frame rule takes from a clip
of that span; no moment that shows a frame is outside all windows; no window has the frames of the one before it; the
last window says so, and what was wrong with the recording.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vlm_crash.video.container import ClipInfo, UnreadableClipError
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

    def to_json(self) -> dict[str, Any]:
        """As a plain dict, for another process."""
        return {**asdict(self), "sampling": self.sampling.to_json()}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> WindowGrid:
        """The one that `to_json` wrote."""
        return cls(**{**said, "sampling": FrameSampling.from_json(said["sampling"])})


@dataclass(frozen=True)
class Window:
    """One window of a recording.

    Attributes:
        index: its number; the last one may begin before its place, so that the recording's end is seen, too.
        is_last: no window comes after it.
        damage: of the last one: what was wrong with the recording; None: nothing.
        num_moved: frames up to here whose time stamps do not say when they are shown (FrameStream).
    """

    index: int
    start_s: float
    end_s: float
    frames: Frames
    is_last: bool = False
    damage: str | None = None
    num_moved: int = 0


@dataclass(frozen=True)
class Pulse:
    """A frame was decoded that completes no window, and the reading goes on."""


@dataclass(frozen=True)
class End:
    """The recording is over: what was wrong with it (None: nothing), and frames that were moved."""

    damage: str | None
    num_moved: int


Found = Window | Pulse | End
T = TypeVar("T")


def read_windows(path: str | Path, grid: WindowGrid, first: int = 0, is_steady: bool | None = None) -> Iterator[Window]:
    """Windows of a recording from number `first` on; one that shows no frame (a hole in the recording), or those of
    the window before it and no others, is left out.

    A recording shorter than a window is one window.

    Args:
        is_steady: as in FrameStream.frames.

    Raises:
        UnreadableClipError: nothing of it can be decoded.
    """
    return whole_windows(pulsing_windows(path, grid, first, is_steady))


def pulsing_windows(path: str | Path, grid: WindowGrid, first: int, is_steady: bool | None) -> Iterator[Found]:
    """The windows of `read_windows` as they come, with a pulse for each frame beside, and the end after the last."""
    stream = FrameStream(path)
    yield from _windows(stream, grid, first, is_steady)
    yield End(stream.damage, stream.num_moved)


def whole_windows(found: Iterator[Found]) -> Iterator[Window]:
    """The windows among what is found; the last one knows that it is. Those before an error come before it."""
    waiting: Window | None = None
    try:
        for one in found:
            if isinstance(one, Window):
                if waiting is not None:
                    yield waiting
                waiting = one
            elif isinstance(one, End) and waiting is not None:
                waiting = replace(waiting, is_last=True, damage=one.damage, num_moved=one.num_moved)
    except UnreadableClipError:
        if waiting is not None:
            yield waiting
        raise
    if waiting is not None:
        yield waiting


def read_window(
    path: str | Path, grid: WindowGrid, start_s: float, end_s: float, is_steady: bool | None = None
) -> Frames:
    """The frames of one window again; `is_steady` as in FrameStream.frames.

    Raises:
        UnreadableClipError: it cannot be read any more.
    """
    return after_pulses(pulsing_window(path, grid, start_s, end_s, is_steady)).frames


def after_pulses(found: Iterator[Pulse | T]) -> T:
    """The one thing that comes after pulses, its iterator run to the end."""
    (one,) = (one for one in found if not isinstance(one, Pulse))
    return one


def pulsing_window(
    path: str | Path, grid: WindowGrid, start_s: float, end_s: float, is_steady: bool | None
) -> Iterator[Pulse | Window]:
    """The window of `read_window`, after a pulse for each frame."""
    stream, held = FrameStream(path), []
    for time_s, frame in stream.frames(max(0.0, start_s), is_steady):
        yield Pulse()
        if time_s >= end_s - _CLOSE_S:
            break
        if time_s >= start_s - _CLOSE_S:
            held.append((time_s, frame))
    if not held:
        raise UnreadableClipError(path, f"it shows nothing from {start_s:.1f} to {end_s:.1f} s any more")
    yield Window(0, start_s, end_s, _chosen(stream, grid, held))


def _windows(stream: FrameStream, grid: WindowGrid, first: int, is_steady: bool | None) -> Iterator[Found]:
    held: deque[tuple[float, Any]] = deque()
    index = first
    seen_until_s = grid.span(first - 1)[1] if first else 0.0
    # One stride more than a window is held: the last window begins before its place.
    for time_s, frame in stream.frames(max(0.0, grid.span(first - 1)[0]), is_steady):
        yield Pulse()
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
    elif end_s > seen_until_s + stream.step_s / 2:
        yield from _window(stream, grid, index, (max(0.0, end_s - grid.window_s), end_s), held)


def _window(
    stream: FrameStream, grid: WindowGrid, index: int, span: tuple[float, float], held: Sequence[tuple[float, Any]]
) -> Iterator[Window]:
    shown = _shown(held, span)
    if shown and (index == 0 or shown != _shown(held, grid.span(index - 1))):
        yield Window(index, *span, _chosen(stream, grid, shown), num_moved=stream.num_moved)


def _shown(held: Sequence[tuple[float, Any]], span: tuple[float, float]) -> list[tuple[float, Any]]:
    return [(time_s, frame) for time_s, frame in held if span[0] - _CLOSE_S <= time_s < span[1] - _CLOSE_S]


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
