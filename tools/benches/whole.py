"""A dataset of its real size: prepared, checked, stopped in the middle and gone on with; nothing may be lost.

Enters: a folder, where finished stages lie and are not done again. Leaves: a Result. The clips are those of `check`
(about ten seconds; real ones where there are some, and the demo's), each again and again with another number behind its
film, so that no two files are the same; three are cut off after `prepare`, as on a disk that fails.
"""

import argparse
import csv
import json
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import psutil

from benches import check, data
from benches.common import Bar, Result, Row, Table
from vlm_crash.demo.clips import CSV_NAMES, _columns
from vlm_crash.demo.scene import sample_scene
from vlm_crash.demo.world import EVENTS
from vlm_crash.video import reader

BASE_MODEL = Path(__file__).resolve().parents[2] / "vlm_crash/demo/base"
MIB = 2**20
NUM_BROKEN = 3
#: What is done, in order.
STAGES = {
    "prepare": "prepare",
    "stopped": "check, until Ctrl-C",
    "gone on": "check, gone on with",
    "finished": "check, of what is finished",
    "tokens": "fit, until its first step is done",
}
INTERRUPTED = 130


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/whole"), help="folder to work in; it can be deleted")
    parser.add_argument("--count", type=int, default=check.NUM_CLIPS, help="clips, half of them crashes")
    parser.add_argument("--clips", type=Path, default=data.REAL, help="folder of real clips")
    parser.add_argument("--rendered", type=int, default=8, help="scenes of the demo")
    parser.add_argument("--seconds", type=int, default=check.SECONDS, help="of a scene")
    parser.add_argument("--until", choices=STAGES, default=list(STAGES)[-1], help="last stage to do (the others later)")


def run(options: argparse.Namespace) -> list[Result]:
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "made.json").exists():
        _make(options)
    dataset, clips = options.out / "dataset", options.out / "clips"
    given = [word for event in EVENTS for word in (f"--{event}_csv", clips / CSV_NAMES[event])]
    given += [word for event in EVENTS for word in (f"--{event}_dir", clips / event)]
    table = dataset / "clips.csv"
    _stage(options, "prepare", "prepare", *given, "--out", dataset)
    if options.until != "prepare" and not (options.out / "stopped.json").exists():
        for number, clip in enumerate(sorted(clips.glob("*/*.mp4"))[:: options.count // NUM_BROKEN][:NUM_BROKEN]):
            clip.write_bytes(clip.read_bytes()[: 2000 + number])
        _stage(options, "stopped", "check", dataset, stop=lambda: _num_lines(table) > options.count // 2)
        shutil.copyfile(table, options.out / "at_ctrl_c.csv")
    _stage(options, "gone on", "check", dataset)
    if (options.out / "gone_on.json").exists() and not (options.out / "after.csv").exists():
        shutil.copyfile(table, options.out / "after.csv")
    _stage(options, "finished", "check", dataset)
    fit = ("--config", "demo.yaml", "--model.path", BASE_MODEL, "--data.folder", dataset, "--trainer.max_steps", 1)
    _stage(options, "tokens", "fit", *fit, "--output_dir", options.out / "fit", "--overwrite", "true")
    return [_result(options)] if (options.out / "tokens.json").exists() else []


# --------------------------------------------------------------------------------------------------------------- clips


def _make(options: argparse.Namespace) -> None:
    """The clips, and CSVs of their annotations: those of drawn scenes, whatever is on the film."""
    shutil.rmtree(options.out / "clips", ignore_errors=True)
    shutil.rmtree(options.out / "scenes", ignore_errors=True)
    real = check.real_clips(options.clips)
    films = [*real, *check.rendered_clips(options.out / "scenes", options)]
    seconds = {film: reader.probe(film).duration_s for film in films}
    rows: dict[str, list[dict[str, str]]] = {event: [] for event in EVENTS}
    for number, film in enumerate(islice(cycle(films), options.count)):
        event = EVENTS[number // len(films) % 2]
        clip = options.out / "clips" / event / f"{number}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        # A box that players skip (ISO 14496-12, 8.1.2).
        clip.write_bytes(film.read_bytes() + struct.pack(">I4sQ", 16, b"free", number))
        values = sample_scene(number, event).values
        told = {column: values[name] for name, column in _columns(event).items()}
        rows[event].append({"video_id": clip.stem, "duration": f"{seconds[film]:.3f}", **told})
    for event, found in rows.items():
        with (options.out / "clips" / CSV_NAMES[event]).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["video_id", "duration", *_columns(event).values()])
            writer.writeheader()
            writer.writerows(found)
    gib = sum(clip.stat().st_size for clip in (options.out / "clips").glob("*/*.mp4")) / 2**30
    made = {"real": len(real), "rendered": len(films) - len(real), "gib": gib}
    (options.out / "made.json").write_text(json.dumps(made), encoding="utf-8")


# -------------------------------------------------------------------------------------------------------------- stages


def _stage(options: argparse.Namespace, name: str, *words: object, stop: Callable[[], bool] | None = None) -> None:
    """A command in a process of its own: seconds, peak memory of all its processes, and what it said; kept on disk.

    Args:
        stop: when it gets a Ctrl-C.
    """
    file = options.out / f"{name.replace(' ', '_')}.json"
    if file.exists() or list(STAGES).index(name) > list(STAGES).index(options.until):
        return
    print("$ python -m vlm_crash", *words, flush=True)
    start, peak = time.perf_counter(), 0.0
    command = [sys.executable, "-m", "vlm_crash", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_hear_ctrl_c
    )
    said: list[str] = []
    listener = threading.Thread(target=lambda: said.extend(process.stdout or ()))
    listener.start()
    while process.poll() is None:
        peak = max(peak, _memory(psutil.Process(process.pid)))
        for _ in range(15):
            if stop is not None and stop():
                process.send_signal(signal.SIGINT)
                stop = None
            time.sleep(0.02)
    listener.join()
    seconds = time.perf_counter() - start
    wanted = INTERRUPTED if name == "stopped" else 0
    if process.returncode != wanted:
        end = "".join(said[-20:])
        raise SystemExit(f"{words[0]} ended with {process.returncode}, and {wanted} was awaited:\n{end}")
    rows = _num_lines(options.out / "dataset" / "clips.csv")
    found = {"seconds": seconds, "peak_mib": peak, "rows": rows, "said": "".join(said)}
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _hear_ctrl_c() -> None:
    """A shell that starts this in the background ignores it, and so would whatever is started here."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _memory(process: psutil.Process) -> float:
    """MiB of it and of those it started; what they share is counted once (PSS)."""
    total = 0.0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss / MIB
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended meanwhile
        return total
    return total


def _num_lines(file: Path) -> int:
    """Rows of a CSV without newlines in its cells."""
    return max(0, file.read_bytes().count(b"\n") - 1) if file.exists() else 0


def _rows(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = {(row["event"], row["clip"]): row for row in rows}
    if len(found) != len(rows):
        raise SystemExit(f"{file} has {len(rows)} rows of {len(found)} clips")
    return found


# -------------------------------------------------------------------------------------------------------------- result


def _result(options: argparse.Namespace) -> Result:
    out = options.out
    found = {name: json.loads((out / f"{name.replace(' ', '_')}.json").read_text(encoding="utf-8")) for name in STAGES}
    made = json.loads((out / "made.json").read_text(encoding="utf-8"))
    stopped, after, last = (
        _rows(file) for file in (out / "at_ctrl_c.csv", out / "after.csv", out / "dataset/clips.csv")
    )
    counts = {"prepare": options.count, "stopped": len(stopped), "gone on": len(after) - len(stopped)}
    rows: list[Row] = []
    for name, what in STAGES.items():
        seconds, count = found[name]["seconds"], counts.get(name)
        rows.append((what, count, seconds, 60 * count / seconds if count else None, found[name]["peak_mib"]))
    quarantined = sum(row["status"] == "quarantined" for row in last.values())
    used = re.findall(r"([\d,]+ of [\d,]+ clips used, \d+ quarantined)", found["tokens"]["said"])
    tokens = re.findall(
        r"the tokens of ([\d,]+) clips are in order \(looked at in ([\d.]+) s\)", found["tokens"]["said"]
    )
    said = "; ".join(f"{count} clips in {seconds} s" for count, seconds in tokens)
    kept = all(after[key] == row for key, row in stopped.items())
    hashes = {row["sha256"] for row in last.values()}
    bars = [
        Bar(f"each of {options.count:,} clips has one row, and no two the same hash", len(hashes) == options.count),
        Bar(f"the {len(stopped):,} rows at Ctrl-C are the same afterwards: no clip was looked at twice", kept),
        Bar("a check of what is finished changes nothing", after == last),
        Bar(f"{quarantined} clips are quarantined; {NUM_BROKEN} were cut off", quarantined == NUM_BROKEN),
        Bar(f"`fit` says \"{', '.join(used)}\", and has looked at the tokens of {said}", bool(used and tokens)),
    ]  # fmt: skip
    table = Table(
        "A dataset of its real size",
        f"{options.count:,} clips of about ten seconds, {made['gib']:.1f} GiB: {made['real']} real ones and "
        f"{made['rendered']} rendered ones, each again and again, no two files the same. The commands with their "
        "defaults, each a process of its own; starting it included. Peak: all its processes together, what they share "
        "counted once.",
        ("command", "clips", "seconds (s)", "clips a minute", "peak (MiB)"),
        rows,
    )
    return Result("whole", [table], {}, [] if made["real"] else [f"real clips: {options.clips} holds none"], bars)
