"""Look at every clip of a dataset or a folder, each in a process that may die of it: clips.csv.

In: a prepared dataset or a folder of clips, and what a clip may cost. Out: clips.csv, one row a clip, and a report.
Must hold: each clip has one row; a clip that was looked at before, and has not changed, is not looked at again; what
was finished is kept however the check ends. No clip is changed, moved or deleted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vlm_crash.data.clip_table import (
    CLIPS_FILE,
    COLUMNS,
    DAMAGED,
    OK,
    QUARANTINED,
    ClipRow,
    ClipTable,
    Key,
    Stamp,
    newest,
    row_of,
    rows_in,
)
from vlm_crash.data.prepared import DATA_FILE, clip_folders, load_samples
from vlm_crash.data.problems import MAX_SHOWN
from vlm_crash.schema.fields import Schema
from vlm_crash.video.clip_files import list_clips, log_other_files
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.counting import counted
from vlm_crash.video.preflight import RIGHT, ClipFacts, Limits, Preflight

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckedClip:
    """A clip to look at: how it is called in clips.csv, and where it lies."""

    key: Key
    path: Path


@dataclass(frozen=True)
class CheckReport:
    """What a check came to.

    Attributes:
        rows: of all clips, in their order.
        num_looked_at: clips that were looked at now; the others had their row.
        seconds: that it took.
        is_read: whether runs look for clips.csv where it is.
    """

    path: Path
    rows: tuple[ClipRow, ...]
    num_looked_at: int
    seconds: float
    is_read: bool = True

    @property
    def num_quarantined(self) -> int:
        return sum(row.status == QUARANTINED for row in self.rows)

    def __str__(self) -> str:
        counts = Counter(row.status for row in self.rows)
        found = ", ".join(f"{counts[status]:,} {status}" for status in (OK, DAMAGED, QUARANTINED))
        lines = [f"{self.path}: {counted(len(self.rows), 'clip')}: {found}"]
        if self.num_looked_at:
            rate = 60 * self.num_looked_at / self.seconds
            lines.append(f"  {self.num_looked_at:,} looked at in {self.seconds:.1f} s, {rate:,.0f} a minute")
        wrong = sum(row.cells["decord"] not in ("", RIGHT) for row in self.rows)
        if wrong:
            lines.append(f"  decord would get {wrong:,} of them wrong (column decord)")
        bad = [row for status in (QUARANTINED, DAMAGED) for row in self.rows if row.status == status]
        lines += [f"  {' '.join(filter(None, row.key))}: {row.status}: {row.reason}" for row in bad[:MAX_SHOWN]]
        if len(bad) > MAX_SHOWN:
            lines.append(f"  ... and {len(bad) - MAX_SHOWN:,} more")
        if not self.is_read:
            lines.append(
                f"  no run reads this file: they look for {CLIPS_FILE} in the dataset's folder and in those of its "
                "clips; check without --out, so that bad clips are kept out"
            )
        return "\n".join(lines)


def check(
    target: Path,
    schema: Schema,
    limits: Limits,
    num_workers: int,
    out: Path | None = None,
    recheck: bool = False,
    decord: bool = False,
    progress: Callable[[int, int, int], None] | None = None,
) -> CheckReport:
    """Look at every clip that has no row yet, or has changed since.

    Args:
        target: what `prepare` wrote, or a folder of clips.
        schema: of the dataset.
        limits: what one clip may cost.
        num_workers: clips that are looked at at the same time.
        out: folder of clips.csv; None: `target`. Runs look for it only there.
        recheck: look at quarantined clips again, too.
        decord: also say what decord would get wrong of each clip.
        progress: told after each clip: clips done, clips in all, quarantined ones.

    Raises:
        ValueError: the target is neither, or the numbers cannot be.
        OSError: clips.csv cannot be written.
    """
    _check_numbers(limits, num_workers)
    clips, folder = _clips(Path(target), schema)
    path = (out or folder) / CLIPS_FILE
    start = time.monotonic()
    with ClipTable(path) as table:
        known = _known(clips, table.rows, clip_folders(Path(target)))
        left = [clip for clip in clips if not _is_done(known.get(clip.key), clip, recheck, decord)]
        if len(left) < len(clips):
            log.info("%s: %d of %d clips were looked at before", path, len(clips) - len(left), len(clips))
        for key, row in known.items():
            if table.rows.get(key) is not row:
                table.add(row)
        old = known.keys() - {clip.key for clip in left}
        done, num_bad = len(old), sum(known[key].status == QUARANTINED for key in old)
        for row in _looked_at(left, limits, num_workers, decord):
            table.add(row)
            done += 1
            num_bad += row.status == QUARANTINED
            if progress is not None:
                progress(done, len(clips), num_bad)
        keys = [clip.key for clip in clips]
        table.finish(keys)
        rows = tuple(table.rows[key] for key in keys)
    is_read = path.parent.samefile(folder)
    return CheckReport(path, rows, len(left), time.monotonic() - start, is_read)


def _check_numbers(limits: Limits, num_workers: int) -> None:
    numbers = {"clip_timeout_s": (limits.timeout_s, 0), "clip_memory_gib": (limits.memory_gib, 0)}
    for name, (value, least) in {**numbers, "num_workers": (num_workers, 1)}.items():
        if value is not None and not value >= least:  # nan is not
            raise ValueError(f"{name}={value} is below {least}; set --{name} to {least} or more")


def _clips(target: Path, schema: Schema) -> tuple[list[CheckedClip], Path]:
    """The clips of a dataset or a folder, and the folder where their clips.csv goes."""
    if target.suffix == ".json" or (target / DATA_FILE).is_file():
        samples = load_samples(target, schema)
        clips = [CheckedClip(Key.of(sample.event, sample.video), sample.path) for sample in samples]
        return clips, target.parent if target.suffix == ".json" else target
    if target.is_file():
        raise ValueError(f"{target} is a file; give the folder of the clips, or what `prepare` wrote")
    if not target.is_dir():
        raise ValueError(f"{target}: no such folder; give what `prepare` wrote, or a folder of clips")
    found = list_clips(target)
    if not found:
        raise ValueError(f"{target} has no clips and no {DATA_FILE}; give what `prepare` wrote, or a folder of clips")
    log_other_files(target)
    return [CheckedClip(Key.of(None, path.name), path) for path in found], target


def _known(clips: Sequence[CheckedClip], rows: Mapping[Key, ClipRow], roots: Mapping[str, Path]) -> dict[Key, ClipRow]:
    """Rows of these clips; also those that a check of the folder they lie in has left there, or of another event."""
    folders = rows_in(clip.path.parent for clip in clips)
    known: dict[Key, ClipRow] = {}
    for clip in clips:
        beside = folders[clip.path.parent].get(Key.of(None, clip.path.name))
        row = row_of(rows, clip.key, clip.path, roots)
        stamp = Stamp.of(clip.path)
        if beside is not None and (row is None or row.stamp != stamp or _is_newer(beside, row, stamp)):
            row = beside
        if row is not None:
            named = {"clip": clip.key.clip, "event": clip.key.event}
            known[clip.key] = row if row.key == clip.key else ClipRow({**row.cells, **named})
    return known


def _is_newer(beside: ClipRow, row: ClipRow, stamp: Stamp) -> bool:
    return beside.stamp == stamp and newest((row, beside)) is beside


def _is_done(row: ClipRow | None, clip: CheckedClip, recheck: bool, decord: bool) -> bool:
    if row is None or row.stamp != Stamp.of(clip.path):
        return False
    if row.status == QUARANTINED:
        return not recheck
    return not decord or row.cells["decord"] != ""


def _looked_at(clips: Sequence[CheckedClip], limits: Limits, num_workers: int, decord: bool) -> Iterator[ClipRow]:
    """Rows as they get ready; whatever ends this also ends the processes that look."""
    own = threading.local()
    made: list[Preflight] = []

    def look(clip: CheckedClip) -> ClipRow:
        if not hasattr(own, "preflight"):
            own.preflight = Preflight(limits)
            made.append(own.preflight)
        return _row(clip, own.preflight, decord)

    pool = ThreadPoolExecutor(max(1, min(num_workers, len(clips))))
    futures = [pool.submit(look, clip) for clip in clips]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # Ctrl-C: what is under way is given up. What waited is cancelled, and `wait` alone never calls that done.
        while wait([future for future in futures if not future.cancelled()], timeout=0.05).not_done:
            for preflight in made:
                preflight.kill()
        for preflight in made:
            preflight.stop()
        pool.shutdown()


def _row(clip: CheckedClip, preflight: Preflight, decord: bool) -> ClipRow:
    stamp = Stamp.of(clip.path)
    cells = dict.fromkeys(COLUMNS, "") | clip.key._asdict() | stamp._asdict()
    cells["checked"] = datetime.now(UTC).isoformat(timespec="microseconds")
    try:
        cells["sha256"] = preflight.content_hash(clip.path)
        facts = preflight.facts(clip.path, for_decord=decord)
    except UnreadableClipError as error:
        return ClipRow({**cells, "status": QUARANTINED, "reason": error.reason})
    cells["decord"] = preflight.decord(clip.path) if decord else ""
    damage = facts.damage
    return ClipRow({**cells, **_cells(facts), "status": DAMAGED if damage else OK, "reason": damage or ""})


def _cells(facts: ClipFacts) -> dict[str, str]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    return {
        "codec": facts.codec,
        "size": f"{facts.width}x{facts.height}",
        "fps": number(facts.fps),
        "frames": str(facts.num_frames),
        "header_frames": "" if facts.header_frames is None else str(facts.header_frames),
        "duration_s": number(facts.duration_s),
        "first_s": number(facts.first_s),
        "last_s": number(facts.last_s),
        "bad_packets": str(facts.bad_packets),
        "bad_frames": str(facts.bad_frames),
    }
