"""What a folder holds of a scan, and what is left of it. Pure.

Enters: the lines of the curve, the run that wrote them and the one that goes on. Leaves: the lines that are kept, and
where each recording is read on. Must hold: what is read on is read in the batches of a scan that was never stopped; the
scan of another model, of other windows or of other recordings is not gone on with.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlm_crash.callbacks.scan_events import is_failed


@dataclass
class Left:
    """What is left of a scan.

    Attributes:
        lines: of the curve, that are kept.
        first: by recording, the number of its first window to read; None: it is done.
        unsteady: recordings with time stamps that were moved, before that window.
        failed: recordings that failed, and are not tried again.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    first: dict[str, int | None] = field(default_factory=dict)
    unsteady: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)


def left_of(recordings: Iterable[str], lines: Sequence[dict[str, Any]], batch_size: int, retry_failed: bool) -> Left:
    """What is left to read of the recordings (their ids).

    Lines of a batch that was torn are judged again, as one batch. A recording that failed is read on behind the last
    whole batch before the place where it did, if it is tried again.
    """
    left = Left()
    for recording in recordings:
        kept = [line for line in lines if line["recording"] == recording]
        if kept and is_failed(kept[-1]) and retry_failed:
            del kept[-1]
        if kept and kept[-1]["is_last"]:
            left.first[recording] = None
            left.failed += [recording] * is_failed(kept[-1])
        else:
            kept = kept[: len(kept) // batch_size * batch_size]
            left.first[recording] = kept[-1]["window"] + 1 if kept else 0
        if num_moved(kept):
            left.unsteady.add(recording)
        left.lines += kept
    return left


def num_moved(lines: Sequence[Mapping[str, Any]]) -> int:
    """Frames of a recording whose time stamps were moved, as far as its lines go."""
    return max((line.get("num_moved", 0) for line in lines), default=0)


def is_steady(lines: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether a recording's time stamps go on from its beginning to its end; None: its lines do not say."""
    if num_moved(lines):
        return False
    return True if lines and lines[-1]["is_last"] and "num_moved" in lines[-1] else None


def changed_files(old: Mapping[str, Any], run: Mapping[str, Any]) -> set[str] | None:
    """Recordings (their ids) of another size now than in the old run; None: the recordings are others."""
    before, after = old.get("recordings", []), run["recordings"]
    if [told[:2] for told in before] != [told[:2] for told in after]:
        return None
    return {told[0] for told, now in zip(before, after, strict=True) if told != now}


def refusal(old: Mapping[str, Any], run: Mapping[str, Any], failed: Collection[str], retry_failed: bool) -> str | None:
    """Why a scan is not gone on with; None: it is.

    Args:
        failed: recordings that failed; their files may be others by now, if they are tried again.
    """
    changed = changed_files(old, run)
    if changed is None:
        return "a scan with other recordings"
    if old["run_id"] != run["run_id"]:
        return "a scan with another model, other windows or another way of asking"
    if changed - set(failed):
        return "a scan of files that have changed since"
    if changed and not retry_failed:
        return "a scan of files that failed, and have changed since (--retry_failed true reads them again)"
    return None
