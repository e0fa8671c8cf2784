"""A process that reads recordings as window_process.py does, and ends at a moment of one: `crashes_12.mp4` at 12 s.

A file `healed` beside it: nothing happens.
"""

import ctypes
import os
from pathlib import Path

import av

from vlm_crash.video.frame_stream import FrameStream
from vlm_crash.video.window_process import serve, tasks

frames = FrameStream.frames


def odd_frames(self, start_s=0.0, is_steady=None):
    what, _, moment = self.path.stem.partition("_")
    for time_s, frame in frames(self, start_s, is_steady):
        if moment and time_s >= float(moment) and not self.path.with_name("healed").exists():
            happen(what, self.path)
        yield time_s, frame


def happen(what: str, path: Path) -> None:
    match what:
        case "hangs":  # for a writer that never comes, inside FFmpeg
            pipe = path.with_suffix(".pipe")
            if not pipe.exists():
                os.mkfifo(pipe)
            av.open(str(pipe))
        case "crashes":
            ctypes.string_at(0)


if __name__ == "__main__":
    FrameStream.frames = odd_frames
    serve(tasks())
