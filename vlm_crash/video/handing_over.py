"""Frames go from the process that decodes them to its owner, through memory that both see.

In: a frame at a time. Out: the same, for as long as the owner looks at it. Must hold: a place of the memory is written
again only when the owner has said that it is done with it, so no frame is ever another one's; few frames are there at
once, however many are chosen.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: Frames that lie there at least: one that is written, and one that is looked at. Small ones may be more, up to so many
#: bytes, so that neither end waits for the other at each.
LEAST_SLOTS, ROOM = 2, 8 * 2**20


@dataclass(frozen=True)
class Handed:
    """Where a frame lies in the memory, and where it belongs among the chosen ones."""

    offset: int
    shape: tuple[int, int, int]
    places: tuple[int, ...]


def shared_file() -> int:
    """File descriptor of memory that another process can be given, empty at first."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Giver:
    """The decoding end: a Keeper (pixels.py).

    Args:
        file: descriptor of `shared_file`.
        tell: says of a frame that it lies there.
        wait: returns when the owner is done with the frame that has been there for longest.
    """

    def __init__(self, file: int, tell: Callable[[Handed], None], wait: Callable[[], None]) -> None:
        self._file, self._tell, self._wait = file, tell, wait
        self._memory: mmap.mmap | None = None
        self._lying = self._slot = self._size = 0
        self._slots = LEAST_SLOTS
        self._shape: tuple[int, ...] = (0, 0, 3)

    def keep(self, places: Sequence[int], rgb_HWC: np.ndarray) -> None:
        size = rgb_HWC.nbytes
        if size != self._size:
            self._divide(size)
        if self._lying == self._slots:
            self._done()
        assert self._memory is not None
        self._shape, offset = rgb_HWC.shape, self._slot * size
        height, width, channels = rgb_HWC.shape
        np.frombuffer(self._memory, np.uint8, size, offset).reshape(rgb_HWC.shape)[:] = rgb_HWC
        self._tell(Handed(offset, (height, width, channels), tuple(places)))
        self._lying, self._slot = self._lying + 1, (self._slot + 1) % self._slots

    def _divide(self, size: int) -> None:
        """Make slots of that size; the memory grows where it is too small for them."""
        self.finish()
        self._size, self._slots = size, max(LEAST_SLOTS, ROOM // size)
        if self._memory is None or len(self._memory) < self._slots * size:
            os.ftruncate(self._file, self._slots * size)
            self._memory = mmap.mmap(self._file, self._slots * size)

    def finish(self) -> None:
        """Wait until the owner has seen all."""
        while self._lying:
            self._done()
        self._slot = 0

    def _done(self) -> None:
        self._wait()
        self._lying -= 1

    @property
    def frames_FHWC(self) -> np.ndarray:
        """None of them: the owner has them."""
        return np.empty((0, *self._shape), np.uint8)


class Taker:
    """The owner's end.

    Args:
        file: descriptor of `shared_file`.
    """

    def __init__(self, file: int) -> None:
        self._file = os.fdopen(file, "rb")  # it is closed once, whoever is first
        self._memory: mmap.mmap | None = None

    def frame(self, handed: Handed) -> np.ndarray:
        """[H, W, 3] uint8, until the giver is told to go on."""
        end = handed.offset + int(np.prod(handed.shape))
        if self._memory is None or len(self._memory) < end:
            number = self._file.fileno()
            self._memory = mmap.mmap(number, os.fstat(number).st_size)
        return np.frombuffer(self._memory, np.uint8, end - handed.offset, handed.offset).reshape(handed.shape)

    def close(self) -> None:
        """Give the memory back."""
        self._file.close()


class Taken:
    """The chosen frames, as they come.

    Args:
        count: most places.
        fit: what is done with each [H, W, 3] frame before it is kept; None: nothing.
    """

    def __init__(self, count: int, fit: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self._count, self._fit = count, fit
        self._frames_FHWC: np.ndarray | None = None
        self._there: set[int] = set()

    def first(self, count: int) -> np.ndarray:
        """[F, ...] frames, of which there are to be so many: a rule may choose fewer than it has places."""
        if self._frames_FHWC is None or not self._there >= set(range(count)):
            raise RuntimeError(f"{len(self._there)} frames were handed over, {count} chosen; please report it")
        return self._frames_FHWC[:count]

    def take(self, frame_HWC: np.ndarray, places: Sequence[int]) -> None:
        """Keep a copy; where frames begin anew in another size (a clip that is read again), the new ones hold."""
        kept_HWC = self._fit(frame_HWC) if self._fit is not None else frame_HWC
        if self._frames_FHWC is None or self._frames_FHWC.shape[1:] != kept_HWC.shape:
            self._frames_FHWC = np.empty((self._count, *kept_HWC.shape), np.uint8)
            self._there.clear()
        self._there.update(places)
        for place in places:
            self._frames_FHWC[place] = kept_HWC
