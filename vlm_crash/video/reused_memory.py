"""A clip's pixel values take the memory of the clip before, where nobody has that any more.

Enters: a shape. Leaves: a tensor of it, its values not set. Must hold: two tensors that are there at the same time
share nothing; one clip's memory is kept beside what others hold, and no more, however many are read.

Why: the system gives memory zeroed, page by page, which for the 77 MB of 32 frames costs more than all the arithmetic.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import torch
from torch import Tensor


class ReusedMemory(threading.local):
    """Memory for one tensor at a time, a thread its own."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.float32)
        self._user: weakref.ref[np.ndarray] | None = None

    def floats(self, shape: tuple[int, ...]) -> Tensor:
        """[*shape] float32, values as they happen to be."""
        is_taken = self._user is not None and self._user() is not None
        if is_taken or self._memory.shape != shape:
            # numpy asks Linux for huge pages, torch does not.
            self._memory = np.empty(shape, np.float32)
        user = self._memory.view()  # the tensor holds it, as does all that shares the tensor's memory
        self._user = weakref.ref(user)
        return torch.from_numpy(user)
