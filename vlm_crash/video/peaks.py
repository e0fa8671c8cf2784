"""A curve over a recording's windows becomes events: pure functions of numbers.

In: per window its span and the probability that something happened in it. Out: spans in time with a peak each.
Must hold: nothing is invented where no window was judged; the same curve gives the same events.

A window says that something happens somewhere in it. So a moment is as suspicious as the windows that show it agree on
average: around an event all of them do, and beside it fewer and fewer, while a window that stands alone with its
opinion is outvoted. An event is a stretch of moments at or above the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ScoredWindow:
    """A window and the probability that something happened in it; None: it could not be judged."""

    start_s: float
    end_s: float
    probability: float | None


@dataclass(frozen=True)
class PeakRule:
    """What counts as an event.

    Args:
        threshold: least mean probability of the windows that show a moment.
        merge_s: stretches with a smaller gap are one event.
        min_distance_s: two events whose peaks are closer are one.
        min_duration_s: a stretch that is shorter, after the merging, is none.
    """

    threshold: float = 0.5
    merge_s: float = 1.0
    min_distance_s: float = 4.0
    min_duration_s: float = 0.0


@dataclass(frozen=True)
class Peak:
    """An event: from where to where, its most suspicious moment, and how suspicious that is."""

    start_s: float
    end_s: float
    peak_s: float
    probability: float


def agreement(windows: Sequence[ScoredWindow], step_s: float) -> list[tuple[float, float | None]]:
    """The curve over time: per stretch of `step_s` seconds its middle, and the mean of the windows that show all of it.

    None where no window that was judged does.

    >>> agreement([ScoredWindow(0, 2, 0.0), ScoredWindow(1, 3, 1.0)], 1.0)
    [(0.5, 0.0), (1.5, 0.5), (2.5, 1.0)]
    """
    end_s = max((window.end_s for window in windows), default=0.0)
    num_steps = math.ceil(end_s / step_s - 1e-6)
    sums, counts = [0.0] * num_steps, [0] * num_steps
    for window in windows:
        if window.probability is None:
            continue
        first = math.ceil(window.start_s / step_s - 1e-6)
        # A window that ends with the recording shows what there is of the last stretch.
        last = num_steps if window.end_s >= end_s - 1e-6 else math.floor(window.end_s / step_s + 1e-6)
        for step in range(first, last):
            sums[step] += window.probability
            counts[step] += 1
    return [
        ((step + 0.5) * step_s, total / count if count else None)
        for step, (total, count) in enumerate(zip(sums, counts, strict=True))
    ]


def find_peaks(windows: Sequence[ScoredWindow], step_s: float, rule: PeakRule) -> list[Peak]:
    """Events of a recording in order of time.

    Args:
        step_s: how often a window begins.
    """
    curve = agreement(windows, step_s)
    stretches: list[list[tuple[float, float]]] = []
    for time_s, value in curve:
        if value is None or value < rule.threshold:
            continue
        gap_s = time_s - stretches[-1][-1][0] - step_s if stretches else math.inf
        if gap_s < max(rule.merge_s - 1e-6, step_s / 2):  # those that touch are one, whatever merge_s
            stretches[-1].append((time_s, value))
        else:
            stretches.append([(time_s, value)])
    end_s = max((window.end_s for window in windows), default=0.0)
    peaks = [_peak(stretch, step_s, end_s) for stretch in stretches]
    long_enough = [peak for peak in peaks if peak.end_s - peak.start_s >= rule.min_duration_s - 1e-6]
    return _apart(long_enough, rule.min_distance_s)


def _peak(stretch: Sequence[tuple[float, float]], step_s: float, end_s: float) -> Peak:
    """The middle of the (longest, first) plateau at the top."""
    top = max(value for _, value in stretch)
    plateaus: list[list[float]] = []
    before: float | None = None
    for time_s, value in stretch:
        if value < top - 1e-3:
            before = None
            continue
        if before is None or time_s - before > 1.5 * step_s:
            plateaus.append([])
        plateaus[-1].append(time_s)
        before = time_s
    longest = max(plateaus, key=len)
    start_s, stretch_end_s = _span(stretch[0][0], stretch[-1][0], step_s, end_s)
    return Peak(start_s, stretch_end_s, sum(_span(longest[0], longest[-1], step_s, end_s)) / 2, top)


def _span(first_s: float, last_s: float, step_s: float, end_s: float) -> tuple[float, float]:
    """From the stretch in whose middle `first_s` lies to that of `last_s`; a recording's last one may be shorter."""
    return max(0.0, first_s - step_s / 2), min(end_s, last_s + step_s / 2)


def _apart(peaks: list[Peak], min_distance_s: float) -> list[Peak]:
    """Events whose peaks are too close become one, with the higher peak (the first, of equal ones) and both spans."""
    kept: list[Peak] = []
    for peak in peaks:
        if kept and peak.peak_s - kept[-1].peak_s < min_distance_s - 1e-6:
            higher = kept[-1] if kept[-1].probability >= peak.probability else peak
            kept[-1] = Peak(kept[-1].start_s, peak.end_s, higher.peak_s, higher.probability)
        else:
            kept.append(peak)
    return kept
