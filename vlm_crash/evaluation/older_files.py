"""What an older evaluation left in the folder that a newer one has just been written to.

Enters: the folder, the metrics.json that was in it before, the names that were written. Leaves: nothing of the older
one that `evaluate` itself had written, and a warning that names what others made of its scores. Must hold: where no
older metrics.json of `evaluate` lay there, no file is touched; else only those that it says were written.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vlm_crash.evaluation.calibration_file import CALIBRATION_FILE

logger = logging.getLogger(__name__)

#: Of an event with clips, and of one with clips or with predictions of clips without a truth.
SCORES_FORM, ANSWERS_FORMS = "evaluation_{}.csv", ("formatted-{}.csv", "formatted-normalized-{}.csv")
#: Keys of our calibration.json: a camera's has the same name.
_CALIBRATION_KEYS = {"schema", "runs", "fields"}
#: Made of the scores by `report` and `compare`, which may be kept on purpose.
OF_SCORES = ("report.html", "comparison.json", "comparison.csv")


def older_metrics(out: Path) -> dict[str, Any] | None:
    """The metrics.json of a folder, which may be of another schema; None where it is not there or not ours."""
    metrics = _object(out / "metrics.json")
    settings = metrics.get("settings")
    is_ours = isinstance(settings, dict) and "schema" in settings and any(map(_is_event, metrics.values()))
    return metrics if is_ours else None


def remove_older(out: Path, older: Mapping[str, Any] | None, written: Collection[str]) -> None:
    """Remove the files of `evaluate` that were not written this time, and say which; warn of pages and comparisons.

    Args:
        out: folder of the new scores.
        older: what `older_metrics` found before they were written; None: nothing is done.
        written: names of the new files.
    """
    if older is None:
        return
    names = _names(older) + [CALIBRATION_FILE] * (_object(out / CALIBRATION_FILE).keys() >= _CALIBRATION_KEYS)
    removed = []
    for name in names:
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


def _names(older: Mapping[str, Any]) -> list[str]:
    """The CSVs that the older evaluation wrote of its events."""
    clips = older.get("clips")
    without_truth = clips.get("without_truth") if isinstance(clips, dict) else None
    has_others = isinstance(without_truth, dict) and bool(without_truth.get("n"))
    names = []
    for event, entry in older.items():
        if _is_event(entry):
            has_clips = entry.get("num_clips") != 0
            forms = [SCORES_FORM] * has_clips + [*ANSWERS_FORMS] * (has_clips or has_others)
            names += [form.format(event) for form in forms]
    return names


def _is_event(entry: object) -> bool:
    return isinstance(entry, dict) and "fields" in entry


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
