"""Predictions of new clips + calibration.json -> which answers can be taken, and which somebody has to look at.

Enters: predictions of clips without a truth, the rules of an evaluation of the same model. Leaves: triage.csv, a row a
clip; triage.json, the counts. Must hold: predictions are read and written one by one, and of each only a hash of its
clip is kept; every clip has one row, failed ones included; free texts are never taken.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_crash.data.csv_table import harmless
from vlm_crash.data.files import whole_file, write_files
from vlm_crash.evaluation.calibration_file import EVENT, Calibration, Judged
from vlm_crash.evaluation.inputs import prediction_files
from vlm_crash.evaluation.loading import iter_predictions
from vlm_crash.schema.records import Prediction

logger = logging.getLogger(__name__)

#: First columns of triage.csv; then each field, and its probability.
COLUMNS = ("source_event", "video", "path", "status", "look_at", "event", "event p")
ALL = "all"


@dataclass
class Triage:
    """What became of the answers.

    Attributes:
        num_clips, num_failed: failed ones have no answers to count.
        taken, asked: answers that can be taken, and all, by (event named, field); the event itself under EVENT.
    """

    num_clips: int = 0
    num_failed: int = 0
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, prediction: Prediction, judged: Mapping[str, Judged]) -> None:
        """Count one clip."""
        self.num_clips += 1
        self.num_failed += not judged
        for name, one in judged.items():
            self.asked[str(prediction.event), name] += 1
            self.taken[str(prediction.event), name] += one.is_taken

    def share(self, of_event: bool) -> tuple[int, int]:
        """Answers taken, and all: the events, or the fields."""
        keys = [key for key in self.asked if (key[1] == EVENT) == of_event]
        return sum(self.taken[key] for key in keys), sum(self.asked[key] for key in keys)

    def to_json(self) -> dict[str, Any]:
        """As a plain dict, by event named and field."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for (event, name), n in self.asked.items():
            counts.setdefault(event, {})[name] = {"answers": n, "taken": self.taken[event, name]}
        return {"clips": self.num_clips, "failed": self.num_failed, "answers": counts}


def triage(predictions: Sequence[Path], calibration: Calibration, out: Path) -> Triage:
    """Write triage.csv and triage.json into a folder, which is made when missing.

    Raises:
        ValueError, FileNotFoundError: predictions that cannot be used, none, two of a clip, or of another run than the
            calibration.
        OSError: the files cannot be written; nothing was changed then.
    """
    prediction_files(predictions)  # before anything is written: what is missing is no trouble of writing
    out.mkdir(parents=True, exist_ok=True)
    found = Triage()
    names = list(dict.fromkeys(field.name for field in calibration.schema.fields))
    with whole_file(out / "triage.csv") as file:
        file.write(_line([*COLUMNS, *(part for name in names for part in (name, f"{name} p"))]))
        for prediction, judged in _judged(predictions, calibration):
            found.add(prediction, judged)
            file.write(_line(_row(prediction, judged, names)))
    write_files({out / "triage.json": json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n"})
    return found


def _judged(predictions: Sequence[Path], calibration: Calibration) -> Iterator[tuple[Prediction, dict[str, Judged]]]:
    is_warned = False
    for loaded in iter_predictions(predictions, calibration.schema):
        doubt = calibration.check_run(loaded.prediction, loaded.where)
        if doubt is not None and not is_warned:
            logger.warning("%s: %s; whether it is of the model that was evaluated is not checked", loaded.where, doubt)
            is_warned = True
        yield loaded.prediction, calibration.judge(loaded.prediction)


def _row(prediction: Prediction, judged: Mapping[str, Judged], names: Sequence[str]) -> list[str]:
    look_at = [name for name, one in judged.items() if not one.is_taken] if judged else [ALL]
    cells = [prediction.source_event or "", prediction.video, prediction.path, prediction.status]
    cells += ["; ".join(look_at), prediction.event or "", _p(judged.get(EVENT))]
    for name in names:
        cells += [prediction.fields.get(name, ""), _p(judged.get(name))]
    return cells


def _p(one: Judged | None) -> str:
    return "" if one is None or one.probability is None else f"{one.probability:.4f}"


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([harmless(cell) for cell in cells])
    return text.getvalue().encode("utf-8", "backslashreplace")


def triage_text(found: Triage, expected: Mapping[str, Any] | None) -> str:
    """What came of it, and what taking was worth where it was evaluated."""
    lines = [f"{found.num_clips:,} clips" + (f", {found.num_failed:,} without an answer" if found.num_failed else "")]
    for what, of_event in (("events", True), ("fields", False)):
        taken, asked = found.share(of_event)
        share = 0.0 if not asked else 100 * taken / asked
        lines.append(f"{what}: take {share:.0f} % of {asked:,} answers, look at {asked - taken:,} yourself")
    if expected is not None and expected["accuracy"] is not None:
        limits = (
            "no interval" if expected["low"] is None else f"{100 * expected['low']:.1f} to {100 * expected['high']:.1f}"
        )
        lines.append(
            f"where it was evaluated, {100 * expected['coverage']:.0f} % of the fields' answers were taken, and "
            f"{100 * expected['accuracy']:.1f} % ({limits}) of these were right"
        )
    return "\n".join(lines)
