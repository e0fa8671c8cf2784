"""Train a model that knows ordinary driving, scan drives that it has not seen, and say how well it finds the events.

    python tools/scan_demo.py --out runs/scan_demo

Four stages: `clips` renders clips cut out of drives; `fit` fine-tunes the demo's base model on them with scan.yaml, by
`prepare` and `fit`; `drives` renders long drives from other seeds; `scan` reads them with `predict --scan`, beside the
untrained base for comparison where asked, and compares the events found with those that are there. A stage whose files
are there is not done again; `--only` does one. The figures are printed and written to scan_demo.json.
"""

import argparse
import csv
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from vlm_crash.cli import main as vlm_crash
from vlm_crash.demo.drive_files import KINDS, TRUTH, write_clips, write_drives

BASE_MODEL = Path(__file__).parents[1] / "vlm_crash/demo/base"
WINDOW_S = 6.0
CLIPS = {"crash": 240, "nearmiss": 240, "ordinary": 360}
FIRST_CLIP_SEED, FIRST_DRIVE_SEED = 0, 300_000
STAGES = ("clips", "fit", "drives", "scan")


def command(*words: object) -> None:
    """A command of ours in this process, as a user would type it."""
    print("$ python -m vlm_crash", *words, flush=True)
    start = time.perf_counter()
    code = vlm_crash([str(word) for word in words])
    if code:
        raise SystemExit(f"{words[0]} ended with {code}")
    print(f"  {words[0]}: {time.perf_counter() - start:.0f} s", flush=True)


def clips(out: Path, options: argparse.Namespace) -> None:
    """Clips of all three kinds, from drives of their own."""
    start = time.perf_counter()
    numbers = {kind: max(4, round(number * options.scale)) for kind, number in CLIPS.items()}
    part = out / "clips.part"
    shutil.rmtree(part, ignore_errors=True)
    write_clips(part, numbers, FIRST_CLIP_SEED, WINDOW_S, options.workers)
    part.rename(out / "clips")
    print(f"{sum(numbers.values())} clips of {WINDOW_S:g} s rendered: {time.perf_counter() - start:.0f} s", flush=True)


def fit(out: Path, options: argparse.Namespace) -> None:
    """`prepare` and `fit` with the schema that has a word for ordinary driving."""
    csvs, dirs = ({kind: str(out / "clips" / f"{kind}{end}") for kind in KINDS} for end in (".csv", ""))
    command(
        "prepare", "--event_csvs", json.dumps(csvs), "--event_dirs", json.dumps(dirs), "--schema", "scan.yaml",
        "--fractions", "[0.85,0.05,0.1]", "--prompt", "short", "--out", out / "dataset",
    )  # fmt: skip
    rates = [word for tower, rate in RATES.items() for word in (f"--model.lr_{tower}", rate)]
    command(
        "fit", "--config", "demo.yaml", "--model.path", BASE_MODEL, "--data.schema", "scan.yaml", *rates,
        "--data.folder", out / "dataset", "--data.num_workers", options.workers, "--trainer.max_epochs", options.epochs,
        "--output_dir", out / "fit", "--overwrite", "true",
    )  # fmt: skip


#: The gentle rates of demo.yaml do not teach a sentence that the base has never said.
RATES = {"vision": 5e-5, "projector": 2e-4, "language": 2e-4}
