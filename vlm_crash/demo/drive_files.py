"""Write drives, with the truth of their events, and clips cut out of drives to learn from.

In: seeds, lengths, numbers. Out: out/<n>.mp4 and out/drives.csv; or a folder of clips and a CSV for each of crash,
nearmiss and ordinary, as `prepare` takes them. Must hold: a picture is drawn, encoded and forgotten; a clip of
ordinary driving ends before anything has happened in it, or begins after it is over.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from vlm_crash.demo.clips import encode
from vlm_crash.demo.drives import HOLD_S, Drive, sample_drive
from vlm_crash.demo.scene import field_names
from vlm_crash.demo.world import EVENTS, ORDINARY
from vlm_crash.schema.fields import load_schema

TRUTH = "drives.csv"
TIMES = ("start_s", "moment_s", "end_s")
KINDS = (*EVENTS, ORDINARY)
#: Seconds of an event that a clip of it shows at least, and that one of ordinary driving keeps away from.
SEEN_S, AWAY_S = 0.6, 1.5
#: Of the clips of ordinary driving: how many end with an event about to happen.
_NEARLY = 0.3
#: And how many show ego standing throughout, for that is what follows a near miss, and what a model takes for one.
_STANDING = 0.35
_CLIP_DRIVE_S = 75.0  # of the drive that a clip is cut from
#: A dataset's clips come from so many drives at most; the drives after those, up to the end, are looked through for one
#: in which ego stands (every third has such a leg), and what lies above is for recordings.
_CLIP_DRIVES, _END_OF_CLIP_DRIVES = 10_000, 300_000


def write_drives(out: str | Path, seeds: Iterable[int], duration_s: float, num_events: int) -> list[Drive]:
    """Write a drive for each seed, and out/drives.csv: a row for each event with its times and its record.

    Files that are there already are not written again: a folder is of one list of seeds and one length.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for event in EVENTS for name in field_names(event)))
    drives, rows = [], []
    for number, seed in enumerate(seeds, 1):
        drive = sample_drive(seed, duration_s, num_events)
        _encode_whole(drive, 0.0, drive.duration_s, out / f"{number}.mp4")
        drives.append(drive)
        for found in drive.events:
            times = {name: f"{getattr(found, name):.3f}" for name in TIMES}
            rows.append({"video": f"{number}.mp4", "event": found.event, **times, **found.values})
    _write_csv(out / TRUTH, ["video", "event", *TIMES, *names], rows)
    return drives


def _encode_whole(drive: Drive, start_s: float, length_s: float, path: Path) -> None:
    """A stretch of a drive as a file that is whole or not there; one that is there is not drawn again."""
    if path.exists():
        return
    part = path.with_suffix(".part.mp4")
    encode(drive.pictures(start_s, length_s), part, drive.fps, drive.seed, (320, 180))
    part.rename(path)


def clip_start(drive: Drive, kind: str, window_s: float, rng: Random) -> float:
    """Where a clip of `window_s` seconds begins that shows the drive's one event, or ordinary driving."""
    truth = drive.events[0]
    last_s = drive.duration_s - window_s
    if kind != ORDINARY:
        earliest_s = truth.moment_s + SEEN_S - window_s
        latest_s = max(earliest_s, truth.moment_s - 0.5)
        return min(max(0.0, rng.uniform(earliest_s, latest_s)), last_s)
    before_s, after_s = truth.moment_s - AWAY_S - window_s, truth.end_s + HOLD_S
    if before_s > 0 and (rng.random() < _NEARLY or after_s > last_s):
        return before_s - rng.uniform(0.0, min(2.5, before_s))
    spans = [(low, high) for low, high in ((0.0, before_s), (after_s, last_s)) if low <= high]
    low, high = rng.choices(spans, [high - low + 1e-6 for low, high in spans])[0]
    return rng.uniform(low, high)


def write_clips(out: str | Path, num_clips: dict[str, int], seed: int, window_s: float, workers: int = 1) -> None:
    """Write so many clips of each kind (crash, nearmiss, ordinary), each cut from a drive of its own.

    Files that are there already are not written again: a folder is of one list of numbers, one seed and one length.

    Args:
        seed: of the first drive; the others follow.

    Raises:
        ValueError: so many drives are not there.
    """
    if not 0 <= seed <= _CLIP_DRIVES - sum(num_clips.values()):
        raise ValueError(
            f"{sum(num_clips.values())} clips from seed={seed} on are not in [0, {_CLIP_DRIVES}); choose fewer, or a "
            "lower seed"
        )
    out = Path(out)
    jobs: list[tuple[str, int, float, str]] = []
    for kind, number in num_clips.items():
        (out / kind).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            jobs.append((kind, seed + len(jobs), window_s, str(out / kind / f"{index + 1}.mp4")))
    if workers <= 1:
        _write_tables(out, map(_write_clip, jobs))
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        _write_tables(out, pool.imap(_write_clip, jobs, chunksize=8))


def clip_of(seed: int, kind: str, window_s: float) -> tuple[Drive, float]:
    """The drive that a clip of this kind is cut from, and where it begins in it."""
    rng = Random(f"clip of drive {seed}")
    if kind == ORDINARY and rng.random() < _STANDING:
        for candidate in range(seed, _END_OF_CLIP_DRIVES, _CLIP_DRIVES):
            drive = sample_drive(candidate, _CLIP_DRIVE_S, 1)
            if spans := standing_spans(drive, window_s):
                return drive, rng.uniform(*rng.choice(spans))
    drive = sample_drive(seed, _CLIP_DRIVE_S, 1, None if kind == ORDINARY else kind)
    return drive, clip_start(drive, kind, window_s, rng)


def standing_spans(drive: Drive, window_s: float) -> list[tuple[float, float]]:
    """From when to when a clip can begin in which ego stands and nothing happens."""
    return [
        (leg.start_s, leg.start_s + leg.length_s - window_s)
        for leg in drive.legs
        if leg.scene.event == ORDINARY and leg.scene.motion.ego_speed == 0 and leg.length_s > window_s
    ]


def _write_clip(job: tuple[str, int, float, str]) -> tuple[str, dict[str, str]]:
    kind, seed, window_s, path = job
    drive, start_s = clip_of(seed, kind, window_s)
    _encode_whole(drive, start_s, window_s, Path(path))
    row = {"video_id": Path(path).stem, "duration": f"{window_s:.3f}"}
    if kind != ORDINARY:
        row |= {column: drive.events[0].values[name] for name, column in columns(kind).items()}
    return kind, row


def columns(kind: str) -> dict[str, str]:
    """Field name -> column of its CSV."""
    return {} if kind == ORDINARY else {field.name: field.columns[0] for field in load_schema().event(kind).fields}


def _write_tables(out: Path, rows: Iterator[tuple[str, dict[str, str]]]) -> None:
    by_kind: dict[str, list[dict[str, str]]] = {}
    for kind, row in rows:
        by_kind.setdefault(kind, []).append(row)
    for kind, found in by_kind.items():
        _write_csv(out / f"{kind}.csv", ["video_id", "duration", *columns(kind).values()], found)


def _write_csv(path: Path, header: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(rows)
