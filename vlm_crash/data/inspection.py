"""A look at every clip of a dataset: can it be read, how long is it, what is it the same as.

In: rows of the CSVs. Out: rows with the clip's own duration, content hashes, and a Problem for whatever is wrong.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from vlm_crash.data.annotations import AnnotatedRow
from vlm_crash.data.problems import Problem
from vlm_crash.video.clip_files import list_clips, log_other_files, readable_name
from vlm_crash.video.container import ClipInfo, UnreadableClipError
from vlm_crash.video.guarded import content_hash, probe

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOGS = 5.0
#: How the problem of a clip that cannot be read begins.
UNREADABLE = "unreadable clip"


def inspect_clips(
    rows: Sequence[AnnotatedRow], clip_timeout_s: float | None
) -> tuple[list[AnnotatedRow], dict[str, str], list[Problem]]:
    """Rows whose clip can be read, with the clip's own duration; id -> content hash; the others as problems."""
    good: list[AnnotatedRow] = []
    hashes: dict[str, str] = {}
    problems: list[Problem] = []
    logged = time.monotonic()
    look = partial(_look, timeout_s=clip_timeout_s)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done, (row, result) in enumerate(zip(rows, pool.map(look, rows), strict=True), start=1):
            if isinstance(result, UnreadableClipError):
                what = f"{UNREADABLE}: {result.reason}"
                remedy = "replace or convert the clip; the row is left out"
                problems.append(Problem(row.file, row.row, row.sample.video, what, remedy))
            else:
                info, digest = result
                hashes[row.sample.id] = digest
                good.append(replace(row, sample=replace(row.sample, duration_s=info.duration_s)))
            if time.monotonic() - logged > _SECONDS_BETWEEN_LOGS or done == len(rows):
                logged = time.monotonic()
                logger.info("looked at %d of %d clips", done, len(rows))
    return good, hashes, problems


def _look(row: AnnotatedRow, timeout_s: float | None) -> tuple[ClipInfo, str] | UnreadableClipError:
    try:
        return probe(row.sample.path, timeout_s), content_hash(row.sample.path, timeout_s)
    except UnreadableClipError as error:
        return error


def unlisted(
    sources: Mapping[str, tuple[Path, Path]], rows: Sequence[AnnotatedRow], problems: Sequence[Problem]
) -> list[Problem]:
    """Clips that lie in a folder and in no CSV of it."""
    csvs = defaultdict(list)
    for csv_path, clip_dir in sources.values():
        csvs[clip_dir.resolve()].append(str(csv_path))
    named = {row.sample.path.absolute() for row in rows}
    found = []
    for clip_dir, files in csvs.items():
        named |= {(clip_dir / p.video).absolute() for p in problems if p.file in files and p.video}
        listed = {path.parent.resolve() / path.name for path in named}
        log_other_files(clip_dir)
        for clip in list_clips(clip_dir):
            if clip.parent.resolve() / clip.name not in listed:
                remedy = "add a row for it; it is left out"
                name = readable_name(clip.name)
                found.append(Problem(" and ".join(files), None, name, "a clip that no row names", remedy))
    return found


def contradictions(rows: Sequence[AnnotatedRow], hashes: Mapping[str, str]) -> list[Problem]:
    """Clips of the same content under two events: kept, in one split, and named."""
    first: dict[str, AnnotatedRow] = {}
    problems = []
    for row in rows:
        other = first.setdefault(hashes[row.sample.id], row)
        if other.sample.event != row.sample.event:
            what = f"the same content as {other.sample.video} of {other.sample.event} ({other.file}, row {other.row})"
            remedy = f"remove one of them; both are kept, as {other.sample.event} and {row.sample.event}"
            problems.append(Problem(row.file, row.row, row.sample.video, what, remedy))
    return problems
