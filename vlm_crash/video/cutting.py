"""A span of a recording becomes a clip of its own.

In: a path, a span in seconds, where to write. Out: an H.264 mp4 without sound, encoded anew. Must hold: the clip has
the frames shown in the span and no others, at their times (a copy of the stream could begin at a keyframe only); it is
whole, or not there.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.frame_stream import FrameStream
from vlm_crash.video.pixels import to_rgb
from vlm_crash.video.windows import Pulse, after_pulses

#: Ticks per second of a clip's time stamps.
_TICKS = 90_000
#: libx264's constant quality, near lossless to the eye.
_QUALITY = "18"
_CLOSE_S = 1e-6


@dataclass(frozen=True)
class Cut:
    """The clip is whole, and has so many frames."""

    num_frames: int


def part_of(out: Path) -> Path:
    """The file that becomes `out` when it is whole."""
    return out.with_name(f"{out.name}.part")


def cut_clip(path: str | Path, start_s: float, end_s: float, out: Path, is_steady: bool | None = None) -> int:
    """Write the frames of [start_s, end_s) as `out`; their number. `is_steady` as in FrameStream.frames.

    Raises:
        UnreadableClipError: there is nothing to decode there.
        OSError: `out` cannot be written.
    """
    return after_pulses(pulsing_cut(path, start_s, end_s, out, is_steady)).num_frames


def pulsing_cut(
    path: str | Path, start_s: float, end_s: float, out: Path, is_steady: bool | None
) -> Iterator[Pulse | Cut]:
    """The work of `cut_clip`, with a pulse for each frame that is read."""
    stream, part = FrameStream(path), part_of(out)
    frames = takewhile(lambda found: found[0] < end_s - _CLOSE_S, stream.frames(max(0.0, start_s), is_steady))
    for time_s, frame in frames:
        yield Pulse()
        if time_s >= start_s - _CLOSE_S:
            count = yield from _encoded(chain([(time_s, frame)], frames), stream.fps, part)
            part.replace(out)
            yield Cut(count)
            return
    raise UnreadableClipError(path, f"it shows nothing from {start_s:.1f} to {end_s:.1f} s")


def _encoded(shown: Iterator[tuple[float, Any]], fps: float, part: Path) -> Generator[Pulse, None, int]:
    first_s, size, count = 0.0, (0, 0), 0
    with av.open(str(part), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        video = container.add_stream("libx264", rate=rate, options={"crf": _QUALITY, "preset": "veryfast"})
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, _TICKS)
        for time_s, frame in shown:
            if count == 0:
                first_s, size = time_s, (frame.width, frame.height)
            rgb = to_rgb(frame, size)
            rgb = rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2]  # yuv420p has even sides
            if count == 0:
                video.height, video.width = rgb.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            picture.pts, picture.time_base = round((time_s - first_s) * _TICKS), Fraction(1, _TICKS)
            container.mux(video.encode(picture))
            count += 1
            yield Pulse()
        container.mux(video.encode(None))
    return count
