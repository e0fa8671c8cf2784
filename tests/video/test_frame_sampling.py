import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from vlm_crash.video.frame_sampling import INDEX_RULES, FrameSampling, middle_frame_indices
from vlm_crash.video.motion import Motion

CASES = json.loads((Path(__file__).parents[1] / "parity/frame_indices.json").read_text())["cases"]

# From upstream's training reader (VideoChat-Flash video_utils.py, sample="middle"): (frames, segments, indices).
UPSTREAM = [
    (240, 8, [14, 44, 74, 104, 134, 164, 194, 224]),
    (50, 8, [2, 8, 14, 21, 27, 33, 39, 46]),
    (100, 16, [2, 8, 14, 21, 27, 33, 39, 46, 52, 58, 64, 71, 77, 83, 89, 96]),
    (101, 16, [2, 8, 14, 21, 27, 33, 40, 46, 52, 59, 65, 71, 78, 84, 90, 97]),
    (50, 50, list(range(50))),
    (50, 64, [*range(50), *[49] * 14]),
    (63, 64, [*range(63), 62]),
    (7, 8, [0, 1, 2, 3, 4, 5, 6, 6]),
    (2, 4, [0, 1, 1, 1]),
    (1, 4, [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("num_video_frames", "num_segments", "expected"), UPSTREAM)
def test_equals_upstream(num_video_frames, num_segments, expected):
    assert middle_frame_indices(num_video_frames, num_segments) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['total_frames']}-{case['num_frames']}-{case['clip']}")
def test_rules_are_upstreams(case):
    """Both rules count within a part of a clip from its first frame on; which part that is differs."""
    total, fps, num_frames = case["total_frames"], case["fps"], case["num_frames"]
    first, length = 0, total
    card_first, card_length = 0, total
    if case["clip"]:
        start, end = case["clip"]
        first, length = int(start * fps), int((min(end, total / fps - 0.1) - start) * fps)
        card_first = round(start * fps)
        card_length = min(round(end * fps), total - 1) - card_first + 1
    middle = [first + index for index in INDEX_RULES["middle"](length, num_frames)]
    card = [card_first + index for index in INDEX_RULES["card"](card_length, num_frames)]
    assert (middle, card) == (case["train_indices"], case["card_indices"])


def test_truncated_linspace_differs_from_integer_division():
    """The quirk that is kept: for about 2 % of the pairs integer division takes another frame."""
    num_pairs = num_other = 0
    for length in range(8, 400):
        for segments in (8, 16, 32):
            if segments <= length:
                edges = [length * i // segments for i in range(segments + 1)]
                exact = [(low + high - 1) // 2 for low, high in pairwise(edges)]
                num_pairs += 1
                num_other += middle_frame_indices(length, segments) != exact
    assert num_other / num_pairs < 0.05


@pytest.mark.parametrize("rule", INDEX_RULES)
def test_indices_stay_inside_and_ascend(rule):
    for length in (1, 2, 5, 31, 257, 50400):
        for segments in (1, 2, 32, 128):
            indices = INDEX_RULES[rule](length, segments)
            assert len(indices) == segments
            assert indices == sorted(indices)
            assert indices[0] >= 0
            assert indices[-1] < length


@pytest.mark.parametrize(("length", "segments", "name"), [(0, 4, "num_video_frames"), (4, 0, "num_segments")])
@pytest.mark.parametrize("rule", INDEX_RULES)
def test_refuses_less_than_one(length, segments, name, rule):
    with pytest.raises(ValueError, match=name):
        INDEX_RULES[rule](length, segments)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['total_frames']}-{case['num_frames']}-{case['clip']}")
@pytest.mark.parametrize("rounded_s", [0.0, 1e-3], ids=["exact", "milliseconds"])
def test_at_a_constant_rate_time_chooses_what_the_index_rules_do(case, rounded_s):
    """Upstream's frames, also from a container that rounds its times; a part of a clip is a window."""
    total, fps, num_frames = case["total_frames"], case["fps"], case["num_frames"]
    times_s = np.arange(total) / fps
    if rounded_s:
        times_s = np.round(times_s / rounded_s) * rounded_s
    parts = {"middle": (0, total), "card": (0, total)}
    if case["clip"]:
        start, end = case["clip"]
        parts["middle"] = (int(start * fps), int((min(end, total / fps - 0.1) - start) * fps))
        parts["card"] = (round(start * fps), min(round(end * fps), total - 1) - round(start * fps) + 1)
    for rule, golden in (("middle", "train_indices"), ("card", "card_indices")):
        first, length = parts[rule]
        window = {"start_s": (first - 0.1) / fps, "end_s": (first + length - 0.1) / fps} if case["clip"] else {}
        window = {name: max(0.0, value) for name, value in window.items()}
        assert FrameSampling(num_frames, rule, **window).choose(times_s) == case[golden]


def test_at_a_variable_rate_the_moments_are_equal_and_the_numbers_are_not():
    """3 s at 10 frames a second, then 3 s at 30: by numbers three of four frames would be of the second half."""
    times_s = np.concatenate([np.arange(30) / 10, 3 + np.arange(90) / 30])
    chosen = FrameSampling(4).choose(times_s)
    np.testing.assert_allclose(times_s[chosen], [0.75, 2.25, 3.75, 5.25], atol=0.1)
    assert FrameSampling(4).choose(times_s) != middle_frame_indices(120, 4) == [14, 44, 74, 104]


def test_a_frame_that_stays_is_shown_as_often_as_it_stands():
    times_s = np.concatenate([np.arange(10) / 10, 9 + np.arange(10) / 10])
    assert FrameSampling(5).choose(times_s) == [7, 9, 9, 9, 9]  # of 0.75, 2.75, 4.75, 6.75 and 8.75 s


def test_windows():
    times_s = np.arange(100) / 10
    assert FrameSampling(4, start_s=2, end_s=4).choose(times_s) == [22, 27, 32, 37]
    assert FrameSampling(4, start_s=8).choose(times_s) == FrameSampling(4, start_s=8, end_s=99).choose(times_s)
    assert FrameSampling(4, end_s=2).choose(times_s) == [2, 7, 12, 17]
    assert FrameSampling(4, end_s=float("inf")).choose(times_s) == FrameSampling(4).choose(times_s)
    assert FrameSampling(3, start_s=4.11, end_s=4.15).choose(times_s) == [41, 41, 41]  # shown, though it began before
    with pytest.raises(ValueError, match=r"begins at 10 s, and it ends at 10\.00 s"):
        FrameSampling(4, start_s=10).choose(times_s)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_frames": 0}, "num_frames=0: ask for at least 1 frame"),
        ({"rule": "first"}, r"frame_rule='first' is not one of \['middle', 'card'"),
        (
            {"fps": 2.0},
            "no effect with frame_rule='middle'; leave it out, or set --data.frame_rule .*--frame_rule. to fps",
        ),
        ({"min_frames": 8, "rule": "fps", "fps": 1.0}, "min_frames=8 has no effect with frame_rule='fps'"),
        ({"rule": "fps"}, "frame_rule='fps' needs frames a second, and fps is None"),
        ({"rule": "fps", "fps": 0.0}, "needs frames a second, and fps is 0"),
        ({"rule": "duration", "min_frames": 64}, r"min_frames=64 is not in \[1, 32\]"),
        ({"start_s": -1.0}, "no window from -1 to its end s"),
        ({"start_s": 2.0, "end_s": 2.0}, "no window from 2 to 2 s"),
        ({"start_s": float("nan")}, "no window from nan to its end s"),
        ({"start_s": float("inf")}, "no window from inf to its end s"),
        ({"end_s": float("nan")}, "no window from 0 to nan s"),
    ],
)
def test_settings_that_cannot_be(settings, reason):
    with pytest.raises(ValueError, match=reason):
        FrameSampling(**settings)


def test_json_and_back():
    sampling = FrameSampling(8, "fps", fps=2.0, start_s=1.5)
    assert FrameSampling.from_json(json.loads(json.dumps(sampling.to_json()))) == sampling


def moving(times_s: np.ndarray, since_s: float, until_s: float) -> Motion:
    """A picture that changes steadily, and more between two moments."""
    moved = np.where((times_s >= since_s) & (times_s < until_s), 9.0, 1.0)
    return Motion(times_s, moved)


def test_event_is_dense_around_the_largest_change_of_motion():
    times_s = np.arange(100) / 10
    chosen = FrameSampling(8, "event").choose(times_s, moving(times_s, 6.0, 6.3))
    assert len(set(chosen)) == 8
    dense = [index for index in chosen if 55 <= index <= 65]
    assert len(dense) >= 4 and set(dense) & {60, 61, 62}
    assert chosen[0] < 20 and chosen[-1] > 80  # and the rest of the clip is looked at, too
    inside = FrameSampling(8, "event", end_s=3.0).choose(times_s, moving(times_s, 6.0, 6.3))
    assert max(inside) < 30
    with pytest.raises(ValueError, match="needs the clip's motion"):
        FrameSampling(8, "event").choose(times_s)


@pytest.mark.parametrize("moment_s", [0.0, 0.1, 4.9, 9.9])
def test_event_takes_different_frames_from_any_clip(moment_s):
    for num_frames, count in ((8, 9), (8, 8), (8, 3), (32, 33), (4, 1), (16, 100)):
        times_s = np.arange(count) / 10
        chosen = FrameSampling(num_frames, "event").choose(times_s, moving(times_s, moment_s, moment_s + 0.2))
        assert len(chosen) == num_frames and chosen == sorted(chosen)
        assert chosen[0] >= 0 and chosen[-1] < count
        assert len(set(chosen)) == min(num_frames, count)


def test_frames_a_second():
    times_s = np.arange(80) / 10
    chosen = FrameSampling(32, "fps", fps=2.0).choose(times_s)
    np.testing.assert_allclose(times_s[chosen], np.arange(16) / 2 + 0.25, atol=0.051)
    assert FrameSampling(32, "fps", fps=2.0, start_s=2, end_s=4).choose(times_s) == [22, 27, 32, 37]
    assert FrameSampling(4, "fps", fps=2.0).choose(times_s) == FrameSampling(4).choose(times_s)  # too many: the most
    assert FrameSampling(32, "fps", fps=99.0).choose(times_s[:20]) == list(range(20))  # none twice
    assert FrameSampling(32, "fps", fps=0.01).choose(times_s) == [39]
    slow_s = np.concatenate([np.arange(10) / 10, [9.0]])  # stands still for 8 s
    assert FrameSampling(10, "fps", fps=1.0).choose(slow_s) == [5, *[9] * 8]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['total_frames']}-{case['fps']}-{case['mode']}")
def test_fixed_count_by_duration_is_upstreams(case):
    """Its counts are of the whole clip, from 64 to 256."""
    duration_s = case["total_frames"] / case["fps"]
    sampling = FrameSampling(256, "duration", min_frames=64)
    enough = max(64, case["total_frames"])
    assert sampling.num_frames_for(duration_s, enough) == case["train_num_frames_for_duration_min64_max256"]
    if case["mode"] == "dynamic_fps1":
        narrow = FrameSampling(case["num_frames"], "duration", min_frames=case["num_frames"])
        assert narrow.choose(np.arange(case["total_frames"]) / case["fps"]) == case["train_indices"]


def test_duration_takes_the_middles():
    times_s = np.arange(900) / 30
    assert FrameSampling(64, "duration").choose(times_s) == middle_frame_indices(900, 24)
    assert FrameSampling(4, "duration").choose(times_s) == middle_frame_indices(900, 4)
    assert FrameSampling(64, "duration", end_s=10).choose(times_s) == middle_frame_indices(300, 8)


def test_every_rule_gives_as_many_frames_as_are_asked_for():
    for rule in (*INDEX_RULES, "event"):
        for count in (1, 5, 300):
            times_s = np.arange(count) / 30
            assert len(FrameSampling(16, rule).choose(times_s, moving(times_s, 1, 2))) == 16
