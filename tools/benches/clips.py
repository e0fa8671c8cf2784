"""What reading a clip costs: in a process that may die, by each reader, and out of hours of video.

Enters: options, or as a process of its own a clip, a number of frames and a way of reading. Leaves: Results. The clips
are the demo's, or those of a folder (`readers`: the demo's and eight real ones); the hours are ten seconds of moving
noise, again and again under new time stamps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np

from benches.common import Result, Row, Table, side_by_side, timed
from vlm_crash.demo.clips import write_dataset
from vlm_crash.video import FrameSampling, guarded, list_clips, other_readers, reader
from vlm_crash.video.container import scan_packets

PARTS = ("guard", "readers", "long")
MIB = 2**20
FPS, SECONDS = 30, 10


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    parser.add_argument(
        "--clips",
        type=Path,
        help="folder of clips that can be read; unset: the demo's (readers: and real ones)",
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32], help="frames of a clip")
    parser.add_argument("--rounds", type=int, default=5, help="most times that the clips are read each way")
    parser.add_argument("--hours", type=float, default=3.5, help="length of the long clip")
    parser.add_argument("--long_frames", type=int, nargs="+", default=[8, 256], help="frames of the long clip")


def run(options: argparse.Namespace) -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        parts = {"guard": _guard, "readers": _readers, "long": _long}
        return [parts[part](options, Path(name)) for part in options.parts]


# ------------------------------------------------------------------------------------------------------------ guarded


def _guard(options: argparse.Namespace, folder: Path) -> Result:
    if options.clips is None:
        write_dataset(folder / "demo", num_clips=20, seed=0, workers=1)
        clips = [clip for event in ("crash", "nearmiss") for clip in list_clips(folder / "demo" / event)]
    else:
        clips = list_clips(options.clips)
    rows, ratios = [], {}
    for num in options.frames:

        def read(module: object, num: int = num) -> float:
            return sum(_milliseconds(module, clip, num) for clip in clips)

        (plain, safe), rounds = side_by_side([lambda: read(reader), lambda: read(guarded)], options.rounds, 60)
        megabytes = sum(reader.read_frames(clip, FrameSampling(num)).frames_FHWC.nbytes for clip in clips) / MIB
        per_clip = 1000 / len(clips)
        rows.append((num, megabytes / len(clips), rounds, plain * per_clip, safe * per_clip, safe / plain))
        ratios[f"guarded_vs_plain_{num}_frames"] = plain / safe
    start = guarded.ReaderProcess(guarded.MODULE)
    seconds = [timed(lambda: _restart(start)) for _ in range(5)]
    start.stop()
    columns = ("frames", "pixels a clip (MiB)", "rounds", "in this process (ms)", "in one that may die (ms)", "share")
    table = Table(
        "Reading in a process that may die",
        f"Milliseconds a clip, all {len(clips)} clips one after the other, each way in turns. A new process, as "
        f"after a death, takes {np.median(seconds):.2f} s until it reads.",
        columns,
        rows,
    )
    return Result("clips guard", [table], ratios)


def _milliseconds(module: object, clip: Path, num: int) -> float:
    return timed(lambda: module.read_frames(clip, FrameSampling(num)))  # type: ignore[attr-defined]


def _restart(process: guarded.ReaderProcess) -> None:
    process.stop()
    process._ready()


# ------------------------------------------------------------------------------------------------------------ readers


def _readers(options: argparse.Namespace, folder: Path) -> Result:
    """What `auto` takes beside torchcodec, which would have to be faster to be taken."""
    num = max(options.frames)
    missing = other_readers.missing_reason("torchcodec")
    if missing is not None:
        return Result("clips readers", [], {}, [missing])
    write_dataset(folder / "few", num_clips=8, seed=0, workers=1)
    rendered = [clip for event in ("crash", "nearmiss") for clip in list_clips(folder / "few" / event)]
    from benches import data  # with torch, which a process that is measured need not load

    rows: list[Row] = []
    ratios = {}
    for what, clips in {"real": data._real_clips(options.clips or data.REAL), "rendered": rendered}.items():
        if not clips:
            continue
        ways: dict[str, Callable[[Path], object]] = {
            "auto (PyAV)": partial(_read_by, "auto", num),
            "torchcodec": partial(_read_by, "torchcodec", num),
            "torchcodec, told which frames, nothing checked": partial(_torchcodec_alone, {}, num),
        }
        found = [side_by_side([partial(way, clip) for way in ways.values()], options.rounds, 60) for clip in clips]
        means = 1000 * np.mean([seconds for seconds, _ in found], axis=0)
        rounds = min(rounds for _, rounds in found)
        for name, mean in zip(ways, means.tolist(), strict=True):
            rows.append((f"{len(clips)} {what}", name, mean, mean / float(means[0]), rounds))
        ratios[f"auto_vs_torchcodec_{what}"] = float(means[1] / means[0])
    table = Table(
        "Readers side by side",
        f"Mean milliseconds a clip, {num} frames in full size, in this process, one thread; of each clip the median of "
        f"rounds in turns. PyAV {version('av')}; torchcodec {version('torchcodec')}, exact mode, with FFmpeg "
        f"{_ffmpeg_of_torchcodec()} of the system. Real: as `data` takes them.",
        ("clips", "reader", "a clip (ms)", "beside auto", "rounds"),
        rows,
    )
    return Result("clips readers", [table], ratios)


def _read_by(name: str, num: int, clip: Path) -> reader.Frames:
    return reader.read_frames(clip, FrameSampling(num), name)


def _ffmpeg_of_torchcodec() -> str:
    import torchcodec

    return str(torchcodec.ffmpeg_major_version)


def _torchcodec_alone(known: dict[Path, list[int]], num: int, clip: Path) -> object:
    """Its exact mode without our look at the packets; which frames is found out once."""
    from torchcodec.decoders import VideoDecoder

    if clip not in known:
        known[clip] = FrameSampling(num).choose(scan_packets(clip).times_s)
    decoder = VideoDecoder(str(clip), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    return decoder.get_frames_at(known[clip]).data.numpy()


# --------------------------------------------------------------------------------------------------------------- long


def _long(options: argparse.Namespace, folder: Path) -> Result:
    times = round(options.hours * 3600 / SECONDS)
    for suffix in (".mp4", ".mkv"):
        _write_long(folder / f"long{suffix}", folder / "short.mp4", times)
    few, many = min(options.long_frames), sorted(options.long_frames)
    runs = [("Matroska, read through (PyAV)", "long.mkv", "through", few)]
    runs += [("Matroska, from keyframes (PyAV)", "long.mkv", "plain", num) for num in many]
    runs += [("MP4, from keyframes (PyAV)", "long.mp4", "plain", num) for num in many]
    rows = [(what, num, *_measured(folder / file, num, way)) for what, file, way, num in runs]
    table = Table(
        "Hours of video",
        f"{options.hours:g} hours of 320x180 at {FPS} frames a second, {times * FPS * SECONDS:,} packets, a keyframe a "
        "second, in the page cache; each row in a process of its own. Peak: resident memory above what the process "
        "held before, the chosen frames in it.",
        ("clip", "frames", "all (s)", "of it the packets (s)", "peak (MiB)", "of it the frames (MiB)"),
        rows,
    )
    return Result("clips long", [table], {"from_keyframes_vs_read_through": float(rows[0][2]) / float(rows[1][2])})


def _write_long(path: Path, short: Path, times: int) -> None:
    """The packets of ten seconds, so many times."""
    if not short.exists():
        _write_short(short)
    with av.open(str(short)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        packets = [(bytes(p), p.pts or 0, p.dts or 0, p.is_keyframe) for p in source.demux(video) if p.size]
        assert video.time_base is not None
        step, time_base = round(SECONDS / video.time_base), video.time_base
        for turn in range(times):
            for data, pts, dts, is_key in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.is_keyframe = pts + turn * step, dts + turn * step, is_key
                packet.time_base, packet.stream = time_base, stream
                target.mux(packet)


def _write_short(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (180, 320 + FPS * SECONDS, 3), dtype=np.uint8)
    noise = noise.repeat(4, 0).repeat(4, 1)[:180]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": str(FPS), "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for number in range(FPS * SECONDS):
            pixels = np.ascontiguousarray(noise[:, number * 3 : number * 3 + 320])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def _measured(path: Path, num_frames: int, way: str) -> list[float]:
    """Seconds in all and of the packets, peak and frames in MiB, by a process of its own."""
    tools = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tools.parent), str(tools)])}
    command = [sys.executable, str(Path(__file__)), str(path), str(num_frames), way]
    found: list[float] = json.loads(subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout)
    return found


def _resident(name: str) -> int:
    """Bytes, by a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def work(path: Path, num_frames: int, way: str) -> list[float]:
    if way == "through":
        setattr(reader, "read_needed", lambda scan, indices: None)  # noqa: B010 - mypy takes no other function there
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS (man 5 proc)
    packets = timed(lambda: reader.scan_packets(path))
    start = time.perf_counter()
    frames = reader.read_frames(path, FrameSampling(num_frames))
    seconds = time.perf_counter() - start
    return [seconds, packets, (_resident("VmHWM") - before) / MIB, frames.frames_FHWC.nbytes / MIB]


if __name__ == "__main__":
    print(json.dumps(work(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
