"""When in a clip the motion changes most: a look at small grey frames, before the ones that the model sees are chosen.

In: a path. Out: for each frame that can be decoded its time, and how much the picture's motion changed there.
Must hold: one pass, each frame decoded once, and none of them kept.
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
#: Seconds on each side of a moment whose motion is compared.
_SIDE_S = 0.25


@dataclass(frozen=True)
class Motion:
    """Times of a clip's frames in seconds [N], and the change of motion at each in grey levels [N]."""

    times_s: np.ndarray
    change: np.ndarray

    def peak_s(self, start_s: float, end_s: float) -> float:
        """When the motion changes most in [start_s, end_s); the middle of it where nothing moves."""
        inside = (self.times_s >= start_s) & (self.times_s < end_s)
        change = np.where(inside, self.change, 0.0)
        if not change.any():
            return (start_s + end_s) / 2
        return float(self.times_s[int(change.argmax())])


def clip_motion(path: str | Path, fps: float) -> Motion:
    """Look through a clip.

    Args:
        fps: its frame rate, for the times of its frames where its time stamps cannot be right.

    Raises:
        UnreadableClipError: nothing of it can be decoded.
    """
    times_s, moved = _moved(FrameStream(path).frames())
    times_s = believed_times(times_s, fps)
    return Motion(times_s, motion_change(times_s, moved))


def frames_motion(shown: Iterable[tuple[float, Any]]) -> Motion:
    """Of (seconds, PyAV frame) pairs, at least one; times count from the first one."""
    times_s, moved = _moved(shown)
    return Motion(times_s, motion_change(times_s, moved))


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
    """[N] How the mean motion of the quarter second from a frame on differs from that of the one before it.

    Args:
        times_s: [N] ascending.
        moved: [N] by how many grey levels a frame differs from the one before it; of the first one 0.
    """
    if len(times_s) < 2:
        return np.zeros(len(times_s))
    moved = np.concatenate([moved[1:2], moved[1:]])  # the first frame has none before it
    total = np.concatenate([[0.0], np.cumsum(moved)])
    here = np.arange(len(times_s))
    first = np.minimum(np.searchsorted(times_s, times_s - _SIDE_S), here)
    end = np.maximum(np.searchsorted(times_s, times_s + _SIDE_S), here + 1)
    before = (total[here] - total[first]) / np.maximum(here - first, 1)
    after = (total[end] - total[here]) / (end - here)
    return np.asarray(np.where(first < here, np.abs(after - before), 0.0))
