"""Clips are read in a process of their own: a decoder that hangs or dies costs one clip, and the run goes on.

In: a path, and how long its clip may take. Out: what reader.py gives for it, or an UnreadableClipError with the reason.
Must hold: the process ends when its owner ends, however that comes about; one that was killed takes nothing of the next
clip with it; a thread has a process of its own, and a forked process shares none with its parent.

The process (reader_process.py) is a clean interpreter, started once and fed one clip after another. It is no child of
multiprocessing, which a DataLoader's worker could not have.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from vlm_crash.video.container import ClipInfo, UnreadableClipError
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.reader import Frames, check_reader
from vlm_crash.video.reader_process import HEADER, READY, widened

__all__ = ["CLIP_TIMEOUT_S", "UnreadableClipError", "probe", "read_frames"]

logger = logging.getLogger(__name__)

#: Seconds that a clip may take unless told otherwise.
CLIP_TIMEOUT_S = 120.0
#: What the process runs.
MODULE = "vlm_crash.video.reader_process"
_START_S = 60.0  # a loaded machine, a slow disk for the packages
_END_S = 5.0  # what waits for a dead network disk cannot even be killed; it is left then
_LONGEST_POLL_S = 1e6  # its milliseconds are an int of C
_ROOT = Path(__file__).resolve().parents[2]


def read_frames(
    path: str | Path, sampling: FrameSampling, reader: str = "auto", timeout_s: float | None = CLIP_TIMEOUT_S
) -> Frames:
    """As reader.read_frames, in a process that may die.

    Args:
        timeout_s: most seconds for the clip; None or 0: no limit.

    Raises:
        UnreadableClipError: nothing of it can be decoded, it took too long, or the decoder died of it.
        ValueError: there is no such reader.
        RuntimeError: the process cannot be started.
    """
    check_reader(reader)
    frames: Frames = _own_process().ask("read_frames", Path(path), [sampling.to_json(), reader], timeout_s)
    return replace(frames, info=replace(frames.info, path=Path(path)))


def probe(path: str | Path, timeout_s: float | None = CLIP_TIMEOUT_S) -> ClipInfo:
    """As reader.probe, in a process that may die; arguments and errors as those of `read_frames`."""
    info: ClipInfo = _own_process().ask("probe", Path(path), [], timeout_s)
    return replace(info, path=Path(path))


_own = threading.local()


def _own_process() -> ReaderProcess:
    """The process of this thread."""
    process: ReaderProcess | None = getattr(_own, "process", None)
    if process is None or process.owner != os.getpid():  # a fork has its parent's
        process = _own.process = ReaderProcess(MODULE)
    return process


class ReaderProcess:
    """A process that reads clips, one at a time; it is started when it is first asked, and again after a death.

    Args:
        module: what it runs; it serves as reader_process.py does.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.owner = os.getpid()
        self._running: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None: none is running."""
        return self._running.pid if self._running is not None else None

    def ask(self, task: str, path: Path, arguments: list[Any], timeout_s: float | None) -> Any:
        """What a task of the process gives for a clip; the errors are those of `read_frames`."""
        process = self._ready()
        level = logging.getLogger("vlm_crash.video").getEffectiveLevel()
        answered = False
        try:
            _write(process, json.dumps([task, os.fspath(path.absolute()), arguments, level]).encode() + b"\n")
            result, records = _answer(process, _deadline(timeout_s))
            answered = True
        except TimeoutError:
            raise UnreadableClipError(path, f"the decoder took longer than {timeout_s:g} s and was killed") from None
        except (EOFError, BrokenPipeError):
            raise UnreadableClipError(path, self._how_it_ended(process)) from None
        finally:
            if not answered:  # Ctrl-C, too: half an answer may be under way
                self.stop()
        for name, number, text in records:
            logging.getLogger(name).log(number, "%s", text)
        if isinstance(result, UnreadableClipError):
            raise UnreadableClipError(path, result.reason)
        return result

    def stop(self) -> None:
        """Kill the process, if one runs."""
        if self._running is not None:
            _kill(self._running, self.owner)
            self._running = None

    def _ready(self) -> subprocess.Popen[bytes]:
        """The running process, its complaints about earlier clips forgotten; a new one where there is none."""
        if self._running is not None and self._running.poll() is not None:
            self.stop()  # it was ended between two clips: by the system for its memory, or by somebody
        if self._running is None:
            self._running = self._started()
        elif self._complaints is not None:
            self._complaints.seek(0)
            self._complaints.truncate()
        return self._running

    def _started(self) -> subprocess.Popen[bytes]:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        given = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]  # noqa: PTH100 - text to text
        process = subprocess.Popen(
            # -P: no module of the folder that the user stands in.
            [sys.executable, "-P", "-m", self.module, str(self.owner)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *given])},
            # Ctrl-C and what else is sent to the whole group is for its owner, who may want to finish the clip.
            start_new_session=True,
        )
        weakref.finalize(self, _kill, process, self.owner)
        assert process.stdout is not None
        widened(process.stdout.fileno())
        os.set_blocking(process.stdout.fileno(), False)
        ready = np.empty(len(READY), np.uint8)
        try:
            _fill(process, ready, _deadline(_START_S))
        except (EOFError, TimeoutError):
            ended = self._how_it_ended(process)
            _kill(process, self.owner)
            raise RuntimeError(f"the process that reads clips does not start: {ended}") from None
        assert ready.tobytes() == READY
        return process

    def _how_it_ended(self, process: subprocess.Popen[bytes]) -> str:
        try:
            code = process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "the decoder does not answer"
        if code == -signal.SIGKILL:
            return "the decoder was killed by SIGKILL, as the system does where memory is full"
        if code < 0:
            return f"the decoder died by {signal.Signals(-code).name}"
        assert self._complaints is not None
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
        return f"the decoder failed: {last}"


def _kill(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:
        process.kill()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            logger.warning("process %d that read clips cannot be killed; it waits for a disk", process.pid)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


# --------------------------------------------------------------------------------------------------------- the pipes


def _deadline(timeout_s: float | None) -> float:
    return time.monotonic() + (timeout_s or math.inf)


def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)  # a process that waits for it: a pipe holds far more than a path


def _answer(process: subprocess.Popen[bytes], deadline: float) -> tuple[Any, list[tuple[str, int, str]]]:
    """The pickled result with its log records; arrays come after it, straight into memory of their own."""
    header = np.empty(2, HEADER)
    _fill(process, header.view(np.uint8), deadline)
    pickled, pixels = (np.empty(int(size), np.uint8) for size in header)
    _fill(process, pickled, deadline)
    _fill(process, pixels, deadline)
    found: tuple[Any, list[tuple[str, int, str]]] = pickle.loads(pickled.data, buffers=[pixels] if pixels.size else [])
    return found


def _fill(process: subprocess.Popen[bytes], array: np.ndarray, deadline: float) -> None:
    """Read an array's bytes; TimeoutError at the deadline, EOFError where the other end is gone."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    rest = array.data
    while rest:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if not poll.poll(math.ceil(min(left_s, _LONGEST_POLL_S) * 1000)):
            continue
        count = os.readv(pipe, [rest])
        if count == 0:
            raise EOFError
        rest = rest[count:]
