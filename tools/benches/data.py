"""What a clip costs until it is pixel values: the old way, ours, and the least that it can cost.

Enters: options, or as a process of its own a folder of clips and a number of reads. Leaves: Results. The clips are real
ones where there are some (H.264 in MP4, 360 to 1080 lines), and the demo's. One thread each, as a DataLoader's worker.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import psutil
import torch
from PIL import Image
from torchvision import transforms

from benches.common import Bar, Result, Row, Table, side_by_side
from vlm_crash.demo.clips import write_dataset
from vlm_crash.video import FrameSampling, UnreadableClipError, guarded, list_clips, reader
from vlm_crash.video.container import open_video, scan_packets
from vlm_crash.video.frame_cache import CacheSettings, FrameCache
from vlm_crash.video.frame_sampling import middle_frame_indices
from vlm_crash.video.image_transform import IMAGENET_MEAN, IMAGENET_STD, normalised, resized, to_pixel_values
from vlm_crash.video.keyframes import read_needed
from vlm_crash.video.pixels import Chosen

PARTS = ("speed", "pixels", "memory")
REAL = Path(__file__).resolve().parents[3] / "shared" / "clips" / "real"
MIB = 2**20
NUM_REAL, LINES = 8, (360, 1080)
#: Bars: cold beside the old way, and beside the floor; the old way beside the cache; values of pixels within a level of
#: PIL's; growth of memory in the second half of the reads.
COLD, FLOOR, CACHED, WITHIN_ONE, GROWTH_MIB = 0.6, 1.3, 8.0, 0.999, 4.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    parser.add_argument("--clips", type=Path, default=REAL, help="folder of real clips")
    parser.add_argument("--rendered", type=int, default=8, help="clips of the demo")
    parser.add_argument("--frames", type=int, default=32, help="frames of a clip")
    parser.add_argument("--size", type=int, default=448, help="side of the model's square")
    parser.add_argument("--rounds", type=int, default=3, help="most times that each way reads a clip")
    parser.add_argument("--reads", type=int, default=2000, help="reads of a worker whose memory is watched")


def run(options: argparse.Namespace) -> list[Result]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as name:
            write_dataset(Path(name), num_clips=options.rendered, seed=0, workers=1)
            rendered = [clip for event in ("crash", "nearmiss") for clip in list_clips(Path(name) / event)]
            sets = {"real": _real_clips(options.clips), "rendered": rendered}
            parts = {"speed": _speed, "pixels": _pixels, "memory": _memory}
            return [parts[part](options, sets) for part in options.parts]
    finally:
        torch.set_num_threads(threads)


def _real_clips(folder: Path, seconds: tuple[float, float] = (0, np.inf)) -> list[Path]:
    """Eight of the clips that fit, evenly by their size from the smallest to the largest; fewer where there are."""
    fitting = []
    for clip in list_clips(folder) if folder.is_dir() else []:
        if clip.suffix != ".mp4":
            continue
        info = reader.probe(clip)
        is_long = seconds[0] <= info.duration_s <= seconds[1]
        if info.codec == "h264" and LINES[0] <= min(info.width, info.height) <= LINES[1] and is_long:
            fitting.append((info.width * info.height, clip.name, clip))
    fitting.sort()
    places = np.linspace(0, len(fitting) - 1, min(NUM_REAL, len(fitting))).round().astype(int)
    return [fitting[place][2] for place in places]


# -------------------------------------------------------------------------------------------------------------- speed


def _old_way(clip: Path, options: argparse.Namespace) -> torch.Tensor:
    """As the scripts of InternVL do it: decord, then each frame through PIL."""
    import decord

    frames = decord.VideoReader(str(clip), num_threads=1)
    chosen_FHWC = frames.get_batch(middle_frame_indices(len(frames), options.frames)).asnumpy()
    transform = transforms.Compose(
        [
            transforms.Resize((options.size, options.size), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return torch.stack([transform(Image.fromarray(frame_HWC)) for frame_HWC in chosen_FHWC])


def _plain_pyav(clip: Path, pts: set[int], indices: Sequence[int]) -> np.ndarray:
    """The chosen frames by their known times, every frame up to the last of them decoded."""
    chosen = Chosen(range(len(pts)))
    with open_video(clip) as (container, stream):
        for frame in container.decode(stream):
            if frame.pts in pts:
                chosen.put(sorted(pts).index(frame.pts), frame)
            if chosen.is_complete:
                break
    return chosen.frames_FHWC


def _floors(clip: Path, options: argparse.Namespace) -> list[Callable[[], object]]:
    """Readers that are told where the frames are: decord, PyAV, and PyAV with only what is needed."""
    import decord

    scan = scan_packets(clip)
    indices = middle_frame_indices(scan.info.num_frames, options.frames)
    pts = set(scan.pts[indices].tolist())
    return [
        lambda: decord.VideoReader(str(clip), num_threads=1).get_batch(indices).asnumpy(),
        lambda: _plain_pyav(clip, pts, indices),
        lambda: read_needed(scan, indices),
    ]


def _speed(options: argparse.Namespace, sets: dict[str, list[Path]]) -> Result:
    columns = (
        "clips", "old way (ms)", "ours, cold (ms)", "without the process that may die (ms)", "from the cache (ms)",
        "floor (ms)", "resizing (ms)", "cold / old way", "cold / (floor + resizing)", "old way / cache", "rounds",
    )  # fmt: skip
    rows: list[Row] = []
    ratios, bars = {}, []
    for name, clips in sets.items():
        if not clips:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = [_clip_seconds(clip, FrameCache(CacheSettings(Path(folder))), options) for clip in clips]
        rounds = min(rounds for _, rounds in found)
        old, cold, inside, cached, resizing, floor = np.mean([seconds for seconds, _ in found], axis=0) * 1000
        to_old, to_floor = cold / old, cold / (floor + resizing)
        what = f"{len(clips)} {name}"
        figures = (old, cold, inside, cached, floor, resizing, to_old, to_floor, old / cached)
        rows.append((what, *map(float, figures), rounds))
        ratios[f"old_way_vs_cold_{name}"] = float(old / cold)
        ratios[f"old_way_vs_cache_{name}"] = float(old / cached)
        faster = f"{what} clips: from the cache {old / cached:.1f} times faster than the old way, at least {CACHED:g}"
        bars.append(Bar(faster, bool(old / cached >= CACHED)))
        bars.append(Bar(f"{what} clips: cold is {to_old:.2f} of the old way, at most {COLD}", bool(to_old <= COLD)))
        bars.append(
            Bar(
                f"{what} clips: cold is {to_floor:.2f} of the floor and resizing, at most {FLOOR}",
                bool(to_floor <= FLOOR),
            )
        )
    table = Table(
        "A clip until it is pixel values",
        f"Mean milliseconds a clip, {options.frames} frames to [{options.frames}, 3, {options.size}, {options.size}] "
        "float32, normalised; of each clip the median of rounds in turns; one thread; files in the page cache. Old: "
        "decord's get_batch, then PIL's bicubic, ToTensor and Normalize a frame. Ours, cold: as a DataLoader's worker "
        "reads (in a process that may die, frames resized as they come). Cache: of the default format, normalised. "
        "Floor: the fastest of decord, PyAV and "
        "PyAV with only what is needed, each told which frames, to RGB without resizing. Resizing: ours, with "
        f"normalising. Real: of the clips in H.264 and MP4 with {LINES[0]} to {LINES[1]} lines, evenly by size.",
        columns,
        rows,
    )
    notes = [] if sets["real"] else [f"real clips: {options.clips} holds none"]
    return Result("data speed", [table], ratios, notes, bars)


def _clip_seconds(clip: Path, cache: FrameCache, options: argparse.Namespace) -> tuple[list[float], int]:
    """Seconds of the old way, cold, cold in this process, from the cache, resizing, and the floor; and the rounds."""
    sampling = FrameSampling(options.frames)
    frames_FHWC = reader.read_frames(clip, sampling).frames_FHWC

    def cold(to_keep: bool = False) -> reader.Frames:
        return guarded.read_frames(clip, sampling, image_size=options.size, to_keep=to_keep)

    def cached() -> torch.Tensor:
        kept = cache.read(clip, sampling.to_json(), options.size, "auto", lambda: cold(to_keep=True))
        return to_pixel_values(kept.frames_FHWC, options.size)

    cached()
    ways: list[Callable[[], object]] = [
        lambda: _old_way(clip, options),
        lambda: to_pixel_values(cold().frames_FHWC, options.size),
        lambda: to_pixel_values(reader.read_frames(clip, sampling).frames_FHWC, options.size),
        cached,
        lambda: to_pixel_values(frames_FHWC, options.size),
        *_floors(clip, options),
    ]
    seconds, rounds = side_by_side(ways, options.rounds, 60)
    return [*seconds[:5], min(seconds[5:])], rounds


# ------------------------------------------------------------------------------------------------------------- pixels


def _pixels(options: argparse.Namespace, sets: dict[str, list[Path]]) -> Result:
    rows: list[Row] = []
    bars = []
    for name, clips in sets.items():
        if not clips:
            continue
        counts = np.zeros(256, np.int64)
        for clip in clips:
            frames_FHWC = reader.read_frames(clip, FrameSampling(options.frames)).frames_FHWC
            ours_FHWC = resized(frames_FHWC, options.size)
            for ours_HWC, frame_HWC in zip(ours_FHWC, frames_FHWC, strict=True):
                picture = Image.fromarray(frame_HWC).resize((options.size,) * 2, Image.Resampling.BICUBIC)
                apart = np.abs(ours_HWC.astype(np.int16) - np.asarray(picture))
                counts += np.bincount(apart.ravel(), minlength=256)
        share = counts / counts.sum()
        within, most = float(share[:2].sum()), int(np.flatnonzero(counts)[-1])
        rows.append((f"{len(clips)} {name}", *(float(value) * 100 for value in (share[0], share[1])), most))
        text = f"{name} clips: {within:.5%} of the values are within one grey level of PIL's, at least {WITHIN_ONE:.1%}"
        bars.append(Bar(text, within >= WITHIN_ONE))
    table = Table(
        "Resizing beside PIL",
        f"Bicubic and antialiased, {options.frames} frames a clip to {options.size}x{options.size}: values (0 to 255) "
        "of the batch's way (torchvision, uint8) that are PIL's, and those that are one level off.",
        ("clips", "equal (%)", "one level off (%)", "most levels off"),
        rows,
    )
    return Result("data pixels", [table], {}, [], bars)


# ------------------------------------------------------------------------------------------------------------- memory


def _memory(options: argparse.Namespace, sets: dict[str, list[Path]]) -> Result:
    folder = sets["rendered"][0].parents[1]
    cut = folder / "cut.mp4"  # an error, again and again, must not leak either
    cut.write_bytes(sets["rendered"][0].read_bytes()[:2000])
    tools = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tools.parent), str(tools)])}
    command = [sys.executable, str(Path(__file__)), str(options.reads), *map(str, [*sets["rendered"], cut])]
    answer = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout
    rows = [(int(reads), worker, process) for reads, worker, process in json.loads(answer)]
    half = rows[(len(rows) - 1) // 2]
    warming, growth = (sum(late[1:]) - sum(early[1:]) for early, late in ((rows[0], half), (half, rows[-1])))
    table = Table(
        "Memory of a worker",
        "Resident MiB of a process that reads clips, and of its process that may die, after so many reads of 8 frames "
        "(the demo's clips and one that is cut off, in turns), each resized and normalised.",
        ("reads", "worker (MiB)", "its reader (MiB)"),
        rows,
    )
    text = (
        f"from {half[0]} to {rows[-1][0]} reads both grow by {growth:.1f} MiB, at most {GROWTH_MIB:g} (a leak would go "
        f"on; until then, as the allocator warms up, by {warming:.1f} MiB)"
    )
    return Result("data memory", [table], {}, [], [Bar(text, bool(growth <= GROWTH_MIB))])


def work(reads: int, clips: Sequence[Path]) -> list[tuple[int, float, float]]:
    """(reads so far, MiB of this process, MiB of its reader), ten times."""
    torch.set_num_threads(1)
    found = []
    for number in range(1, reads + 1):
        with contextlib.suppress(UnreadableClipError):
            clip = clips[number % len(clips)]
            normalised(guarded.read_frames(clip, FrameSampling(8), image_size=224).frames_FHWC)
        if number % max(1, reads // 10) == 0:
            processes = (psutil.Process(), psutil.Process(guarded._own_process().pid))
            worker, child = (process.memory_info().rss / MIB for process in processes)
            found.append((number, worker, child))
    return found


if __name__ == "__main__":
    av.logging.set_level(None)
    print(json.dumps(work(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]])))
