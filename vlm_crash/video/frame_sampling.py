"""Which frames of a clip are looked at.

In: the times of the frames that can be decoded, and a rule. Out: indices of these frames, ascending. Touches no file.
Must hold: frames are chosen by when they are shown; at a constant frame rate that is what the index rules below take,
so it is what upstream's code takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from vlm_crash.video.motion import Motion

#: Seconds; times are floats: 0.1 + 0.2 is not a later moment than 0.3.
_CLOSE_S = 1e-6


class EmptyWindowError(ValueError):
    """The window lies behind the end of the clip."""


def middle_frame_indices(num_video_frames: int, num_segments: int) -> list[int]:
    """Middle frame of each of `num_segments` equal segments; a shorter clip repeats its last frame.

    >>> middle_frame_indices(num_video_frames=8, num_segments=4)
    [0, 2, 4, 6]
    >>> middle_frame_indices(num_video_frames=3, num_segments=5)
    [0, 1, 2, 2, 2]

    Raises:
        ValueError: either number is below 1.
    """
    _check(num_video_frames, num_segments)
    num_middles = min(num_segments, num_video_frames)
    # linspace, then truncate, as VideoChat-Flash video_utils.py:130 does: exact integer
    # division picks another frame for about 2 % of (length, segments) pairs.
    edges = np.linspace(0, num_video_frames, num_middles + 1).astype(int).tolist()
    middles = [(low + high - 1) // 2 for low, high in pairwise(edges)]
    # Upstream pads a short clip with its last frame (same file, get_frame_indices).
    return middles + [middles[-1]] * (num_segments - num_middles)


def card_frame_indices(num_video_frames: int, num_segments: int) -> list[int]:
    """A frame of each of `num_segments` equal segments, as the model card of InternVideo2_5_Chat_8B takes them.

    >>> card_frame_indices(num_video_frames=8, num_segments=4)
    [0, 2, 4, 5]
    >>> card_frame_indices(num_video_frames=3, num_segments=5)
    [0, 0, 1, 1, 2]

    Raises:
        ValueError: either number is below 1.
    """
    _check(num_video_frames, num_segments)
    # get_index of the model card: half a segment in, plus whole segments rounded half to even, then truncated. The last
    # frame counts as the end and not as a part of the last segment; a short clip repeats frames by rounding.
    size = (num_video_frames - 1) / num_segments
    return [int(size / 2 + round(size * i)) for i in range(num_segments)]


#: Rules by the frames' numbers, by name.
INDEX_RULES = {"middle": middle_frame_indices, "card": card_frame_indices}
#: Ways to choose frames, by name.
FRAME_RULES = (*INDEX_RULES, "fps", "duration", "event")
#: The settings that act under one rule alone.
ONLY_UNDER = {"fps": "fps", "min_frames": "duration"}
#: Frames that `duration` takes or leaves together, one a second (`local_num_frames` of VideoChat-Flash's reader).
GROUP = 8
#: Of the frames of `event`: how many are taken around the moment, and within how many seconds.
EVENT_SHARE, EVENT_SPAN_S = 0.5, 1.0


@dataclass(frozen=True)
class FrameSampling:
    """How the frames of a clip are chosen: one object for training, validation and prediction.

    Args:
        num_frames: frames of a clip; of `fps` and `duration` the most.
        rule: which ones, one of FRAME_RULES.
        fps: frames a second, of the rule `fps`, which needs it.
        min_frames: fewest frames of the rule `duration`, as long as the clip has them; None: GROUP.
        start_s, end_s: only what is shown in [start_s, end_s) counts, in seconds from the first frame on; None: from
            the first frame, to the last (end_s may be infinite, too).

    >>> FrameSampling(4).choose(np.arange(8) / 25)
    [0, 2, 4, 6]

    Raises:
        ValueError: a setting cannot be, or has no effect under the rule.
    """

    num_frames: int = 32
    rule: str = "middle"
    fps: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    min_frames: int | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"num_frames={self.num_frames}: ask for at least 1 frame (8, 16 or 32, say)")
        if self.rule not in FRAME_RULES:
            raise ValueError(f"frame_rule={self.rule!r} is not one of {list(FRAME_RULES)}; take one of them")
        for name, rule in ONLY_UNDER.items():
            if getattr(self, name) is not None and self.rule != rule:
                raise ValueError(
                    f"{name}={getattr(self, name):g} has no effect with frame_rule={self.rule!r}; leave it out, or set "
                    f"--data.frame_rule (of `frames`: --frame_rule) to {rule}"
                )
        if self.rule == "fps" and not (self.fps is not None and 0 < self.fps < math.inf):
            raise ValueError(
                f"frame_rule='fps' needs frames a second, and fps is {self.fps}; set --data.frames.fps (of `frames`: "
                "--fps) to 2, say"
            )
        if self.min_frames is not None and not 1 <= self.min_frames <= self.num_frames:
            raise ValueError(
                f"min_frames={self.min_frames} is not in [1, {self.num_frames}] (the last is num_frames); raise "
                "num_frames, or lower min_frames"
            )
        start_s = self.start_s or 0.0
        if not 0 <= start_s < math.inf or (self.end_s is not None and not self.end_s > start_s):  # nan is neither
            end = "its end" if self.end_s is None else f"{self.end_s:g}"
            raise ValueError(
                f"there is no window from {start_s:g} to {end} s; it begins at 0 or later, and ends after that"
            )

    def seen_s(self, duration_s: float) -> float:
        """Seconds of a clip of that duration that lie in the window."""
        return max(0.0, min(duration_s, math.inf if self.end_s is None else self.end_s) - (self.start_s or 0.0))

    @property
    def has_window(self) -> bool:
        """Whether it leaves out a part of a clip."""
        return bool(self.start_s) or self.end_s is not None

    @property
    def needs_motion(self) -> bool:
        """Whether the clip has to be looked through first."""
        return self.rule == "event"

    def choose(self, times_s: np.ndarray, motion: Motion | None = None) -> list[int]:
        """Indices of the chosen frames, ascending; a clip with fewer frames repeats some (`fps` takes each once).

        Args:
            times_s: [N] when each frame that can be decoded is first shown, ascending, from 0 on.
            motion: of the clip, where the rule needs it.

        Raises:
            EmptyWindowError: the clip ends before the window begins.
            ValueError: there are no frames, or no motion although the rule needs it.
        """
        first, shown_s = self._window(np.asarray(times_s, dtype=float))
        return [first + number for number in self._chosen(shown_s, motion)]

    def _chosen(self, shown_s: np.ndarray, motion: Motion | None) -> list[int]:
        """Numbers among the frames of the window."""
        if self.needs_motion:
            if motion is None:
                raise ValueError(f"frame_rule={self.rule!r} needs the clip's motion; give it")
            if len(shown_s) > self.num_frames:
                return around(shown_s, motion.peak_s(shown_s[0], shown_s[-1] + _step_s(shown_s)), self.num_frames)
        duration_s = float(shown_s[-1] - shown_s[0]) + _step_s(shown_s)
        if self.rule == "fps":
            return self._by_rate(shown_s, duration_s)
        count = self.num_frames_for(duration_s, len(shown_s)) if self.rule == "duration" else self.num_frames
        numbers = INDEX_RULES.get(self.rule, middle_frame_indices)(len(shown_s), count)
        # Where there are no more frames than are asked for, every one is shown.
        return _shown_at(shown_s, numbers) if len(shown_s) > count else numbers

    def num_frames_for(self, duration_s: float, num_video_frames: int) -> int:
        """Frames that the rule `duration` takes: one a second in whole groups, at least min_frames, at most num_frames.

        As `dynamic_fps1` of VideoChat-Flash's training reader has it (xtuner-train_internvideo2_5, video_utils.py,
        get_frame_indices); InternVideo2_5_Chat_8B's model card has the same with groups of 4, from 128 to 512.

        >>> FrameSampling(256, "duration", min_frames=64).num_frames_for(300, 9000)
        256
        >>> FrameSampling(256, "duration").num_frames_for(42.5, 1275)
        40
        """
        least = min(GROUP, self.num_frames) if self.min_frames is None else self.min_frames
        if least > num_video_frames:
            least = num_video_frames // GROUP * GROUP
        by_length = GROUP * max(1, int((duration_s + _CLOSE_S) // GROUP))
        return max(least, min(by_length, self.num_frames))

    def _by_rate(self, shown_s: np.ndarray, duration_s: float) -> list[int]:
        """The frame on show in the middle of each 1/fps seconds; too many: of each of num_frames equal parts."""
        assert self.fps is not None
        count = int(duration_s * self.fps + 0.5 + _CLOSE_S)
        if count < 2:  # a rate too low for a clip so short
            return _shown_at(shown_s, middle_frame_indices(len(shown_s), 1))
        if count >= len(shown_s) and self.num_frames >= len(shown_s):
            return list(range(len(shown_s)))
        if count > self.num_frames:
            return _shown_at(shown_s, middle_frame_indices(len(shown_s), self.num_frames))
        moments_s = shown_s[0] + np.minimum((np.arange(count) + 0.5) / self.fps, duration_s)
        found: list[int] = (np.searchsorted(shown_s, moments_s + _CLOSE_S, side="right") - 1).tolist()
        return found

    def to_json(self) -> dict[str, Any]:
        """As a plain dict, for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> FrameSampling:
        """The one that `to_json` wrote; keys that it does not know are an error (TypeError)."""
        return cls(**said)

    def _window(self, times_s: np.ndarray) -> tuple[int, np.ndarray]:
        """The window's first frame by its number, and the times of its frames."""
        if len(times_s) < 1:
            raise ValueError("a clip needs at least 1 frame")
        first, end = 0, len(times_s)
        if self.start_s is not None:
            last_s = float(times_s[-1]) + _step_s(times_s)
            if self.start_s >= last_s - _CLOSE_S:
                raise EmptyWindowError(f"the window begins at {self.start_s:g} s, and it ends at {last_s:.2f} s")
            first = int(np.searchsorted(times_s, self.start_s - _CLOSE_S))
        if self.end_s is not None:
            end = int(np.searchsorted(times_s, self.end_s - _CLOSE_S))
        if first >= end:  # no frame begins in it: the one that is on show then
            first = max(0, end - 1)
            end = first + 1
        return first, times_s[first:end]


def _step_s(times_s: np.ndarray) -> float:
    """Seconds that a frame is on show; of the last one nobody says."""
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0


def _shown_at(times_s: np.ndarray, numbers: list[int]) -> list[int]:
    """Frames of a constant rate, by their numbers -> the frames on show when the middles of these would be.

    The constant rate has as many frames in the same time. Where the clip has it, nothing changes, even if its times are
    off by up to half a frame (containers round them).
    """
    step_s = (times_s[-1] - times_s[0] + _step_s(times_s)) / len(times_s)
    moments_s = times_s[0] + (np.array(numbers) + 0.5) * step_s
    found: list[int] = (np.searchsorted(times_s, moments_s, side="right") - 1).tolist()
    return found


def around(times_s: np.ndarray, moment_s: float, num_frames: int) -> list[int]:
    """Different frames: their density is EVENT_SHARE within EVENT_SPAN_S around the moment, and the rest over all."""
    start_s, end_s = float(times_s[0]), float(times_s[-1]) + _step_s(times_s)
    span_s = min(EVENT_SPAN_S, end_s - start_s)
    dense_s = min(max(moment_s - span_s / 2, start_s), end_s - span_s)
    edges_s = np.array([start_s, dense_s, dense_s + span_s, end_s])
    sparse = (1 - EVENT_SHARE) * (edges_s - start_s) / (end_s - start_s)
    dense = EVENT_SHARE * np.array([0.0, 0.0, 1.0, 1.0])
    # The middle of each of num_frames parts of equal weight, and the frame on show then.
    moments_s = np.interp((np.arange(num_frames) + 0.5) / num_frames, sparse + dense, edges_s)
    numbers = (np.searchsorted(times_s, moments_s, side="right") - 1).tolist()
    return _all_different(numbers, len(times_s))


def _all_different(numbers: list[int], count: int) -> list[int]:
    """Ascending numbers below `count`, each moved up, or down from the end, by as little as makes them different."""
    for place in range(1, len(numbers)):
        numbers[place] = max(numbers[place], numbers[place - 1] + 1)
    limit = count
    for place in reversed(range(len(numbers))):
        limit = numbers[place] = min(numbers[place], limit - 1)
    return numbers


def _check(num_video_frames: int, num_segments: int) -> None:
    if num_video_frames < 1:
        raise ValueError(f"num_video_frames={num_video_frames}: a clip needs at least 1 frame")
    if num_segments < 1:
        raise ValueError(f"num_segments={num_segments}: ask for at least 1 frame")
