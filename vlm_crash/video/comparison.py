"""Whether decord would show the model what is in a clip.

In: a path, and how frames are chosen. Out: None, or what decord gets wrong. decord may hang or die of a clip: call it
where that costs nothing (guarded.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.reader import Frames, check_reader, read_frames

#: Grey levels by which the two may round a pixel's colours differently; of 10-bit and interlaced clips they do.
_LEVELS = 6
#: Share of a frame's values that may differ by more.
_SHARE = 0.002
_MOST_NAMED = 12


def decord_disagreements(path: str | Path, sampling: FrameSampling) -> str | None:
    """What decord would get wrong of a clip that `auto` reads; None: nothing.

    Raises:
        UnreadableClipError: `auto` cannot read it either.
        ValueError: decord is not installed.
    """
    check_reader("decord")
    right = read_frames(path, sampling)
    try:
        theirs = read_frames(path, sampling, "decord")
    except UnreadableClipError as error:
        return error.reason
    return difference(right, theirs)


def difference(right: Frames, theirs: Frames) -> str | None:
    """What is wrong with decord's frames beside the right ones; None: nothing."""
    if right.indices != theirs.indices:  # of a damaged clip: decord is told by its packets how many frames it has
        return (
            f"decord gives {theirs.info.num_frames} frames, and {right.info.num_frames} can be decoded; it repeats some"
        )
    (height, width), shape = right.frames_FHWC.shape[1:3], theirs.frames_FHWC.shape[1:3]
    if (height, width) != shape:
        return f"decord shows {shape[1]}x{shape[0]} pixels, a player {width}x{height}"
    wrong = [
        index
        for index, ours_HWC, theirs_HWC in zip(right.indices, right.frames_FHWC, theirs.frames_FHWC, strict=True)
        if (_distance(ours_HWC, theirs_HWC) > _LEVELS).mean() > _SHARE
    ]
    if not wrong:
        return None
    named = ", ".join(map(str, wrong[:_MOST_NAMED])) + (", ..." if len(wrong) > _MOST_NAMED else "")
    return f"decord gives another picture for {len(wrong)} of {len(right.indices)} frames: {named}"


def _distance(ours_HWC: np.ndarray, theirs_HWC: np.ndarray) -> np.ndarray:
    """Of each value, without a copy in a wider type."""
    return np.maximum(ours_HWC, theirs_HWC) - np.minimum(ours_HWC, theirs_HWC)
