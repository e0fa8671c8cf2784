"""When frames are shown: seconds, by time stamps that can be wrong.

In: time stamps in ticks, the frame rate. Out: seconds from the first frame shown on. Must hold: a stamp that can be
right is kept; what stands in for one that cannot is between those of its neighbours, or by the frame rate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Frames a second that no dashcam takes: time stamps that say more are broken.
MOST_FPS = 1000.0
#: Where they are broken, the most that is believed of what else the file says, and what is taken if that is more.
_MOST_OTHER_FPS, _USUAL_FPS = 240.0, 25.0


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
