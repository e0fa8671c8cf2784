"""check: clips a minute, alone and with decord held against each clip, beside reading each clip twice more for that.

Enters: options. Leaves: a Result. The clips last about ten seconds: real ones where there are some (H.264 in MP4, 360
to 1080 lines), and scenes of the demo; each stands there several times. Files are in the page cache.
"""

import argparse
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benches import data
from benches.common import Bar, Result, Row, Table, side_by_side
from vlm_crash.data.check import check
from vlm_crash.demo.clips import encode, num_frames
from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.scene import sample_scene
from vlm_crash.schema.fields import load_schema
from vlm_crash.video import FrameSampling, guarded, list_clips
from vlm_crash.video.preflight import RIGHT, Limits, Preflight

SECONDS, SIZE = 10, (640, 360)
#: Seconds that count as about ten.
ABOUT = (7.0, 14.0)
#: Bar: so many clips, with decord, take at most so many minutes.
NUM_CLIPS, MINUTES = 1642, 10.0
DECODED, JUDGED, TWICE = "decoded as a whole", "and held against decord", "decord by reading twice more, as it was"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=Path, default=data.REAL, help="folder of real clips")
    parser.add_argument("--rendered", type=int, default=8, help="scenes of the demo")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of a scene")
    parser.add_argument("--copies", type=int, default=4, help="times that each clip stands there")
    parser.add_argument("--workers", type=int, default=2, help="clips that are looked at at the same time")
    parser.add_argument("--rounds", type=int, default=2, help="most times that each way looks at all clips")


def run(options: argparse.Namespace) -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {"real": real_clips(options.clips), "rendered": rendered_clips(folder / "scenes", options)}
        notes = [] if sets["real"] else [f"real clips: {options.clips} holds none of {ABOUT[0]:g} to {ABOUT[1]:g} s"]
        found = {}
        for what, clips in sets.items():
            copies = copied(clips, folder / what, options.copies)
            if copies:
                found[f"{len(copies)} {what}"] = len(copies), _seconds(folder / what, copies, options)
    return [_result(found, notes, options)]


def real_clips(folder: Path) -> list[Path]:
    """Eight of the real clips that last about ten seconds, as `data` chooses them."""
    return data._real_clips(folder, ABOUT)


def rendered_clips(folder: Path, options: argparse.Namespace) -> list[Path]:
    """Scenes of the demo, each slowed down to the seconds asked for."""
    folder.mkdir()
    for seed in range(options.rendered):
        scene = sample_scene(seed)
        count = options.seconds * scene.fps
        times_s = (number * num_frames(scene) / scene.fps / count for number in range(count))
        pictures = (render_frame(scene, time_s, SIZE) for time_s in times_s)
        encode(pictures, folder / f"{seed}.mp4", scene.fps, seed, SIZE)
    return list_clips(folder)


def copied(clips: Sequence[Path], folder: Path, copies: int) -> list[Path]:
    """The clips in a folder of their own, each so many times."""
    folder.mkdir()
    for number in range(copies):
        for clip in clips:
            shutil.copyfile(clip, folder / f"{number}_{clip.name}")
    return list_clips(folder) if clips else []


def _seconds(folder: Path, clips: Sequence[Path], options: argparse.Namespace) -> tuple[dict[str, float], int, bool]:
    """Median seconds of each way, clips that decord gets wrong, and whether both ways to find these say the same."""
    said: dict[str, dict[str, str]] = {}

    def looked_at(decord: bool) -> None:
        with tempfile.TemporaryDirectory() as out:  # without the rows of the round before
            report = check(folder, load_schema(), Limits(), options.workers, Path(out), decord=decord)
        said[JUDGED if decord else DECODED] = {row.key.clip: row.cells["decord"] for row in report.rows}

    def read_twice_more() -> None:
        said[TWICE] = dict(zip((clip.name for clip in clips), _read_twice_more(clips, options.workers), strict=True))

    ways: dict[str, Callable[[], None]] = {
        DECODED: partial(looked_at, False), JUDGED: partial(looked_at, True), TWICE: read_twice_more,
    }  # fmt: skip
    medians, _rounds = side_by_side(list(ways.values()), options.rounds, 120)
    wrong = sum(text != RIGHT for text in said[JUDGED].values())
    return dict(zip(ways, medians, strict=True)), wrong, said[JUDGED] == said[TWICE]


def _read_twice_more(clips: Sequence[Path], workers: int) -> list[str]:
    """As check did it: the clip is decoded as a whole, then 32 frames of it are read by both."""
    own = threading.local()
    made: list[Preflight] = []

    def look(clip: Path) -> str:
        if not hasattr(own, "preflight"):
            own.preflight = Preflight(Limits())
            made.append(own.preflight)
        own.preflight.content_hash(clip)
        own.preflight.facts(clip)
        return guarded.decord_disagreements(clip, FrameSampling(32)) or RIGHT

    try:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(look, clips))
    finally:
        for preflight in made:
            preflight.stop()


def _result(
    found: dict[str, tuple[int, tuple[dict[str, float], int, bool]]], notes: list[str], options: argparse.Namespace
) -> Result:
    total = sum(count for count, _ in found.values())
    seconds = {way: sum(times[way] for _, (times, _, _) in found.values()) for way in (DECODED, JUDGED, TWICE)}
    sums = total, (seconds, sum(wrong for _, (_, wrong, _) in found.values()), True)
    rows: list[Row] = []
    for name, (count, (times, wrong, _)) in {**found, f"all {total}": sums}.items():
        for way, took in times.items():
            rows.append(
                (name, way, 60 * count / took, NUM_CLIPS * took / count / 60, None if way == DECODED else wrong)
            )
    minutes = NUM_CLIPS * seconds[JUDGED] / total / 60
    same = all(is_same for _, (_, _, is_same) in found.values())
    text = f"{NUM_CLIPS:,} such clips, decord held against each: {minutes:.1f} minutes, at most {MINUTES:g}"
    bars = [Bar(text, minutes <= MINUTES), Bar(f"both ways say the same of decord for each of {total} clips", same)]
    table = Table(
        "Clips that are checked",
        f"`check` with {options.workers} workers, clips of {ABOUT[0]:g} to {ABOUT[1]:g} s (rendered: {options.seconds} "
        f"s, {SIZE[0]}x{SIZE[1]}), each there {options.copies} times; median of rounds, the ways in turns, starting "
        "the processes included.",
        ("clips", "way", "clips a minute", f"{NUM_CLIPS:,} clips (minutes)", "wrong by decord"),
        rows,
    )
    ratios = {"read_twice_more_vs_held_against": seconds[TWICE] / seconds[JUDGED]}
    return Result("check", [table], ratios, notes, bars)
