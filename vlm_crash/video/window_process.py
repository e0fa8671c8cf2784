"""The other end of guarded_windows.py: a process that reads recordings on for its owner, and may die of one.

In: a task, as reader_process.py takes it: the next window of a recording, one window again, a clip to cut out. Out:
what came next, a given time and one frame later at the latest: the thing asked for, or a pulse. Must hold: a
recording that is read on is not opened anew; a process started in this one's place finds where by the request.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.cutting import pulsing_cut
from vlm_crash.video.reader_process import serve
from vlm_crash.video.windows import Pulse, Window, WindowGrid, pulsing_window, pulsing_windows


class Continued:
    """A task that is asked for again and again until it is done.

    Args:
        begin: (path, arguments) -> what comes, one after the other.
        follow: what is asked for next after something has come; None: it is done.
    """

    def __init__(
        self, begin: Callable[..., Iterator[Any]], follow: Callable[[tuple[Any, ...], Any], tuple[Any, ...] | None]
    ) -> None:
        self._begin, self._follow = begin, follow
        self._request: tuple[Any, ...] | None = None
        self._coming: Iterator[Any] = iter(())

    def __call__(self, path: Path, pulse_s: float, *arguments: Any) -> Any:
        """What comes next; after `pulse_s` seconds a sign of life, at the next frame."""
        request = (path, *arguments)
        if request != self._request:
            self._coming = self._begin(path, *arguments)
        self._request = None  # an error ends it
        end = time.monotonic() + pulse_s
        for found in self._coming:
            if not isinstance(found, Pulse) or time.monotonic() > end:
                break
        else:
            raise AssertionError("what comes ends with something other than a pulse")
        self._request = self._follow(request, found)
        if self._request is None:
            self._coming = iter(())
        return found


def _window_after(request: tuple[Any, ...], found: Any) -> tuple[Any, ...] | None:
    path, grid, _, is_steady = request
    if isinstance(found, Pulse):
        return request
    return (path, grid, *place_after(found, is_steady)) if isinstance(found, Window) else None


def place_after(window: Window, is_steady: bool | None) -> tuple[int, bool | None]:
    """The window to ask for next, and what is known of the time stamps by then."""
    return window.index + 1, False if window.num_moved else is_steady


def _until_done(request: tuple[Any, ...], found: Any) -> tuple[Any, ...] | None:
    return request if isinstance(found, Pulse) else None


def _cut(path: Path, start_s: float, end_s: float, out: str, is_steady: bool | None) -> Iterator[Any]:
    """An OSError of the written file is handed over; what is wrong with the recording leaves as always."""
    try:
        yield from pulsing_cut(path, start_s, end_s, Path(out), is_steady)
    except UnreadableClipError:
        raise
    except OSError as error:
        yield OSError(error.errno or errno.EIO, error.strerror or str(error), out)


def tasks() -> Mapping[str, Callable[..., Any]]:
    """By name; each keeps its place by itself."""

    def windows(path: Path, grid: Mapping[str, Any], first: int, is_steady: bool | None) -> Iterator[Any]:
        return pulsing_windows(path, WindowGrid.from_json(grid), first, is_steady)

    def window(
        path: Path, grid: Mapping[str, Any], start_s: float, end_s: float, is_steady: bool | None
    ) -> Iterator[Any]:
        return pulsing_window(path, WindowGrid.from_json(grid), start_s, end_s, is_steady)

    return {
        "next_window": Continued(windows, _window_after),
        "window": Continued(window, _until_done),
        "cut": Continued(_cut, _until_done),
    }


if __name__ == "__main__":
    serve(tasks())
