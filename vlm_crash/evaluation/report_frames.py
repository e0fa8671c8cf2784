"""A clip -> a few small JPEGs of it for a page: as many and as large as the page has room for, or why there are none.

The room is shared evenly, so the page's size is bounded however many clips there are, and a clip's pictures depend on
that clip and its share alone. Clips are decoded one after another in a few threads, each with a reader of its own.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.guarded import UnreadableClipError, read_frames

NUM_FRAMES = 8
MOST_THREADS = 4


@dataclass(frozen=True)
class Level:
    """How a clip's frames are kept: one in `step` of those read, inside a box (pixels; the shape is kept)."""

    step: int
    box: tuple[int, int]
    quality: int


#: From the best to the least; the first that fits into a clip's share of the page is taken.
LEVELS = (
    Level(1, (320, 180), 78), Level(1, (256, 144), 74), Level(1, (208, 117), 70), Level(1, (160, 90), 68),
    Level(2, (208, 117), 66), Level(2, (160, 90), 64), Level(2, (128, 72), 58), Level(4, (128, 72), 54),
    Level(8, (128, 72), 48),
)  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """Frames of a clip as base64 of JPEGs, with their times (seconds); none: `reason` says why."""

    images: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    size: tuple[int, int] = (0, 0)
    link: str = ""
    reason: str = ""


def pictures(places: Sequence[dict[str, Any]], page: Path, clips: Path | None, num_bytes: int) -> Iterator[Pictures]:
    """Frames of every clip, in order.

    Args:
        places: of each clip "path", "event" and "video".
        page: the HTML file, which the links start from.
        clips: where the clips lie now, if not at their path.
        num_bytes: room of a clip's frames, as base64.
    """
    threads = min(MOST_THREADS, os.cpu_count() or 1, max(1, len(places)))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="frames")
    try:
        found = pool.map(partial(_pictures, page=page, clips=clips, num_bytes=num_bytes), places)
        yield from tqdm(found, total=len(places), desc="frames", unit="clip", disable=None, leave=False)
    finally:
        pool.shutdown(cancel_futures=True)


def _pictures(place: dict[str, Any], page: Path, clips: Path | None, num_bytes: int) -> Pictures:
    path = _find(place, clips)
    if path is None:
        where = place["path"] or place["video"]
        return Pictures(reason=f"{where} is not there; give the folder of the clips by --clips")
    link = _link(path, page)
    try:
        frames = read_frames(path, FrameSampling(NUM_FRAMES))
    except UnreadableClipError as error:
        return Pictures(link=link, reason=str(error))
    for level in LEVELS:
        kept = slice(level.step // 2, None, level.step)
        jpegs = _jpegs(frames.frames_FHWC[kept], level, num_bytes)
        if jpegs:
            times = tuple(round(float(time), 2) for time in frames.times_s[kept])
            return Pictures(tuple(jpegs), times, level.box, link)
    return Pictures(link=link, reason="a page of so many clips has no room for frames")


def _find(place: dict[str, Any], clips: Path | None) -> Path | None:
    candidates = [Path(place["path"])]
    if clips is not None:
        candidates = [Path(clips) / place["event"] / place["video"], Path(clips) / place["video"], *candidates]
    return next((path for path in candidates if path.is_file()), None)


def _link(clip: Path, page: Path) -> str:
    """From the page to the clip: relative, so that both may be moved together, unless they share the root alone."""
    clip, folder = clip.resolve(), page.resolve().parent
    if os.path.commonpath([clip, folder]) == clip.anchor:
        return clip.as_uri()
    return "./" + quote(Path(os.path.relpath(clip, folder)).as_posix())


def _jpegs(frames_FHWC: np.ndarray, level: Level, num_bytes: int) -> list[str]:
    """The frames as base64; empty as soon as they are known not to fit."""
    found: list[str] = []
    for frame_HWC in frames_FHWC:
        found.append(_jpeg(frame_HWC, level))
        num_bytes -= len(found[-1])
        if num_bytes < 0:
            return []
    return found


def _jpeg(frame_HWC: np.ndarray, level: Level) -> str:
    from PIL import Image

    image = Image.fromarray(frame_HWC)
    image.thumbnail(level.box, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=level.quality, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
