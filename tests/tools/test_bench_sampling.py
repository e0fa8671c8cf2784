"""What the bench of the frame rules asks of a clip, on one of its clips."""

import json
from pathlib import Path

import pytest
from benches import sampling

from vlm_crash.demo.clips import write_clip
from vlm_crash.demo.scene import sample_scene
from vlm_crash.schema.records import VideoSample
from vlm_crash.video import FrameSampling


def test_which_rule_shows_the_moment(tmp_path):
    """A scene whose event passes in 0.3 s, between the last two of eight evenly spread frames and the end."""
    write_clip(sample_scene(500_000, "crash"), tmp_path / "1.mp4", (160, 90), decisive_s=0.3)
    sample = VideoSample("crash_1", "1.mp4", tmp_path / "1.mp4", "crash", None, None)
    shown = {rule: sampling._shows_it(sample, FrameSampling(8, rule), 0.3) for rule in ("middle", "event")}
    assert shown == {"middle": False, "event": True}


def test_a_score_without_an_interval_is_no_score(tmp_path: Path):
    interval = {"balanced_accuracy": [0.4, 0.6]}
    event = {"balanced_accuracy": 0.5, "intervals": interval, "n": 10}
    (tmp_path / "metrics.json").write_text(json.dumps({"event": event}))
    assert sampling._points(sampling._event(tmp_path)) == pytest.approx((50, 40, 60))
    with pytest.raises(TypeError):
        sampling._points({**event, "intervals": {"balanced_accuracy": None}})
