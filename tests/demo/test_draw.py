"""Drawing: the same moment is the same picture, and crash and near miss part only at the end."""

from dataclasses import replace

import numpy as np
import pytest

from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.motion import other_pose
from vlm_crash.demo.scenarios import SCENARIOS
from vlm_crash.demo.scene import sample_scene
from vlm_crash.demo.world import CUE_LEAD


def test_a_moment_is_one_picture_whatever_was_drawn_before() -> None:
    scene = sample_scene(5)
    first = render_frame(scene, 1.0)
    render_frame(sample_scene(6), 2.0)
    assert first.shape == (180, 320, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, render_frame(scene, 1.0))


@pytest.mark.parametrize("size", [(128, 128), (320, 180), (32, 32), (800, 720)])
def test_any_size_is_drawn(size: tuple[int, int]) -> None:
    assert render_frame(sample_scene(3), 0.5, size).shape == (size[1], size[0], 3)


def test_early_frames_of_both_events_are_the_same_pictures() -> None:
    for seed in range(25):
        crash, nearmiss = sample_scene(seed, "crash"), sample_scene(seed, "nearmiss")
        last_common = crash.duration_s - CUE_LEAD
        for t_s in (0.0, 0.5 * last_common, last_common):
            np.testing.assert_array_equal(render_frame(crash, t_s), render_frame(nearmiss, t_s))


def test_the_last_sixteenth_tells_the_events_apart() -> None:
    for seed in range(25):
        crash, nearmiss = sample_scene(seed, "crash"), sample_scene(seed, "nearmiss")
        t_s = crash.duration_s * 15 / 16
        difference = np.abs(render_frame(crash, t_s).astype(int) - render_frame(nearmiss, t_s))
        assert (difference.max(axis=2) > 40).mean() > 0.05, seed


def test_every_scenario_is_drawn_and_a_near_miss_keeps_a_gap() -> None:
    left = {scenario.name for scenario in SCENARIOS}
    for seed in range(2000):
        scene = sample_scene(seed, "nearmiss")
        if scene.scenario.name not in left:
            continue
        left.remove(scene.scenario.name)
        end, contact = scene.duration_s - 1 / scene.fps, scene.motion.impact_s
        crash = replace(scene, event="crash")
        for drawn in (scene, crash):
            for t_s in (0.0, contact - 0.05, contact + 0.1, end):
                assert render_frame(drawn, t_s, (64, 64)).std() > 3
        apart = np.hypot(*(np.subtract(_place(scene, end), _place(crash, contact))))
        assert apart > 1.2, scene.scenario.name
    assert not left


def _place(scene: object, t_s: float) -> tuple[float, float]:
    pose = other_pose(scene, t_s)  # type: ignore[arg-type]
    return pose.x, pose.s


def test_a_stopped_ego_sees_a_still_background_and_a_moving_one_does_not() -> None:
    """The upper corners hold sky, buildings and trees, seldom the other vehicle."""
    changes: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(120):
        scene = sample_scene(seed)
        if scene.truth["Weather"] in ("Rainy", "Snowy") or scene.truth["Road_type"] == "Parking_lot":
            continue
        a, b = (render_frame(scene, t_s, (64, 64)).astype(int)[20:40] for t_s in (0.5, 1.5))
        changes[scene.motion.ego_speed == 0].append(float((np.abs(a - b).max(axis=2) > 30).mean()))
    assert np.median(changes[True]) < 0.5 * np.median(changes[False])
