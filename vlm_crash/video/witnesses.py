"""Frames by which decord is judged, kept while a clip is decoded as a whole anyway.

In: a clip's packets, the rule that chooses frames, and each frame as it is decoded. Out: some of the chosen frames, and
what decord gets wrong of them. Must hold: these are the frames that reading the clip would give; where that is not
certain there are none, and the clip is read once more (comparison.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.comparison import difference
from vlm_crash.video.container import PacketScan, UnreadableClipError, scan_packets
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.other_readers import read_decord
from vlm_crash.video.pixels import Chosen
from vlm_crash.video.reader import Frames

#: Containers whose index says where keyframes are, by FFmpeg's names.
_INDEXED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
#: Of a plain clip: keyframes behind which a frame is looked at, at most; frames of a clip that has one keyframe; how
#: many frames behind its keyframe the last one may be, as all of them have to be decoded for it.
_MOST_KEYFRAMES, _WITHOUT_SEEK, _NEAR = 8, 3, 64


class Witnesses:
    """Takes the frames of one clip as they are decoded, in display order.

    Args:
        path: of the clip.
        samplings: how frames are chosen, one after the other; all but the first only of a clip with open GOPs.

    Raises:
        UnreadableClipError: its packets cannot be read.
    """

    def __init__(self, path: Path, samplings: Sequence[FrameSampling]) -> None:
        self.path = path
        self._scan = scan_packets(path)
        self._is_plain = is_plain(self._scan)
        used = samplings[:1] if self._scan.is_closed else samplings
        #: What decord is asked for, each time anew: what it gets wrong depends on what it has read before.
        self.asked = [telling(self._scan, sampling.choose(self._scan.times_s)) for sampling in used]
        self._indices = sorted({index for indices in self.asked for index in indices})
        keyframes = self._scan.keyframes
        self._keys = set(keyframes.tolist()) if self._is_plain and keyframes is not None else set()
        self._chosen: Chosen | None = Chosen(self._indices, self._scan.info.sample_aspect)
        self._count = 0

    def see(self, frame: Any) -> None:
        """The next frame that was decoded."""
        if self._chosen is None:
            return
        if frame.pts in self._keys and not frame.key_frame:  # not where decord may be wrong: all have to be looked at
            self._chosen = None
            return
        try:
            self._chosen.put(self._count, frame)
        except (av.error.FFmpegError, ValueError):  # a picture that cannot be shown; who reads the clip says so
            self._chosen = None
        self._count += 1

    def judge(self) -> tuple[bool, str | None]:
        """Whether these frames settle it, and what decord gets wrong of them; None: nothing."""
        if self._chosen is None or self._count != self._scan.info.num_frames or not self._chosen.is_complete:
            return False, None
        for indices in self.asked:
            places = np.searchsorted(self._indices, indices)
            try:
                theirs = self._frames(indices, read_decord(self._scan, indices), "decord")
            except UnreadableClipError as error:
                return True, error.reason
            wrong = difference(self._frames(indices, self._chosen.frames_FHWC[places], "pyav"), theirs)
            if wrong is not None:  # how many frames of a plain clip are wrong is found by looking at all
                return not self._is_plain, wrong
        return True, None

    def _frames(self, indices: Sequence[int], frames_FHWC: np.ndarray, reader: str) -> Frames:
        times_s = self._scan.times_s[list(indices)].tolist()
        return Frames(frames_FHWC, tuple(indices), tuple(times_s), self._scan.info, reader)


def telling(scan: PacketScan, indices: Sequence[int]) -> list[int]:
    """Of the chosen frames those that tell whether decord is right: all, unless the clip is plain.

    Of a plain clip it is the first one behind each keyframe (of _MOST_KEYFRAMES of them, evenly), to which decord
    seeks, and the last one if it is near. Without a keyframe between the chosen ones it seeks nowhere: then the first
    few.
    """
    if not is_plain(scan):
        return list(indices)
    assert scan.keyframes is not None
    keys = np.searchsorted(scan.pts, scan.keyframes)
    behind = np.searchsorted(keys, indices, side="right")
    first = [0, *(place for place, (left, right) in enumerate(pairwise(behind), start=1) if left != right)]
    if len(first) == 1:
        return list(indices[:_WITHOUT_SEEK])
    taken = np.linspace(0, len(first) - 1, min(_MOST_KEYFRAMES, len(first))).round().astype(int)
    last = [indices[-1]] if indices[-1] - keys[behind[-1] - 1] <= _NEAR else []
    return sorted({*(indices[first[place]] for place in taken), *last})


def is_plain(scan: PacketScan) -> bool:
    """Whether nothing is odd about a clip's packets: what decord is known to get wrong is (docs/reading.md).

    decord takes a keyframe's number among the packets for its number among the frames, and lets FFmpeg seek there.
    """
    info = scan.info
    return (
        scan.container in _INDEXED
        and scan.is_timed
        and scan.is_closed
        and scan.problem is None
        and scan.keyframes is not None
        and info.num_videos == 1
        and info.told_fps is None
        and info.header_frames in (None, info.num_frames)
    )
