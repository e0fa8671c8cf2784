"""A prepared dataset, or a folder of the old scripts -> samples by split."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_crash.data.jsonl import read_jsonl
from vlm_crash.data.problems import InputProblems, Problem
from vlm_crash.data.splits import SPLITS, make_splits
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import VideoSample

logger = logging.getLogger(__name__)

DATA_FILE = "diy_ft_data.json"
SPLITS_FILE = "splits.json"
DATASET_FILE = "dataset.json"
PROBLEMS_FILE = "problems.csv"
#: Stands for the column where a dataset of another form names the video that a clip was cut from.
SOURCE_COLUMN = "source video"
#: Settings of an entry of diy_ft_data.json that upstream's trainer acts on, with the value that changes nothing.
_UPSTREAM: Mapping[str, Any] = {"repeat_time": 1, "data_augment": False}


def load_prepared(folder: Path, schema: Schema) -> dict[str, list[VideoSample]]:
    """Samples of a dataset by split: "train", "val" and "test".

    The old scripts' folders (no splits.json, no "fields" in the lines) are read too. Their clips are split on the fly,
    by event and seed 0, the same way at each call; that is not frozen: more clips may move others, so `prepare` is
    better.

    Args:
        folder: what `prepare` wrote, or a folder with diy_ft_data.json, or such a file.
        schema: events and fields.

    Raises:
        InputProblems, ValueError, FileNotFoundError: the files are absent or contradict each other or the schema.
    """
    data_file = _data_file(folder)
    samples = load_samples(folder, schema)
    splits_file = data_file.parent / SPLITS_FILE
    if not splits_file.is_file():
        logger.warning("%s has no %s: split on the fly; run `prepare` for frozen splits", data_file.parent, SPLITS_FILE)
        ids = make_splits(samples, {})
    else:
        ids = _assigned(splits_file, samples)
    by_id = {sample.id: sample for sample in samples}
    return {split: [by_id[id] for id in ids[split]] for split in SPLITS}


def load_samples(folder: Path, schema: Schema) -> list[VideoSample]:
    """All samples of a dataset, whatever their split: those that diy_ft_data.json names, and no others.

    Args:
        folder: as `load_prepared` takes it.
        schema: events and fields.

    Raises:
        InputProblems, ValueError, FileNotFoundError: as `load_prepared` says.
    """
    data_file = _data_file(folder)
    is_same = _facts(data_file.parent).get("schema") in (None, schema.fingerprint)
    try:
        samples = _read_data_file(data_file, schema)
    except InputProblems as error:
        if is_same:
            raise
        raise ValueError(
            f"{data_file.parent} was prepared with another schema, and does not fit this one (of the events "
            f"{', '.join(schema.event_names)}); give --data.schema (evaluate: --schema), or run `prepare` again"
        ) from error
    if not is_same:
        logger.warning(
            "%s was prepared with another schema, or another version of it; give --data.schema (evaluate: --schema), "
            "or run `prepare` again",
            data_file.parent,
        )
    return samples


def load_vocabularies(folder: Path) -> dict[str, list[str]]:
    """Terms that a dataset uses for the schema's open fields, as `Schema.with_vocabularies` takes them.

    Args:
        folder: as `load_prepared` takes it.
    """
    found: dict[str, list[str]] = _facts(_data_file(folder).parent).get("vocabularies", {})
    return found


def sources_of(folder: Path) -> dict[str, Path]:
    """The annotation CSV of each event, as `prepare` was given it; none where it did not say.

    One that lies beside the dataset as it did goes before that at the old place: of a copy, its own is meant.

    Args:
        folder: as `load_prepared` takes it.
    """
    folder = _data_file(folder).parent
    said = _facts(folder).get("sources", {})
    found = {}
    for event, entry in said.items():
        beside = folder / entry.get("csv_relative", entry["csv"])
        found[event] = beside if beside.is_file() else folder / entry["csv"]
    return found


def clip_folders(folder: Path) -> dict[str, Path]:
    """event -> the folder from which its clips are named; nothing where there is no dataset.

    Args:
        folder: as `load_prepared` takes it.
    """
    path = _data_file(folder)
    data = read_json(path, {})
    return {
        event: existing(path.parent, entry["root"], entry.get("root_relative"))
        for event, entry in (data.items() if isinstance(data, dict) else ())
        if isinstance(entry, dict) and isinstance(entry.get("root"), str)
    }


def group_facts(labels: Mapping[str, str], column: str | None) -> dict[str, Any]:
    """What dataset.json keeps of groups, for intervals that are drawn by them; nothing where there are none.

    Args:
        labels: id -> cell of the group column, or the source that a dataset of another form names.
        column: the column; None: the form names the sources.
    """
    return {"group_column": column or SOURCE_COLUMN, "groups": dict(labels)} if labels else {}


def kept_groups(folder: Path) -> tuple[str | None, dict[str, str]]:
    """The column of a dataset's groups and id -> group, as `prepare` has kept them; None and nothing without groups.

    Args:
        folder: as `load_prepared` takes it.
    """
    facts = _facts(_data_file(folder).parent)
    return facts.get("group_column"), {str(id): str(label) for id, label in facts.get("groups", {}).items()}


def load_groups(folder: Path, column: str) -> dict[str, str]:
    """id -> group, as `prepare --group_column` has kept them; a clip that is not in it is a group of its own.

    Args:
        folder: as `load_prepared` takes it.
        column: the column that is meant.

    Raises:
        ValueError: the dataset was not prepared with that column.
    """
    facts = _facts(_data_file(folder).parent)
    known = facts.get("group_column")
    if known != column:
        has = f"keeps the groups of {known!r}" if known else "keeps no groups"
        raise ValueError(
            f"group_column={column!r}: {folder} {has}; run `prepare` with --group_column {column} into a new folder"
            + (f", or set --group_column to {known!r}" if known else ", or give the annotation CSVs as --truth")
        )
    return {str(id): str(label) for id, label in facts["groups"].items()}


def _data_file(folder: Path) -> Path:
    return Path(folder) if Path(folder).suffix == ".json" else Path(folder) / DATA_FILE


def _facts(folder: Path) -> dict[str, Any]:
    """What dataset.json says; nothing where there is none."""
    facts = read_json(folder / DATASET_FILE, {})
    if not isinstance(facts, dict):
        raise ValueError(f"{folder / DATASET_FILE}: it is no object; restore it, or run `prepare` again")
    return facts


def _read_data_file(path: Path, schema: Schema) -> list[VideoSample]:
    data = read_json(path, None)
    if data is None:
        if path.parent.is_file():
            raise ValueError(f"{path.parent} is a file; give the folder that `prepare` wrote")
        raise FileNotFoundError(f"{path}: no such file; give the folder that `prepare` wrote")
    samples: list[VideoSample] = []
    problems: list[Problem] = []
    for event, entry in data.items() if isinstance(data, dict) else ():
        paths = [entry.get(key) for key in ("annotation", "root")] if isinstance(entry, dict) else []
        if event not in schema.event_names or not paths or not all(isinstance(path, str) for path in paths):
            what = f"{event!r} is no event of the schema, or names no annotation and root"
            problems.append(Problem(str(path), None, "", what, f"allowed events: {', '.join(schema.event_names)}"))
            continue
        if ignored := {key: entry[key] for key, usual in _UPSTREAM.items() if entry.get(key, usual) != usual}:
            logger.warning("%s: %s of %r has no effect here: each clip is taken once, as it is", path, ignored, event)
        annotation = existing(path.parent, entry["annotation"], Path(entry["annotation"]).name)
        root = existing(path.parent, entry["root"], entry.get("root_relative"))
        try:
            samples += read_jsonl(annotation, root, schema, event)
        except InputProblems as error:
            problems += error.problems
    if problems:
        raise InputProblems(f"{path} cannot be used", problems)
    if not samples:
        raise ValueError(f"{path} names no clips; run `prepare`")
    return samples


def existing(folder: Path, given: str, fallback: str | None) -> Path:
    """The path as it is given (relative to the file that names it), else where it is after the folder was moved."""
    path = folder / given
    moved = folder / fallback if fallback else path
    if path.exists() or not moved.exists():
        return path
    logger.info("%s is absent; %s is taken", path, moved)
    return moved


def _assigned(path: Path, samples: Sequence[VideoSample]) -> dict[str, list[str]]:
    assign = checked_assign(path, read_json(path, None))
    absent = [sample.id for sample in samples if sample.id not in assign]
    if absent:
        raise ValueError(
            f"{path} names no split for {', '.join(absent[:10])}{' ...' if len(absent) > 10 else ''}; "
            "run `prepare` again: it keeps the old splits and adds these"
        )
    return {split: [sample.id for sample in samples if assign[sample.id] == split] for split in SPLITS}


def checked_assign(path: Path, content: Any, key: str = "assign") -> dict[str, str]:
    """The splits under this key; ValueError where they are none."""
    assign = content.get(key, {} if key != "assign" else None) if isinstance(content, dict) else None
    if not isinstance(assign, dict) or not set(assign.values()) <= set(SPLITS):
        raise ValueError(f'{path}: need {{"{key}": {{id: one of {", ".join(SPLITS)}}}}}; restore or delete the file')
    return assign


def read_json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # also UnicodeDecodeError
        raise ValueError(f"{path}: it is no JSON ({error}); restore it or run `prepare` into another folder") from error
