"""How a child of the doctor talks: a line of JSON for each finding, and before it what is tried next."""

import json
import sys
from collections.abc import Callable
from typing import Any

from vlm_crash.doctor.lines import OK, PROBLEM, Line

#: What a broken installation, driver or card raises; AssertionError: torch, of a build without CUDA.
FAULTS = (RuntimeError, ImportError, OSError, AssertionError, ValueError, TypeError, AttributeError)


def say(item: Line | dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(item.as_dict() if isinstance(item, Line) else item) + "\n")
    sys.stdout.flush()


def first_line(error: BaseException) -> str:
    """What an exception says, short.

    >>> first_line(RuntimeError("out of paper\\nstack"))
    'out of paper'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def attempt(name: str, action: Callable[[], str | None], works: str, remedy: str = "") -> bool:
    """Say whether something works; what the action returns is added."""
    say({"trying": name})
    try:
        more = action()
    except FAULTS as error:
        say(Line(name, PROBLEM, f"does not work: {first_line(error)}", remedy))
        return False
    say(Line(name, OK, works + (f"; {more}" if more else "")))
    return True
