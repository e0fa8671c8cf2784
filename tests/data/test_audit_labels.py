"""Labels by themselves, and labels that files tell: constant, rare, unseen, misspelt, uneven, shortcuts."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from vlm_crash.data.audit_labels import balance_findings, edit_distance, label_counts, label_findings, spelling_variants
from vlm_crash.data.audit_shortcuts import p_better, share_interval, shortcut_findings, shortcuts
from vlm_crash.data.clip_metadata import ClipMetadata
from vlm_crash.schema import load_schema
from vlm_crash.schema.records import Annotation, VideoSample

SCHEMA = load_schema()


def sample(n: int, event: str = "nearmiss", **values: str) -> VideoSample:
    annotation = Annotation.of(SCHEMA, event, values)
    return VideoSample(f"{event}_{n}", f"{n}.mp4", Path(f"{n}.mp4"), event, annotation, None)


def test_constant_rare_unseen_and_empty_fields():
    train = [sample(n, Weather="Clear", Lanes=str(n % 2 + 1), Guilty="Yes") for n in range(20)]
    splits = {
        "train": [*train, sample(20, Guilty="Both")],
        "val": [],
        "test": [sample(30, Weather="Clear", Guilty="No")],
    }
    found = list(label_findings(label_counts(splits, SCHEMA), SCHEMA, {"nearmiss": 22}))
    said = " | ".join(f"{one.severity}: {one.sentence}" for one in found)
    assert "warning: nearmiss Weather is 'Clear' for 21 of 21 clips" in said
    assert "warning: nearmiss Road_type is Unknown for all 22 clips" in said
    assert (
        "note: 2 terms of nearmiss have fewer than 5 clips: nearmiss Guilty 'Both' (1), nearmiss Guilty 'No' (1)"
        in said
    )
    assert "warning: 1 term stand in val or test, and in no training clip: nearmiss Guilty 'No' (1)" in said
    assert "Lanes" not in said


def test_splits_that_differ():
    even = {split: [sample(n, Guilty=("Yes", "No")[n % 2]) for n in range(40)] for split in ("train", "val", "test")}
    assert list(balance_findings(label_counts(even, SCHEMA))) == []
    uneven = {**even, "test": [sample(n, Guilty="No") for n in range(40)] + [sample(1, "crash")]}
    found = list(balance_findings(label_counts(uneven, SCHEMA)))
    assert [(one.severity, one.details.get("field"), one.details.get("split")) for one in found] == [
        ("warning", None, "train"), ("warning", None, "val"), ("note", "Guilty", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Highway/Freeway", "highway freeway", True),
        ("Motorcycle", "Motorcycles", True),
        ("Passenger_vehicle", "Pasenger vehicel", True),
        ("Left_side", "Right_side", False),
        ("Dark_lighted", "Dark_unlighted", False),
        ("Signalized_intersection", "nonSignalized_intersection", False),
        ("Van", "Car", False),
        ("Lane_1", "Lane_2", False),
    ],
)
def test_spellings_of_one_term(one, other, expected):
    field = SCHEMA.field("Crash_with")
    assert bool(spelling_variants({one: 3, other: 1}, field)) is expected


def test_edit_distance_is_a_metric_on_some_words():
    words = ["", "a", "van", "vans", "navs", "truck", "turck"]
    distance = np.array([[edit_distance(a, b) for b in words] for a in words])
    assert (distance == distance.T).all()
    assert (np.diag(distance) == 0).all()
    assert distance[words.index("truck"), words.index("turck")] == 1
    assert distance[words.index("van"), words.index("navs")] == 3


def test_a_label_that_the_size_tells_is_a_shortcut_and_chance_is_none():
    rng = np.random.default_rng(0)
    n = 80
    samples = [sample(k, "crash", Guilty=("Yes", "No")[k % 2], Lanes=str(rng.integers(1, 3))) for k in range(n)]
    files = [
        ClipMetadata("x.mp4", 1000, 1280 if k % 2 else 640, 360, 25.0, float(rng.random()), "h264") for k in range(n)
    ]
    found = {(one.event, one.field): one for one in shortcuts(samples, [*files[:-1], None], {}, SCHEMA)}
    guilty, lanes, event = found["crash", "Guilty"], found["crash", "Lanes"], found["", "event"]
    assert (guilty.score, guilty.n, guilty.best[0]) == (1.0, n - 1, "frame size")
    assert (guilty.low, guilty.high) == (pytest.approx(0.025 ** (1 / (n - 1))), 1.0)  # Clopper and Pearson
    assert guilty.is_shortcut and not lanes.is_shortcut
    assert lanes.low < lanes.score < lanes.high
    assert (event.score, event.reason) == (None, "all clips have one value")
    assert found["nearmiss", "Guilty"].reason == "fewer than 20 clips have a value"
    sentences = [one.sentence for one in shortcut_findings(list(found.values()))]
    assert len(sentences) == 1
    assert "crash Guilty can be told without a look at the clip" in sentences[0]
    one_group = shortcuts(samples, files, dict.fromkeys((s.id for s in samples), "trip"), SCHEMA)
    assert {one.reason for one in one_group if one.field == "Guilty" and one.event == "crash"} == {
        "all clips are of one group"
    }


def test_the_interval_and_the_test_of_a_shortcut_know_groups():
    """Copies add nothing: eight groups of ten equal clips say what eight clips say."""
    right_N, few_N = np.arange(8) != 0, np.arange(8)
    alone_N, groups_N = np.repeat(right_N, 10), np.repeat(few_N, 10)
    none_N = np.zeros(80, dtype=bool)
    assert p_better(alone_N, none_N, groups_N) == p_better(right_N, none_N[:8], few_N) == 0.5**7
    assert p_better(alone_N, none_N, np.arange(80)) == 0.5**70
    assert share_interval(alone_N, groups_N, 0) == share_interval(right_N, few_N, 0)
    assert share_interval(alone_N, np.arange(80), 0)[0] > share_interval(right_N, few_N, 0)[0] + 0.1
    assert share_interval(~none_N, groups_N, 0) == (pytest.approx(0.025 ** (1 / 8)), 1.0)


def test_the_interval_of_many_clips_takes_the_memory_of_few():
    """Groups of as many clips and as many right ones are drawn as one number; 3.2 GB of counts without."""
    right_N = np.random.default_rng(0).random(100_000) < 0.3
    tracemalloc.start()
    try:
        low, high = share_interval(right_N, np.arange(100_000), 0)
        pairs = share_interval(right_N, np.arange(100_000) // 2, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6
    spread = 1.96 * np.sqrt(0.3 * 0.7 / 100_000)
    assert (low, high) == pytest.approx((right_N.mean() - spread, right_N.mean() + spread), abs=2e-4)
    assert pairs == pytest.approx((low, high), abs=4e-4)  # of answers that have nothing in common
    sizes_G, rights_G = np.array([1, 1, 1, 2, 2, 5]), np.array([0, 1, 1, 1, 1, 3])
    group_N = np.repeat(np.arange(6), sizes_G)
    right_N = np.concatenate([np.arange(size) < right for size, right in zip(sizes_G, rights_G, strict=True)])
    counts_RG = np.random.default_rng(1).multinomial(6, np.full(6, 1 / 6), size=20_000)
    wanted = np.quantile(counts_RG @ rights_G / (counts_RG @ sizes_G), [0.025, 0.975])
    assert share_interval(right_N, group_N, 0) == pytest.approx(wanted, abs=0.02)
