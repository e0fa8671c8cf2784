"""Curves made by hand become the events that a person would mark."""

import pytest

from vlm_crash.video.peaks import PeakRule, ScoredWindow, agreement, find_peaks

RULE = PeakRule(threshold=0.5, merge_s=1.0, min_distance_s=4.0)


def windows(probabilities, window_s=6.0, stride_s=1.0):
    return [ScoredWindow(k * stride_s, k * stride_s + window_s, p) for k, p in enumerate(probabilities)]


def seeing(moments_s, count, window_s=6.0):
    """Windows that are sure of themselves, and see each moment that lies in them."""
    return windows([float(any(k <= m < k + window_s for m in moments_s)) for k in range(count)], window_s)


def test_a_moment_that_all_windows_see_is_found_in_the_middle_of_its_span():
    (peak,) = find_peaks(seeing([20.5], 40), 1.0, RULE)
    assert peak.probability == 1.0
    assert peak.peak_s == pytest.approx(20.5)
    # From the first stretch that half of its six windows say to the last.
    assert (peak.start_s, peak.end_s) == (17.0, 24.0)


def test_nothing_is_found_where_nothing_is():
    assert find_peaks(windows([0.0] * 40), 1.0, RULE) == []
    assert find_peaks([], 1.0, RULE) == []


def test_a_window_that_stands_alone_with_its_opinion_is_outvoted():
    lone = [0.0] * 40
    lone[17] = 1.0
    assert find_peaks(windows(lone), 1.0, RULE) == []


def test_a_window_that_saw_nothing_does_not_split_an_event():
    seen = seeing([20.5], 40)
    seen[18] = ScoredWindow(18.0, 24.0, 0.0)
    assert len(find_peaks(seen, 1.0, RULE)) == 1


def test_two_moments_are_two_events_and_close_ones_are_one():
    assert [peak.peak_s for peak in find_peaks(seeing([10.5, 25.5], 40), 1.0, RULE)] == [10.5, 25.5]
    assert len(find_peaks(seeing([10.5, 12.5], 40), 1.0, RULE)) == 1


def test_peaks_that_are_too_close_become_one_with_the_higher_peak_and_both_spans():
    curve = [ScoredWindow(k, k + 1, p) for k, p in enumerate([0, 0.6, 0, 0, 0.9, 0, 0, 0, 0, 0.7])]
    apart = PeakRule(0.5, merge_s=0.0, min_distance_s=4.0)
    found = find_peaks(curve, 1.0, apart)
    assert [(peak.start_s, peak.end_s, peak.peak_s, peak.probability) for peak in found] == [
        (1, 5, 4.5, 0.9),
        (9, 10, 9.5, 0.7),
    ]
    assert len(find_peaks(curve, 1.0, PeakRule(0.5, 0.0, 0.0))) == 3


def test_stretches_with_a_small_gap_are_one_event():
    curve = [ScoredWindow(k, k + 1, p) for k, p in enumerate([0, 0.8, 0, 0, 0.8, 0])]
    assert len(find_peaks(curve, 1.0, PeakRule(0.5, merge_s=2.5, min_distance_s=0.0))) == 1
    assert len(find_peaks(curve, 1.0, PeakRule(0.5, merge_s=2.0, min_distance_s=0.0))) == 2


def test_an_event_at_the_very_end_is_found_within_the_recording():
    cut = [*windows([0.0] * 20), ScoredWindow(19.4, 25.4, 1.0)]
    (peak,) = find_peaks(cut, 1.0, RULE)
    assert peak.end_s == 25.4


def test_a_peak_in_the_last_part_of_a_stride_lies_within_the_recording():
    rising = [*windows([k / 20 for k in range(15)]), ScoredWindow(14.3, 20.3, 1.0)]
    (peak,) = find_peaks(rising, 1.0, RULE)
    assert (peak.end_s, peak.peak_s) == (20.3, pytest.approx(20.15))
    short = [ScoredWindow(0.0, 0.2, 0.9)]  # less than half a stride
    (peak,) = find_peaks(short, 3.0, RULE)
    assert (peak.start_s, peak.end_s, peak.peak_s) == (0.0, 0.2, pytest.approx(0.1))


def test_what_no_window_judged_is_a_gap_and_not_0():
    unjudged = windows([1.0, None, 1.0], window_s=1.0)
    assert agreement(unjudged, 1.0) == [(0.5, 1.0), (1.5, None), (2.5, 1.0)]


def test_a_stretch_that_is_too_short_is_no_event():
    curve = [ScoredWindow(k, k + 1, p) for k, p in enumerate([0, 0.8, 0.8, 0.8, 0, 0, 0, 0, 0.8, 0.8, 0])]
    found = find_peaks(curve, 1.0, PeakRule(0.5, min_duration_s=3.0))
    assert [(peak.start_s, peak.end_s) for peak in found] == [(1, 4)]
    # What is merged counts as one stretch, the gap included.
    split = [ScoredWindow(k, k + 1, p) for k, p in enumerate([0, 0.8, 0, 0.8, 0])]
    assert len(find_peaks(split, 1.0, PeakRule(0.5, merge_s=2.0, min_duration_s=3.0))) == 1
    assert find_peaks(split, 1.0, PeakRule(0.5, merge_s=0.0, min_distance_s=0.0, min_duration_s=2.0)) == []
