"""What a scan of rendered drives found, beside what is there: for tools/scan_demo.py.

Enters: folders of drives with their truth, folders of scans. Leaves: events found, false alarms, errors in time, with
intervals; the same at other settings, and the best of these. Must hold: every true event and every event of a scan
counts once; a setting is chosen on the drives to choose on, and on no other.
"""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm_crash.callbacks.scan_events import ScanSettings, scored
from vlm_crash.callbacks.scan_files import CURVE
from vlm_crash.demo.drive_files import TRUTH
from vlm_crash.schema.fields import load_schema
from vlm_crash.video.peaks import ScoredWindow, find_peaks

#: What is tried on the drives to choose on. One setting alone: a threshold and a least duration together fitted six
#: events so closely that they found two of nine others.
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def choose(out: Path) -> tuple[ScanSettings, list[str]]:
    """The threshold with the highest F1 of events on the drives to choose on (the first, of equal ones); the table."""
    tried = {
        threshold: counts(out, "val_drives", "val_scan", ScanSettings(threshold=threshold)) for threshold in THRESHOLDS
    }
    best = max(tried, key=lambda threshold: f1(*tried[threshold][:3]))
    lines = ["on the drives to choose on:", "threshold  found  false alarms an hour  F1"]
    for threshold, (found, asked, alarms, hours) in tried.items():
        line = f"{threshold:9.1f}  {found:2d}/{asked:2d}  {alarms / hours:21.1f}  {f1(found, asked, alarms):.3f}"
        lines.append(line + ("  chosen" if threshold == best else ""))
    return ScanSettings(threshold=best), lines


def f1(found: int, asked: int, alarms: int) -> float:
    """Harmonic mean of the share of true events found, and of the scan's events that are true."""
    return 2 * found / (found + alarms + asked)


def counts(
    out: Path, drives: str, results: str, settings: ScanSettings, only: str | None = None
) -> tuple[int, int, int, float]:
    """Events found, events there, false alarms, hours; from the curves alone, of drives scanned to their end.

    Args:
        only: one of the drives; None: all.
    """
    found = {video: curve for video, curve in curves(out / results).items() if only in (None, video)}
    truth = [row for row in rows(out / drives / TRUTH) if row["video"] in found]
    events = [
        {"recording": video, "start_s": peak.start_s, "end_s": peak.end_s, "peak_s": peak.peak_s}
        for video, curve in found.items()
        for peak in find_peaks(curve, settings.stride_s, settings.rule)
    ]
    pairs, alarms = paired(truth, events)
    return len(pairs), len(truth), len(alarms), sum(curve[-1].end_s for curve in found.values()) / 3600


def summary(out: Path, settings: ScanSettings) -> str:
    """The reported drives at the chosen settings: events found and false alarms, with intervals."""
    found, asked, alarms, hours = counts(out, "drives", "scan", settings)
    share, per_hour = wilson(found, asked), [mean / hours for mean in poisson(alarms)]
    each = {video: counts(out, "drives", "scan", settings, video) for video in curves(out / "scan")}
    lines = "".join(f"\n  {video}: {of[0]} of {of[1]} found, {of[2]} false alarms" for video, of in each.items())
    return (
        f"events found: {found} of {asked}, recall {100 * found / asked:.0f} %\n"
        f"  95 % interval {100 * share[0]:.0f} to {100 * share[1]:.0f} %\n"
        f"false alarms: {alarms} in {hours:.2f} hours, {alarms / hours:.1f} an hour\n"
        f"  95 % interval {per_hour[0]:.1f} to {per_hour[1]:.1f} an hour{lines}"
    )


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
    )
    spent = found["seconds_per_minute"]  # None: some of it was scanned before
    return "\n".join([*lines, *([f"{spent} s of computing for a minute of recording"] if spent else [])])


def tradeoff(out: Path, chosen: ScanSettings) -> list[str]:
    """Events found and false alarms of the reported drives at other thresholds: a line each."""
    lines = ["the same drives at every threshold:", "threshold  found  false alarms an hour"]
    for threshold in THRESHOLDS:
        found, asked, alarms, hours = counts(out, "drives", "scan", replace(chosen, threshold=threshold))
        lines.append(f"{threshold:9.1f}  {found:2d}/{asked:2d}  {alarms / hours:.1f}")
    return lines


def curves(folder: Path) -> dict[str, list[ScoredWindow]]:
    """The windows of each drive that is scanned to its end."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, (folder / CURVE).read_text(encoding="utf-8").splitlines()):
        found.setdefault(Path(line["recording"]).name, []).append(line)
    return {video: scored(lines) for video, lines in found.items() if lines[-1]["is_last"]}
