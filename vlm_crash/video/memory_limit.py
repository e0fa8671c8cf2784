"""A process that looks at clips ends before it eats the machine's memory.

In: how much it may take. Out: nothing, or the end of the process. Must hold: whoever waits for it is told why.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GIB = 2**30
_STATM = Path("/proc/self/statm")
_SECONDS_BETWEEN_LOOKS = 0.02  # a core fills some 0.1 GiB of new pages in that time


@contextmanager
def memory_limit(memory_gib: float | None) -> Iterator[None]:
    """For `with`: end this process as soon as it holds so much more than now; without /proc there is no limit.

    Memory in use is measured, not forbidden (RLIMIT_AS): where FFmpeg is refused a buffer, it calls the packet damaged
    and goes on with the next one.
    """
    if not memory_gib or not _STATM.exists():
        yield
        return
    most = _resident_bytes() + int(memory_gib * _GIB)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            if _resident_bytes() > most:
                # Whoever waits for this process takes its last line as the reason (guarded.py).
                os.write(2, f"it takes more than {memory_gib:g} GiB of memory\n".encode())
                os._exit(1)

    watcher = threading.Thread(target=watch, name="memory", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _resident_bytes() -> int:
    return int(_STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
