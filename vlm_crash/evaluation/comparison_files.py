"""A comparison as files and as text for a terminal."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_crash.data.files import write_files

COLUMNS = (
    "event", "field", "metric", "n", "a", "b", "difference", "low", "high", "p", "p_holm", "verdict",
    "only_a_right", "only_b_right", "num_differing", "could_decide", "reason",
)  # fmt: skip


def write_comparison(comparison: dict[str, Any], out: Path) -> None:
    """comparison.json and comparison.csv (the means last; empty where there is no number), both or neither.

    Raises:
        OSError: they cannot be written; nothing was changed then.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in _rows(comparison))
    as_json = json.dumps(comparison, indent=1, ensure_ascii=False, allow_nan=False)
    write_files({Path(out) / "comparison.json": as_json, Path(out) / "comparison.csv": text.getvalue()})


def format_comparison(comparison: dict[str, Any], titles: Mapping[str, str]) -> str:
    """Aligned text, at most 120 columns wide.

    Args:
        titles: event -> what people call it.
    """
    lines = [f"A: {comparison['a']}", f"B: {comparison['b']}", f"{comparison['n']} clips are compared"]
    for side, only in (("A", comparison["only_in_a"]), ("B", comparison["only_in_b"])):
        if only["n"]:
            shown = ", ".join(only["clips"][:5]) + (", ..." if only["n"] > 5 else "")
            lines.append(f"{only['n']} clips are only in {side}, and left out: {shown}")
    header = ["field", "n", "A", "B", "A - B", "95 % interval", "p", "p (Holm)", "verdict"]
    table: list[list[str]] = [header]
    heads: dict[int, str] = {}
    for row in _rows(comparison):
        title = {"event": "Which event", "all": "All events"}.get(row["event"], titles.get(row["event"], row["event"]))
        if row["field"] == "mean":
            title = "Means over the categorical and count fields"
        if title not in heads.values():
            heads[len(table)] = title
        table.append(_cells(row, titles))
    widths = [max(len(cells[c]) for cells in table) for c in range(len(header))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines.append("")
    for number, cells in enumerate(table):
        if number in heads:
            lines += [rule, heads[number]]
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        padded[0], padded[-1] = cells[0].ljust(widths[0]), cells[-1]
        lines.append("  ".join(padded))
    how = f"p: {comparison['settings']['p']}; {comparison['settings']['p_holm']}."
    lines += ["", *textwrap.wrap(how, 118, subsequent_indent="  ")]
    if any(row.get("could_decide") is False for row in _rows(comparison)):
        lines += textwrap.wrap(_few(comparison), 118, subsequent_indent="  ")
    return "\n".join(lines)


def _few(comparison: dict[str, Any]) -> str:
    unit = "groups" if comparison["settings"]["groups"] else "clips"
    return (
        f"* so few {unit} differ that this row could not have been told apart, even if all of them were for one side "
        f"(num_differing in comparison.csv); a mean needs 6, a row of fields more: more {unit} would tell"
    )


def _rows(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    return [*comparison["fields"], *comparison["means"]]


def _cells(row: dict[str, Any], titles: Mapping[str, str]) -> list[str]:
    def number(name: str, sign: str = "") -> str:
        return "-" if row[name] is None else f"{row[name]:{sign}.3f}"

    def chance(name: str) -> str:
        value = row[name]
        return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"

    name = row["field"]
    if name == "mean":
        name = "all" if row["event"] == "all" else titles.get(row["event"], row["event"])
    limits = "-" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
    verdict = row["verdict"] + "*" * (row.get("could_decide") is False)
    shares = [number("a"), number("b"), number("difference", "+")]
    return [name, str(row["n"]), *shares, limits, chance("p"), chance("p_holm"), verdict]
