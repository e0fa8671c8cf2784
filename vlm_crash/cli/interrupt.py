"""Ctrl-C ends a command, whenever it comes.

Enters: SIGINT. Leaves: a KeyboardInterrupt in the main thread of the process that runs a command, and in none that was
forked from it. What must hold: one that Python drops, as it came in a finalizer or beside a fork, comes again.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Seconds until a dropped one comes again: the finalizer that it came in has ended by then, mostly.
AGAIN_S = 0.1


@contextmanager
def ctrl_c_arrives() -> Iterator[None]:
    """As long as a command runs; where SIGINT is ignored, or somebody else handles it, nothing changes.

    After each epoch a DataLoader ends its workers in `__del__`, and whatever is raised there is dropped (`python -c
    "help(sys.unraisablehook)"`): a run that was told to stop then went on. A worker that has just been forked would
    print a traceback, until it ignores the signal (data/workers.py).
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    owner, before = os.getpid(), sys.unraisablehook

    def interrupt(number: int, frame: Any) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt

    def dropped(what: "sys.UnraisableHookArgs") -> None:
        if os.getpid() != owner or not issubclass(what.exc_type, KeyboardInterrupt):
            before(what)
            return
        main = threading.main_thread().ident
        timer = threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        if sys.unraisablehook is dropped:
            sys.unraisablehook = before
        if signal.getsignal(signal.SIGINT) is interrupt:  # Lightning ignores it once it has come
            signal.signal(signal.SIGINT, signal.default_int_handler)
