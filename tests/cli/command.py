"""What `python -m vlm_crash ARGUMENT...` does, in a process that was forked (tests/parallel/forked.py).

Enters: arguments, and by the environment how the test disturbs it. A signal comes at a place, not at a time: on a
machine that others use, a process that watches this one may look too late.
"""

import functools
import importlib
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
from typing import Any

from vlm_crash.cli import main as main_of_the_program

#: Most KiB that a file may grow to; the rest the system refuses, as on a full disk.
FILE_LIMIT = "TEST_FILE_LIMIT_KIB"
#: As JSON: "after" (package.module.Class.function) and "count", and what comes once so many calls have returned:
#: a "signal", to the whole "group" or not, or a "command".
DISTURBANCE = "TEST_DISTURBANCE"


def _disturb(after: str, count: int, signal: int = 0, group: bool = False, command: tuple[str, ...] = ()) -> None:
    owner, _, name = after.rpartition(".")
    place = pkgutil.resolve_name(owner)
    plain = getattr(place, name)
    calls = 0

    @functools.wraps(plain)
    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        found = plain(*args, **options)
        calls += 1
        if calls == count and command:
            subprocess.run(command, check=True)
        elif calls == count:
            (os.killpg if group else os.kill)(os.getpid(), signal)
        return found

    setattr(place, name, counted)


def main() -> None:
    if FILE_LIMIT in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ[FILE_LIMIT]) * 1024,) * 2)
    if DISTURBANCE in os.environ:
        _disturb(**json.loads(os.environ[DISTURBANCE]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # By its name Lightning starts the other processes of a run.
    sys.modules["__main__"] = importlib.import_module("vlm_crash.__main__")
    sys.exit(main_of_the_program(sys.argv[1:]))
