"""The order of the clips: a function of the seed and the epoch alone.

Enters: a dataset, a seed, which process this is. Leaves: indices. Invariants: a run that was stopped inside an epoch
goes on with the clips that the epoch still lacks, on any number of processes; every process has as many indices as the
next, and no clip counts twice: where the clips do not share out evenly, a process gets a filler, `~index`, the clip of
that index to compute with and to leave out of every sum.
"""

from collections.abc import Iterator, Sized
from typing import Any, cast

import torch
from torch.utils.data import Dataset, DistributedSampler


class SharedSampler(DistributedSampler):
    """Every clip once, the processes in turns.

    A subclass of torch's so that Lightning does not put one of its own in its place, which repeats clips.

    Args:
        dataset: what is sampled.
        num_replicas: processes of the run.
        rank: number of this one.
        seed: of the order; None: as the clips are.
        batch_size: clips per batch and process.
        resumed: (epoch, clips of it that all processes have seen before the run was stopped).
        stamped: an index is counted on through the epochs (epoch times clips, plus index), for datasets that do
            something else in each.
    """

    def __init__(
        self,
        dataset: Dataset,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int | None = None,
        batch_size: int = 1,
        resumed: tuple[int, int] = (0, 0),
        stamped: bool = False,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=seed is not None, seed=seed or 0)
        self.size = self.num_entries = len(cast(Sized, dataset))
        epoch, seen = resumed
        # A loader's workers ask for their first clips before Lightning has named the epoch.
        self.resumed = (epoch, seen) if seen < self.size else (epoch + 1, 0)
        self.epoch = self.resumed[0]
        self.clips_per_turn = num_replicas * batch_size
        self.stamped = stamped

    @property
    def kind(self) -> dict[str, Any]:
        """What the order depends on beside seed and epoch; kept in checkpoints."""
        return {"batching": "padded"}

    def generator(self) -> torch.Generator:
        """A new one for this epoch."""
        return torch.Generator().manual_seed(self.seed + self.epoch)

    def order(self) -> list[Any]:
        """All clips of this epoch, in the order in which they are seen."""
        if not self.shuffle:
            return list(range(self.size))
        return torch.randperm(self.size, generator=self.generator()).tolist()

    @staticmethod
    def filler(entry: Any) -> Any:
        """The same, to be left out of every sum."""
        return ~entry

    @property
    def num_batches(self) -> int:
        """Batches of an epoch on each process."""
        return -(-self.size // self.clips_per_turn)

    def clips_after(self, batches: int) -> int:
        """Clips of this epoch that all processes have seen after so many batches of each."""
        return min(batches * self.clips_per_turn, self.size)

    def batches_after(self, clips: int) -> int:
        """Whole batches of each process that are among the first clips of this epoch."""
        return self.num_batches if clips >= self.size else clips // self.clips_per_turn

    def entries_after(self, clips: int) -> int:
        """Entries of `order` that those batches have taken."""
        return clips // self.clips_per_turn * self.clips_per_turn

    def __iter__(self) -> Iterator[Any]:
        order = self.order()
        epoch, seen = self.resumed
        if epoch == self.epoch:
            # Whole turns: what a run with another number of clips per turn left of one is seen again.
            order = order[self.entries_after(seen) :]
        if order:
            order += [self.filler(order[-1])] * (-len(order) % self.num_replicas)
        own = order[self.rank :: self.num_replicas]
        return iter(map(self._stamp, own) if self.stamped else own)

    def _stamp(self, entry: Any) -> Any:
        if isinstance(entry, tuple):
            return tuple(map(self._stamp, entry))
        return entry + self.epoch * self.size if entry >= 0 else ~self._stamp(~entry)

    def __len__(self) -> int:
        """Indices of this process in a whole epoch, also where a part of it was seen before."""
        return -(-self.num_entries // self.num_replicas)
