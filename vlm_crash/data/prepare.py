"""Annotation CSVs and clip folders -> a dataset to train on; and that dataset -> samples.

In: per event a CSV and a folder. Out, in one folder: `<event>_ft.jsonl`, `diy_ft_data.json` (upstream reads both),
`splits.json`, `dataset.json` and `problems.csv`; with corrections, these and what they changed.
Must hold: a clip that cannot be read, or whose row is bad, is left out and named, never replaced; clips of the same
content stand in the same split; a second run moves no clip; all files are written, or none; a file of an event that a
second run does not have is removed.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlm_crash.data.adapters import Adapted
from vlm_crash.data.annotations import AnnotatedRow, read_rows
from vlm_crash.data.corrections import CORRECTIONS_FILE, correct
from vlm_crash.data.files import write_files
from vlm_crash.data.frozen_splits import CONTENT, frozen_splits
from vlm_crash.data.inspection import contradictions, inspect_clips, unlisted
from vlm_crash.data.jsonl import to_line
from vlm_crash.data.prepared import (
    DATA_FILE,
    DATASET_FILE,
    PROBLEMS_FILE,
    SPLITS_FILE,
    group_facts,
    load_prepared,
    load_vocabularies,
    read_json,
)
from vlm_crash.data.problems import MAX_SHOWN, InputProblems, Problem, problems_csv
from vlm_crash.data.splits import SPLITS, make_splits, unite
from vlm_crash.data.vocabularies import observed_vocabularies, same_spellings
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.counting import counted
from vlm_crash.video.guarded import CLIP_TIMEOUT_S

__all__ = ["PrepareReport", "load_prepared", "load_vocabularies", "prepare"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` made: the folder, clips by event and by split, and how many problems problems.csv holds."""

    out: Path
    num_clips: Mapping[str, int]
    num_by_split: Mapping[str, Mapping[str, int]]
    num_left_out: int
    num_problems: int
    num_corrected: int = 0

    def __str__(self) -> str:
        lines = [
            f"{self.out}: {counted(sum(self.num_clips.values()), 'clip')}, {counted(self.num_left_out, 'row')} left out"
        ]
        for split, by_event in self.num_by_split.items():
            events = ", ".join(f"{count} {event}" for event, count in by_event.items())
            lines.append(f"  {split}: {sum(by_event.values())} ({events})")
        if self.num_corrected:
            lines.append(
                f"  values that are not those of the CSVs: {self.num_corrected} ({self.out / CORRECTIONS_FILE})"
            )
        if self.num_problems:
            are = "is" if self.num_problems == 1 else "are"
            lines.append(f"  {counted(self.num_problems, 'problem')} {are} listed in {self.out / PROBLEMS_FILE}")
        return "\n".join(lines)


def prepare(
    sources: Mapping[str, tuple[Path, Path]],
    out: Path,
    schema: Schema,
    seed: int | None = None,
    fractions: Sequence[float] | None = None,
    group_column: str | None = None,
    *,
    question: Callable[[str | None], str],
    clip_timeout_s: float | None = CLIP_TIMEOUT_S,
    adapted: Adapted | None = None,
    corrections: Path | None = None,
) -> PrepareReport:
    """Turn annotation CSVs and clip folders into a dataset.

    Args:
        sources: event -> (CSV, folder of its clips), for one event of the schema or more.
        out: folder of the dataset. When it holds splits.json already, its clips keep their split, also under new names.
        schema: events and fields.
        seed: of the splits; None: that of the splits.json there, else 0.
        fractions: shares of train, val and test; None: those of the splits.json there, else DEFAULT_FRACTIONS.
        group_column: CSV column whose equal cells (one trip, one source video) must not be parted; None: that of the
            splits.json there, else clips of the same content only.
        question: event -> the human turn's words, without the image prefix.
        clip_timeout_s: most seconds to look at a clip; None or 0: no limit.
        adapted: rows of a dataset of another form, whose sources these are; their official splits hold.
        corrections: a CSV of labels to change (corrections.py); those of earlier runs into this folder hold as well.

    Raises:
        InputProblems: (a ValueError) with all that makes the input unusable as a whole.
        ValueError: options that contradict each other or the splits.json of an earlier run.
        OSError: the dataset cannot be written; nothing was changed then.
    """
    for name, value in (("clip_timeout_s", clip_timeout_s), ("seed", seed)):
        if value is not None and not value >= 0:  # nan is not
            raise ValueError(f"{name}={value} is below 0; set --{name} to 0 or more")
    _check_sources(sources, schema)
    out = Path(out)
    held = frozen_splits(out / SPLITS_FILE, seed, fractions, CONTENT if adapted else group_column)
    earlier, of_content = dict(held.assign), dict(held.of_content)
    rows, problems = _rows(adapted, fractions) if adapted else _read_sources(sources, schema, held.group_column)
    num_rows = (adapted.num_left_out if adapted else 0) + len(
        {(p.file, p.row) for p in problems if p.row is not None} | {(r.file, r.row) for r in rows}
    )
    folders = {event: folder for event, (_, folder) in sources.items()}
    corrected = correct(rows, schema, out, corrections, folders)
    rows, hashes, unreadable = inspect_clips(corrected.rows, clip_timeout_s)
    named = adapted.left_out if adapted else ()
    problems += unreadable
    problems += [problem for problem in unlisted(sources, rows, problems) if problem.video not in named]
    problems = sorted([*problems, *contradictions(rows, hashes)], key=_place)
    if not rows:
        raise InputProblems("no clip is left to make a dataset of", problems)
    samples = same_spellings([row.sample for row in rows], schema)
    labels = {row.sample.id: row.group for row in rows if row.group}
    groups = unite([hashes, labels])
    # What a clip shows goes before its name: a renamed clip stays, and one that took over a name comes after.
    official = {row.sample.id: row.split for row in rows if row.split}
    frozen = official | earlier | {id: of_content[content] for id, content in hashes.items() if content in of_content}
    splits = make_splits(samples, groups, held.fractions, held.seed, frozen)
    assign = earlier | {id: split for split in SPLITS for id in splits[split]}
    of_content = {hashes[sample.id]: assign[sample.id] for sample in samples} | of_content
    texts = {
        **_conversations(out, sources, samples, schema, question),
        out / SPLITS_FILE: _splits_json(held.settings, assign, of_content, groups),
        out / DATASET_FILE: _json(
            _facts(out, {} if adapted else sources, samples, schema) | group_facts(labels, held.group_column)
        ),
        out / PROBLEMS_FILE: problems_csv(problems),
        **corrected.files(out),
    }
    stale = _stale(out, texts.keys())
    write_files(texts)
    for path in stale:
        logger.warning("%s is removed: its event was not given, so it is no longer of the dataset", path)
        path.unlink(missing_ok=True)
    for problem in problems[:MAX_SHOWN]:
        logger.warning("%s", problem)
    report = _report(out, sources, samples, splits, num_rows - len(rows), len(problems))
    return replace(report, num_corrected=corrected.num_changed)


def _place(problem: Problem) -> tuple[str, bool, int]:
    """Where a problem stands in problems.csv: by file and row, those of a whole file last."""
    return problem.file, problem.row is None, problem.row or 0


def _check_sources(sources: Mapping[str, tuple[Path, Path]], schema: Schema) -> None:
    if not sources:
        raise ValueError("no event is given; give an annotation CSV and a clip folder, for one event or more")
    unknown = [event for event in sources if event not in schema.event_names]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not an event of the schema; allowed: {', '.join(schema.event_names)}")


def _splits_json(
    settings: Mapping[str, Any], assign: Mapping[str, str], of_content: Mapping[str, str], groups: Mapping[str, str]
) -> str:
    """What splits.json holds; of the groups those of several clips, which stay together in folds, too."""
    sizes = Counter(groups.values())
    together = {id: group for id, group in groups.items() if sizes[group] > 1}
    return _json({**settings, "assign": assign, "assign_content": of_content, "groups": together})


def _stale(out: Path, written: Iterable[Path]) -> list[Path]:
    """Conversation files of an earlier run of ours in this folder, of events that this run does not have."""
    earlier = read_json(out / DATA_FILE, {})
    if not (out / DATASET_FILE).is_file() or not isinstance(earlier, dict):
        return []
    return [path for path in (out / f"{event}_ft.jsonl" for event in earlier) if path not in written and path.is_file()]


def _rows(adapted: Adapted, fractions: Sequence[float] | None) -> tuple[list[AnnotatedRow], list[Problem]]:
    if fractions is not None and all(row.split for row in adapted.rows):
        raise ValueError(
            f"fractions={list(fractions)} would do nothing: every clip has an official split; leave out --fractions"
        )
    return list(adapted.rows), list(adapted.problems)


def _read_sources(
    sources: Mapping[str, tuple[Path, Path]], schema: Schema, group_column: str | None
) -> tuple[list[AnnotatedRow], list[Problem]]:
    rows: list[AnnotatedRow] = []
    problems: list[Problem] = []
    fatal: list[Problem] = []
    for event, (csv_path, clip_dir) in sources.items():
        try:
            found, bad = read_rows(csv_path, event, schema, clip_dir, group_column)
        except InputProblems as error:
            fatal += error.problems
            continue
        rows += found
        problems += bad
    if fatal:
        raise InputProblems("the dataset cannot be prepared", fatal)
    return rows, problems


def _conversations(
    out: Path,
    sources: Mapping[str, tuple[Path, Path]],
    samples: Sequence[VideoSample],
    schema: Schema,
    question: Callable[[str | None], str],
) -> dict[Path, str]:
    texts: dict[Path, str] = {}
    data: dict[str, dict[str, Any]] = {}
    for event, (_, clip_dir) in sources.items():
        lines = [to_line(sample, schema, question(event)) for sample in samples if sample.event == event]
        path = out / f"{event}_ft.jsonl"
        texts[path] = "".join(f"{line}\n" for line in lines)
        # Upstream opens both paths as they stand, so they are absolute; `root_relative` is ours, for a moved folder.
        data[event] = {
            "root": str(clip_dir.resolve()),
            "root_relative": os.path.relpath(clip_dir.resolve(), out.resolve()),
            "annotation": str(path.resolve()),
            "data_augment": False,
            "repeat_time": 1,
            "length": len(lines),
            "video_read_type": "decord",
        }
    texts[out / DATA_FILE] = _json(data)
    return texts


def _report(
    out: Path,
    sources: Mapping[str, Any],
    samples: Sequence[VideoSample],
    splits: Mapping[str, Sequence[str]],
    num_left_out: int,
    num_problems: int,
) -> PrepareReport:
    event_of = {sample.id: str(sample.event) for sample in samples}
    by_split = {s: Counter(event_of[id] for id in ids) for s, ids in splits.items()}
    return PrepareReport(
        out=out,
        num_clips={event: sum(e == event for e in event_of.values()) for event in sources},
        num_by_split={s: {event: counts[event] for event in sources} for s, counts in by_split.items()},
        num_left_out=num_left_out,
        num_problems=num_problems,
    )


def _facts(
    out: Path, sources: Mapping[str, tuple[Path, Path]], samples: Sequence[VideoSample], schema: Schema
) -> dict[str, Any]:
    """What dataset.json says of the whole; sources: CSVs in our form."""
    return {
        "schema": schema.fingerprint,
        "vocabularies": observed_vocabularies(samples, schema),
        "sources": {event: _csv_of(out, csv) for event, (csv, _) in sources.items()},
    }


def _csv_of(out: Path, csv: Path) -> dict[str, str]:
    """Where an annotation CSV lies, as it stands and from the dataset's folder, for `audit`."""
    return {"csv": str(csv.resolve()), "csv_relative": os.path.relpath(csv.resolve(), out.resolve())}


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
