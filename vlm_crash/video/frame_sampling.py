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
    if num_video_frames < 1:
        raise ValueError(f"num_video_frames={num_video_frames}: a clip needs at least 1 frame")
    if num_segments < 1:
        raise ValueError(f"num_segments={num_segments}: ask for at least 1 frame")
    num_middles = min(num_segments, num_video_frames)
    # linspace, then truncate, as VideoChat-Flash video_utils.py:130 does: exact integer
    # division picks another frame for about 2 % of (length, segments) pairs.
    edges = np.linspace(0, num_video_frames, num_middles + 1).astype(int).tolist()
    middles = [(low + high - 1) // 2 for low, high in pairwise(edges)]
    # Upstream pads a short clip with its last frame (same file, get_frame_indices).
    return middles + [middles[-1]] * (num_segments - num_middles)
