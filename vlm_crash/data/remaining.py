"""The clips that are left to predict, in batches, the processes in turns.

Enters: which clips are left, which process this is. Leaves: lists of indices, a batch each. Must hold: every clip that
is left is in one batch of one process; all processes have as many batches, the last of them filled up by `~index`, the
clip of that index to leave out (Lightning's own sampler repeats some to be even).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler


class Remaining(DistributedSampler):
    """Batches of what is left.

    A subclass of torch's so that Lightning does not put one of its own in its place. Batches, not clips, come out of
    it, as Lightning keeps a list of all indices that a batch sampler of prediction gives.

    Args:
        left: indices of the clips that are left, in their order.
        batch_size: clips per batch and process.
        num_replicas: processes of the run.
        rank: number of this one.
    """

    def __init__(self, left: np.ndarray, batch_size: int = 1, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(left, num_replicas, rank, shuffle=False)  # type: ignore[arg-type]
        self.left = left
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Any]:
        share = self.left[self.rank :: self.num_replicas]
        fill = [~int(self.left[-1])] * (self._size - len(share)) if len(self.left) else []
        for low in range(0, self._size, self.batch_size):
            batch = share[low : low + self.batch_size].tolist()
            yield batch + (fill if low + self.batch_size >= self._size else [])

    @property
    def _size(self) -> int:
        """Clips of this process, filled up."""
        return -(-len(self.left) // self.num_replicas)

    def __len__(self) -> int:
        """Batches of this process."""
        return -(-self._size // self.batch_size)
