"""Write scenes as clips: H.264 mp4 by PyAV, and the two CSVs in the old format.

In: a number of clips and a seed. Out: out/crash/<n>.mp4, out/nearmiss/<n>.mp4 and out/AV_<event>_modified_r.csv.
Must hold: both events have the same sizes, rates, lengths, names and encoder settings.
"""

import csv
import multiprocessing
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np

from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.scene import sample_scene
from vlm_crash.demo.world import CUE_LEAD, EVENTS, Scene
from vlm_crash.schema.fields import load_schema

CSV_NAMES = {"crash": "AV_crash_modified_r.csv", "nearmiss": "AV_nearmiss_modified_r.csv"}
# Scene seeds of a dataset stay below a thousand million: those above are for training a base model.
MOST_CLIPS, MOST_SEEDS = 1_000_000, 1_000
# Bits per second of a clip: drawn per scene, and held by padding. At constant quality a crash's last second cost more
# bits than a near miss's, and of a crash and a near miss the crash was the larger file in 57 % of the pairs.
_BIT_RATES = (240_000, 480_000)


def num_frames(scene: Scene) -> int:
    """Frames of the scene's clip."""
    return round(scene.duration_s * scene.fps)


def moments(scene: Scene, decisive_s: float = CUE_LEAD, place: float | None = None) -> list[float]:
    """The seconds of the scene that its clip's frames show.

    Args:
        decisive_s: how long the clip takes for the scene's last CUE_LEAD seconds, in which the event shows.
        place: where in the clip that is, from 0 (it opens the clip) to 1 (it closes it): the scene runs to its end,
            and back again, so that no cut tells the moment, and what is left shows no event. None: a scene that runs
            forwards alone, and ends with its event.
    """
    if decisive_s == CUE_LEAD and place is None:
        return [index / scene.fps for index in range(num_frames(scene))]
    turn_s = scene.duration_s - CUE_LEAD
    times_s = [index / scene.fps for index in range(round((turn_s + decisive_s) * scene.fps))]
    if place is None:
        return [time_s + max(0.0, time_s - turn_s) * (CUE_LEAD / decisive_s - 1) for time_s in times_s]
    half_s = decisive_s / 2
    off_s = [abs(time_s - half_s - place * (len(times_s) / scene.fps - decisive_s)) for time_s in times_s]
    return [
        max(0.0, turn_s + half_s - off if off >= half_s else scene.duration_s - off * CUE_LEAD / half_s)
        for off in off_s
    ]


def drawn_place(scene_seed: int) -> float:
    """A place of the decisive moment, anywhere in a clip with the same chance."""
    return Random(f"place of {scene_seed}").random()


def _encoder(seed: int) -> tuple[int, dict[str, str]]:
    """Bits per second, and the options of libx264."""
    bit_rate = Random(f"bit rate of {seed}").randrange(*_BIT_RATES, 1000)
    # mbtree=0: with it x264 gives other bytes for the same pictures from one call to the next (seen with PyAV 18.1)
    constant = f"nal-hrd=cbr:vbv-maxrate={bit_rate // 1000}:vbv-bufsize={bit_rate // 1000}:mbtree=0"
    return bit_rate, {"preset": "superfast", "threads": "1", "x264-params": constant}


def write_clip(
    scene: Scene,
    path: str | Path,
    size: tuple[int, int] = (320, 180),
    decisive_s: float = CUE_LEAD,
    place: float | None = None,
) -> None:
    """Write the scene as an H.264 mp4 of `size` (width, height: even numbers). OSError: the file cannot be written."""
    pictures = (render_frame(scene, time_s, size) for time_s in moments(scene, decisive_s, place))
    encode(pictures, path, scene.fps, scene.seed, size)


def encode(pictures: Iterable[np.ndarray], path: str | Path, fps: int, seed: int, size: tuple[int, int]) -> None:
    """Write pictures [H, W, 3] uint8 as they come, as an H.264 mp4; `seed` draws its bit rate."""
    if size[0] % 2 or size[1] % 2:
        raise ValueError(f"size {size} has an odd side; yuv420p needs even ones")
    bit_rate, options = _encoder(seed)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options, bit_rate=bit_rate)
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
        stream.time_base = Fraction(1, fps)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def plan_dataset(num_clips: int, seed: int) -> list[tuple[str, int, int]]:
    """(event, number, scene seed) of each clip: the events take turns, so both have half.

    >>> plan_dataset(3, seed=0)
    [('crash', 1, 0), ('nearmiss', 1, 1), ('crash', 2, 2)]
    """
    if not 2 <= num_clips <= MOST_CLIPS:
        raise ValueError(
            f"num_clips={num_clips} is not in [2, {MOST_CLIPS}]: at least one clip of each event is needed; "
            "set --num_clips to that"
        )
    if not 0 <= seed < MOST_SEEDS:
        raise ValueError(f"seed={seed} is not in [0, {MOST_SEEDS - 1}]; set --seed to one of them")
    return [(EVENTS[i % 2], i // 2 + 1, seed * MOST_CLIPS + i) for i in range(num_clips)]


def _columns(event: str) -> dict[str, str]:
    """Field name -> column of the old CSV, which comes first among a field's columns ("Crash with")."""
    return {field.name: field.columns[0] for field in load_schema().event(event).fields}


def _write_planned(job: tuple[str, int, str, float, bool]) -> tuple[str, dict[str, str]]:
    event, scene_seed, path, decisive_s, anywhere = job
    scene = sample_scene(scene_seed, event)
    write_clip(scene, path, decisive_s=decisive_s, place=drawn_place(scene_seed) if anywhere else None)
    row = {column: scene.values[name] for name, column in _columns(event).items()}
    return event, {"video_id": Path(path).stem, "duration": f"{len(moments(scene, decisive_s)) / scene.fps:.3f}", **row}


def write_dataset(
    out: str | Path,
    num_clips: int,
    seed: int,
    workers: int = 2,
    decisive_s: float = CUE_LEAD,
    anywhere: bool = False,
) -> None:
    """Write `num_clips` clips, half of them crashes, and their two CSVs into `out`.

    Args:
        decisive_s: as for `moments`.
        anywhere: the moment has a place of its own in each clip (`drawn_place`), not the end.
    """
    planned, out = plan_dataset(num_clips, seed), Path(out)
    for event in EVENTS:
        (out / event).mkdir(parents=True, exist_ok=True)
    jobs = [
        (event, scene_seed, str(out / event / f"{number}.mp4"), decisive_s, anywhere)
        for event, number, scene_seed in planned
    ]
    if workers <= 1:
        _write_csvs(out, map(_write_planned, jobs))
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        _write_csvs(out, pool.imap(_write_planned, jobs, chunksize=4))


def _write_csvs(out: Path, rows: Iterable[tuple[str, dict[str, str]]]) -> None:
    by_event: dict[str, list[dict[str, str]]] = {event: [] for event in EVENTS}
    for event, row in rows:
        by_event[event].append(row)
    for event in EVENTS:
        columns = ["video_id", "duration", *_columns(event).values()]
        with (out / CSV_NAMES[event]).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(by_event[event])
