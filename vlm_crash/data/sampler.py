"""The order of the clips; in training a function of the seed and the epoch alone.

Enters: a dataset, a seed. Leaves: indices. Invariants: a run that was stopped inside an epoch goes on with the clips
that the epoch still lacks, so that it ends with the weights of a run that was not stopped; out of training every clip
is seen once.
"""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, DistributedSampler

#: The index that a process gets that has no clip to look at: Lightning passes over a process without a batch, and the
#: others would wait for it.
NO_CLIP = -1


class EachOnce(DistributedSampler):
    """Every clip once, in order; the processes of a run take turns, and one that has no clip gets NO_CLIP.

    Lightning's UnrepeatedDistributedSampler asserts that there is a clip for every process.

    Args:
        dataset: what is sampled.
        num_replicas: processes of the run.
        rank: number of this one.
    """

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.indices = list(range(rank, len(dataset), num_replicas)) or [NO_CLIP]  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class TrainingSampler(DistributedSampler):
    """Shuffles anew in each epoch; the processes of a run take turns.

    Args:
        dataset: what is sampled.
        seed: of the order.
        num_replicas: processes of the run.
        rank: number of this one.
        resumed: (epoch, clips of it that this process has seen before it was stopped).
    """

    def __init__(
        self, dataset: Dataset, seed: int, num_replicas: int = 1, rank: int = 0, resumed: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed)
        self.resumed = resumed

    def __iter__(self) -> Iterator[Any]:
        epoch, seen = self.resumed
        return iter(list(super().__iter__())[seen if self.epoch == epoch else 0 :])
