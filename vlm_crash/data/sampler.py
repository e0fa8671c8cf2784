"""The order of the training clips: a function of the seed and the epoch alone.

Enters: a dataset, a seed. Leaves: indices. Invariant: a run that was stopped inside an epoch goes on with the clips
that the epoch still lacks, so that it ends with the weights of a run that was not stopped.
"""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset, DistributedSampler


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
