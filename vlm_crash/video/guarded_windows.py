"""Recordings are read in a process of their own: a decoder that hangs or dies ends one recording, and the scan goes on.

In: a path, windows or a span, and how long the decoder may go without a frame. Out: what windows.py and cutting.py give
for it. Must hold: the windows before such a place come before its error, which says where they end; one pass over the
recording; a window at a time is handed over, and another one waits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.cutting import part_of
from vlm_crash.video.guarded import CLIP_TIMEOUT_S, ReaderProcess
from vlm_crash.video.reader import Frames
from vlm_crash.video.window_process import place_after
from vlm_crash.video.windows import End, Found, Pulse, Window, WindowGrid, whole_windows

#: What the process runs.
MODULE = "vlm_crash.video.window_process"
_PULSE_S = 1.0
_own = threading.local()


def read_windows(
    path: str | Path, grid: WindowGrid, first: int = 0, is_steady: bool | None = None,
    timeout_s: float | None = CLIP_TIMEOUT_S,
) -> Iterator[Window]:  # fmt: skip
    """As windows.read_windows, in a process that may die.

    Args:
        timeout_s: most seconds from one frame to the next; None or 0: no limit.

    Raises:
        UnreadableClipError: nothing (more) of it can be decoded, the decoder hung, or it died.
        RuntimeError: the process cannot be started.
    """
    end_s: float | None = None
    try:
        for window in whole_windows(_found(Path(path), grid, first, is_steady, timeout_s)):
            end_s = window.end_s
            yield window
    except UnreadableClipError as error:
        if end_s is None:
            raise
        raise UnreadableClipError(path, f"somewhere behind {end_s:.1f} s {error.reason}") from None


def read_window(
    path: str | Path, grid: WindowGrid, start_s: float, end_s: float, is_steady: bool | None = None,
    timeout_s: float | None = CLIP_TIMEOUT_S,
) -> Frames:  # fmt: skip
    """As windows.read_window, in a process that may die; `timeout_s` and errors as those of `read_windows`."""
    window: Window = _done("window", Path(path), [grid.to_json(), start_s, end_s, is_steady], timeout_s)
    return _ours(window, Path(path)).frames


def cut_clip(
    path: str | Path, start_s: float, end_s: float, out: Path, is_steady: bool | None = None,
    timeout_s: float | None = CLIP_TIMEOUT_S,
) -> int:  # fmt: skip
    """As cutting.cut_clip, in a process that may die; `timeout_s` and errors as those of `read_windows`.

    Raises:
        OSError: `out` cannot be written.
    """
    whole = os.path.abspath(out)  # noqa: PTH100 - it may not be there, and a link stays one
    try:
        found = _done("cut", Path(path), [start_s, end_s, whole, is_steady], timeout_s)
    except UnreadableClipError:
        part_of(out).unlink(missing_ok=True)
        raise
    if isinstance(found, OSError):
        raise found
    count: int = found.num_frames
    return count


def _found(
    path: Path, grid: WindowGrid, first: int, is_steady: bool | None, timeout_s: float | None
) -> Iterator[Found]:
    """A request names the window that it asks for, so that another process could answer it."""
    while True:
        arguments = [_pulse_s(timeout_s), grid.to_json(), first, is_steady]
        found: Found = _own_process().ask("next_window", path, arguments, timeout_s)
        if isinstance(found, Window):
            first, is_steady = place_after(found, is_steady)
            found = _ours(found, path)
        yield found
        if isinstance(found, End):
            return


def _done(task: str, path: Path, arguments: list[Any], timeout_s: float | None) -> Any:
    arguments = [_pulse_s(timeout_s), *arguments]
    while isinstance(found := _own_process().ask(task, path, arguments, timeout_s), Pulse):
        pass
    return found


def _pulse_s(timeout_s: float | None) -> float:
    """Seconds after which the process gives a sign of life; well before it would be killed.

    >>> _pulse_s(120.0), _pulse_s(0.4), _pulse_s(None)
    (1.0, 0.1, 1.0)
    """
    return min(_PULSE_S, timeout_s / 4) if timeout_s else _PULSE_S


def _ours(window: Window, path: Path) -> Window:
    """With the path as it was given."""
    return replace(window, frames=replace(window.frames, info=replace(window.frames.info, path=path)))


def _own_process() -> ReaderProcess:
    """The process of this thread."""
    process: ReaderProcess | None = getattr(_own, "process", None)
    if process is None or process.owner != os.getpid():  # a fork has its parent's
        process = _own.process = ReaderProcess(MODULE)
    return process
