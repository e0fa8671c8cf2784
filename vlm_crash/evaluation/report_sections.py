"""metrics.json -> the parts of the page that not every evaluation has: calibration, consistency, differences.

Pure: dictionaries in, dictionaries out; no file, no HTML of its own (the plots are SVG texts). A part that the metrics
lack is empty, and the page leaves it out.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from vlm_crash.evaluation.plots import reliability, risk_coverage
from vlm_crash.evaluation.report_clips import NONE
from vlm_crash.schema.fields import Schema


def calibration_section(schema: Schema, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The event and every field that has a calibration: its two plots, its figures and its operating point."""
    event_entry = metrics["event"].get("calibration")
    found = [_calibration("event", "Event", "Which event", event_entry, schema.events[0].title)]
    for event in schema.events:
        for field in event.fields:
            entry = metrics[event.name]["fields"][field.name].get("calibration")
            label = field.name.replace("_", " ")
            found.append(_calibration(f"{event.name}/{field.name}", event.title, label, entry))
    return [one for one in found if one]


def _calibration(key: str, group: str, label: str, entry: Any, positive: str | None = None) -> dict[str, Any]:
    if not isinstance(entry, dict) or not entry.get("n") or not entry.get("bins"):
        return {}
    name = label if group == "Event" else f"{label} ({group.lower()})"
    figures = [
        ("Answers", str(entry["n"])),
        *[(title, _share(entry.get(part))) for title, part in (("ECE", "ece"), ("Brier score", "brier"))],
    ]
    if entry.get("temperature") is not None:
        figures += [
            ("Temperature", _share(entry["temperature"])),
            ("ECE after it", _share(entry.get("ece_after"))),
            ("Brier score after it", _share(entry.get("brier_after"))),
        ]
    return {
        "key": key, "group": group, "label": label, "figures": figures, "operating": _operating(entry),
        "bins": [one for one in entry["bins"] if one["n"]], "has_after": bool(entry.get("bins_after")),
        "reliability": Markup(reliability(name, entry, positive)),  # escaped there
        "risk": Markup(risk_coverage(name, entry)) if entry.get("risk_coverage") else "",
    }  # fmt: skip


def _operating(entry: dict[str, Any]) -> str:
    point = entry.get("operating_point") or {}
    wanted, coverage = point.get("wanted"), point.get("coverage")
    if wanted is None:
        return ""
    if not coverage or point.get("threshold") is None or point.get("accuracy") is None:
        return f"No answer is sure enough for an accuracy of {_percent(wanted)}: all have to be looked at."
    of = "calibrated confidence" if point.get("is_calibrated") else "confidence"
    text = (
        f"Take answers of a {of} of at least {point['threshold']:.3f}: that is {_percent(coverage)} of them, and "
        f"{_percent(point['accuracy'], 1)} of those are right"
    )
    if point.get("low") is not None and point.get("high") is not None:
        text += f" ({_percent(point['low'], 1)} to {_percent(point['high'], 1)})"
    rest = "" if coverage == 1 else f" Look at the other {_percent(1 - coverage)} yourself."
    chosen = f" The threshold was chosen on {point['chosen_on']}." if point.get("chosen_on") else ""
    return f"{text}; {_percent(wanted)} were asked for.{rest}{chosen}"


def consistency_section(schema: Schema, metrics: dict[str, Any]) -> dict[str, Any]:
    """Rules between fields: how often the answers break each, and which clips do."""
    found = metrics.get("consistency")
    if not isinstance(found, dict) or not found.get("rules"):
        return {}
    titles = {event.name: event.title for event in schema.events}
    sentences = {rule["name"]: rule.get("sentence") or rule["name"] for rule in found["rules"]}
    return {
        "counts": [
            f"{one['violations']} of {one['n']} {what}"
            for what, one in ((what, found.get(what)) for what in ("answers", "truths")) if one
        ],
        "rules": [
            rule | {
                "sentence": sentences[rule["name"]], "event_title": titles.get(rule.get("event"), ""),
                "interval": _limits(rule.get("low"), rule.get("high")), "flags": rule.get("flags") or [],
            }
            for rule in found["rules"]
        ],
        **{
            whose: [
                {
                    "key": f"{one['event']}/{one['video']}", "video": one["video"],
                    "rule": sentences.get(one["rule"], one["rule"]),
                    "event_title": titles.get(one["event"], one["event"]), "said": _values(one.get("values")),
                    "answered": _other_event(one, titles),
                }
                for one in found.get(whose) or ()
            ]
            for whose in ("violations", "truth_violations")
        },
    }  # fmt: skip


def _other_event(violation: dict[str, Any], titles: dict[str, str]) -> str:
    """The event that the answer names, where it is not the clip's."""
    said = violation.get("answered_event")
    return "" if said is None or said == violation["event"] else titles.get(said, said)


def _values(values: Any) -> str:
    if isinstance(values, dict):
        return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in values.items())
    return "" if values is None else str(values)


def differences_section(schema: Schema, comparison: dict[str, Any] | None) -> dict[str, Any]:
    """Two runs beside each other, as `compare` found them."""
    if comparison is None:
        return {}
    titles = {event.name: event.title for event in schema.events}
    rows = [
        one | {
            "label": str(one["field"]).replace("_", " "), "event_title": titles.get(one["event"], one["event"]),
            "is_told_apart": one["verdict"] in ("A better", "B better"), "metric": str(one["metric"]).replace("_", " "),
            "interval": _limits(one["low"], one["high"], signed=True), "reason": one.get("reason", ""),
            "p": one["p"] if one["p_holm"] is None else one["p_holm"],
            "is_alone": one["p"] is not None and one["p_holm"] is None,
        }
        for one in [*comparison["fields"], *(comparison.get("means") or ())]
    ]  # fmt: skip
    return {
        "a": str(comparison["a"]), "b": str(comparison["b"]), "n": comparison["n"], "rows": rows,
        "num_apart": sum(row["is_told_apart"] for row in rows),
    }  # fmt: skip


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _limits(low: float | None, high: float | None, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return NONE if low is None or high is None else f"{low:{form}} {NONE} {high:{form}}"
