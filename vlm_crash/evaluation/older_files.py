"""What an older evaluation left in the folder that a newer one has just been written to.

Enters: the folder, the names that were written. Leaves: nothing of the older one that `evaluate` itself had written,
and a warning that names what others made of its scores. Must hold: no file is touched of which `evaluate` does not know
the whole name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from vlm_crash.evaluation.calibration_file import CALIBRATION_FILE

logger = logging.getLogger(__name__)

#: Of each event; what an event without any clip, or another schema, leaves out.
BY_EVENT = ("evaluation_{}.csv", "formatted-{}.csv", "formatted-normalized-{}.csv")
#: Of a run only, by its settings: temperatures are fitted with --calibrate_on.
BY_SETTING = (CALIBRATION_FILE,)
#: Made of the scores by `report` and `compare`, which may be kept on purpose.
OF_SCORES = ("report.html", "comparison.json", "comparison.csv")


def events_of(metrics: Path) -> list[str]:
    """Events of an older metrics.json, which may be of another schema; none where it is not there or not ours."""
    try:
        entries = json.loads(metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(entries, dict):
        return []
    return [name for name, entry in entries.items() if isinstance(entry, dict) and "fields" in entry]


def remove_older(out: Path, events: Iterable[str], written: Collection[str]) -> None:
    """Remove the files of `evaluate` that were not written this time, and say which; warn of pages and comparisons.

    Args:
        out: folder of the new scores.
        events: of the schema, and those that the older metrics.json had.
        written: names of the new files.
    """
    names = [form.format(event) for event in dict.fromkeys(events) for form in BY_EVENT]
    removed = []
    for name in [*names, *BY_SETTING]:
        if Path(name).name != name or name in written or not (out / name).is_file():
            continue
        try:
            (out / name).unlink()
        except OSError as error:
            logger.warning("%s is of an older evaluation, and cannot be removed (%s)", out / name, error.strerror)
            continue
        removed.append(name)
    if removed:
        logger.warning("removed from %s, being of an older evaluation: %s", out, ", ".join(removed))
    if kept := [name for name in OF_SCORES if (out / name).is_file()]:
        logger.warning(
            "%s in %s still show the scores of an older evaluation; run `report` or `compare` again",
            " and ".join([", ".join(kept[:-1])] * (len(kept) > 1) + kept[-1:]), out,
        )  # fmt: skip
