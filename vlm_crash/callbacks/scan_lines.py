"""The lines of a scan's curve: one a window, and one that says why a recording cannot be read (on). Pure.

Enters: windows with what the model says of them. Leaves: lines, and all lines by recording. Must hold: what was judged
once is not replaced; the lines are gone through once, however many recordings there are.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vlm_crash.schema.records import VideoSample

Line = dict[str, Any]

#: What each line has.
LINE_KEYS = ("recording", "window", "probability", "error", "is_last")


def curve_line(window: Any, found: Mapping[str, float] | str, background: str) -> Line:
    """The line of a window: {event: probability}, and `probability`, that one happens; or why there are none."""
    probabilities, error = (None, found) if isinstance(found, str) else (found, None)
    happens = None
    if probabilities is not None:
        # The sum, not 1 - P(background), which rounds what is small to 0.
        happens = min(1.0, sum(value for name, value in probabilities.items() if name != background))
    return {
        "recording": window.id,
        "window": window.window,
        "start_s": round(window.start_s, 6),
        "end_s": round(window.end_s, 6),
        "probability": happens,
        "events": None if probabilities is None else dict(probabilities),
        "error": error,
        "is_last": window.is_last,
        "damage": window.damage,
        "num_moved": window.num_moved,
    }


def failed_line(recording: VideoSample, reason: str) -> Line:
    """The line of a recording that cannot be read."""
    return {"recording": recording.id, "window": None, "probability": None, "error": reason, "is_last": True}


def is_failed(line: Mapping[str, Any]) -> bool:
    """Whether a line says that its recording cannot be read."""
    return line["window"] is None


def by_recording(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines of each recording (its id): one a window, in their order, then the one that says it cannot be read.

    A window that was judged again has two: the later one stays, unless the earlier one has a probability.
    """
    found: dict[str, dict[int | None, Line]] = {}
    for line in lines:
        own = found.setdefault(line["recording"], {})
        before = own.get(line["window"])
        if before is None or before["probability"] is None:
            own[line["window"]] = line
    return {recording: sorted(own.values(), key=_place) for recording, own in found.items()}


def _place(line: Line) -> tuple[bool, int]:
    return is_failed(line), line["window"] or 0


def in_order(recordings: Iterable[str], curves: Mapping[str, list[Line]]) -> list[Line]:
    """All lines: of these recordings (ids) in their order, then of others."""
    order = [name for name in recordings if name in curves]
    named = set(order)
    order += [name for name in curves if name not in named]
    return [line for name in order for line in curves[name]]
