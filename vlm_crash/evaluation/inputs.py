"""Which files an evaluation reads, and whether they are there: looked at before anything heavy is loaded.

Enters: paths as they were given. Leaves: files, or the error that reading them would end with later.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlm_crash.data.parquet import SHARDS
from vlm_crash.data.prepared import DATA_FILE
from vlm_crash.evaluation.settings import EvaluationSettings


def check_inputs(predictions: Sequence[Path], truth: Sequence[Path], settings: EvaluationSettings) -> None:
    """Look for every file and folder, and read none.

    Raises:
        FileNotFoundError, ValueError: one is not there, or of another kind.
    """
    for paths in (predictions, settings.blind, settings.calibrate_on):
        prediction_files(paths)
    for path in truth:
        if settings.split is None and not (path / DATA_FILE).is_file():
            truth_files(path)
        elif not path.exists():
            raise FileNotFoundError(f"no such truth: {path}; give the folder that `prepare` wrote")
    for path in settings.annotators:
        check_annotators_file(path)


def check_annotators_file(path: Path) -> None:
    """Raises FileNotFoundError where this is no file."""
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"annotators: {path}: {what}; give two annotation CSVs of each event")


def prediction_files(paths: Sequence[Path]) -> list[Path]:
    """The files of predictions that are given, or that lie in folders.

    Raises:
        FileNotFoundError, ValueError: a path is not there, holds none, or is of another kind.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*predictions*.jsonl")) or sorted(path.glob("*.jsonl"))
            inside = inside or sorted(path.glob(SHARDS)) or sorted(path.glob("*_results.json"))
            if not inside:
                raise FileNotFoundError(f"{path} holds neither predictions.jsonl nor <event>_results.json")
            files += inside
        elif not path.exists():
            raise FileNotFoundError(
                f"no such predictions: {path}; give the folder that `predict` wrote, predictions.jsonl or an old "
                "<event>_results.json"
            )
        elif path.suffix not in (".json", ".jsonl", ".parquet"):
            raise ValueError(
                f"{path}: predictions are .jsonl or .parquet (ours) or .json (the old scripts'), not {path.suffix!r}"
            )
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def truth_files(path: Path) -> list[Path]:
    """Files of a truth that is no prepared dataset: the file itself, or the conversation files or CSVs of a folder."""
    if not path.exists():
        raise FileNotFoundError(
            f"no such truth: {path}; give the folder that `prepare` wrote, an annotation CSV or a .jsonl"
        )
    if not path.is_dir():
        if path.suffix.lower() not in (".csv", ".jsonl"):
            raise ValueError(f"{path}: truth is an annotation .csv or a .jsonl, not {path.suffix!r}")
        return [path]
    files = sorted(path.glob("*_ft.jsonl")) or sorted(path.glob("*.csv"))
    if not files:
        raise FileNotFoundError(f"{path} holds neither <event>_ft.jsonl nor an annotation CSV")
    return [file for file in files if file.name not in ("problems.csv", "clips.csv")]
