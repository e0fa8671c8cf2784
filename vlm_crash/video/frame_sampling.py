"""Which frames of a clip are looked at.

In: the number of frames that can be decoded, and how many are wanted. Out: indices, ascending. Touches no file.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


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


#: Ways to choose frames, by name.
FRAME_RULES = {"middle": middle_frame_indices, "card": card_frame_indices}


def _check(num_video_frames: int, num_segments: int) -> None:
    if num_video_frames < 1:
        raise ValueError(f"num_video_frames={num_video_frames}: a clip needs at least 1 frame")
    if num_segments < 1:
        raise ValueError(f"num_segments={num_segments}: ask for at least 1 frame")
