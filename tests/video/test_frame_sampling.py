import json
from itertools import pairwise
from pathlib import Path

import pytest

from vlm_crash.video.frame_sampling import FRAME_RULES, middle_frame_indices

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
    middle = [first + index for index in FRAME_RULES["middle"](length, num_frames)]
    card = [card_first + index for index in FRAME_RULES["card"](card_length, num_frames)]
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


@pytest.mark.parametrize("rule", FRAME_RULES)
def test_indices_stay_inside_and_ascend(rule):
    for length in (1, 2, 5, 31, 257, 50400):
        for segments in (1, 2, 32, 128):
            indices = FRAME_RULES[rule](length, segments)
            assert len(indices) == segments
            assert indices == sorted(indices)
            assert indices[0] >= 0
            assert indices[-1] < length


@pytest.mark.parametrize(("length", "segments", "name"), [(0, 4, "num_video_frames"), (4, 0, "num_segments")])
@pytest.mark.parametrize("rule", FRAME_RULES)
def test_refuses_less_than_one(length, segments, name, rule):
    with pytest.raises(ValueError, match=name):
        FRAME_RULES[rule](length, segments)
