"""A process that reads clips as vlm_crash.video.reader_process does, and ends as decoders end: by a clip's name."""

import ctypes
import os
import signal
from pathlib import Path
from typing import Any

import av
import numpy as np

from vlm_crash.video.clip_files import content_hash, signature
from vlm_crash.video.reader import Frames, probe
from vlm_crash.video.reader_process import read_chosen, serve


def read(path: Path, sampling: dict[str, Any], reader: str) -> Frames:
    os.write(1, b"a library that prints\n")
    match path.stem:
        case "hangs":  # for a writer that never comes, inside FFmpeg
            av.open(str(pipe_beside(path)))
        case "crashes":
            ctypes.string_at(0)
        case "aborts":
            ctypes.CDLL(None).abort()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "grows":
            np.ones(2**50)
        case "vanishes":
            path.unlink()
        case "dashcam":
            import decord

            return decord.VideoReader(str(path), num_threads=1).get_batch([0, 100, 250])
    return read_chosen(path, sampling, reader)


def pipe_beside(path: Path) -> Path:
    """A pipe that nobody writes into: whoever opens it waits, as for a disk that does not answer."""
    pipe = path.with_name("pipe")
    if not pipe.exists():
        os.mkfifo(pipe)
    return pipe


def hashed(path: Path) -> str:
    if path.stem == "unhashable":
        pipe_beside(path).read_bytes()
    return content_hash(path)


def seen(path: Path) -> tuple[int, ...]:
    if path.stem == "unseen":
        pipe_beside(path).read_bytes()
    return signature(path)


if __name__ == "__main__":
    serve({"read_frames": read, "probe": probe, "content_hash": hashed, "signature": seen})
