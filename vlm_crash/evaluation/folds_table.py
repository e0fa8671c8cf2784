"""What `gather` gives -> a table for the terminal, and the same as a CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any


def folds_table(found: Mapping[str, Any]) -> str:
    """What `gather` gives, as aligned text for a terminal."""
    header = ["event", "field", "pooled", "95 % interval", "baseline", "mean of runs", "least", "most", "sd of folds",
              "sd of seeds", "n"]  # fmt: skip
    lines = [header]
    for row in found["rows"]:
        limits = "-" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        names = ("mean", "least", "most", "spread_of_folds", "spread_of_seeds")
        field = row["field"] if row["metric"] == "exact_match" else f"{row['field']} ({row['metric']})"
        lines.append([row["event"], field.replace("_", " "), _three(row["pooled"]), limits, _three(row["baseline"]),
                      *(_three(row[name]) for name in names), str(row["n"])])  # fmt: skip
    widths = [max(len(line[c]) for line in lines) for c in range(len(header))]
    aligned = [
        "  ".join(
            cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([*aligned, *found["notes"]])


def folds_csv(found: Mapping[str, Any]) -> str:
    """The same for a spreadsheet; an empty cell is a null, whose reason the JSON has."""
    text = io.StringIO()
    names = [name for name in found["rows"][0] if name != "reasons"]
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(found["rows"])
    return text.getvalue()


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
