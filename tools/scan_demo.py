"""Train a model that knows ordinary driving, scan drives that it has not seen, and say how well it finds the events.

    python tools/scan_demo.py --out runs/scan_demo

Four stages: `clips` renders clips cut out of drives; `fit` fine-tunes the demo's base model on them with scan.yaml, by
`prepare` and `fit`; `drives` renders long drives from other seeds, some to choose on and others to report; `scan`
reads them with `predict --scan`, chooses the threshold on the former, and compares the events found in
the latter with those that are there. A stage whose files are there is not done again; `--only` does one. The figures
are printed and written to scan_demo.json.
"""

import argparse
import json
import time
from pathlib import Path

from benches.commands import command
from benches.common import has_section, markers, write_section
from benches.scan_figures import choose, curves, figures, rows, said, summary, tradeoff

from vlm_crash.callbacks.scan_events import ScanSettings
from vlm_crash.callbacks.scan_files import CURVE
from vlm_crash.callbacks.scan_image import draw_curve
from vlm_crash.demo.drive_files import KINDS, TRUTH, write_clips, write_drives
from vlm_crash.video.peaks import find_peaks

BASE_MODEL = Path(__file__).parents[1] / "vlm_crash/demo/base"
WINDOW_S = 6.0
CLIPS = {"crash": 240, "nearmiss": 240, "ordinary": 720}
FIRST_CLIP_SEED, FIRST_VAL_DRIVE, FIRST_DRIVE = 0, 360_000, 370_000
STAGES = ("clips", "fit", "drives", "scan")
CURVES_ALONE = "curves"


def clips(out: Path, options: argparse.Namespace) -> None:
    """Clips of all three kinds, from drives of their own."""
    start = time.perf_counter()
    numbers = {kind: max(4, round(number * options.scale)) for kind, number in CLIPS.items()}
    part = out / "clips.part"
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


def drives(out: Path, options: argparse.Namespace) -> None:
    """Long drives with known events, from seeds that no training clip has: some to choose on, some to report."""
    start = time.perf_counter()
    asked = {
        "val_drives": (options.first_val_drive, options.num_val_drives),
        "drives": (options.first_drive, options.num_drives),
    }
    for name, (first, number) in asked.items():
        if not (out / name).exists():
            part = out / f"{name}.part"
            write_drives(part, range(first, first + number), 60 * options.minutes, options.events)
            part.rename(out / name)
    minutes = (options.num_val_drives + options.num_drives) * options.minutes
    print(f"{minutes:g} minutes of drives rendered: {time.perf_counter() - start:.0f} s", flush=True)


def scan(out: Path, options: argparse.Namespace) -> None:
    """`predict --scan` of the drives with the model as it was fitted: the rule is chosen on some, the others counted.

    What was scanned before is not scanned again, so that this stage can be stopped and gone on with.
    """
    predict_scan(out, "val_drives", "val_scan", ScanSettings(threshold=0.999))  # the curve is all that is needed
    chosen, tried = choose(out)
    print("\n".join(tried), flush=True)
    is_new = not (out / "scan" / CURVE).exists()
    start = time.perf_counter()
    predict_scan(out, "drives", "scan", chosen)
    seconds = time.perf_counter() - start
    found = figures(rows(out / "drives" / TRUTH), rows(out / "scan/events.csv"), rows(out / "scan/recordings.csv"))
    found["threshold"] = chosen.threshold
    found["seconds_per_minute"] = round(seconds / (found["hours"] * 60), 2) if is_new else None
    (out / "scan_demo.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = "\n".join((*tried, said(found), *tradeoff(out, chosen)))
    print(text.removeprefix("\n".join(tried)).strip())
    if options.markdown:
        write_section(options.markdown, "scan_demo", f"```\n{text}\n```\n")
    picture(out, chosen)


def curves_alone(out: Path, options: argparse.Namespace) -> None:
    """The figures that the curves give, of the drives that are scanned to their end; nothing is computed by a model."""
    chosen, tried = choose(out)
    text = "\n".join((*tried, summary(out, chosen), *tradeoff(out, chosen)))
    print(text)
    if options.markdown:
        write_section(options.markdown, "scan_demo", f"```\n{text}\n```\n")
    picture(out, chosen)


def predict_scan(out: Path, drives: str, results: str, settings: ScanSettings) -> None:
    """Scan a folder of drives."""
    command(
        "predict", "--model.path", out / "fit" / "model", "--data.schema", "scan.yaml", "--data.clips", out / drives,
        "--data.batch_size", 16, "--data.num_workers", 1, "--model.max_new_tokens", 256, "--trainer.accelerator", "cpu",
        "--output_dir", out / results, "--scan.threshold", settings.threshold,
    )  # fmt: skip


def picture(out: Path, settings: ScanSettings) -> None:
    """The curve of the first drive, with the true moments."""
    truth = [row for row in rows(out / "drives" / TRUTH) if row["video"] == "1.mp4"]
    curve = curves(out / "scan")["1.mp4"]
    peaks = find_peaks(curve, settings.stride_s, settings.rule)
    moments_s = [float(row["moment_s"]) for row in truth]
    draw_curve("1.mp4", curve, peaks, settings, moments_s).save(out / "curve.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/scan_demo"))
    only = "one stage, or the figures of the curves that are there; unset: all stages that are not done"
    parser.add_argument("--only", choices=(*STAGES, CURVES_ALONE), help=only)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training clips")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1, help="processes that render, or read clips")
    parser.add_argument("--num_val_drives", type=int, default=3, help="drives to choose on")
    parser.add_argument("--num_drives", type=int, default=6, help="drives to report")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--events", type=int, default=3, help="events in each drive")
    parser.add_argument("--first_val_drive", type=int, default=FIRST_VAL_DRIVE, help="seed of the first to choose on")
    parser.add_argument("--first_drive", type=int, default=FIRST_DRIVE, help="seed of the first to report")
    parser.add_argument("--markdown", type=Path, help="page with lines <!-- bench scan_demo --> to write between")
    options = parser.parse_args()
    if options.markdown and not has_section(options.markdown, "scan_demo"):
        parser.error(f"{options.markdown} has no lines {' and '.join(markers('scan_demo'))}; write them where it goes")
    options.out.mkdir(parents=True, exist_ok=True)
    done = {"clips": "clips", "fit": "fit/model", "drives": "drives", "scan": "scan_demo.json"}
    for stage in STAGES:
        if options.only == stage or (options.only is None and not (options.out / done[stage]).exists()):
            globals()[stage](options.out, options)
    if options.only == CURVES_ALONE:
        curves_alone(options.out, options)


if __name__ == "__main__":
    main()
