"""The packets of a stream: their time stamps, and what can be told from them.

In: PyAV's packets, in their order in the file. Out: time stamps in ticks, keyframes, what is odd about them. Must hold:
nothing is decoded, and what cannot be told for certain is not told.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vlm_crash.video.frame_times import clock_ends, packet_shifts
from vlm_crash.video.mpeg4 import PicturePackets

#: A field's step by its frame's, at most; one half, but for rounding.
_MOST_OF_A_FRAME = 0.6


class Packets:
    """Time stamps of a stream's packets, sixteen bytes each: hours of video have hundreds of thousands.

    Args:
        form: FFmpeg's name of the container.
        codec: and of the codec.
    """

    def __init__(self, form: str, codec: str) -> None:
        self._form, self._is_vp8, self._is_mpeg4 = form, codec == "vp8", codec == "mpeg4"
        self._pictures: PicturePackets | None = None
        self._dts = array("q")
        self.pts, self.keys, self._key_numbers = array("q"), array("q"), array("q")
        self.timeless = False
        self.is_regular, self.goes_back, self.is_shifted = True, False, False
        self.problem: str | None = None
        self.num_hidden = 0
        self.last_dts: int | None = None

    def add(self, packet: Any) -> None:
        """The next one that has data.

        A frame of VP8 that is only looked back to, as an encoder of two passes makes it, is not shown (RFC 6386, 9.1:
        show_frame), and its packet does not count; nor does an empty one, or a placeholder (mpeg4.py).
        """
        if not packet.size or not self._brings_frame(packet):
            return
        pts, dts = packet.pts, packet.dts
        if packet.is_discard:  # an edit list: what is left out may still be needed to decode
            self.is_regular = False
            self.num_hidden += 1
            return
        if pts is None:
            self.timeless = True
        self.pts.append(pts or 0)
        if packet.is_keyframe:
            self._key_numbers.append(len(self.pts) - 1)
            self.keys.append(pts or 0)
        if packet.is_corrupt:
            self.problem, self.is_regular = "damaged packets", False
        if dts is not None and self.last_dts is not None and dts <= self.last_dts:
            self.is_regular = False
            self.goes_back |= dts < self.last_dts
        self.last_dts = self.last_dts if dts is None else dts  # Matroska leaves some out
        self._dts.append(self.last_dts or 0)

    def _brings_frame(self, packet: Any) -> bool:
        if self._is_mpeg4:
            if self._pictures is None:
                self._pictures = PicturePackets(packet.stream.codec_context.extradata or b"")
            return self._pictures.brings_frame(bytes(packet))
        return not self._is_vp8 or bool(memoryview(packet)[0] & 0x10)

    @property
    def is_packed(self) -> bool:
        """Whether packets held two frames: the time stamps are those of packets, in their own order."""
        return self._pictures is not None and self._pictures.is_packed

    @property
    def num_read(self) -> int:
        """Those that count, hidden ones among them."""
        return len(self.pts) + self.num_hidden

    def on_one_clock(self, time_base: float) -> tuple[np.ndarray, int]:
        """Presentation time stamps in the order of the packets without their clock's jumps, and how many it has."""
        pts, dts, key_numbers = np.array(self.pts), np.array(self._dts), np.array(self._key_numbers, np.int64)
        mended, ends = clock_ends(dts, time_base, self._form)
        for start, end in pairwise([0, *ends]):  # a keyframe on another clock says nothing about when these are shown
            keys = key_numbers[slice(*np.searchsorted(key_numbers, [start, end]))] - start
            pts[start:end] = before_keyframes(pts[start:end], dts[start:end], keys)
        shifts, num_jumps = packet_shifts(pts, dts, mended, ends, time_base, self._form)
        self.is_shifted = bool(shifts.any())
        return pts + shifts, num_jumps

    def keyframes(self, ordered: np.ndarray) -> np.ndarray | None:
        """Ascending; None where time stamps are absent, the same or leap, or the first frame shown is none."""
        keys = np.array(self.keys)
        if self.timeless or not self.is_regular or not len(keys) or keys[0] != ordered[0]:
            return None
        return keys if bool((np.diff(ordered) > 0).all() and (np.diff(keys) > 0).all()) else None

    def is_closed(self, ordered: np.ndarray) -> bool:
        """Whether each keyframe has as many frames shown before it as packets."""
        return bool((np.searchsorted(ordered, np.array(self.keys)) == np.array(self._key_numbers)).all())


def before_keyframes(pts: np.ndarray, dts: np.ndarray, key_numbers: np.ndarray) -> np.ndarray:
    """Presentation time stamps [N] without those that are wrong: what stands before a keyframe is shown before it, too.

    One that says otherwise, and is further from its decoding time stamp than any other, is taken to be as far from it
    as most are.

    Args:
        pts: on one clock, as all of these.
        dts: decoding time stamps [N].
        key_numbers: which packets [K] are keyframes.

    >>> before_keyframes(np.array([1, 2, 93, 4, 5, 6]), np.arange(6), np.array([0, 3])).tolist()
    [1, 2, 3, 4, 5, 6]
    """
    first_shown = np.minimum.accumulate(pts[key_numbers][::-1])[::-1]  # of each keyframe and those after it
    following = np.searchsorted(key_numbers, np.arange(len(pts)), side="right")
    is_before = following < len(key_numbers)
    is_wrong = np.zeros(len(pts), bool)
    is_wrong[is_before] = pts[is_before] > first_shown[following[is_before]]
    if not is_wrong.any() or is_wrong.all():
        return pts
    delays = pts - dts
    usual = delays[~is_wrong]
    is_wrong &= (delays < usual.min()) | (delays > usual.max())
    return np.where(is_wrong, dts + int(np.median(usual)), pts)


def is_counted(form: str, context: Any) -> bool:
    """Whether time stamps are those of packets, and not of frames, which come in another order.

    AVI has none at all. FFmpeg counts packets for it, and each frame takes its packet's (H.264), or guesses from that
    when they are shown, a frame too late or early (MPEG-4: DivX, Xvid).
    """
    return form == "avi" and bool(context.has_b_frames)


def come_in_pairs(packet_pts: np.ndarray, frame_pts: Sequence[int | None]) -> bool:
    """Whether two packets, a field in each, may make one interlaced frame: their time stamps are half as far apart.

    Where these do not tell, they may.

    Args:
        packet_pts: ticks [N], on one clock, in any order.
        frame_pts: ticks of the frames that were decoded, as they are shown.
    """
    shown = [stamp for stamp in frame_pts if stamp is not None]
    if len(packet_pts) < 2 or len(shown) < 2:
        return True
    packet_step, frame_step = np.median(np.diff(np.sort(packet_pts))), np.median(np.diff(shown))
    return bool(packet_step <= _MOST_OF_A_FRAME * frame_step)
