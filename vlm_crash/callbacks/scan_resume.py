"""What a folder holds of a scan, and what is left of it. Without a file.

Enters: the lines of the curve, the run that wrote them and the one that goes on. Leaves: the lines that are kept, and
where each recording is read on. Must hold: what is read on is read in the batches of a scan that was never stopped; the
scan of another model or of other windows is not gone on with, nor one whose files have changed; more recordings, or
fewer, change nothing of the others.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_crash.callbacks.run_record import differences
from vlm_crash.callbacks.scan_files import with_stems
from vlm_crash.callbacks.scan_lines import Line, by_recording, in_order, is_failed

log = logging.getLogger(__name__)

#: Recordings that are named where there are many.
_MAX_NAMED = 5


@dataclass
class Left:
    """What is left of a scan.

    Attributes:
        lines: of the curve, that are kept; those of recordings that are not asked for come last.
        first: by recording, the number of its first window to read; None: it is done.
        only: by recording that was read to its end, the windows to judge again; no others are.
        unsteady: recordings with time stamps that were moved, before that window.
        failed: recordings that failed, and are not tried again.
    """

    lines: list[Line] = field(default_factory=list)
    first: dict[str, int | None] = field(default_factory=dict)
    only: dict[str, frozenset[int]] = field(default_factory=dict)
    unsteady: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)


def left_of(recordings: Iterable[str], lines: Iterable[Line], batch_size: int, retry_failed: bool) -> Left:
    """What is left to read of the recordings (their ids).

    Lines of a batch that was torn are judged again, as one batch. A recording that failed is read on behind the last
    whole batch before the place where it did, if it is tried again; one with windows that have no probability is read
    from the first batch that has one.
    """
    left, curves = Left(), by_recording(lines)
    names = list(recordings)
    for name in names:
        kept = curves.get(name, [])
        if kept and is_failed(kept[-1]) and retry_failed:
            kept = kept[:-1]
        unjudged = [place for place, line in enumerate(kept) if line["probability"] is None and not is_failed(line)]
        is_read = bool(kept) and kept[-1]["is_last"]
        if is_read and not (unjudged and retry_failed):
            left.first[name] = None
            left.failed += [name] * is_failed(kept[-1])
        else:
            end = unjudged[0] if unjudged and retry_failed else len(kept)
            begun = kept[: end // batch_size * batch_size]
            left.first[name] = begun[-1]["window"] + 1 if begun else 0
            if is_read:  # its lines stay until there are better ones
                left.only[name] = frozenset(kept[place]["window"] for place in unjudged)
            else:
                kept = begun
        if num_moved(kept):
            left.unsteady.add(name)
        curves[name] = kept
    left.lines = in_order(names, curves)
    return left


def num_moved(lines: Sequence[Mapping[str, Any]]) -> int:
    """Frames of a recording whose time stamps were moved, as far as its lines go."""
    return max((line.get("num_moved", 0) for line in lines), default=0)


def is_steady(lines: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether a recording's time stamps go on from its beginning to its end; None: its lines do not say."""
    if num_moved(lines):
        return False
    return True if lines and lines[-1]["is_last"] and "num_moved" in lines[-1] else None


def all_recordings(old: Mapping[str, Any] | None, run: Mapping[str, Any]) -> list[list[Any]]:
    """[id, path, size, stem] of all recordings that a folder knows: those of the old run in their order, then new ones.

    A stem stays its recording's, whatever comes or goes. What is not asked for now is as the old run had it.
    """
    asked = {told[0]: told for told in run["recordings"]}
    known = [
        [*asked.pop(told[0])[:3], told[3]] if told[0] in asked else list(told)
        for told in with_stems((old or {}).get("recordings", []))
    ]
    return with_stems([*known, *asked.values()])


def new_and_gone(old: Mapping[str, Any], run: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names of recordings that the old run did not have, and of its own that are not asked for now."""
    before, now = ({told[0]: Path(told[1]).name for told in one.get("recordings", [])} for one in (old, run))
    return [now[name] for name in now if name not in before], [before[name] for name in before if name not in now]


def say_others(old: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Name in the log what came and what went."""
    new, gone = new_and_gone(old, run)
    if new:
        log.info("%d recordings are new, and are scanned beside those of before: %s", len(new), named(new))
    if gone:
        log.warning(
            "%d recordings of the scan are not asked for now: %s; they are in no table, and what was read of them "
            "stays until they are", len(gone), named(gone),
        )  # fmt: skip


def named(names: Sequence[str]) -> str:
    """The first few of them.

    >>> named(["a", "b", "c", "d", "e", "f"])
    'a, b, c, d, e, ...'
    """
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")


def refusal(old: Mapping[str, Any] | None, run: Mapping[str, Any], lines: Sequence[Line]) -> str | None:
    """Why a scan with these lines is not gone on with, and what exactly differs; None: it is.

    Args:
        old: the run that wrote them, as run.json has it; None: there is no run.json.
    """
    if old is None:
        return "windows of a scan, and no run.json to say what judged them" if lines else None
    if old.get("run_id") != run["run_id"]:
        before, now = old.get("scan", {}), run.get("scan", {})
        what = differences(old, run)
        what += [f"scan.{name}: {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
        return (
            "a scan by another model, of other windows or asked in another way; what differs, old -> new: "
            f"{'; '.join(what) or 'its run.json does not say'}"
        )
    new, gone = new_and_gone(old, run)
    if gone and len(new) == len(run["recordings"]):
        return f"a scan of {len(gone)} other recordings ({named(gone)}), none of which is asked for now"
    return None


def refused_files(changed: Mapping[str, str], lines: Iterable[Line], retry_failed: bool) -> str | None:
    """Why a scan with these lines is not gone on with for the sake of files that have changed; None: it is.

    Args:
        changed: by recording what was and is; where it has no line yet nothing was read of it.
    """
    read = {line["recording"] for line in lines}
    what = [text for name, text in changed.items() if name in read]
    if not what or retry_failed:
        return None
    return (
        f"a scan of {len(what)} files that have changed since (old -> new: {named(what)}); --retry_failed true forgets "
        "what was read of them and scans them again, the others stay; or leave them out of --data.clips"
    )
