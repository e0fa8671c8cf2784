"""Whether what was given as --blind was predicted on black frames, by the model that is evaluated.

Enters: the paths of both sets of predictions. Leaves: what was found, in words. Must hold: predictions whose run.json
says that they saw the clips are never taken for blind; where nothing says it, settings do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_crash.evaluation.loading import prediction_files

logger = logging.getLogger(__name__)

REMEDY = "predict the same clips with the same model and --data.blank_frames true into another folder"


def check_blind(blind: Sequence[Path], predictions: Sequence[Path]) -> str | None:
    """What run.json says of the predictions on black frames; None where none are given.

    Raises:
        ValueError: they are the evaluated ones, or saw the clips, or a run.json is none.
        FileNotFoundError: there are no such files.
    """
    if not blind:
        return None
    files, evaluated = prediction_files(blind), prediction_files(predictions)
    if same := {file.resolve() for file in files} & {file.resolve() for file in evaluated}:
        raise ValueError(f"blind: {min(same)} is what is evaluated, and says nothing beside itself; {REMEDY}")
    said: list[str] = []
    unsaid: list[str] = []
    weights: set[tuple[str, ...]] = set()
    for folder in dict.fromkeys(file.parent for file in files):
        run = _run(folder)
        blank = run.get("sampling", {}).get("blank_frames")
        if blank is False:
            raise ValueError(
                f"blind: {folder / 'run.json'} says blank_frames: false, so the model saw the clips; {REMEDY}"
            )
        (unsaid if blank is None else said).append(str(folder))
        weights |= _weights([run])
    of_model = _weights(_run(folder) for folder in {file.parent for file in evaluated})
    parts = [f"run.json in {', '.join(said)} says blank_frames: true"] if said else []
    if unsaid:
        parts.append(f"no run.json in {', '.join(unsaid)} says how they were made; they are taken as given")
    if weights and of_model and weights != of_model:
        parts.append("their checkpoint is not that of the evaluated predictions")
        logger.warning("blind: another checkpoint made them than the evaluated predictions; %s", REMEDY)
    return "; ".join(parts)


def _run(folder: Path) -> Mapping[str, Any]:
    """What run.json says; nothing where there is none."""
    path = folder / "run.json"
    if not path.is_file():
        return {}
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also UnicodeDecodeError
        raise ValueError(f"{path}: it is no JSON ({error}); restore it, or predict again") from error
    if not isinstance(run, dict) or not all(isinstance(run.get(key, {}), dict) for key in ("sampling", "checkpoint")):
        raise ValueError(f"{path}: it is not what `predict` writes; restore it, or predict again")
    return run


def _weights(runs: Iterable[Mapping[str, Any]]) -> set[tuple[str, ...]]:
    """The hashes of each run's weights, as one, wherever the files lay; nothing where it has none."""
    found = (tuple(sorted(map(str, run.get("checkpoint", {}).values()))) for run in runs)
    return {hashes for hashes in found if hashes}
