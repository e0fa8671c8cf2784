"""What the bench of the frame rules asks of a clip, on some of its clips; and its score."""

import pytest
from benches import sampling

from vlm_crash.demo.clips import write_clip
from vlm_crash.demo.scene import sample_scene
from vlm_crash.schema.records import VideoSample
from vlm_crash.video import FrameSampling


@pytest.mark.parametrize("place", [None, 0.5])
def test_which_rule_shows_the_moment(tmp_path, place):
    """A scene whose event passes in 0.3 s, which eight evenly spread frames miss: at the end, or in the middle."""
    write_clip(sample_scene(500_000, "crash"), tmp_path / "1.mp4", (160, 90), decisive_s=0.3, place=place)
    sample = VideoSample("crash_1", "1.mp4", tmp_path / "1.mp4", "crash", None, None)
    at = 1.0 if place is None else place
    shown = {rule: sampling.shows_it(sample, FrameSampling(8, rule), 0.3, at) for rule in ("middle", "event")}
    assert shown == {"middle": False, "event": True}


def test_the_score_is_the_mean_of_the_events():
    answers = [("crash", "crash")] * 6 + [("crash", "nearmiss")] * 2 + [("nearmiss", "nearmiss"), ("nearmiss", None)]
    score, low, high = sampling.balanced(answers)
    assert score == pytest.approx((75 + 50) / 2) and low < score < high
    score, low, high = sampling.balanced([("crash", "crash"), ("nearmiss", "nearmiss")] * 50)
    assert (score, high) == (100, 100) and low == pytest.approx(100 * 0.025 ** (1 / 50))
