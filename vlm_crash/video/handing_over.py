"""Frames go from the process that decodes them to its owner, through memory that both see.

In: a frame at a time. Out: the same, some at once where they are small, for as long as the owner looks at them. Must
hold: a place of the memory is written again only when the owner has said that it is done with it, so no frame is ever
another one's; few frames are there at once, however many are chosen.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: Frames that lie there at least: one that is written, and one that is looked at. Small ones may be more, up to so many
#: bytes, so that neither end waits for the other at each.
LEAST_SLOTS, ROOM = 2, 8 * 2**20
#: Small frames that are handed over at once: where one processor serves both ends, each time costs it two changes.
MOST_AT_ONCE = 4


@dataclass(frozen=True)
class Handed:
    """Where frames lie in the memory, one after the other, and where each belongs among the chosen ones."""

    offset: int
    shape: tuple[int, int, int]
    places: tuple[tuple[int, ...], ...]


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
        tell: says of some frames that they lie there.
        wait: returns when the owner is done with those of them that have been there for longest.
    """

    def __init__(self, file: int, tell: Callable[[Handed], None], wait: Callable[[], None]) -> None:
        self._file, self._tell, self._wait = file, tell, wait
        self._memory: mmap.mmap | None = None
        self._slots, self._slot, self._size = LEAST_SLOTS, 0, 0
        self._shape: tuple[int, ...] = (0, 0, 3)
        self._lying = deque[int]()  # frames that the owner was told of, by the time that it was
        self._untold: list[tuple[int, ...]] = []

    def keep(self, places: Sequence[int], rgb_HWC: np.ndarray) -> None:
        if rgb_HWC.shape != self._shape:
            self._divide(rgb_HWC.shape)
        if sum(self._lying) + len(self._untold) == self._slots:
            self._done()
        assert self._memory is not None
        offset = self._slot * self._size
        np.frombuffer(self._memory, np.uint8, self._size, offset).reshape(self._shape)[:] = rgb_HWC
        self._untold.append(tuple(places))
        self._slot = (self._slot + 1) % self._slots
        if self._slot == 0 or len(self._untold) == min(MOST_AT_ONCE, self._slots // 2):
            self._hand()

    def _divide(self, shape: tuple[int, ...]) -> None:
        """Make slots for frames of that shape; the memory grows where it is too small for them."""
        self.finish()
        self._shape, self._size = shape, int(np.prod(shape))
        self._slots = max(LEAST_SLOTS, ROOM // self._size)
        if self._memory is None or len(self._memory) < self._slots * self._size:
            os.ftruncate(self._file, self._slots * self._size)
            self._memory = mmap.mmap(self._file, self._slots * self._size)

    def _hand(self) -> None:
        """Tell the owner of those that it does not know of."""
        if self._untold:
            height, width, channels = self._shape
            first = (self._slot - len(self._untold)) % self._slots
            self._tell(Handed(first * self._size, (height, width, channels), tuple(self._untold)))
            self._lying.append(len(self._untold))
            self._untold = []

    def finish(self) -> None:
        """Wait until the owner has seen all."""
        self._hand()
        while self._lying:
            self._done()
        self._slot = 0

    def _done(self) -> None:
        self._wait()
        self._lying.popleft()

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

    def frames(self, handed: Handed) -> np.ndarray:
        """[N, H, W, 3] uint8, until the giver is told to go on."""
        shape = (len(handed.places), *handed.shape)
        end = handed.offset + int(np.prod(shape))
        if self._memory is None or len(self._memory) < end:
            number = self._file.fileno()
            self._memory = mmap.mmap(number, os.fstat(number).st_size)
        return np.frombuffer(self._memory, np.uint8, end - handed.offset, handed.offset).reshape(shape)

    def close(self) -> None:
        """Give the memory back."""
        self._file.close()


class Taken:
    """The chosen frames, as they come.

    Args:
        count: most places.
        fit: what is done with some frames [N, H, W, 3] before they are kept [N, ...]; None: nothing.
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

    def take(self, frames_FHWC: np.ndarray, places: Sequence[Sequence[int]]) -> None:
        """Keep a copy; where frames begin anew in another size (a clip that is read again), the new ones hold.

        Args:
            places: of each frame.
        """
        fitted_FHWC = self._fit(frames_FHWC) if self._fit is not None else frames_FHWC
        if self._frames_FHWC is None or self._frames_FHWC.shape[1:] != fitted_FHWC.shape[1:]:
            self._frames_FHWC = np.empty((self._count, *fitted_FHWC.shape[1:]), np.uint8)
            self._there.clear()
        for kept_HWC, places_of_it in zip(fitted_FHWC, places, strict=True):
            self._there.update(places_of_it)
            for place in places_of_it:
                self._frames_FHWC[place] = kept_HWC
