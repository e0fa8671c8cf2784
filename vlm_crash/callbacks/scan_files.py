"""The files of a scan: what they are called, whether a folder holds some, and which of them are old.

Enters: an output folder, the names of recordings. Leaves: paths, a refusal, a folder without what a scan wrote there.
Must hold: what is removed has a name that a scan of these recordings gives, and is none of the recordings.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

CURVE, EVENTS, RUN, CLIPS = "scan_curve.jsonl", "events.jsonl", "run.json", "clips"
EVENT_TABLE, RECORDING_TABLE = "events.csv", "recordings.csv"
OTHERWISE = "set --output_dir to another folder, or --overwrite true to begin anew"
#: One line of the middle taken out would leave a hole; what is behind the first that is gone is read again.
REMEDY = f"take it and all lines behind it out (what they say is found again), {OTHERWISE}"


def clip_stems(names: Sequence[str], given: Collection[str] = ()) -> list[str]:
    """Names for clips, each of one recording: of two with one name the later gets a number that makes a new one.

    Args:
        given: those that other recordings have already.
    """
    stems = [Path(name).stem for name in names]
    used, taken = set(given), {*given, *stems}
    numbers: dict[str, Iterator[int]] = {}
    for place, stem in enumerate(stems):
        if stem in used:
            own = numbers.setdefault(stem, count(2))
            stems[place] = next(name for number in own if (name := f"{stem}~{number}") not in taken)
            taken.add(stems[place])
        used.add(stems[place])
    return stems


def with_stems(recordings: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """[id, path, size] of recordings, each with its stem behind; those that have one keep it."""
    given = {told[3] for told in recordings if len(told) > 3}
    stems = iter(clip_stems([Path(told[1]).name for told in recordings if len(told) <= 3], given))
    return [list(told) if len(told) > 3 else [*told, next(stems)] for told in recordings]


def curve_picture(stem: str) -> str:
    """Name of the picture of a recording's curve."""
    return f"curve_{stem}.png"


def _run_of(folder: Path) -> Mapping[str, Any]:
    """What run.json says; nothing, where it is not there or not whole."""
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def holds_scan(folder: Path) -> bool:
    """Whether a folder holds a scan, one that found nothing or was stopped included."""
    return (folder / CURVE).exists() or "scan" in _run_of(folder)


def refuse_scan(folder: Path) -> None:
    """ValueError where a folder holds a scan: predictions would write over it."""
    if holds_scan(folder):
        raise ValueError(
            f"{folder} holds a scan of recordings, and predictions of clips would write over it; set --output_dir to "
            "another folder, give --scan to go on with it, or --overwrite true to remove it"
        )


def refuse_recordings_in_clips(folder: Path, recordings: Iterable[Path]) -> None:
    """ValueError where a recording lies where clips are written, and are removed when they are no events any more."""
    clips = (folder / CLIPS).resolve()
    for path in recordings:
        if path.parent.resolve() == clips:
            raise ValueError(
                f"{path} lies in {folder / CLIPS}, where a scan writes its clips; set --output_dir to another folder"
            )


def clear_clips(folder: Path, stems: Iterable[str], kept: Collection[str] = ()) -> None:
    """Remove the clips that scans of these recordings cut out, torn ones included, but those with a name in `kept`."""
    own = set(stems)
    for path in (folder / CLIPS).glob("*.mp4*"):
        found = re.fullmatch(r"(.*)_\d{3,}\.mp4(\.part)?", path.name, re.DOTALL)
        if found and found[1] in own and path.name not in kept:
            path.unlink(missing_ok=True)


def clear_recordings(folder: Path, run: Mapping[str, Any], names: Collection[str]) -> None:
    """Remove the clips and pictures of some recordings (their ids) of a scan.

    Args:
        run: as run.json has it.
    """
    stems = [told[3] for told in with_stems(run.get("recordings", [])) if told[0] in names]
    clear_clips(folder, stems)
    for stem in stems:
        (folder / curve_picture(stem)).unlink(missing_ok=True)


def clear_scan(folder: Path) -> None:
    """Remove the scan that a folder holds, run.json included; what else lies there stays."""
    if not holds_scan(folder):
        return
    stems = [told[3] for told in with_stems(_run_of(folder).get("recordings", []))]
    clear_clips(folder, stems)
    if (folder / CLIPS).is_dir() and not any((folder / CLIPS).iterdir()):
        (folder / CLIPS).rmdir()
    # The last two say that there is something to remove, and of which recordings.
    for name in (*map(curve_picture, stems), EVENT_TABLE, RECORDING_TABLE, EVENTS, CURVE, RUN):
        (folder / name).unlink(missing_ok=True)
