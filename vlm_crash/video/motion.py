"""When in a clip the motion changes most: a look at small grey frames, before the ones that the model sees are chosen.

In: a path. Out: for each frame that can be decoded its time, and how much it differs from the one before; the moment
at which that changes most. Must hold: one pass, each frame decoded once, and none of them kept; in a clip that moves
alike all the time no moment is likelier than another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.video.container import believed_times
from vlm_crash.video.frame_stream import FrameStream

#: Pixels of the grey frames: enough to see a car cross the road, few enough to cost nothing beside the decoding.
_WIDTH, _HEIGHT = 64, 36
#: Seconds on each side of a moment whose motion is compared: half of a collision of a third of a second.
_SIDE_S = 0.15


@dataclass(frozen=True)
class Motion:
    """Times of a clip's frames in seconds [N], and by how many grey levels each differs from the one before it [N]."""

    times_s: np.ndarray
    moved: np.ndarray

    def peak_s(self, start_s: float, end_s: float) -> float:
        """When the motion changes most in [start_s, end_s), the rest not looked at; the middle where it never does."""
        inside = (self.times_s >= start_s) & (self.times_s < end_s)
        change = motion_change(self.times_s[inside], self.moved[inside])
        if not change.any():
            return (start_s + end_s) / 2
        return float(self.times_s[inside][int(change.argmax())])


def clip_motion(path: str | Path, fps: float) -> Motion:
    """Look through a clip.

    Args:
        fps: its frame rate, for the times of its frames where its time stamps cannot be right.

    Raises:
        UnreadableClipError: nothing of it can be decoded.
    """
    times_s, moved = _moved(FrameStream(path).frames())
    return Motion(believed_times(times_s, fps), moved)


def frames_motion(shown: Iterable[tuple[float, Any]]) -> Motion:
    """Of (seconds, PyAV frame) pairs, at least one; times count from the first one."""
    return Motion(*_moved(shown))


def _moved(shown: Iterable[tuple[float, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """[N] seconds from the first frame on, and [N] grey levels by which a frame differs from the one before it."""
    times_s, moved = [], []
    before_HW: np.ndarray | None = None
    for time_s, frame in shown:
        grey_HW = frame.reformat(width=_WIDTH, height=_HEIGHT, format="gray").to_ndarray().astype(np.int16)
        times_s.append(time_s)
        moved.append(0.0 if before_HW is None else float(np.abs(grey_HW - before_HW).mean()))
        before_HW = grey_HW
    return np.array(times_s) - times_s[0], np.array(moved)


def motion_change(times_s: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """[N] How the mean motion of the next few frames differs from that of as many before.

    The same number on both sides of every moment: a mean of fewer frames strays further, and where the ends of a clip
    had such means, chance put the moment there. So the first and the last _SIDE_S have none, and 0.

    Args:
        times_s: [N] ascending; the few are as many as are shown in _SIDE_S.
        moved: [N] by how many grey levels a frame differs from the one before it; of the first one nobody knows.
    """
    change = np.zeros(len(times_s))
    if len(times_s) < 2:
        return change
    step_s = float(np.median(np.diff(times_s)))
    few = max(1, round(_SIDE_S / step_s)) if step_s > 0 else 1
    if len(times_s) < 2 * few + 1:
        return change
    total = np.concatenate([[0.0], np.cumsum(moved[1:])])
    means = (total[few:] - total[:-few]) / few  # [i]: of the frames i + 1 to i + few
    change[few + 1 : len(times_s) - few + 1] = np.abs(means[few:] - means[:-few])
    return change
