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
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from vlm_crash.video.container import ClipInfo, UnreadableClipError
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.handing_over import Handed, Taken, Taker, shared_file
from vlm_crash.video.reader import Frames, check_reader
from vlm_crash.video.reader_pipes import deadline, fill, result_of, sizes, write
from vlm_crash.video.reader_process import READY, widened

__all__ = [
    "CLIP_TIMEOUT_S",
    "UnreadableClipError",
    "content_hash",
    "decord_disagreements",
    "probe",
    "read_fitted",
    "read_frames",
    "signature",
]

logger = logging.getLogger(__name__)

#: Seconds that a clip may take unless told otherwise.
CLIP_TIMEOUT_S = 120.0
#: What helps where a clip took too long.
TIMEOUT_REMEDY = "raise --data.clip_timeout_s (--clip_timeout_s in prepare, check and frames; 0: no limit)"
#: What the process runs.
MODULE = "vlm_crash.video.reader_process"
_START_S = 60.0  # a loaded machine, a slow disk for the packages
_END_S = 5.0  # what waits for a dead network disk cannot even be killed; it is left then
_ROOT = Path(__file__).resolve().parents[2]


def read_frames(
    path: str | Path,
    sampling: FrameSampling,
    reader: str = "auto",
    timeout_s: float | None = CLIP_TIMEOUT_S,
    image_size: int | None = None,
    to_keep: bool = False,
) -> Frames:
    """As reader.read_frames, in a process that may die.

    Args:
        timeout_s: most seconds for the clip; None or 0: no limit.
        image_size: side of a square, in pixels, to which each frame is resized as it comes, as image_transform does it:
            few frames are there in full size, two of large ones. None: they stay as they are.
        to_keep: as the frame cache keeps them: of a clip that is lower than the square without the rows to be added.

    Raises:
        UnreadableClipError: nothing of it can be decoded, it took too long, or the decoder died of it.
        ValueError: there is no such reader.
        RuntimeError: the process cannot be started.
    """
    fit = None if image_size is None else partial(_fit, image_size, to_keep)
    return read_fitted(path, sampling, fit, reader, timeout_s)


def read_fitted(
    path: str | Path,
    sampling: FrameSampling,
    fit: Callable[[np.ndarray], np.ndarray] | None,
    reader: str = "auto",
    timeout_s: float | None = CLIP_TIMEOUT_S,
) -> Frames:
    """As `read_frames`, frames made small as they come.

    Args:
        fit: [N, H, W, 3] uint8 -> [N, ...], what is kept of some frames, of one size for all; None: all of it.
    """
    check_reader(reader)
    taken = Taken(sampling.num_frames, fit)
    asked = [sampling.to_json(), reader]
    frames: Frames = _own_process().ask("read_frames", Path(path), asked, timeout_s, taken)
    if len(frames.frames_FHWC):  # of a reader that gives all at once
        for place, frame_HWC in enumerate(frames.frames_FHWC):
            taken.take(frame_HWC[None], [[place]])
    chosen_FHWC = taken.first(len(frames.indices))
    return replace(frames, frames_FHWC=chosen_FHWC, info=replace(frames.info, path=Path(path)))


def _fit(image_size: int, to_keep: bool, frames_FHWC: np.ndarray) -> np.ndarray:
    from vlm_crash.video import image_transform  # loads torch, which whoever wants a square has loaded

    resize = image_transform.to_be_resized if to_keep else image_transform.resized
    return resize(frames_FHWC, image_size)


def probe(path: str | Path, timeout_s: float | None = CLIP_TIMEOUT_S) -> ClipInfo:
    """As reader.probe, in a process that may die; arguments and errors as those of `read_frames`."""
    info: ClipInfo = _own_process().ask("probe", Path(path), [], timeout_s)
    return replace(info, path=Path(path))


def content_hash(path: str | Path, timeout_s: float | None = CLIP_TIMEOUT_S) -> str:
    """As clip_files.content_hash, in a process that may die; arguments and errors as those of `read_frames`."""
    return str(_own_process().ask("content_hash", Path(path), [], timeout_s))


def signature(path: str | Path, timeout_s: float | None = CLIP_TIMEOUT_S) -> tuple[int, ...]:
    """As clip_files.signature, in a process that may die; arguments and errors as those of `read_frames`."""
    found: tuple[int, ...] = _own_process().ask("signature", Path(path), [], timeout_s)
    return found


def decord_disagreements(
    path: str | Path, sampling: FrameSampling, timeout_s: float | None = CLIP_TIMEOUT_S
) -> str | None:
    """As comparison.decord_disagreements, in a process that may die: of decord, too, which is what it says then.

    Raises:
        UnreadableClipError: `auto` cannot read it either.
        ValueError: decord is not installed.
    """
    check_reader("decord")
    try:
        found: str | None = _own_process().ask("compare", Path(path), [sampling.to_json()], timeout_s)
    except UnreadableClipError as error:
        read_frames(path, sampling, timeout_s=timeout_s)  # raises where it is not decord's fault
        return f"decord: {error.reason}"
    return found


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
        self._taker: Taker | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None: none is running."""
        return self._running.pid if self._running is not None else None

    def ask(
        self, task: str, path: Path, arguments: list[Any], timeout_s: float | None, taken: Taken | None = None
    ) -> Any:
        """What a task of the process gives for a clip; the errors are those of `read_frames`.

        Args:
            taken: takes the chosen frames as they come; None: they come with the rest.
        """
        process = self._ready()
        level = logging.getLogger("vlm_crash.video").getEffectiveLevel()
        answered = False
        try:
            request = [task, os.fspath(path.absolute()), arguments, level, taken is not None]
            write(process, json.dumps(request).encode() + b"\n")
            result, records = self._answer(process, deadline(timeout_s), taken)
            answered = True
        except TimeoutError:
            reason = f"the decoder took longer than {timeout_s:g} s and was killed; {TIMEOUT_REMEDY}"
            raise UnreadableClipError(path, reason) from None
        except (EOFError, BrokenPipeError):
            raise UnreadableClipError(path, self._how_it_ended(process)) from None
        finally:
            if not answered:  # Ctrl-C, too: half an answer may be under way
                self.stop()
        for name, number, text in records:
            logging.getLogger(name).log(number, "%s", text)
        if isinstance(result, UnreadableClipError):
            raise type(result)(path, result.reason)
        return result

    def _answer(
        self, process: subprocess.Popen[bytes], deadline: float, taken: Taken | None
    ) -> tuple[Any, list[tuple[str, int, str]]]:
        """The pickled result with its log records, after the frames that are handed over."""
        while True:
            size, rest = sizes(process, deadline)
            if size:
                return result_of(process, size, rest, deadline)
            pickled = np.empty(rest, np.uint8)
            fill(process, pickled, deadline)
            handed: Handed = pickle.loads(pickled.data)
            assert taken is not None and self._taker is not None
            taken.take(self._taker.frames(handed), handed.places)
            write(process, b"\n")

    def stop(self) -> None:
        """Kill the process, if one runs."""
        if self._running is not None:
            _kill(self._running, self.owner, self._taker)
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
        file = shared_file()
        self._taker = Taker(file)
        given = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]  # noqa: PTH100 - text to text
        process = subprocess.Popen(
            # -P: no module of the folder that the user stands in.
            [sys.executable, "-P", "-m", self.module, str(self.owner), str(file)],
            pass_fds=(file,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *given])},
            # Ctrl-C and what else is sent to the whole group is for its owner, who may want to finish the clip.
            start_new_session=True,
        )
        weakref.finalize(self, _kill, process, self.owner, self._taker)
        assert process.stdout is not None
        widened(process.stdout.fileno())
        os.set_blocking(process.stdout.fileno(), False)
        ready = np.empty(len(READY), np.uint8)
        try:
            fill(process, ready, deadline(_START_S))
        except (EOFError, TimeoutError):
            ended = self._how_it_ended(process)
            _kill(process, self.owner, self._taker)
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


def _kill(process: subprocess.Popen[bytes], owner: int, taker: Taker | None) -> None:
    if os.getpid() == owner:
        process.kill()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            logger.warning("process %d that read clips cannot be killed; it waits for a disk", process.pid)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if taker is not None:
        taker.close()
