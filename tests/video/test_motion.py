"""The moment of the largest change of motion, on arrays: no end of a clip is favoured, and none is out of reach."""

from pathlib import Path

import numpy as np
import pytest

from vlm_crash.video.container import ClipInfo, PacketScan
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.motion import Look, Motion, motion_change

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


@pytest.mark.parametrize("moved", [0.1, 1.37])
def test_where_it_moves_alike_all_the_time_it_is_the_middle(moved):
    """The sums of equal numbers differ in their last digits."""
    times_s = np.arange(250) / 25
    assert Motion(times_s, np.full(250, moved)).peak_s(0, 10) == 5
    jolt = np.full(250, moved) + 1e-3 * (times_s == 8)
    assert Motion(times_s, jolt).peak_s(0, 10) == pytest.approx(8, abs=0.2)


def by_number(moved: np.ndarray, few: int) -> np.ndarray:
    """The change at a constant rate, with which the figures of docs/sampling.md were made: so many frames a side."""
    change = np.zeros(len(moved))
    total = np.concatenate([[0.0], np.cumsum(moved[1:])])
    means = (total[few:] - total[:-few]) / few
    if len(moved) > 2 * few:
        change[few + 1 : len(moved) - few + 1] = np.abs(means[few:] - means[:-few])
    return change


@pytest.mark.parametrize("fps", [1, 3, 5, 10, 12.5, 15, 20, 23.976, 25, 29.97, 30, 50, 60, 120])
def test_at_a_constant_rate_a_span_is_a_number_of_frames(fps):
    moved = np.random.default_rng(7).lognormal(0, 0.7, 400)
    for count in (1, 2, 3, 9, 10, 37, 400):
        ticks = np.round(np.arange(count) / fps * 90_000)
        for times_s in (np.arange(count) / fps, ticks / 90_000):
            few = max(1, round(0.15 / float(np.median(np.diff(times_s))))) if count > 1 else 1
            found, want = motion_change(times_s, moved[:count]), by_number(moved[:count], few)
            assert found.tolist() == want.tolist()


def test_a_moment_among_few_frames_is_seen_beside_many():
    """30 frames at 3 a second, then 400 at 100 a second; and the other way round."""
    times_s = np.concatenate([np.arange(30) / 3, 10 + np.arange(400) / 100])
    for shown_s in (times_s, np.cumsum([0.0, *np.diff(times_s)[::-1]])):
        for first, last in ((8, 11), (418, 421), (200, 230)):
            moved = np.full(430, 1.0)
            moved[first : last + 1] = 9.0
            peak_s = Motion(shown_s, moved).peak_s(0, 15)
            assert shown_s[first - 1] - 0.15 <= peak_s <= shown_s[last + 1] + 0.15
            chosen = FrameSampling(16, "event").choose(shown_s, Motion(shown_s, moved))
            is_short = shown_s[last + 1] - shown_s[first] < 0.1  # 16 frames may miss it: within a second 8 of them are
            assert is_short or any(first <= frame <= last for frame in chosen)


def test_motion_has_the_times_of_the_scan():
    info = ClipInfo(Path("a.ts"), 4, 25.0, 0.2, 64, 48, "h264")
    scan = PacketScan(info, np.arange(4) / 25, np.arange(4) * 3600, None, is_timed=True, problem=None)
    late = Look((0, 7200, 10_800, 3600), np.array([0.0, 1, 2, 3])).motion(scan)  # as files behind each other
    assert late.moved.tolist() == [0, 3, 1, 2] and late.times_s is scan.times_s
    for pts in ((None, 3600, 7200, 10_800), (0, 7200, 10_800, 3601)):
        assert Look(pts, np.array([0.0, 1, 2, 3])).motion(scan).moved.tolist() == [0, 1, 2, 3]
    fewer = Look((0, 3600, 7200), np.array([0.0, 9, 9])).motion(scan)
    assert fewer.moved.tolist() == [0] * 4 and fewer.peak_s(0, 0.2) == 0.1
