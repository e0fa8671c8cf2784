"""When in a clip the motion changes most: a look at small grey frames, before the ones that the model sees are chosen.

In: frames in display order, and when they are shown. Out: how much each differs from the one before; the moment at
which that changes most. Must hold: one pass, none of the frames is kept; the times are those by which the frames are
chosen; in a clip that moves alike all the time no moment is likelier than another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_crash.video.container import PacketScan

#: Pixels of the grey frames: enough to see a car cross the road, few enough to cost nothing beside the decoding.
_WIDTH, _HEIGHT = 64, 36
#: Seconds on each side of a moment whose motion is compared: half of a collision of a third of a second.
_SIDE_S = 0.15
#: Of the largest motion: a change below that is the rounding of sums.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Motion:
    """Times of a clip's frames in seconds [N], and by how many grey levels each differs from the one before it [N]."""

    times_s: np.ndarray
    moved: np.ndarray

    def peak_s(self, start_s: float, end_s: float) -> float:
        """When the motion changes most in [start_s, end_s), the rest not looked at; the middle where it never does."""
        inside = (self.times_s >= start_s) & (self.times_s < end_s)
        moved = self.moved[inside]
        change = motion_change(self.times_s[inside], moved)
        if not len(moved) or change.max() <= _ROUNDING * moved.max():
            return (start_s + end_s) / 2
        return float(self.times_s[inside][int(change.argmax())])


@dataclass(frozen=True)
class Look:
    """One pass over a clip: each frame's time stamp in ticks (None: it has none), and by how much it differs [N]."""

    pts: tuple[int | None, ...]
    moved: np.ndarray

    def motion(self, scan: PacketScan) -> Motion:
        """With the times of the scan, frame by frame; without any motion where these are of other frames."""
        if len(self.moved) != len(scan.times_s):
            return Motion(scan.times_s, np.zeros(len(scan.times_s)))
        stamps = np.array([stamp or 0 for stamp in self.pts])
        # By their stamps, where these tell frames apart: so they are counted then, though some are decoded too late.
        if scan.is_timed and None not in self.pts and np.array_equal(np.sort(stamps), scan.pts):
            return Motion(scan.times_s, self.moved[np.argsort(stamps)])
        return Motion(scan.times_s, self.moved)


def look_through(frames: Iterable[Any]) -> Look:
    """Look at all PyAV frames of a clip, in display order."""
    pts: list[int | None] = []

    def shown() -> Iterator[Any]:
        for frame in frames:
            pts.append(frame.pts)
            yield frame

    moved = _moved(shown())
    return Look(tuple(pts), moved)


def frames_motion(shown: Sequence[tuple[float, Any]]) -> Motion:
    """Of (seconds, PyAV frame) pairs, at least one; times count from the first one."""
    times_s = np.array([time_s for time_s, _ in shown])
    return Motion(times_s - times_s[0], _moved(frame for _, frame in shown))


def _moved(frames: Iterable[Any]) -> np.ndarray:
    """[N] grey levels by which a frame differs from the one before it."""
    moved: list[float] = []
    before_HW: np.ndarray | None = None
    for frame in frames:
        grey_HW = frame.reformat(width=_WIDTH, height=_HEIGHT, format="gray").to_ndarray().astype(np.int16)
        moved.append(0.0 if before_HW is None else float(np.abs(grey_HW - before_HW).mean()))
        before_HW = grey_HW
    return np.array(moved)


def motion_change(times_s: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """[N] How the mean motion of the next _SIDE_S differs from that of as long before.

    The same time on both sides of every moment, at a constant rate the same number of frames, too: a mean of fewer
    frames strays further, and where the ends of a clip had such means, chance put the moment there. So the first and
    the last _SIDE_S have none, and 0. Where frames are further apart than that, one stands on each side.

    Args:
        times_s: [N] ascending. A side is _SIDE_S, rounded to whole steps of the median length.
        moved: [N] by how many grey levels a frame differs from the one before it; of the first one nobody knows.
    """
    change = np.zeros(len(times_s))
    if len(times_s) < 3:
        return change
    step_s = float(np.median(np.diff(times_s)))
    side_s = (round(_SIDE_S / step_s) * step_s if step_s > 0 else 0.0) or _SIDE_S
    # From halfway between two frames: at a constant rate no frame is nearer to a side's end than half a step.
    later = np.arange(1, len(times_s))
    halfway_s = (times_s[:-1] + times_s[1:]) / 2
    low = np.minimum(np.searchsorted(times_s, halfway_s - side_s, side="right"), later - 1)
    high = np.maximum(np.searchsorted(times_s, halfway_s + side_s), later + 1)
    whole = (low > 0) & (halfway_s - side_s >= times_s[0]) & (halfway_s + side_s <= times_s[-1] + step_s)
    low, later, high = low[whole], later[whole], high[whole]
    total = np.concatenate([[0.0], np.cumsum(moved[1:])])  # [i]: of the frames 1 to i
    after = (total[high - 1] - total[later - 1]) / (high - later)
    before = (total[later - 1] - total[low - 1]) / (later - low)
    change[later] = np.abs(after - before)
    return change
