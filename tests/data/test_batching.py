"""Grouped and packed epochs: every clip once, shared evenly, gone on with where a run was stopped."""

import random
from itertools import pairwise
from typing import Any

import pytest

from vlm_crash.data.batching import GroupedSampler, PackedSampler, check_batching, train_sampler
from vlm_crash.data.sampler import SharedSampler

DRAW = random.Random(1)
LENGTHS = [DRAW.randint(100, 1000) for _ in range(203)]
PACK = 2500


def make(kind: str, epoch: int = 0, **options: Any) -> Any:
    extra = {"turn": options.pop("turn", None)} if kind == "grouped" else {"pack_tokens": PACK}
    maker = GroupedSampler if kind == "grouped" else PackedSampler
    sampler = maker(LENGTHS, **extra, **{"seed": 0, **options})
    sampler.set_epoch(epoch)
    return sampler


def batches(kind: str, world: int, batch_size: int = 1, **options: Any) -> list[list[list[int]]]:
    """Per process, the clips of each batch (fillers below 0)."""
    found = []
    for rank in range(world):
        share = list(make(kind, num_replicas=world, rank=rank, batch_size=batch_size, **options))
        if kind == "packed":
            found.append([list(pack) for pack in share])
        else:
            found.append([share[low : low + batch_size] for low in range(0, len(share), batch_size)])
    return found


def seen(shares: list[list[list[int]]], turns: int | None = None) -> list[int]:
    return sorted(index for share in shares for batch in share[:turns] for index in batch if index >= 0)


@pytest.mark.parametrize("kind", ["grouped", "packed"])
def test_seed_and_epoch_decide(kind):
    assert list(make(kind)) == list(make(kind))
    assert list(make(kind)) != list(make(kind, seed=1))
    assert list(make(kind)) != list(make(kind, epoch=1))


@pytest.mark.parametrize("kind", ["grouped", "packed"])
@pytest.mark.parametrize(("world", "batch_size"), [(1, 4), (2, 2), (3, 4), (4, 1), (1, 300)])
def test_every_clip_once_and_as_many_batches_everywhere(kind, world, batch_size):
    for epoch in range(3):
        shares = batches(kind, world, batch_size, epoch=epoch)
        assert seen(shares) == list(range(len(LENGTHS)))
        sampler = make(kind, num_replicas=world, batch_size=batch_size)
        assert {len(share) for share in shares} == {sampler.num_batches}
        fillers = [(rank, turn) for rank, share in enumerate(shares) for turn, one in enumerate(share) if min(one) < 0]
        assert all(turn == sampler.num_batches - 1 for _, turn in fillers)


def test_groups_are_of_similar_length_and_shuffled():
    """Of eight random clips the longest is 700 tokens longer than the shortest, on average."""
    (share,) = batches("grouped", 1, 8)
    spreads = [max(LENGTHS[i] for i in one) - min(LENGTHS[i] for i in one) for one in share]
    assert sum(spreads) / len(spreads) < 150
    means = [sum(LENGTHS[i] for i in one) / len(one) for one in share]
    assert 5 < sum(left < right for left, right in pairwise(means)) < len(means) - 5, "neither rises nor falls"
    first, second = ({frozenset(one) for one in batches("grouped", 1, 8, epoch=epoch)[0]} for epoch in (0, 1))
    assert len(first & second) < 5


def test_the_work_of_a_turn_is_shared_evenly():
    """How many times the tokens of the least has the process that has most, on average over turns."""

    def unevenness(shares: Any) -> float:
        turns = list(zip(*shares, strict=True))[:-1]
        loads = [[sum(LENGTHS[index] for index in batch) for batch in turn] for turn in turns]
        return sum(max(of_turn) / min(of_turn) for of_turn in loads) / len(loads)

    samplers = [SharedSampler(LENGTHS, 4, rank, seed=0, batch_size=2) for rank in range(4)]
    orders = [list(sampler) for sampler in samplers]
    padded = [[order[low : low + 2] for low in range(0, len(order), 2)] for order in orders]
    assert unevenness(padded) > 2
    assert unevenness(batches("grouped", 4, 2)) < 1.2
    assert unevenness(batches("packed", 4)) < 1.2


def rest(kind: str, place: dict[str, Any], world: int, batch_size: int, epoch: int = 2) -> list[list[list[int]]]:
    options = {"resumed": (place["epoch"], place["clips"]), "epoch": epoch}
    if kind == "grouped":
        options["turn"] = place["kind"]["turn"]
    return batches(kind, world, batch_size, **options)


def place_after(kind: str, turns: int, world: int, batch_size: int) -> dict[str, Any]:
    sampler = make(kind, epoch=2, num_replicas=world, batch_size=batch_size)
    return {"epoch": 2, "clips": sampler.clips_after(turns), "kind": sampler.kind}


@pytest.mark.parametrize("kind", ["grouped", "packed"])
def test_a_stopped_epoch_goes_on(kind):
    whole = batches(kind, 2, 2, epoch=2)
    place = place_after(kind, 7, 2, 2)
    assert place["clips"] == len(seen(whole, 7))
    assert rest(kind, place, 2, 2) == [share[7:] for share in whole]
    assert make(kind, epoch=2, num_replicas=2, batch_size=2).batches_after(place["clips"]) == 7
    # The next epoch is that of a run that was not stopped.
    assert rest(kind, place, 2, 2, epoch=3) == batches(kind, 2, 2, epoch=3)


@pytest.mark.parametrize("kind", ["grouped", "packed"])
@pytest.mark.parametrize(("world", "batch_size"), [(1, 8), (4, 2), (1, 4), (2, 1)])
def test_another_number_of_processes_has_the_rest(kind, world, batch_size):
    """Two processes with four clips each have taken eight turns."""
    whole = batches(kind, 2, 4, epoch=2)
    done = set(seen(whole, 8))
    shares = rest(kind, place_after(kind, 8, 2, 4), world, batch_size)
    assert len({len(share) for share in shares}) == 1
    assert seen(shares) == sorted(set(range(len(LENGTHS))) - done)


def test_a_run_that_went_on_says_where_its_clips_stand_as_before():
    """Grouped by eights; stopped again after it went on with fours."""
    again = make("grouped", epoch=2, batch_size=4, resumed=(2, 64), turn=8)
    assert again.kind == {"batching": "grouped", "turn": 8}
    again.set_epoch(3)
    assert again.kind["turn"] == 4


def test_other_batches_inside_an_epoch_are_refused():
    options = {"seed": 0, "resumed": (1, 40)}
    before = make("packed").kind
    assert isinstance(train_sampler("packed", LENGTHS, PACK, before, options), PackedSampler)
    with pytest.raises(ValueError, match="pack_tokens 2500; give this to go on"):
        train_sampler("packed", LENGTHS, PACK + 1, before, options)
    with pytest.raises(ValueError, match="inside an epoch of padded batches"):
        train_sampler("grouped", LENGTHS, 0, {"batching": "padded"}, options)
    train_sampler("grouped", LENGTHS, 0, before, {"seed": 0, "resumed": (1, len(LENGTHS))})  # its epoch was over


def test_what_cannot_be_is_refused():
    from pathlib import Path

    from vlm_crash.schema.records import VideoSample

    clips = [VideoSample(str(n), f"{n}.mp4", Path(f"{n}.mp4"), "crash", None, None) for n in range(3)]
    with pytest.raises(
        ValueError, match=r"1\.mp4 takes up to 500 tokens, and a pack holds 400; set --data.pack_tokens"
    ):
        check_batching("packed", clips, [100, 500, 300], (4, 400))
    with pytest.raises(ValueError, match="no two clips fit into a pack of 500 tokens"):
        check_batching("packed", clips, [300, 500, 300], (1, 500))
    with pytest.raises(ValueError, match="nothing to group"):
        check_batching("grouped", clips, [300, 500, 300], (1, 0))
    check_batching("grouped", clips, [300, 500, 300], (2, 0))
