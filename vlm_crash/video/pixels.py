"""Decoded frames become rows of one array: nothing but what was chosen is kept, and that once.

In: PyAV's frames. Out: [F, H, W, 3] uint8 RGB, upright.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np


class Chosen:
    """The frames at some indices, in their order; an index may be there more than once.

    Args:
        indices: what is chosen.
    """

    def __init__(self, indices: Sequence[int]) -> None:
        self._places: dict[int, list[int]] = defaultdict(list)
        for place, index in enumerate(indices):
            self._places[index].append(place)
        self._count = len(indices)
        self._size: tuple[int, int] | None = None
        self._missing = set(indices)
        self._frames_FHWC: np.ndarray | None = None

    def put(self, index: int, frame: Any) -> None:
        """Keep a frame where it is chosen. A stream may change its size midway: the first frame's holds."""
        self._size = self._size or (frame.width, frame.height)
        if index not in self._missing:
            return
        rgb_HWC = to_rgb(frame, self._size)
        if self._frames_FHWC is None:
            self._frames_FHWC = np.empty((self._count, *rgb_HWC.shape), np.uint8)
        self._frames_FHWC[self._places[index]] = rgb_HWC
        self._missing.remove(index)

    @property
    def frames_FHWC(self) -> np.ndarray:
        """[F, H, W, 3] uint8, as soon as all are there."""
        assert self._frames_FHWC is not None and not self._missing
        return self._frames_FHWC


def to_rgb(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """A frame of PyAV as [H, W, 3] uint8 RGB of that size (width, height), upright."""
    rgb_HWC = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
    # decord applies the display matrix, PyAV only reports it (degrees, counterclockwise).
    return np.rot90(rgb_HWC, round(frame.rotation / 90) % 4)
