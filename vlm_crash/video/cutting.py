"""A span of a recording becomes a clip of its own.

In: a path, a span in seconds, where to write. Out: an H.264 mp4 without sound, encoded anew. Must hold: the clip has
the frames shown in the span and no others, at their times (a copy of the stream could begin at a keyframe only); it is
whole, or not there.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import chain, takewhile
from pathlib import Path

import av
import numpy as np

from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.frame_stream import FrameStream
from vlm_crash.video.pixels import to_rgb

#: Ticks per second of a clip's time stamps.
_TICKS = 90_000
#: libx264's constant quality, near lossless to the eye.
_QUALITY = "18"
_CLOSE_S = 1e-6


def cut_clip(path: str | Path, start_s: float, end_s: float, out: Path) -> int:
    """Write the frames of [start_s, end_s) as `out`; their number.

    Raises:
        UnreadableClipError: there is nothing to decode there.
        OSError: `out` cannot be written.
    """
    stream = FrameStream(path)
    part = out.with_name(f"{out.name}.part")
    shown = (found for found in takewhile(lambda found: found[0] < end_s - _CLOSE_S, stream.frames(max(0.0, start_s)))
             if found[0] >= start_s - _CLOSE_S)  # fmt: skip
    first = next(shown, None)
    if first is None:
        raise UnreadableClipError(path, f"it shows nothing from {start_s:.1f} to {end_s:.1f} s")
    size, count = (first[1].width, first[1].height), 0
    with av.open(str(part), "w", format="mp4") as container:
        rate = Fraction(stream.fps).limit_denominator(1001)
        video = container.add_stream("libx264", rate=rate, options={"crf": _QUALITY, "preset": "veryfast"})
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, _TICKS)
        for time_s, frame in chain([first], shown):
            rgb = to_rgb(frame, size)
            rgb = rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2]  # yuv420p has even sides
            if count == 0:
                video.height, video.width = rgb.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            picture.pts, picture.time_base = round((time_s - first[0]) * _TICKS), Fraction(1, _TICKS)
            container.mux(video.encode(picture))
            count += 1
        container.mux(video.encode(None))
    part.replace(out)
    return count
