"""The moment of the largest change of motion, on arrays: no end of a clip is favoured, and none is out of reach."""

import numpy as np
import pytest

from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.motion import Motion, motion_change

#: Six seconds at 15 frames a second, as the demo's.
TIMES_S = np.arange(90) / 15


def burst(place: float) -> np.ndarray:
    """A picture that trembles, and moves four times as much in 0.3 s: at the beginning (place 0) to at the end (1)."""
    start_s = place * (6 - 0.3)
    inside = (start_s - 1e-6 <= TIMES_S) & (start_s + 0.3 - 1e-6 > TIMES_S)
    return np.where(inside, 4.0, 1.0) + 0.1 * np.random.default_rng(0).random(90)


def test_as_many_frames_are_compared_on_each_side():
    moved = np.array([0.0, 1, 1, 5, 1, 1, 1])  # the first is of no frame before it
    few = motion_change(np.arange(7) * 0.15, moved)  # a frame on each side
    np.testing.assert_allclose(few, [0, 0, 0, 4, 4, 0, 0])
    more = motion_change(np.arange(7) * 0.075, moved)  # two
    np.testing.assert_allclose(more, [0, 0, 0, 2, 2, 2, 0])
    assert motion_change(np.arange(4) * 0.075, moved[:4]).tolist() == [0] * 4  # too few for any moment
    assert motion_change(np.zeros(1), np.zeros(1)).tolist() == [0]


@pytest.mark.parametrize("fps", [10, 30])
def test_chance_does_not_put_the_moment_at_an_end(fps):
    """Clips of 5 s in which nothing happens, with now and then a jolt; of 2,000, a tenth of the clip has about 200."""
    draw = np.random.default_rng(3).lognormal(0, 0.7, (2000, 5 * fps))
    times_s = np.arange(5 * fps) / fps
    peaks_s = [Motion(times_s, moved).peak_s(0, 5) for moved in draw]
    counts, _ = np.histogram(peaks_s, 10, (0, 5))
    assert counts[[0, -1]].max() < 240 and counts[1:-1].min() > 150


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_moment_is_seen_wherever_it_is(place):
    chosen = FrameSampling(8, "event").choose(TIMES_S, Motion(TIMES_S, burst(place)))
    start_s = place * 5.7
    assert sum(start_s - 1e-6 <= TIMES_S[frame] < start_s + 0.3 for frame in chosen) >= 1


def test_what_is_outside_a_window_is_not_looked_at():
    quiet, loud = (Motion(TIMES_S, moved) for moved in (burst(0.5) * 0 + TIMES_S % 0.4, burst(0.5)))
    loud = Motion(TIMES_S, np.where(TIMES_S < 3.15, loud.moved, quiet.moved))  # loud up to the window
    assert loud.peak_s(0, 6) != quiet.peak_s(0, 6)
    assert loud.peak_s(TIMES_S[48], 6) == quiet.peak_s(TIMES_S[48], 6)


def test_where_nothing_moves_it_is_the_middle():
    assert Motion(TIMES_S, np.zeros(90)).peak_s(2, 4) == 3
    assert Motion(TIMES_S[:2], np.array([0.0, 9.0])).peak_s(0, 0.2) == 0.1
