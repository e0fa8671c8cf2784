"""Only what the chosen frames need is decoded: PyAV, told apart by time stamps.

In: what the packets say, and which frames are wanted. Out: exactly those, or None where that is not certain.
Must hold: a frame is taken by its time stamp, never by counting; whatever is not as the packets promised (a seek that
lands late, a frame that does not come, a damaged one among those that are decoded) ends in None, and the clip is read
through instead.

Two things are left out, neither of which a wanted frame can depend on:
- what lies between a wanted frame and the keyframe from which the next one is decoded, where that is far;
- in H.264, frames that no other refers to (nal_ref_idc is 0, ISO 14496-10 7.4.1) and that are not wanted. Other codecs
  let FFmpeg skip less certain things: HEVC's sub-layer non-references are referred to by higher layers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import av
import numpy as np

from vlm_crash.video.container import PacketScan, open_video, packets_of
from vlm_crash.video.pixels import Chosen

#: A clip with fewer frames is read on to the next keyframe; beyond, FFmpeg is told to seek.
MIN_SEEK_FRAMES = 2000
_BEFORE_S = 10  # a time before the first frame: the beginning of the file
_SKIPS_UNREFERENCED = frozenset({"h264"})


def read_needed(scan: PacketScan, indices: Sequence[int]) -> np.ndarray | None:
    """[F, H, W, 3] uint8 frames at those indices of the display order, or None: read the clip through."""
    if not scan.is_timed or scan.problem is not None:
        return None
    chosen = Chosen(indices, scan.info.sample_aspect)
    wanted = np.unique(indices)
    index_of = dict(zip(scan.pts[wanted].tolist(), wanted.tolist(), strict=True))
    with open_video(scan.info.path) as (container, stream):
        decoder = _Decoder(scan, container, stream, {*index_of, int(scan.pts[0])})
        try:
            for entry, targets in _stretches(scan, wanted):
                if not decoder.enter(entry):
                    return None
                for frame in decoder.frames_until(targets):
                    if frame.pts in targets:
                        chosen.put(index_of[frame.pts], frame)
        except (av.error.FFmpegError, _NotAsPromisedError):
            return None
        finally:
            decoder.close()
    return chosen.frames_FHWC if chosen.is_complete else None


def _stretches(scan: PacketScan, wanted: np.ndarray) -> Iterator[tuple[int, set[int]]]:
    """Time stamps of wanted frames that are decoded in one go, and the keyframe to begin at, by its place."""
    pts = scan.pts[wanted]
    if scan.keyframes is None:
        yield 0, set(pts.tolist())
        return
    # The last keyframe before a frame would do by the standards. Files that call a picture a keyframe while others
    # after it look behind it are the reason for one more.
    entries = np.maximum(np.searchsorted(scan.keyframes, pts, side="right") - 2, 0)
    begins = [0, *(np.flatnonzero(scan.keyframes[entries[1:]] > pts[:-1]) + 1).tolist(), len(pts)]
    for begin, end in pairwise(begins):
        yield int(entries[begin]), set(pts[begin:end].tolist())


class _NotAsPromisedError(Exception):
    """The clip has to be read through."""


class _Decoder:
    """A clip's frames from one keyframe on, then from a later one.

    Args:
        scan: what the packets say.
        container, stream: PyAV's, opened.
        wanted: time stamps of the frames that must be decoded.
    """

    def __init__(self, scan: PacketScan, container: Any, stream: Any, wanted: set[int]) -> None:
        self.scan, self.container, self.stream, self.wanted = scan, container, stream, wanted
        self._packets: Iterator[Any] = packets_of(container, stream)
        self._frames = self._decode(self._packets)
        self._last_key: int | None = None  # of those that were decoded
        self._skips = stream.codec_context.name in _SKIPS_UNREFERENCED
        self._is_begun = False
        self._is_inside = False  # entered behind the beginning: what is before the keyframe may look damaged

    def close(self) -> None:
        """Let go of what holds this: else its decoder and frames stay until Python's collector comes."""
        self._frames.close()

    def enter(self, entry: int) -> bool:
        """Go to that keyframe, or to one before it; False where no seek lands there."""
        if self._last_key is None and entry == 0:
            return True
        keyframes = self.scan.keyframes
        assert keyframes is not None
        if self._last_key is not None and keyframes[entry] <= self._last_key:
            return True  # it was decoded already, with the frames before it
        self._is_inside = True
        is_long = self.scan.info.num_frames >= MIN_SEEK_FRAMES
        first = self._seek(keyframes, entry) if is_long else self._read_on(int(keyframes[entry]))
        self._frames = self._decode(chain([first], self._packets))
        return first is not None

    def _read_on(self, keyframe: int) -> Any:
        found = next((packet for packet in self._packets if packet.pts == keyframe), None)
        self.stream.codec_context.flush_buffers()
        return found

    def _seek(self, keyframes: np.ndarray, entry: int) -> Any:
        before_all = int(keyframes[0]) - round(_BEFORE_S / self.stream.time_base)
        for earlier in (0, 1, 4, 16):
            target = int(keyframes[entry - earlier]) if earlier <= entry else before_all
            self.container.seek(target, stream=self.stream, backward=True)
            self._packets = packets_of(self.container, self.stream)
            found = (packet for packet in self._packets if packet.is_keyframe and packet.pts is not None)
            first = next(found, None)
            # MPEG-TS is searched by decoding times: it may land behind the keyframe.
            if first is not None and first.pts <= keyframes[entry]:
                return first
        return None

    def frames_until(self, targets: set[int]) -> Iterator[Any]:
        """Frames in display order, up to the last of the targets.

        Raises:
            _NotAsPromisedError: a frame is damaged, or of another size, or shown after one that comes later by its time
                stamp, or the last target does not come.
        """
        first, last = min(targets), max(targets)
        before: int | None = None
        size = (self.scan.info.width, self.scan.info.height)
        for frame in self._frames:
            is_damaged = frame.is_corrupt and not (self._is_inside and frame.pts < first)
            if frame.pts is None or is_damaged or (frame.width, frame.height) != size:
                raise _NotAsPromisedError  # the first frame's size holds
            if before is not None and frame.pts <= before:
                raise _NotAsPromisedError
            before = frame.pts
            if not (self._is_begun or self._is_inside) and before != self.scan.pts[0]:
                raise _NotAsPromisedError  # a recording cut in its middle: times count from a frame that is not shown
            self._is_begun = True
            yield frame
            if frame.pts == last:
                return
        raise _NotAsPromisedError

    def _decode(self, packets: Iterator[Any]) -> Generator[Any]:
        for packet in packets:
            yield from self._decoded(packet)

    def _decoded(self, packet: Any) -> Any:
        if packet.is_keyframe and packet.pts is not None:
            self._last_key = packet.pts
        if self._skips:
            is_needed = packet.pts is None or packet.pts in self.wanted
            self.stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
        return packet.decode()
