import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_crash.data.splits import SPLITS, make_splits, unite
from vlm_crash.schema import VideoSample


def clips(**counts: int) -> list[VideoSample]:
    return [
        VideoSample(f"{event}_{i}", f"{i}.mp4", Path(f"{i}.mp4"), event, None, None)
        for event, count in counts.items()
        for i in range(1, count + 1)
    ]


def where(splits: dict[str, list[str]]) -> dict[str, str]:
    return {id: split for split, ids in splits.items() for id in ids}


def test_stratified_by_event():
    splits = make_splits(clips(crash=100, nearmiss=60), {}, (0.7, 0.1, 0.2), seed=0)
    counts = {split: Counter(id.split("_")[0] for id in ids) for split, ids in splits.items()}
    assert counts == {
        "train": {"crash": 70, "nearmiss": 42},
        "val": {"crash": 10, "nearmiss": 6},
        "test": {"crash": 20, "nearmiss": 12},
    }


def test_the_order_of_the_clips_does_not_matter_and_the_seed_does():
    samples = clips(crash=30, nearmiss=20)
    first = where(make_splits(samples, {}, seed=1))
    shuffled = random.Random(0).sample(samples, len(samples))
    assert where(make_splits(shuffled, {}, seed=1)) == first
    assert where(make_splits(samples, {}, seed=2)) != first
    # Drawn, not taken in order: the first clips must not all be in train.
    assert {first[f"crash_{i}"] for i in range(1, 22)} == set(SPLITS)


def test_groups_are_not_parted():
    samples = clips(crash=40, nearmiss=40)
    groups = {sample.id: sample.video.removesuffix(".mp4")[-1] for sample in samples}  # 10 groups over both events
    of = where(make_splits(samples, groups, seed=3))
    for group in set(groups.values()):
        assert len({of[id] for id in of if groups[id] == group}) == 1
    assert set(of.values()) == set(SPLITS)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(1, 12),
    st.integers(0, 3),
)
def test_more_clips_move_no_old_clip(crash, nearmiss, more_crash, more_nearmiss, num_groups, seed):
    old = clips(crash=crash, nearmiss=nearmiss)
    new = clips(crash=crash + more_crash, nearmiss=nearmiss + more_nearmiss)
    group = random.Random(seed)
    groups = {sample.id: f"g{group.randrange(num_groups * 5)}" for sample in new}
    first = where(make_splits(old, groups, seed=seed))
    second = where(make_splits(new, groups, seed=seed, frozen=first))
    assert set(second) == {sample.id for sample in new}
    assert first.items() <= second.items()
    for label in set(groups.values()):
        assert len({second[id] for id in second if groups[id] == label}) <= 1


def test_clips_that_come_later_fill_the_fractions():
    first = where(make_splits(clips(crash=20), {}, seed=0))
    second = make_splits(clips(crash=100), {}, seed=0, frozen=first)
    assert [len(second[split]) for split in SPLITS] == [70, 10, 20]


def test_frozen_ids_that_are_gone_are_ignored():
    frozen = {"crash_1": "test", "crash_99": "val"}
    assert where(make_splits(clips(crash=2), {}, frozen=frozen))["crash_1"] == "test"


@pytest.mark.parametrize("counts", [{"a": 10}, {"a": 5, "b": 5}, {"a": 4, "b": 3, "c": 3}, {"a": 11, "b": 1}])
def test_no_split_is_empty_from_ten_clips_on(counts):
    for seed in range(20):
        assert all(make_splits(clips(**counts), {}, seed=seed).values())


def test_too_few_groups_leave_a_split_empty_and_say_so(caplog):
    samples = clips(crash=12)
    splits = make_splits(samples, {sample.id: "one" for sample in samples})
    assert [len(splits[split]) for split in SPLITS] == [12, 0, 0]
    assert "stays empty" in caplog.text


def test_few_clips_leave_a_split_empty_and_that_is_said(caplog):
    splits = make_splits(clips(crash=4), {})
    empty = " and ".join(split for split in SPLITS if not splits[split])
    assert caplog.messages == [f"no clip in {empty}, as there are so few clips (4); from 10 on, each split gets one"]


def test_a_share_of_zero_gets_nothing():
    splits = make_splits(clips(crash=50), {}, (0.8, 0.0, 0.2))
    assert [len(splits[split]) for split in SPLITS] == [40, 0, 10]


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.7, 0.2, 0.2), (1.2, -0.2, 0.0), (0, 0.5, 0.5), (float("nan"), 0, 1)]
)
def test_refuses_fractions_that_are_none(fractions):
    with pytest.raises(ValueError, match="fractions="):
        make_splits(clips(crash=3), {}, fractions)


def test_refuses_doubled_ids():
    with pytest.raises(ValueError, match="there twice: crash_1"):
        make_splits(clips(crash=1) * 2, {})


def test_unite_joins_over_several_labels():
    groups = unite([{"a": "x", "b": "x", "c": "y", "d": "z"}, {"b": "1", "c": "1", "e": "2"}])
    assert groups["a"] == groups["b"] == groups["c"]
    assert len({groups["a"], groups["d"], groups["e"]}) == 3
