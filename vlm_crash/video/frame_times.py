"""When frames are shown: seconds, by time stamps that can be wrong.

In: time stamps in ticks, the frame rate. Out: seconds from the first frame shown on. Must hold: a stamp that can be
right is kept; what stands in for one that cannot is between those of its neighbours, or by the frame rate.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Frames a second that no dashcam takes: time stamps that say more are broken.
MOST_FPS = 1000.0
#: Where they are broken, the most that is believed of what else the file says, and what is taken if that is more.
_MOST_OTHER_FPS, _USUAL_FPS = 240.0, 25.0
#: Containers, by FFmpeg's names, of recordings that are put together end to end: each brings its own clock.
CLOCKED = frozenset({"mpegts", "mpeg"})
#: Seconds by which a clock may leap or go back before FFmpeg takes it for another one (ffmpeg_demux.c,
#: ts_discontinuity_process: dts_delta_threshold, and a tenth of a second).
_LEAP_S, _BACK_S = 10.0, 0.1
#: Packets that follow a clock, at least, where a container should have one only.
_FEWEST_ON_A_CLOCK = 17
#: Time stamps, one after the other, that may be wrong without there being another clock.
_MOST_WRONG = 3


def clock_shifts(stamps: np.ndarray, time_base: float, leap_s: float = _LEAP_S) -> tuple[np.ndarray, int]:
    """What to add to time stamps [N], and how often their clock jumps: what follows goes on from there, as in FFmpeg.

    Where the others go on as if one to three stamps were not there, these are no jump, but wrong, and put in between.

    Args:
        stamps: ticks, ascending but for the jumps.
        leap_s: by how much more than usual it has to leap.

    >>> shifts, num_jumps = clock_shifts(np.array([100, 101, 102, 7, 8, 900, 901]), time_base=1.0)
    >>> shifts.tolist(), num_jumps
    ([0, 0, 0, 96, 96, -795, -795], 2)
    >>> shifts, num_jumps = clock_shifts(np.array([100, 101, 107, 103, 104]), time_base=1.0)
    >>> shifts.tolist(), num_jumps
    ([0, 0, -5, 0, 0], 0)
    """
    if len(stamps) < 2:
        return np.zeros(len(stamps), np.int64), 0
    mended = _without_lone(stamps, time_base, leap_s)
    steps = np.diff(mended)
    jumps = _jumps(steps, time_base, leap_s)
    shifts = np.concatenate([[0], np.cumsum(np.where(jumps, _usual(steps) - steps, 0))])
    return (mended - stamps + shifts).astype(np.int64), int(jumps.sum())


def clock_ends(dts: np.ndarray, time_base: float, form: str) -> tuple[np.ndarray, list[int]]:
    """Decoding time stamps [N] without lone wrong ones, and where stretches of packets end that are on one clock.

    A clock that goes back does so between two packets. In containers that are not CLOCKED one that goes back for a few
    packets is damage.

    Args:
        dts: ascending but for the jumps.
        form: FFmpeg's name of the container.

    >>> mended, ends = clock_ends(np.array([100, 101, 107, 103, 104, 105, 7, 8]), 1.0, "mpegts")
    >>> mended.tolist(), ends
    ([100, 101, 102, 103, 104, 105, 7, 8], [6, 8])
    """
    if len(dts) < 2:
        return dts, [len(dts)]
    mended = _without_lone(dts, time_base, _leap_s(form))
    ends = [*(np.flatnonzero(np.diff(mended) < -_BACK_S / time_base) + 1).tolist(), len(dts)]
    is_one = form not in CLOCKED and min(np.diff([0, *ends])) < _FEWEST_ON_A_CLOCK
    return mended, ends[-1:] if is_one else ends


def packet_shifts(
    pts: np.ndarray, dts: np.ndarray, mended: np.ndarray, ends: Sequence[int], time_base: float, form: str
) -> tuple[np.ndarray, int]:
    """As `clock_shifts`, for presentation time stamps [N] in the order of the packets.

    A leap is between two frames that are shown one after the other: with B-frames the decoding time stamps leap some
    packets later. In containers that are not CLOCKED a leap is a hole.

    Args:
        dts: decoding time stamps [N], ascending but for the jumps.
        mended, ends: what `clock_ends` says of them.
        form: FFmpeg's name of the container.
    """
    if len(dts) < 2 or (form not in CLOCKED and len(ends) == 1):
        return np.zeros(len(pts), np.int64), 0
    leap_s = _leap_s(form)
    delays, is_lone = pts - dts, mended != dts
    is_moved = is_lone & (delays >= 0) & (delays <= delays[~is_lone].max())  # its two stamps are wrong by the same
    shifts = np.where(is_moved, mended - dts, 0).astype(np.int64)
    steps = np.diff(mended)
    start, last, num_jumps = 0, None, len(ends) - 1
    for end in ends:
        part = pts[start:end] + shifts[start:end]
        order = np.argsort(part, kind="stable")
        leaps, num_leaps = clock_shifts(part[order], time_base, leap_s)
        first = int(part[order[0]])
        leaps += 0 if last is None else last + _usual(steps) - first
        shifts[start + order] += leaps
        last, start, num_jumps = int(part[order[-1]] + leaps[-1]), end, num_jumps + num_leaps
    return shifts, num_jumps


def _usual(steps: np.ndarray) -> int:
    return max(1, int(np.median(steps)))


def _leap_s(form: str) -> float:
    return _LEAP_S if form in CLOCKED else np.inf


def _jumps(steps: np.ndarray, time_base: float, leap_s: float) -> np.ndarray:
    return np.asarray((steps < -_BACK_S / time_base) | (steps - _usual(steps) > leap_s / time_base))


def _without_lone(stamps: np.ndarray, time_base: float, leap_s: float) -> np.ndarray:
    """Time stamps [N] in which those few that are wrong, among others that go on, stand between their neighbours."""
    mended = stamps.astype(np.int64)
    steps = np.diff(mended)
    usual = _usual(steps)
    for place in np.flatnonzero(_jumps(steps, time_base, leap_s) | (steps < 0)).tolist():
        if 0 <= mended[place + 1] - mended[place] <= usual + leap_s / time_base:  # it is mended
            continue
        found = {}
        for length in range(1, _MOST_WRONG + 1):
            for start in range(max(1, place - length + 1), min(place + 1, len(mended) - length - 1) + 1):
                after = start + length  # of those before the step, or behind it
                around = np.diff([mended[start - 1], *mended[after : after + 3]]).astype(np.float64)
                goes_on = ((around > 0) & (around - usual <= leap_s / time_base)).all()
                if goes_on and 2 * around[0] >= (length + 1) * usual:
                    found[start, after] = abs(around[0] - (length + 1) * usual)
        if found:
            start, after = min(found, key=found.__getitem__)
            mended[start:after] = np.linspace(mended[start - 1], mended[after], after - start + 2)[1:-1]
    return mended


def on_one_clock(stamps: Sequence[int | None], time_base: float, form: str) -> list[int | None]:
    """Time stamps of frames in display order, shifted so; those that are missing stay so."""
    known = np.array([stamp for stamp in stamps if stamp is not None], np.int64)
    shifted = iter((known + clock_shifts(known, time_base, _leap_s(form))[0]).tolist())
    return [None if stamp is None else next(shifted) for stamp in stamps]


def display_times(pts: np.ndarray, timeless: bool, time_base: float, fps: float) -> np.ndarray:
    """Seconds from the first shown frame on; by the frame rate where the container has no time stamps, or broken ones.

    Args:
        pts: ticks, ascending.
        timeless: some of the packets have none.
    """
    if timeless or (len(pts) > 1 and pts[0] == pts[-1]):
        return np.arange(len(pts)) / fps
    return believed_times(np.asarray((pts - pts[0]) * time_base), fps)


def decoded_times(stamps: Sequence[int | None], time_base: float, fps: float) -> np.ndarray:
    """[N] seconds from the first frame on, of decoded frames in display order; some may be lost.

    A decoder that misses frames gives some of those after it a wrong stamp, or shows them too early or too late: stamps
    that do not ascend with the most of the others give way to the middle between their neighbours. Where that would be
    more than half of them, the frame rate gives the times.

    >>> decoded_times([0, 1, 2, 9, 4, None, 6], time_base=1.0, fps=1.0).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    right = _ascending(stamps)
    if len(right) < max(2, len(stamps) / 2):
        return np.arange(len(stamps)) / fps
    seconds = np.array([stamps[place] for place in right], np.float64) * time_base
    places = np.arange(len(stamps))
    times_s = np.interp(places, right, seconds)
    before, after = places < right[0], places > right[-1]
    times_s[before] = seconds[0] - (right[0] - places[before]) / fps
    times_s[after] = seconds[-1] + (places[after] - right[-1]) / fps
    return believed_times(times_s - times_s[0], fps)


def _ascending(stamps: Sequence[int | None]) -> list[int]:
    """Places of the most stamps that ascend from each to the next (patience sorting: n log n)."""
    ends: list[int] = []  # [i]: the least stamp that i others ascend to
    at: list[int] = []
    before: list[int] = [-1] * len(stamps)
    for place, stamp in enumerate(stamps):
        if stamp is None:
            continue
        length = bisect_left(ends, stamp)
        before[place] = at[length - 1] if length else -1
        ends[length : length + 1], at[length : length + 1] = [stamp], [place]
    found = []
    place = at[-1] if at else -1
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]


def believed_times(times_s: np.ndarray, fps: float) -> np.ndarray:
    """[N] seconds from 0 on, as they are; by the frame rate where they cannot be right."""
    return times_s if impossible_fps(times_s) is None else np.arange(len(times_s)) / fps


def impossible_fps(times_s: np.ndarray) -> float | None:
    """Frames a second by their times [N], where no camera takes so many; None: they may be right.

    >>> impossible_fps(np.arange(120) / 24), impossible_fps(np.arange(5) / 90_000)
    (None, 90000.0)
    """
    span_s = float(np.ptp(times_s)) if len(times_s) > 1 else 0.0
    return None if span_s == 0 or len(times_s) - 1 <= MOST_FPS * span_s else (len(times_s) - 1) / span_s


def frame_rate(stream: Any, has_broken_times: bool) -> float:
    """Frames a second: the container's average; 25 where there is none.

    The average comes from the time stamps; where these are broken, FFmpeg's guess and the codec's own rate go first.
    """
    if not has_broken_times:
        return told_rate(stream) or _USUAL_FPS
    rates = (float(rate or 0) for rate in (stream.guessed_rate, stream.codec_context.framerate, stream.average_rate))
    return next((rate for rate in rates if 0 < rate <= _MOST_OTHER_FPS), _USUAL_FPS)


def told_rate(stream: Any) -> float | None:
    """Frames a second by the container: their average, or FFmpeg's guess where the average cannot be right (raw DV)."""
    average, guess = float(stream.average_rate or 0), float(stream.guessed_rate or 0)
    return (guess if average > MOST_FPS and 0 < guess <= MOST_FPS else average or guess) or None
