"""The frame cache: size and speed of each format beside decoding and the old way, and what JPEG changes in answers.

Enters: options. Leaves: a Result a part. The clips are real ones where there are some, and the demo's. One thread, as a
DataLoader's worker; files are in the page cache.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benches import data
from benches.cache_answers import answers
from benches.common import Bar, Result, Row, Table, side_by_side, timed
from vlm_crash.demo.clips import write_dataset
from vlm_crash.video import FrameSampling, guarded, list_clips
from vlm_crash.video.frame_cache import CacheSettings, FrameCache
from vlm_crash.video.frame_formats import FRAME_FORMATS, JPEG_QUALITY
from vlm_crash.video.image_transform import to_pixel_values

PARTS = ("speed", "answers")
GIB = 2**30
#: What issue 6 asks the size of, and how many times faster than the old way a clip must come from the default format.
NUM_FRAMES, SIDE, NUM_CLIPS, FASTER = 64, 448, 1642, 8.0

#: The default, and lower ones.
QUALITIES = (JPEG_QUALITY, 75, 50)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    parser.add_argument("--clips", type=Path, default=data.REAL, help="folder of real clips")
    parser.add_argument("--rendered", type=int, default=8, help="clips of the demo")
    parser.add_argument("--frames", type=int, default=32, help="frames of a clip")
    parser.add_argument("--size", type=int, default=SIDE, help="side of the model's square")
    parser.add_argument("--rounds", type=int, default=3, help="most times that each way reads a clip")
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="a folder that `demo` made, for answers")
    parser.add_argument("--qualities", type=int, nargs="+", default=QUALITIES, help="of JPEG, for answers")
    parser.add_argument("--most_tokens", type=int, default=200, help="of a text field, for answers")


def run(options: argparse.Namespace) -> list[Result]:
    parts = {"speed": _speed, "answers": _answers}
    return [parts[part](options) for part in options.parts]


def _answers(options: argparse.Namespace) -> Result:
    return answers(options.demo, data._real_clips(options.clips), options.qualities, options.most_tokens)


def _speed(options: argparse.Namespace) -> Result:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_dataset(folder / "demo", num_clips=options.rendered, seed=0, workers=1)
            rendered = [clip for event in ("crash", "nearmiss") for clip in list_clips(folder / "demo" / event)]
            sets = {"real": data._real_clips(options.clips), "rendered": rendered}
            return _result({what: clips for what, clips in sets.items() if clips}, folder / "cache", options)
    finally:
        torch.set_num_threads(threads)


def _result(sets: dict[str, list[Path]], folder: Path, options: argparse.Namespace) -> Result:
    default = CacheSettings(folder).format
    rows: list[Row] = []
    ratios, bars = {}, []
    for what, clips in sets.items():
        found = [_clip(clip, folder, options) for clip in clips]
        old, cold, *cached = (1000 * np.mean([seconds for seconds, _ in found], axis=0)).tolist()
        rows.append((f"{len(clips)} {what}", "the old way", None, None, old, 1.0, None, None))
        rows.append((f"{len(clips)} {what}", "decoded each time", None, None, cold, old / cold, None, None))
        for number, name in enumerate(FRAME_FORMATS):
            share, write, mean, most = np.mean([figures[number] for _, figures in found], axis=0).tolist()
            all_gib = share * NUM_FRAMES * SIDE * SIDE * 3 * NUM_CLIPS / GIB
            ms, faster = cached[number], old / cached[number]
            rows.append((f"{len(clips)} {what}", name, all_gib, write * 1000, ms, faster, mean, most))
            ratios[f"old_way_vs_{name}_{what}"] = faster
            if name == default:
                said = f"{len(clips)} {what} clips: {name} is {faster:.1f} times faster than the old way"
                bars.append(Bar(f"{said}, at least {FASTER:g}", bool(faster >= FASTER)))
    table = Table(
        "Frames from the cache",
        f"Mean milliseconds a clip until it is [{options.frames}, 3, {options.size}, {options.size}] float32, one "
        f"thread, the ways in turns; the clip's content is known by its inode and times, checksums are verified. GiB: "
        f"of {NUM_CLIPS:,} clips of {NUM_FRAMES} frames of {SIDE} x {SIDE}, at these clips' share. Grey levels: what "
        "reading gives beside what the format gives back, mean over clips.",
        ("clips", "way", "size of all (GiB)", "writing (ms)", "reading (ms)", "times faster", "mean difference",
         "largest difference"),
        rows,
    )  # fmt: skip
    return Result("cache speed", [table], ratios, bars=bars)


def _clip(clip: Path, folder: Path, options: argparse.Namespace) -> tuple[list[float], list[list[float]]]:
    """Median seconds of the old way, of decoding and of each format; share of raw, seconds to write, differences."""
    sampling = FrameSampling(options.frames)
    decode = partial(guarded.read_frames, clip, sampling, image_size=options.size)
    to_keep = partial(decode, to_keep=True)
    plain_FHWC, kept_FHWC = decode().frames_FHWC, to_keep().frames_FHWC
    figures, reads = [], []
    for name, kept in FRAME_FORMATS.items():
        cache = FrameCache(CacheSettings(folder, format=name))
        read = partial(cache.read, clip, sampling.to_json(), options.size, "auto", to_keep)
        read()
        size = sum(map(len, kept.encode(kept_FHWC)))
        write = timed(partial(kept.encode, kept_FHWC))
        differences = np.abs(read().frames_FHWC.astype(np.int16) - plain_FHWC)
        figures.append([size / plain_FHWC.nbytes, write, float(differences.mean()), float(differences.max())])
        reads.append(lambda read=read: to_pixel_values(read().frames_FHWC, options.size))
    ways = [lambda: data._old_way(clip, options), lambda: to_pixel_values(decode().frames_FHWC, options.size), *reads]
    seconds, _rounds = side_by_side(ways, options.rounds, 60)
    return seconds, figures
