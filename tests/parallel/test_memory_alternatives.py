"""What plan proposes: each alternative fits, needs all of its changes, and stands where its speed puts it."""

from dataclasses import replace

import pytest

from vlm_crash.parallel.memory_alternatives import BOTH, FRAMES, Alternative, alternatives, smallest, work
from vlm_crash.parallel.memory_plan import Card, Plan
from vlm_crash.parallel.memory_shapes import NAMED, Setting

TITAN = Setting(
    num_frames=64, sharers=8, compute_width=2, reduce_width=2, checkpointed=BOTH, vision_chunk=8, accumulate=4
)


def settings_of(found: list[Alternative]) -> list[set[str]]:
    return [{name for change in row.changes for name, _ in change.sets} for row in found]


def test_the_ways_out_of_titan_with_64_frames() -> None:
    plan = Plan(NAMED["8B"], TITAN, Card())
    found = alternatives(plan, world_size=8)
    assert not plan.fits and all(row.plan.fits for row in found)
    ways = settings_of(found)
    assert [next(iter(way)) for way in ways if len(way) == 1] == ["freeze", "num_frames", "cpu_offload"]
    lora, frozen, fewer, offload = found
    assert lora.plan.setting.lora_rank == 16 and lora.plan.setting.base_width == 4, "FSDPStrategy's shards are fp32"
    assert frozen.plan.setting.freeze == {"vision"}
    assert fewer.plan.setting.num_frames == 48, "as many as fit"
    assert fewer.work == pytest.approx(work(NAMED["8B"], replace(TITAN, num_frames=48)) / work(NAMED["8B"], TITAN))
    assert offload.plan.setting.cpu_offload and offload.work == 1 and offload.plan.host_gib > 10
    assert [row.work for row in found] == sorted(row.work for row in found) and lora.work < 0.6


@pytest.mark.parametrize(
    ("size", "world", "changes"),
    [
        ("1B", 4, {"word": "ddp", "reduce_width": 4, "vision_chunk": None}),
        ("1B", 2, {"checkpointed": frozenset(), "batch_size": 2, "is_padded": True, "vision_chunk": 2}),
        ("8B", 1, {}),
    ],
)  # fmt: skip
def test_no_change_is_there_for_nothing(size: str, world: int, changes: dict) -> None:
    plan = Plan(NAMED[size], replace(TITAN, sharers=world, **changes), Card())
    found = alternatives(plan, world)
    assert found and len({row.plan.setting for row in found}) == len(found)
    for row in found:
        assert row.plan.fits and 0 < row.work <= 4 / 3
        for left_out in row.changes:
            sets = [item for change in row.changes if change is not left_out for item in change.sets]
            less = replace(plan, setting=replace(plan.setting, **dict(sets)))
            assert not less.fits, (left_out.what, [change.what for change in row.changes])


def test_what_costs_time_alone_stays_what_is_learnt() -> None:
    """Attention of all frames at once does not fit; 8 at a time does, and nothing else is needed."""
    plan = Plan(NAMED["1B"], replace(TITAN, num_frames=32, vision_chunk=None, sharers=1, word="none"), Card())
    found = alternatives(plan, world_size=1)
    (same,) = (row for row in found if settings_of([row]) == [{"vision_chunk"}])
    assert same.work == 1 and same.plan.setting.vision_chunk == 8
    (fewer,) = (row for row in found if settings_of([row]) == [{"num_frames"}])
    assert fewer.plan.setting.num_frames in FRAMES and fewer.work < 1


def test_one_card_takes_adapters_without_fsdp() -> None:
    lora = alternatives(Plan(NAMED["8B"], replace(TITAN, sharers=1, num_frames=32), Card()), world_size=1)[0]
    assert (lora.plan.setting.word, lora.plan.setting.base_width) == ("plain", 2)
    assert "--trainer.strategy auto" in lora.changes[-1].what and lora.plan.peak_gib == pytest.approx(19.1, abs=0.05)


def test_nothing_helps_a_card_that_is_too_small() -> None:
    plan = Plan(NAMED["8B"], Setting(num_frames=32, word="plain"), Card(memory_gib=4.0))
    assert alternatives(plan, world_size=1) == []
    assert 4 < smallest(plan, world_size=1).peak_gib < plan.peak_gib / 10


def test_multiplications_of_a_clip() -> None:
    """By hand for 1B: 2 passes more for the backward one, 1 more where activations are computed again."""
    shape, how = NAMED["1B"], Setting(num_frames=10)
    tokens = how.num_tokens(shape)
    vision = 10 * 24 * (1025 * (4 * 1024**2 + 2 * 1024 * 4096) + 2 * 1025**2 * 1024)
    layer = 2 * 896**2 + 2 * 896 * 128 + 3 * 896 * 4864
    language = 24 * (tokens * layer + 2 * tokens**2 * 896) + how.label_tokens * 151674 * 896
    assert work(shape, how) == 3 * vision + 3 * language
    assert work(shape, replace(how, checkpointed=BOTH)) == 4 * vision + 4 * language
    assert work(shape, replace(how, freeze=frozenset({"vision"}), checkpointed=BOTH)) == vision + 4 * language
    assert work(shape, replace(how, freeze=frozenset({"language"}))) == 3 * vision + 2 * language
    adapted = replace(how, lora_rank=8, lora_towers=frozenset({"language"}))
    assert work(shape, adapted) == vision + 2 * language
