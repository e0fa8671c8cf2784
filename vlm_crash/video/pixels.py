"""Decoded frames become rows of one array: nothing but what was chosen is kept, and that once.

In: PyAV's frames. Out: [F, H, W, 3] uint8 RGB, as a player shows them: upright, not mirrored,
with square pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type

#: A header that promises wider or narrower pixels is broken.
_MAX_SAMPLE_ASPECT = 4.0


class Keeper(Protocol):
    """Where chosen frames go; each may come again, and the last one holds."""

    def keep(self, places: Sequence[int], rgb_HWC: np.ndarray) -> None:
        """Put a frame at these places; it is overwritten after the call."""

    @property
    def frames_FHWC(self) -> np.ndarray:
        """[F, H, W, 3] uint8, as soon as all are there."""


class _Array:
    """Keeps the frames in this process.

    Args:
        count: of places.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._frames_FHWC: np.ndarray | None = None

    def keep(self, places: Sequence[int], rgb_HWC: np.ndarray) -> None:
        if self._frames_FHWC is None:
            self._frames_FHWC = np.empty((self._count, *rgb_HWC.shape), np.uint8)
        for place in places:
            self._frames_FHWC[place] = rgb_HWC

    @property
    def frames_FHWC(self) -> np.ndarray:
        assert self._frames_FHWC is not None
        return self._frames_FHWC


_keeper: Keeper | None = None


@contextmanager
def kept_by(keeper: Keeper) -> Iterator[None]:
    """Chosen frames go there meanwhile, and not into an array of this process."""
    global _keeper
    _keeper = keeper
    try:
        yield
    finally:
        _keeper = None


class Chosen:
    """The frames at some indices, in their order; an index may be there more than once.

    Args:
        indices: what is chosen.
        sample_aspect: width of a stored pixel by its height.
    """

    def __init__(self, indices: Sequence[int], sample_aspect: float = 1.0) -> None:
        self._places: dict[int, list[int]] = defaultdict(list)
        for place, index in enumerate(indices):
            self._places[index].append(place)
        self._keeper: Keeper = _keeper or _Array(len(indices))
        self._sample_aspect = sample_aspect
        self._size: tuple[int, int] | None = None
        self._mirrored: bool | None = None
        self._missing = set(indices)

    def put(self, index: int, frame: Any) -> None:
        """Keep a frame where it is chosen. Size and mirror are the first frame's: a stream may change midway."""
        self._size = self._size or shown_size(frame.width, frame.height, self._sample_aspect)
        if index not in self._missing:
            return
        self._mirrored = is_mirrored(frame) if self._mirrored is None else self._mirrored
        self._keeper.keep(self._places[index], to_rgb(frame, self._size, self._mirrored))
        self._missing.remove(index)

    @property
    def is_complete(self) -> bool:
        """Whether all are there."""
        return not self._missing

    @property
    def frames_FHWC(self) -> np.ndarray:
        """[F, H, W, 3] uint8, as soon as all are there."""
        assert self.is_complete
        return self._keeper.frames_FHWC


def shown_size(width: int, height: int, sample_aspect: float) -> tuple[int, int]:
    """Width and height with square pixels; one of them grows, so that no stored pixel is lost.

    >>> shown_size(640, 360, 4 / 3), shown_size(720, 480, 8 / 9), shown_size(640, 360, 0.001)
    ((853, 360), (720, 540), (640, 360))
    """
    if sample_aspect == 1 or not 1 / _MAX_SAMPLE_ASPECT <= sample_aspect <= _MAX_SAMPLE_ASPECT:
        return width, height
    return (round(width * sample_aspect), height) if sample_aspect > 1 else (width, round(height / sample_aspect))


def to_rgb(frame: Any, size: tuple[int, int], mirrored: bool | None = None) -> np.ndarray:
    """A frame of PyAV as [H, W, 3] uint8 RGB of that size (width, height) before it is turned upright.

    `mirrored` is what `is_mirrored` says; None: it is asked.

    What needs no resizing has the pixels that decord gives, bit for bit (swscale's unscaled converters). The array may
    be a view of the frame's memory.
    """
    is_resized = (frame.width, frame.height) != size
    how = "BICUBIC" if is_resized else None  # swscale's own threads would come on top of every worker
    rgb = frame.reformat(width=size[0], height=size[1], format="rgb24", interpolation=how, threads=1)
    plane = rgb.planes[0]
    rows_HL = np.frombuffer(plane, np.uint8).reshape(size[1], plane.line_size)
    rgb_HWC = rows_HL[:, : size[0] * 3].reshape(size[1], size[0], 3)
    # The display matrix: PyAV only reports its turn (degrees, counterclockwise), by the matrix's first row, which
    # turning upside down leaves as it is.
    if is_mirrored(frame) if mirrored is None else mirrored:
        rgb_HWC = rgb_HWC[::-1]
    return np.rot90(rgb_HWC, round(frame.rotation / 90) % 4)


def is_mirrored(frame: Any) -> bool:
    """Whether the display matrix exchanges left and right (or up and down) beside turning.

    `frame.side_data` is not asked: with PyAV 18 a frame keeps what it answers, which holds the frame, until Python's
    collector comes, which does not know how much memory that is.
    """
    matrix = SideDataContainer(frame).get(Type.DISPLAYMATRIX)  # type: ignore[call-arg]  # its stub says none
    if matrix is None:
        return False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return bool(a * d < b * c)
