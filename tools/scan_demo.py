"""Train a model that knows ordinary driving, scan drives that it has not seen, and say how well it finds the events.

    python tools/scan_demo.py --out runs/scan_demo

Four stages: `clips` renders clips cut out of drives; `fit` fine-tunes the demo's base model on them with scan.yaml, by
`prepare` and `fit`; `drives` renders long drives from other seeds, some to choose on and as many to report; `scan`
reads them with `predict --scan`, chooses threshold and least duration on the former, and compares the events found in
the latter with those that are there. A stage whose files are there is not done again; `--only` does one. The figures
are printed and written to scan_demo.json.
"""

import argparse
import csv
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm_crash.callbacks.scan import CURVE
from vlm_crash.callbacks.scan_events import ScanSettings, scored
from vlm_crash.callbacks.scan_image import draw_curve
from vlm_crash.cli import main as vlm_crash
from vlm_crash.demo.drive_files import KINDS, TRUTH, write_clips, write_drives
from vlm_crash.schema.fields import load_schema
from vlm_crash.video.peaks import ScoredWindow, find_peaks

BASE_MODEL = Path(__file__).parents[1] / "vlm_crash/demo/base"
WINDOW_S = 6.0
CLIPS = {"crash": 240, "nearmiss": 240, "ordinary": 720}
FIRST_CLIP_SEED, FIRST_VAL_DRIVE, FIRST_DRIVE = 0, 360_000, 370_000
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
    for name, first in (("val_drives", options.first_val_drive), ("drives", options.first_drive)):
        if not (out / name).exists():
            part = out / f"{name}.part"
            write_drives(part, range(first, first + options.num_drives), 60 * options.minutes, options.events)
            part.rename(out / name)
    minutes = 2 * options.num_drives * options.minutes
    print(f"{minutes:g} minutes of drives rendered: {time.perf_counter() - start:.0f} s", flush=True)


def scan(out: Path, options: argparse.Namespace) -> None:
    """`predict --scan` of the drives with the model as it was fitted: the rule is chosen on one half, then the figures.

    What was scanned before is not scanned again, so that this stage can be stopped and gone on with.
    """
    predict_scan(out, "val_drives", "val_scan", ScanSettings(threshold=0.999))  # the curve is all that is needed
    chosen, table = choose(out)
    print("\n".join(table), flush=True)
    is_new = not (out / "scan" / CURVE).exists()
    start = time.perf_counter()
    predict_scan(out, "drives", "scan", chosen)
    seconds = time.perf_counter() - start
    found = figures(rows(out / "drives" / TRUTH), rows(out / "scan/events.csv"), rows(out / "scan/recordings.csv"))
    found |= {"threshold": chosen.threshold, "min_duration_s": chosen.min_duration_s}
    found["seconds_per_minute"] = round(seconds / (found["hours"] * 60), 2) if is_new else None
    (out / "scan_demo.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(said(found))
    print("\n".join(tradeoff(out, chosen)))
    picture(out, chosen)


def predict_scan(out: Path, drives: str, results: str, settings: ScanSettings) -> None:
    """Scan a folder of drives."""
    command(
        "predict", "--model.path", out / "fit" / "model", "--data.schema", "scan.yaml", "--data.clips", out / drives,
        "--data.batch_size", 16, "--data.num_workers", 1, "--model.max_new_tokens", 256, "--trainer.accelerator", "cpu",
        "--output_dir", out / results, "--scan.threshold", settings.threshold, "--scan.min_duration_s",
        settings.min_duration_s,
    )  # fmt: skip


#: What is tried on the drives to choose on.
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
DURATIONS_S = (0.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def choose(out: Path) -> tuple[ScanSettings, list[str]]:
    """The settings with the highest F1 of events on the drives to choose on (the first, of equal ones); the table."""
    tried = {
        (threshold, min_duration_s): counts(out, "val_drives", "val_scan", ScanSettings(
            threshold=threshold, min_duration_s=min_duration_s))
        for threshold in THRESHOLDS for min_duration_s in DURATIONS_S
    }  # fmt: skip
    best = max(tried, key=lambda key: f1(*tried[key][:3]))
    lines = ["on the drives to choose on:", "threshold  min_duration_s  found  false alarms an hour  F1"]
    for (threshold, min_duration_s), (found, asked, alarms, hours) in tried.items():
        if threshold == best[0] or min_duration_s in (0.0, best[1]):
            line = f"{threshold:9.1f}  {min_duration_s:14.1f}  {found:2d}/{asked:2d}  {alarms / hours:21.1f}"
            lines.append(f"{line}  {f1(found, asked, alarms):.3f}")
    return ScanSettings(threshold=best[0], min_duration_s=best[1]), lines


def f1(found: int, asked: int, alarms: int) -> float:
    """Harmonic mean of the share of true events found, and of the scan's events that are true."""
    return 2 * found / (found + alarms + asked)


def counts(out: Path, drives: str, results: str, settings: ScanSettings) -> tuple[int, int, int, float]:
    """Events found, events there, false alarms, hours: from the curves alone."""
    truth = rows(out / drives / TRUTH)
    events = [
        {"recording": video, "start_s": peak.start_s, "end_s": peak.end_s, "peak_s": peak.peak_s}
        for video, curve in curves(out / results).items()
        for peak in find_peaks(curve, settings.stride_s, settings.rule)
    ]
    pairs, alarms = paired(truth, events)
    hours = sum(float(row["seconds"]) for row in rows(out / results / "recordings.csv")) / 3600
    return len(pairs), len(truth), len(alarms), hours


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def figures(
    truth: list[dict[str, str]], events: list[dict[str, str]], recordings: list[dict[str, str]]
) -> dict[str, Any]:
    """Events found, false alarms and errors in time; every true event and every event of the scan counts once."""
    pairs, alarms = paired(truth, events)
    right = [(t, json.loads(e["record"])) for t, e in pairs if t["event"] == e["event"]]
    exact = [(name, t, record) for t, record in right for name in scored_fields(t)]
    errors = sorted(abs(float(e["peak_s"]) - float(t["moment_s"])) for t, e in pairs)
    hours = sum(float(row["seconds"]) for row in recordings) / 3600
    covered = sum(float(e["end_s"]) - float(e["start_s"]) + 2 * TOLERANCE_S for e in events)
    low, high = wilson(len(pairs), len(truth))
    return {
        "num_events": len(truth),
        "num_found": len(pairs),
        "recall": len(pairs) / len(truth),
        "recall_low": low,
        "recall_high": high,
        "found_by_chance": min(1.0, covered / (hours * 3600)),
        "hours": hours,
        "false_alarms": len(alarms),
        "false_alarms_per_hour": len(alarms) / hours,
        "false_alarms_per_hour_low": poisson(len(alarms))[0] / hours,
        "false_alarms_per_hour_high": poisson(len(alarms))[1] / hours,
        "median_error_s": round(errors[len(errors) // 2], 2) if errors else None,
        "largest_error_s": round(errors[-1], 2) if errors else None,
        "event_right": sum(t["event"] == e["event"] for t, e in pairs),
        "fields_right": sum(record.get(name) == t[name] for name, t, record in exact),
        "fields_asked": len(exact),
    }


def scored_fields(true: dict[str, str]) -> list[str]:
    """The categorical and count fields of an event."""
    return [field.name for field in load_schema().event(true["event"]).fields if field.kind != "text"]


#: An event of the scan and a true moment are one where the moment lies in its span, or this much beside it.
TOLERANCE_S = 1.0


def paired(
    truth: list[dict[str, str]], events: list[dict[str, Any]]
) -> tuple[list[tuple[dict[str, str], dict[str, Any]]], list[dict[str, Any]]]:
    """(true event, event of the scan) pairs, each in one pair at most; and the events of the scan that are left."""
    left = list(events)
    pairs = []
    for true in truth:
        moment_s = float(true["moment_s"])
        fitting = [
            event for event in left
            if event["recording"] == true["video"]
            and float(event["start_s"]) - TOLERANCE_S <= moment_s <= float(event["end_s"]) + TOLERANCE_S
        ]  # fmt: skip
        if fitting:
            best = min(fitting, key=lambda event: abs(float(event["peak_s"]) - moment_s))
            left.remove(best)
            pairs.append((true, best))
    return pairs, left


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, extra = right / total, z * z / total
    middle, half = share + extra / 2, z * math.sqrt(share * (1 - share) / total + extra / (4 * total))
    return max(0.0, (middle - half) / (1 + extra)), min(1.0, (middle + half) / (1 + extra))


def poisson(count: int) -> tuple[float, float]:
    """95 % interval of the mean of a count (Garwood 1936), by bisection."""

    def at_most(k: int, mean: float) -> float:
        return sum(math.exp(-mean + i * math.log(mean) - math.lgamma(i + 1)) for i in range(k + 1)) if mean else 1.0

    def solve(k: int, share: float) -> float:
        low, high = 0.0, 10.0 * (count + 5)
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > share else (low, middle)
        return low

    return (solve(count - 1, 0.975) if count else 0.0), solve(count, 0.025)


def said(found: dict[str, Any]) -> str:
    """The figures in words."""
    low, high = found["false_alarms_per_hour_low"], found["false_alarms_per_hour_high"]
    recall, alarms = (100 * found[name] for name in ("recall_low", "recall_high")), found["false_alarms_per_hour"]
    lines = (
        f"events found: {found['num_found']} of {found['num_events']}, recall {100 * found['recall']:.0f} %",
        "  95 % interval {:.0f} to {:.0f} %".format(*recall) + f"; by chance {100 * found['found_by_chance']:.0f} %",
        f"false alarms: {found['false_alarms']} in {found['hours']:.2f} hours, {alarms:.1f} an hour",
        f"  95 % interval {low:.1f} to {high:.1f} an hour",
        f"peak beside the true moment: median {found['median_error_s']} s, at most {found['largest_error_s']} s",
        f"called what they are: {found['event_right']} of {found['num_found']}",
        f"  of their categorical and count fields, {found['fields_right']} of {found['fields_asked']} are right",
        f"{found['seconds_per_minute']} s of computing for a minute of recording",
    )
    return "\n".join(lines)


def tradeoff(out: Path, chosen: ScanSettings) -> list[str]:
    """Events found and false alarms of the reported drives at other thresholds: a line each."""
    lines = ["threshold  found  false alarms an hour"]
    for threshold in THRESHOLDS:
        found, asked, alarms, hours = counts(out, "drives", "scan", replace(chosen, threshold=threshold))
        lines.append(f"{threshold:9.1f}  {found:2d}/{asked:2d}  {alarms / hours:.1f}")
    return lines


def curves(folder: Path) -> dict[str, list[ScoredWindow]]:
    """The windows of each drive of a scan."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, (folder / CURVE).read_text(encoding="utf-8").splitlines()):
        found.setdefault(Path(line["recording"]).name, []).append(line)
    return {video: scored(lines) for video, lines in found.items()}


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
    parser.add_argument("--only", choices=STAGES, help="one stage; unset: all that are not done")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training clips")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1, help="processes that render, or read clips")
    parser.add_argument("--num_drives", type=int, default=6, help="drives to choose on, and as many to report")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--events", type=int, default=3, help="events in each drive")
    parser.add_argument("--first_val_drive", type=int, default=FIRST_VAL_DRIVE, help="seed of the first to choose on")
    parser.add_argument("--first_drive", type=int, default=FIRST_DRIVE, help="seed of the first to report")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    done = {"clips": "clips", "fit": "fit/model", "drives": "drives", "scan": "scan_demo.json"}
    for stage in STAGES:
        if options.only == stage or (options.only is None and not (options.out / done[stage]).exists()):
            globals()[stage](options.out, options)


if __name__ == "__main__":
    main()
