"""The other end of guarded.py: a process that reads one clip after another for its owner, and may die of one.

In: a line of JSON a clip, on stdin: task, path, arguments, level of the log, and whether frames are handed over as they
come (handing_over.py); a blank line each time that the owner is done with some. Out, on what was stdout: two sizes, a
pickled (result, log records), and the bytes of frames that were not handed over. An UnreadableClipError is a result;
any other exception ends the process. Must hold: it ends with its owner, also while a decoder hangs.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vlm_crash.video.clip_files import content_hash, signature
from vlm_crash.video.comparison import decord_disagreements
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.handing_over import Giver, Handed
from vlm_crash.video.pixels import kept_by
from vlm_crash.video.reader import Frames, probe, read_frames

#: Two of them stand before an answer: bytes of the pickle, bytes of the frames. Before frames that are handed over:
#: 0, and bytes of the pickle that says where they lie.
HEADER = np.dtype("<u8")
#: What the process says first.
READY = b"ready\n"
_PIPE_BYTES = 2**20  # the most that Linux gives to anybody
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(tasks: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests for these tasks until the owner closes its end."""
    _end_with(int(sys.argv[1]))
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.dup(1)
    giver = Giver(int(sys.argv[2]), partial(_tell, answers), partial(_heard, requests))
    os.dup2(2, 1)  # libraries may print
    widened(answers)
    records: list[tuple[str, int, str]] = []
    logging.getLogger().addHandler(_Kept(records))
    _write(answers, READY)
    while line := requests.readline():
        task, path, arguments, level, hands_over = json.loads(line)
        logging.getLogger("vlm_crash.video").setLevel(level)
        try:
            with kept_by(giver) if hands_over and _may_share() else nullcontext():
                result = tasks[task](Path(path), *arguments)
        except UnreadableClipError as error:
            result = error
        giver.finish()
        pixels: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps((result, records), protocol=5, buffer_callback=pixels.append)
        frames = [buffer.raw() for buffer in pixels]
        sizes = np.array([len(pickled), sum(frame.nbytes for frame in frames)], HEADER)
        parts: list[bytes | memoryview] = [sizes.tobytes(), pickled, *frames]
        for part in parts:
            _write(answers, part)
        records.clear()
        del result, pixels, frames, parts, part  # or they would stay until the next clip is read


def _may_share() -> bool:
    """Whether shared memory may grow: to the system it is a file (ulimit -f). Else frames go the way of the answer."""
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def _tell(answers: int, handed: Handed) -> None:
    told = pickle.dumps(handed)
    _write(answers, np.array([0, len(told)], HEADER).tobytes() + told)


def _heard(requests: TextIO) -> None:
    if not requests.readline():
        sys.exit(0)  # its owner is gone


def widened(pipe: int) -> None:
    """Make a pipe hold more, so that both ends wait for each other less often."""
    if sys.platform == "linux":
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except PermissionError:  # the user's pipes hold as much as they may (pipe-user-pages-soft)
            return


class _Kept(logging.Handler):
    """Records as text: for the owner to log."""

    def __init__(self, records: list[tuple[str, int, str]]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))


def _end_with(owner: int) -> None:
    """Let the system kill this process with its owner, and before its owner where memory is full."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Slurm sends them to all; the owner says when it is over
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:  # it has ended before it could be told
        os._exit(0)
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:  # no /proc, or a sandbox
        return


def _write(pipe: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def read_chosen(path: Path, sampling: dict[str, Any], reader: str) -> Frames:
    """As reader.read_frames, of what JSON can carry."""
    return read_frames(path, FrameSampling.from_json(sampling), reader)


def _compare(path: Path, sampling: dict[str, Any]) -> str | None:
    return decord_disagreements(path, FrameSampling.from_json(sampling))


if __name__ == "__main__":
    about_files = {"content_hash": content_hash, "signature": signature}
    serve({"read_frames": read_chosen, "probe": probe, "compare": _compare, **about_files})
