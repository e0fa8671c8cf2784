"""One event of metrics.json -> the table of its fields: columns that have a value somewhere, rows that can be sorted.

Pure: dictionaries in, dictionaries out; no file, no HTML. What is null stays empty and says its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlm_crash.evaluation.report_clips import NONE
from vlm_crash.schema.fields import Event

Cell = dict[str, Any]
#: Key, heading, what it is; those marked True are shown only where some field has a value.
COLUMNS = (
    ("score", "Score, 95 % interval", "end to end: exact match, or mean cosine of a free text", False),
    ("given_event", "Given the event", "the same texts, read for the fields of the true event", False),
    ("balanced_accuracy", "Balanced accuracy", "mean of the terms' shares of right answers", True),
    ("macro_f1", "Macro F1", "mean of the terms' F1", True),
    ("roles", "Roles right", "free texts: share whose roles (who hit whom, left or right) are not swapped", True),
    ("majority", "Majority", "always the most frequent answer, given the event", False),
    ("metadata", "Metadata", "a small classifier on duration, size, rate and file name, given the event", True),
    ("blind", "Blind, end to end", "the same model on black frames, as the score: the event must be right too", True),
    ("blind_given", "Blind, given the event", "the same model on black frames, beside the other baselines", True),
    ("legacy_score", "Old score", "by the old scripts' rules", True),
    ("kappa", "Two readers", "Cohen's kappa of two annotators: how far they agree", True),
    ("ece", "ECE", "expected calibration error of the answers' probabilities; less is better", True),
    ("n", "n", "clips whose truth is known", False),
    ("answered", "Parsed", "of them, clips whose answer was understood as a term, a number or a text", False),
    ("missing", "Missing", "the answer does not name the field", False),
    ("not_understood", "Not under\u00adstood", "words that are no term", False),
)


def field_table(event: Event, entry: dict[str, Any]) -> dict[str, Any]:
    """Columns, rows and means of an event's table."""
    rows = [_row(field.name, field.kind, entry["fields"][field.name]) for field in event.fields]
    means = [
        _row("Mean", kind, entry[name] | {"missing": None, "not_understood": None})
        for name, kind in (("mean", "categorical and count"), ("text_mean", "text"))
        if entry[name]["num_fields"] or name == "mean"
    ]
    shown = [
        {"key": key, "title": title, "what": what}
        for key, title, what, is_optional in COLUMNS
        if not is_optional or any(row["cells"][key]["sort"] is not None for row in rows)
    ]
    return {"columns": shown, "rows": rows, "means": means}


def _row(name: str, kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    baselines = _baselines(entry)
    calibration, kappa, roles = (_part(entry, key) for key in ("calibration", "kappa", "roles"))
    answer = entry.get("baseline_answer")
    cells = {
        "score": _cell(entry["score"])
        | {"more": "" if entry["score"] is None else _limits(entry["low"], entry["high"]) or NONE},
        "given_event": _cell(entry["given_event"]),
        **{key: _with_limits(_part(_part(entry, "scores"), key), "value") for key in ("balanced_accuracy", "macro_f1")},
        "roles": _with_limits(roles, "score"),
        "majority": _cell(baselines["majority"]["score"], f"always “{answer}”" if answer else ""),
        **{key: _with_limits(baselines[key], "score") for key in ("metadata", "blind")},
        "blind_given": _cell(baselines["blind"].get("given_event")),
        "legacy_score": _cell(entry.get("legacy_score")),
        "kappa": _with_limits(kappa, "value") | {"more": _of_pairs(kappa)},
        "ece": _cell(calibration.get("ece")),
        **{key: _count(entry.get(key)) for key in ("n", "answered", "missing", "not_understood")},
    }
    marks = [{"kind": key, "score": one["score"]} for key, one in baselines.items() if one["score"] is not None]
    label = name.replace("_", " ")
    return {
        "name": name, "label": label, "kind": kind, "cells": cells, "marks": marks,
        "score": entry["score"], "low": entry["low"], "high": entry["high"],
        "reason": str(entry["reasons"].get("score", "")), "flags": list(entry.get("flags") or ()),
    }  # fmt: skip


def _baselines(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = entry.get("baselines") or {}
    blank = {"score": None, "low": None, "high": None}
    wanted: Sequence[str] = ("majority", "metadata", "blind")
    baselines = {key: blank | (found.get(key) or {}) for key in wanted}
    if baselines["majority"]["score"] is None:
        baselines["majority"] = blank | {"score": entry["baseline"]}
    return baselines


def _part(entry: dict[str, Any], key: str) -> dict[str, Any]:
    found = entry.get(key)
    return found if isinstance(found, dict) else {}


def _cell(value: float | None, title: str = "") -> Cell:
    return {"text": NONE if value is None else f"{value:.3f}", "sort": value, "title": title, "more": ""}


def _count(value: int | None) -> Cell:
    return {"text": "" if value is None else str(value), "sort": value, "title": "", "more": ""}


def _limits(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f}{NONE}{high:.3f}"


def _of_pairs(kappa: dict[str, Any]) -> str:
    """How many clips two readers' kappa is of, and its interval, or a dash where it has none."""
    return f"n {kappa['n']}, {_limits(kappa.get('low'), kappa.get('high')) or NONE}" if kappa.get("n") else ""


def _with_limits(part: dict[str, Any], key: str) -> Cell:
    """A value whose interval, or why there is none, is said on pointing."""
    value, low, high = (part.get(name) for name in (key, "low", "high"))
    limits = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    reason = part.get("reason") or (part.get("reasons") or {}).get(key) or ""
    return _cell(value, limits if value is not None else str(reason))
