"""The order of the clips: by seed and epoch alone, whole where a run was stopped."""

from torch.utils.data import Dataset

from vlm_crash.data.sampler import TrainingSampler


class Ten(Dataset):
    def __len__(self) -> int:
        return 10


def order(epoch: int = 0, **options) -> list[int]:
    sampler = TrainingSampler(Ten(), **{"seed": 0, **options})
    sampler.set_epoch(epoch)
    return list(sampler)


def test_seed_and_epoch_decide():
    assert order() == order()
    assert sorted(order()) == list(range(10))
    assert order() != order(seed=1)
    assert order() != order(epoch=1)


def test_a_resumed_epoch_has_the_rest():
    assert order(epoch=2, resumed=(2, 4)) == order(epoch=2)[4:]
    assert order(epoch=3, resumed=(2, 4)) == order(epoch=3)


def test_processes_share_the_clips():
    first, second = (order(num_replicas=2, rank=rank) for rank in range(2))
    assert len(first) == len(second) == 5
    assert sorted(first + second) == list(range(10))
