"""Prediction files -> `LoadedPrediction`s; truth files -> `VideoSample`s whose annotation is known.

Read: our predictions.jsonl or *.parquet and the old scripts' <event>_results.json; truth as CSV or JSONL, or a folder
of a prepared dataset, of which the clips count that its diy_ft_data.json names, as in training. The event of an old
JSON, a CSV or a plain JSONL is told by its file name.
All problems of the given files are gathered and raised once.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from vlm_crash.data.annotations import AnnotatedRow, read_rows
from vlm_crash.data.jsonl import read_jsonl
from vlm_crash.data.parquet import read_rows as read_parquet_rows
from vlm_crash.data.prepared import DATA_FILE, load_prepared, load_samples
from vlm_crash.data.problems import Problem
from vlm_crash.evaluation.inputs import prediction_files, truth_files
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Prediction, VideoSample
from vlm_crash.schema.response import parse

logger = logging.getLogger(__name__)

# How a text begins that stands in place of an answer where a clip could not be read: the old scripts' words, and ours
# ("Failed: ..."). A model's own sentence may begin so too ("Error of the driver."): what has a field is an answer.
_OLD_FAILURE = re.compile(r"\s*(failed to load video|failed:|error\b)", re.IGNORECASE)


@dataclass(frozen=True)
class LoadedPrediction:
    """A prediction and where it was read.

    Attributes:
        told_event: the model was told the event (the old scripts' files), so that its event is no prediction.
        where: file and line, for messages.
    """

    prediction: Prediction
    told_event: bool
    where: str


@dataclass(frozen=True)
class TruthProblems:
    """What the files of a truth hold that is not used.

    Attributes:
        num_rows: rows that give no clip.
        num_cells: cells of the other rows that are not understood, and count as unknown.
    """

    num_rows: int = 0
    num_cells: int = 0

    def __add__(self, other: TruthProblems) -> TruthProblems:
        return TruthProblems(self.num_rows + other.num_rows, self.num_cells + other.num_cells)

    @classmethod
    def of(cls, problems: Sequence[Problem], rows: Sequence[AnnotatedRow]) -> TruthProblems:
        """Count the problems of a file whose used rows are these."""
        used = {row.row for row in rows}
        num_cells = sum(problem.row in used for problem in problems)
        return cls(len({problem.row for problem in problems} - used), num_cells)


def event_of_file_name(path: Path, schema: Schema) -> str:
    """The event that a file's name tells: "AV_nearmiss_modified_r.csv" is of nearmiss.

    Raises:
        ValueError: the name tells no event, or more than one.
    """
    rest = re.sub(r"[^a-z0-9]", "", path.stem.casefold())
    found = []
    for name in sorted(schema.event_names, key=len, reverse=True):
        plain = re.sub(r"[^a-z0-9]", "", name.casefold())
        if plain in rest:
            found.append(name)
            rest = rest.replace(plain, " ")
    if len(found) != 1:
        says = "no event" if not found else f"more than one event ({', '.join(found)})"
        raise ValueError(
            f"{path}: the name of the file tells {says}; allowed are {', '.join(schema.event_names)}. "
            f"Rename it, for example to {schema.event_names[0]}_{path.name}"
        )
    return found[0]


def load_predictions(paths: Sequence[Path], schema: Schema) -> list[LoadedPrediction]:
    """Predictions of all files; a folder stands for its *.jsonl, else its predictions-*.parquet, else *_results.json.

    Raises:
        ValueError: nothing to read, lines that are no predictions, or a clip predicted twice.
    """
    loaded: list[LoadedPrediction] = []
    problems: list[str] = []
    for path in prediction_files(paths):
        read = _read_old_results if path.suffix == ".json" else _read_predictions
        try:
            loaded += read(path, schema, problems)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            problems.append(f"{path}: not JSON ({error})")
    problems += _predicted_twice(loaded)
    _raise(problems, "the predictions cannot be used")
    if not loaded:
        raise ValueError(
            f"no predictions in {_names(paths)}; expected predictions.jsonl or <event>_results.json with lines"
        )
    return loaded


def load_truth(
    paths: Sequence[Path], schema: Schema, split: str | None = None
) -> tuple[list[VideoSample], TruthProblems]:
    """Every clip with a truth, and how much of the files could not be used.

    Args:
        paths: CSVs in the old form, JSONLs, or folders of a prepared dataset.
        schema: events and fields.
        split: only the clips of that split of the dataset's splits.json.

    Raises:
        ValueError: nothing to read, no such split, or a clip listed twice.
    """
    samples: list[VideoSample] = []
    unused = TruthProblems()
    for path in paths:
        if split is not None:
            samples += _of_split(path, schema, split)
        elif (path / DATA_FILE).is_file():
            samples += load_samples(path, schema)
        else:
            for file in truth_files(path):
                event = event_of_file_name(file, schema)
                if file.suffix.lower() == ".csv":
                    rows, problems = read_rows(file, event, schema, None, may_lack=True)
                    unused += TruthProblems.of(problems, rows)
                    found = [row.sample for row in rows]
                else:
                    found = read_jsonl(file, file.parent, schema, event)
                samples += found
    known = [sample for sample in samples if sample.event is not None and sample.annotation is not None]
    if not known:
        raise ValueError(
            f"no clip with a truth in {_names(paths)}; expected rows of an annotation CSV or a prepared JSONL"
        )
    seen: set[tuple[str | None, str]] = set()
    twice = []
    for sample in known:
        if (sample.event, sample.video) in seen:
            twice.append(f"{sample.event}/{sample.video} has more than one truth; give each clip once")
        seen.add((sample.event, sample.video))
    _raise(twice, "the truth cannot be used")
    return known, unused


def truth_csvs(paths: Sequence[Path], schema: Schema, split: str | None = None) -> dict[str, list[Path]]:
    """By event the CSVs that `load_truth` reads; a prepared dataset has none."""
    found: dict[str, list[Path]] = {}
    for path in map(Path, paths if split is None else ()):
        files = [] if (path / DATA_FILE).is_file() else truth_files(path)
        for file in files:
            if file.suffix.lower() == ".csv":
                found.setdefault(event_of_file_name(file, schema), []).append(file)
    return found


def iter_predictions(paths: Sequence[Path], schema: Schema) -> Iterator[LoadedPrediction]:
    """The same of ours, one by one, for more than memory holds: of those before, it keeps a hash of their clip.

    Raises:
        ValueError: at the end, with every line that is no prediction or of a clip that had one, or for want of any;
            before, for files in the old form.
    """
    problems: list[str] = []
    seen: set[int] = set()
    for path in prediction_files(paths):
        if path.suffix == ".json":
            raise ValueError(f"{path}: the old form has no probabilities; give what `predict` wrote, predictions.jsonl")
        try:
            for number, prediction in (_rows if path.suffix == ".parquet" else _lines)(path, problems):
                where = f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {number}"
                for event in {prediction.event, prediction.source_event} - {None, *schema.event_names}:
                    allowed = ", ".join(schema.event_names)
                    problems.append(f"{where}: event {event!r} is not in the schema; allowed: {allowed}")
                key = blake2b(repr(_clip_key(prediction)).encode("utf-8", "backslashreplace"), digest_size=8).digest()
                if (number_of_clip := int.from_bytes(key)) in seen:
                    twice = "is predicted twice, and for the second time in"
                    problems.append(f"{_clip_name(prediction)} {twice} {where}; keep one of the two lines")
                seen.add(number_of_clip)
                yield LoadedPrediction(prediction, told_event=False, where=where)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 ({error})") from error
    _raise(problems, "the predictions cannot be used")
    if not seen:
        raise ValueError(f"no predictions in {_names(paths)}; expected predictions.jsonl with lines, or parquet")


def read_predictions(path: Path) -> list[Prediction]:
    """Lines of one predictions.jsonl, of whatever events.

    Raises:
        ValueError: with every line that is no prediction.
    """
    problems: list[str] = []
    try:
        found = [prediction for _, prediction in _lines(path, problems)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from error
    _raise(problems, "the predictions cannot be used")
    return found


def _read_predictions(path: Path, schema: Schema, problems: list[str]) -> list[LoadedPrediction]:
    is_parquet = path.suffix == ".parquet"
    loaded = []
    for number, prediction in (_rows if is_parquet else _lines)(path, problems):
        where = f"{path}, {'row' if is_parquet else 'line'} {number}"
        for event in {prediction.event, prediction.source_event} - {None, *schema.event_names}:
            allowed = ", ".join(schema.event_names)
            problems.append(f"{where}: event {event!r} is not in the schema; allowed: {allowed}")
        loaded.append(LoadedPrediction(prediction, told_event=False, where=where))
    return loaded


def _rows(path: Path, problems: list[str]) -> Iterator[tuple[int, Prediction]]:
    for number, row in enumerate(read_parquet_rows(path), start=1):
        try:
            yield number, Prediction.from_json_dict(row)
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{path}, row {number}: not a prediction ({error})")


def _lines(path: Path, problems: list[str]) -> Iterator[tuple[int, Prediction]]:
    # By "\n" alone: JSON allows characters such as U+2028 inside a string. Windows editors may put a BOM first.
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                prediction = Prediction.from_json_dict(json.loads(line))
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    logger.warning("%s: line %d is cut off (an interrupted run); it is left out", path, number)
                    continue
                problems.append(f"{path}, line {number}: not JSON ({error.msg})")
            except (KeyError, TypeError, ValueError) as error:
                problems.append(f"{path}, line {number}: not a prediction ({error})")
            else:
                yield number, prediction


def _read_old_results(path: Path, schema: Schema, problems: list[str]) -> list[LoadedPrediction]:
    event = event_of_file_name(path, schema)
    rows: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list):
        problems.append(f'{path}: expected a list of {{"video", "response"}}, found {type(rows).__name__}')
        return []
    loaded = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not {"video", "response"} <= row.keys():
            problems.append(f'{path}, entry {number}: expected {{"video", "response"}}')
            continue
        response = str(row["response"] or "")
        failed = _OLD_FAILURE.match(response) is not None and not _has_a_field(schema, response, event)
        prediction = Prediction(
            video=str(row["video"]), event=None, event_probability=None, fields={}, field_probabilities={},
            response=response, status="failed" if failed else "ok", error=response if failed else None, seconds=0.0,
            provenance=str(path), path="", source_event=event,
        )  # fmt: skip
        loaded.append(LoadedPrediction(prediction, told_event=True, where=f"{path}, entry {number}"))
    return loaded


def _has_a_field(schema: Schema, response: str, event: str) -> bool:
    return any(answer.status != "missing" for answer in parse(schema, response, event).answers.values())


def _predicted_twice(loaded: Sequence[LoadedPrediction]) -> list[str]:
    first: dict[tuple[str | None, str, str], str] = {}
    problems = []
    for item in loaded:
        key = _clip_key(item.prediction)
        if key in first:
            places = f"in {first[key]} and in {item.where}"
            problems.append(f"{_clip_name(item.prediction)} is predicted twice: {places}; keep one of the two lines")
        first.setdefault(key, item.where)
    return problems


def _clip_key(clip: Prediction) -> tuple[str | None, str, str]:
    """What no two clips share."""
    return clip.source_event, clip.video, clip.path if clip.source_event is None else ""


def _clip_name(clip: Prediction) -> str:
    return "/".join(part for part in (clip.source_event, clip.video) if part)


def _of_split(path: Path, schema: Schema, split: str) -> list[VideoSample]:
    folder = path if path.is_dir() else path.parent
    if not (folder / DATA_FILE).is_file():
        raise ValueError(
            f"split={split!r} needs a prepared dataset, and {folder} holds no {DATA_FILE}; "
            "give the folder that `prepare` wrote, or leave split out"
        )
    splits = load_prepared(folder, schema)
    if split not in splits:
        raise ValueError(f"split={split!r} is not a split of {folder}; allowed: {', '.join(splits)}")
    samples = splits[split]
    if path.is_dir():
        return samples
    event = event_of_file_name(path, schema)
    return [sample for sample in samples if sample.event == event]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths) or "(no file given)"


def _raise(problems: Sequence[str], title: str) -> None:
    if problems:
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise ValueError(f"{title}:\n  " + "\n  ".join(problems[:20]) + more)
