"""The order of the clips: by seed and epoch alone, whole where a run was stopped, shared without repeats."""

import pytest
from torch.utils.data import Dataset

from vlm_crash.data.sampler import SharedSampler


class Ten(Dataset):
    def __len__(self) -> int:
        return 10


def order(epoch: int = 0, **options) -> list[int]:
    sampler = SharedSampler(Ten(), **{"seed": 0, **options})
    sampler.set_epoch(epoch)
    return list(sampler)


def turns(world: int, batch_size: int, **options) -> list[list[int]]:
    """The clips of each turn of all processes, fillers left out."""
    shares = [order(num_replicas=world, rank=rank, batch_size=batch_size, **options) for rank in range(world)]
    batches = [[share[low : low + batch_size] for low in range(0, len(share), batch_size)] for share in shares]
    assert len({len(of_one) for of_one in batches}) == 1
    return [sorted(index for one in turn for index in one if index >= 0) for turn in zip(*batches, strict=True)]


def test_seed_and_epoch_decide():
    assert order() == order()
    assert sorted(order()) == list(range(10))
    assert order() != order(seed=1)
    assert order() != order(epoch=1)
    assert order(seed=None) == list(range(10))


def test_a_resumed_epoch_has_the_rest():
    assert order(epoch=2, resumed=(2, 4)) == order(epoch=2)[4:]
    assert order(epoch=3, resumed=(2, 4)) == order(epoch=3)
    assert len(SharedSampler(Ten(), resumed=(2, 4))) == 10


def test_the_epoch_is_known_before_it_is_set():
    """Workers take indices as soon as the loader is made."""
    assert list(SharedSampler(Ten(), seed=0, resumed=(2, 4))) == order(epoch=2)[4:]
    assert list(SharedSampler(Ten(), seed=0, resumed=(2, 10))) == order(epoch=3)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_processes_share_the_clips_evenly_and_none_twice(world):
    shares = [order(num_replicas=world, rank=rank) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(index for share in shares for index in share if index >= 0) == list(range(10))
    fillers = [index for share in shares for index in share if index < 0]
    assert len(fillers) == -10 % world
    assert all(index >= 0 for share in shares for index in share[:-1])


@pytest.mark.parametrize(("world", "batch_size"), [(1, 4), (2, 2), (4, 1)])
def test_a_turn_has_the_same_clips_on_any_number_of_processes(world, batch_size):
    assert turns(world, batch_size) == turns(1, 4)
    assert turns(world, batch_size, resumed=(0, 4)) == turns(1, 4)[1:]


def test_a_part_of_a_turn_is_seen_again():
    assert order(batch_size=4, resumed=(0, 6)) == order()[4:]
