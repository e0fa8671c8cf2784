"""A clip file becomes uint8 frames; every failure is an UnreadableClipError with one line of reason.

In: a path and a number of frames. Out: the frames at the middles of equal intervals, their indices and times.
Must hold: an index counts the frames that can be decoded (headers lie), no frame stands in for another one silently,
and only the chosen frames are kept in memory.

decord is the quick reader (it seeks). It is trusted only where the packets of the file give no reason for doubt;
everywhere else PyAV reads the clip through from its beginning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.frame_sampling import middle_frame_indices

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .wmv .mpg .mpeg .ts .mts .m2ts .flv .3gp .gif".split()
)

# decord 0.6.0 hangs on some MPEG-TS, cannot open GIF and miscounts AVI with B-frames: only these container families
# (FFmpeg's demuxer names) go to it.
_DECORD_CONTAINERS = frozenset({"mov", "mp4"})
# A GIF, an audio file with a cover and so on have no more pixels than this; the rest are broken headers.
_MAX_PIXELS = 16384 * 16384


class UnreadableClipError(ValueError):
    """A clip that cannot be read. `path` says which, `reason` why, in one line."""

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = Path(path)
        self.reason = _one_line(reason)
        super().__init__(f"{self.path}: {self.reason}")

    def __reduce__(self) -> tuple[Any, ...]:  # so that it survives the way back from a DataLoader worker
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class ClipInfo:
    """What a clip is. `num_frames` counts what its packets promise; `duration_s` is seconds of picture, not of sound."""

    path: Path
    num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    codec: str


@dataclass(frozen=True)
class Frames:
    """Frames of one clip: `frames_FHWC` [F, H, W, 3] uint8 RGB, their indices, their times from the first frame on."""

    frames_FHWC: np.ndarray
    indices: tuple[int, ...]
    times_s: tuple[float, ...]
    info: ClipInfo
    reader: str


@dataclass(frozen=True)
class _Scan:
    """What the packets say without decoding. `times_s` is in display order, one entry a frame, from 0 on."""

    info: ClipInfo
    times_s: np.ndarray
    doubt: str | None  # why decord must not be used, None: no reason


def _one_line(reason: str) -> str:
    """First telling line, without C++ source positions and stack traces.

    >>> _one_line("[10:20:30] /src/video_reader.cc:270: [a.gif] Failed to measure\\n\\nStack trace returned 3 entries:")
    '[a.gif] Failed to measure'
    """
    text = re.split(r"stack trace", reason, flags=re.IGNORECASE)[0]
    text = re.sub(r"^\s*(?:\[[\d:]+\]\s*)?(?:\S+\.(?:cc|h|cpp):\d+:\s*)+", "", text)
    return re.sub(r"\s+", " ", text).strip()[:300] or "cannot be read"


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    """PyAV container and its first real video stream; PyAV's errors leave as UnreadableClipError."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UnreadableClipError(path, (error.strerror or str(error)).lower()) from error
    if not stat.S_ISREG(mode):
        raise UnreadableClipError(path, "not a file")
    if os.path.getsize(path) == 0:
        raise UnreadableClipError(path, "the file is empty (0 bytes)")
    try:
        # An absolute path: FFmpeg takes "a:b.mp4" for a protocol and "-a.mp4" is nobody's option here.
        with av.open(os.path.abspath(path), metadata_errors="replace") as container:
            yield container, _video_stream(path, container)
    except UnreadableClipError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableClipError(path, getattr(error, "strerror", None) or str(error)) from error


def _video_stream(path: Path, container: Any) -> Any:
    for stream in container.streams.video:
        context = stream.codec_context
        if stream.disposition & av.stream.Disposition.attached_pic:
            continue
        if context is None:
            raise UnreadableClipError(path, "its video codec is not supported")
        if not 0 < context.width * context.height <= _MAX_PIXELS:
            raise UnreadableClipError(path, f"frame size {context.width}x{context.height} cannot be right")
        context.thread_count = 1  # one thread a worker: the loader has as many workers as it wants
        return stream
    raise UnreadableClipError(path, "there is no video stream in it")


def _scan(path: Path) -> _Scan:
    """Read the packets, decode nothing: true count, times, and reasons to distrust decord."""
    with _open(path) as (container, stream):
        container_names = set(container.format.name.split(","))
        videos = [s for s in container.streams.video if s.type == "video"]
        times: list[int | None] = []
        doubt = None if container_names & _DECORD_CONTAINERS else f"container {container.format.name}"
        if len(videos) > 1:
            doubt = "more than one video stream"
        last_key = None
        time_base = stream.time_base
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                times.append(packet.pts)
                if packet.is_corrupt:
                    doubt = "damaged packets"
                if packet.is_keyframe:
                    last_key = packet.pts
                elif packet.pts is not None and last_key is not None and packet.pts < last_key:
                    # A frame shown before its keyframe: open GOP, where decord's seek lands up to 5 frames off.
                    doubt = "open GOP"
        except av.error.FFmpegError as error:
            doubt = f"the packets end early: {error.strerror}"
        context = stream.codec_context
        fps = float(stream.average_rate or stream.guessed_rate or 0) or 25.0
        width, height, codec = context.width, context.height, context.name
    if not times:
        raise UnreadableClipError(path, "its video stream holds no frames")
    times_s = _display_times(times, float(time_base), fps)
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / fps
    info = ClipInfo(path, len(times), fps, float(times_s[-1]) + (step or 1 / fps), width, height, codec)
    return _Scan(info, times_s, doubt)


def _display_times(times: Sequence[int | None], time_base: float, fps: float) -> np.ndarray:
    """Seconds from the first shown frame on; from the frame rate where the container has no time stamps."""
    known = [time for time in times if time is not None]
    if len(known) < len(times) or (len(known) > 1 and len(set(known)) == 1):
        return np.arange(len(times)) / fps
    ordered = np.sort(np.asarray(known, dtype=np.int64))
    return (ordered - ordered[0]) * time_base


def probe(path: str | Path) -> ClipInfo:
    """What a clip is, read from its packets, after decoding its first frame.

    Raises:
        UnreadableClipError: nothing of it can be decoded.
    """
    scan = _scan(Path(path))
    for _frame in _decode(scan.info.path):
        return scan.info
    raise UnreadableClipError(path, "no frame of it can be decoded")


def read_frames(path: str | Path, num_frames: int) -> Frames:
    """Read the middle frames of `num_frames` equal intervals (a shorter clip repeats its last frame).

    Raises:
        UnreadableClipError: nothing of it can be decoded.
        ValueError: num_frames is below 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames={num_frames}: ask for at least 1 frame")
    scan = _scan(Path(path))
    doubt = scan.doubt
    if doubt is None:
        indices = middle_frame_indices(scan.info.num_frames, num_frames)
        frames = _read_decord(scan.info, indices)
        if isinstance(frames, np.ndarray):
            return _frames(scan, frames, indices, "decord")
        doubt = frames
    logger.debug("%s: read through with PyAV (%s)", path, doubt)
    return _read_pyav(scan, num_frames)


def _frames(scan: _Scan, frames_FHWC: np.ndarray, indices: Sequence[int], reader: str) -> Frames:
    last = len(scan.times_s) - 1
    times_s = tuple(float(scan.times_s[min(i, last)]) for i in indices)
    return Frames(frames_FHWC, tuple(indices), times_s, scan.info, reader)


def _read_decord(info: ClipInfo, indices: Sequence[int]) -> np.ndarray | str:
    """[F, H, W, 3] frames, or why decord cannot be believed here."""
    try:
        import decord  # not built for every platform; PyAV alone reads everything, slower
    except ImportError:
        return "decord is not installed"
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(os.path.abspath(info.path), num_threads=1)
        if len(reader) != info.num_frames:
            return f"decord counts {len(reader)} frames, the packets {info.num_frames}"
        frames_FHWC = reader.get_batch(list(indices)).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:  # DECORDError is no RuntimeError
        return _one_line(str(error))
    if frames_FHWC.shape[0] != len(indices):
        return f"decord gave {frames_FHWC.shape[0]} of {len(indices)} frames"
    return frames_FHWC


def _decode(path: Path) -> Iterator[Any]:
    """Frames of the first video stream in display order; damaged packets are left out."""
    with _open(path) as (container, stream):
        num_bad = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = packet.decode()
            except av.error.InvalidDataError:
                num_bad += 1
                continue
            yield from frames
        if num_bad:
            logger.warning("%s: %d damaged packets were left out", path, num_bad)


def _read_pyav(scan: _Scan, num_frames: int) -> Frames:
    """Decode from the beginning, keep the chosen frames; once more where the packets promised another count."""
    expected = scan.info.num_frames
    for _attempt in range(2):
        indices = middle_frame_indices(expected, num_frames)
        chosen, count = _pick(scan.info, set(indices))
        if count == 0:
            raise UnreadableClipError(scan.info.path, "no frame of it can be decoded")
        if count == expected:
            scan = replace(scan, info=replace(scan.info, num_frames=count))
            return _frames(scan, np.stack([chosen[i] for i in indices]), indices, "pyav")
        expected = count
    raise UnreadableClipError(scan.info.path, "two passes over it decoded different numbers of frames")


def _pick(info: ClipInfo, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    chosen: dict[int, np.ndarray] = {}
    count = 0
    size = None
    for frame in _decode(info.path):
        size = size or (frame.width, frame.height)  # a stream may change its size midway: the first one holds
        if count in wanted:
            rgb = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
            # decord applies the display matrix, PyAV only reports it (degrees, counterclockwise).
            turns = round(frame.rotation / 90) % 4
            chosen[count] = np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb
        count += 1
    return chosen, count


def list_clips(folder: str | Path) -> list[Path]:
    """The clips of a folder, by number first (2.mp4 before 10.mp4), then by name.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of clips; give the folder that holds the video files")
    clips = [p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()]
    return sorted(clips, key=clip_sort_key)


def clip_sort_key(clip: Path) -> tuple[bool, int, str]:
    """Numbered clips first, by number; then the others, by name.

    >>> sorted(["b.mp4", "10.mp4", "2.mp4"], key=lambda name: clip_sort_key(Path(name)))
    ['2.mp4', '10.mp4', 'b.mp4']
    """
    number = int(clip.stem) if clip.stem.isascii() and clip.stem.isdigit() else None
    return number is None, number or 0, clip.name


def content_hash(path: str | Path) -> str:
    """sha256 of the file's bytes, in hex.

    Raises:
        UnreadableClipError: the file cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableClipError(path, (error.strerror or str(error)).lower()) from error
