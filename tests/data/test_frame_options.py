"""What is given, what a folder remembers, and the one rule that comes of it."""

from pathlib import Path

import pytest
import yaml

from vlm_crash.data.frame_options import DEFAULT_NUM_FRAMES, UNSET, FrameOptions, sampling_of, to_remember
from vlm_crash.video.frame_sampling import FrameSampling

FPS = {"num_frames": 16, "rule": "fps", "fps": 2.0, "start_s": 1.0, "end_s": 3.0}


def test_nothing_said():
    assert sampling_of(None, None, UNSET, {}) == FrameSampling(DEFAULT_NUM_FRAMES)
    # Folders of before there were other settings, and those of others.
    assert sampling_of(None, None, UNSET, {"num_frames": 8, "rule": None}) == FrameSampling(8)


def test_the_shipped_configs():
    """One leaves it to the folder; the other is how the old scripts used every checkpoint."""
    folder = Path(__file__).parents[2] / "configs"
    names = ("predict.yaml", "predict_legacy.yaml")
    plain, legacy = (yaml.safe_load((folder / name).read_text())["data"]["num_frames"] for name in names)
    assert sampling_of(plain, None, UNSET, {"num_frames": 8}).num_frames == 8
    assert sampling_of(plain, None, UNSET, {}).num_frames == 32
    assert sampling_of(legacy, None, UNSET, {"num_frames": 8}).num_frames == 32


def test_what_is_remembered_holds_until_something_else_is_given():
    assert sampling_of(None, None, UNSET, FPS) == FrameSampling(**FPS)
    assert sampling_of(8, None, FrameOptions(fps=4.0), FPS) == FrameSampling(**{**FPS, "num_frames": 8, "fps": 4.0})
    assert sampling_of(None, "fps", UNSET, FPS) == FrameSampling(**FPS)
    other = sampling_of(None, "event", UNSET, FPS)
    assert other == FrameSampling(16, "event", start_s=1.0, end_s=3.0)  # the rate is the other rule's


def test_a_window_can_be_taken_back():
    whole = sampling_of(None, None, FrameOptions(start_s=0.0, end_s=float("inf")), FPS)
    assert not whole.has_window and whole.fps == 2.0


def test_what_has_no_effect_is_refused():
    with pytest.raises(ValueError, match="fps=2 has no effect with frame_rule='middle'"):
        sampling_of(None, "middle", FrameOptions(fps=2.0), {})
    with pytest.raises(ValueError, match="min_frames=4 has no effect with frame_rule='fps'"):
        sampling_of(None, None, FrameOptions(min_frames=4), FPS)
    with pytest.raises(ValueError, match=r"min_frames=64 is not in \[1, 32\].*; raise num_frames, or lower min_frames"):
        sampling_of(32, "duration", FrameOptions(min_frames=64), {})


def test_fewer_frames_than_the_fewest_of_the_folder():
    remembered = {"num_frames": 64, "rule": "duration", "min_frames": 16}
    assert sampling_of(8, None, UNSET, remembered) == FrameSampling(8, "duration", min_frames=8)
    assert sampling_of(24, None, UNSET, remembered) == FrameSampling(24, "duration", min_frames=16)
    with pytest.raises(ValueError, match=r"min_frames=16 is not in \[1, 8\]"):
        sampling_of(8, None, FrameOptions(min_frames=16), remembered)


@pytest.mark.parametrize("settings", [FPS, {"num_frames": 8, "rule": "card"}])
def test_to_the_folder_and_back(settings):
    kept = to_remember(FrameSampling(**settings))
    remembered = {"num_frames": kept["num_frames"], "rule": kept["frame_rule"], **(kept["frames"] or {})}
    assert sampling_of(None, None, UNSET, remembered) == FrameSampling(**settings)
