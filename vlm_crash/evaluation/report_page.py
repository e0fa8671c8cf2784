"""metrics.json + records.json -> what the static part of the page shows: cards, tables, matrices, plots, lists.

Pure: dictionaries in, dictionaries out; no file, no HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlm_crash.evaluation.confusion import field_matrices
from vlm_crash.evaluation.ranking import ranking_note
from vlm_crash.evaluation.report_sections import calibration_section, consistency_section, differences_section
from vlm_crash.evaluation.report_table import field_table
from vlm_crash.schema.fields import Schema


def page_context(
    schema: Schema, metrics: dict[str, Any], records: Sequence[dict[str, Any]], comparison: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the static part of the page shows; `comparison`: what `compare` found of this and a second evaluation."""
    events = [
        {
            "name": event.name,
            "title": event.title,
            "num_clips": metrics[event.name]["num_clips"],
            "table": field_table(event, metrics[event.name]),
            "matrices": field_matrices(event, records),
        }
        for event in schema.events
    ]
    clip_counts = metrics["clips"]
    scored = [event.title for event in schema.events if metrics[event.name]["num_clips"]]
    return {
        "title": " and ".join([*scored[:1], *(title[0].lower() + title[1:] for title in scored[1:])])
        + ": scores and clips",
        "page_title": f"Evaluation of {len(records)} clips",
        "num_clips": len(records),
        "num_failed": clip_counts["failed"]["n"],
        "num_absent": clip_counts["without_prediction"]["n"],
        "num_without_truth": clip_counts["without_truth"]["n"],
        "split": clip_counts["split"],
        "events": events,
        "cards": _cards(metrics),
        "calibrations": calibration_section(schema, metrics),
        "consistency": consistency_section(schema, metrics),
        "differences": differences_section(schema, comparison),
        "field_choices": [
            (field.name, field.name.replace("_", " ")) for field in schema.fields if field.kind != "text"
        ],
        **{f"has_{key}": any(_has_baseline(event["table"], key) for event in events) for key in ("metadata", "blind")},
        "has_confidence": any(_has_confidence(record) for record in records),
        "has_calibrated": any(one.get("calibrated") for record in records for one in record["fields"].values()),
        "settings": metrics["settings"],
    }


def _has_baseline(table: dict[str, Any], key: str) -> bool:
    return any(column["key"] == key for column in table["columns"])


def _has_confidence(record: dict[str, Any]) -> bool:
    known = (one.get("probability") for one in record["fields"].values())
    return record["event_probability"] is not None or any(p is not None for p in known)


def _reason(entry: dict[str, Any], name: str = "score") -> str:
    return str(entry["reasons"].get(name, ""))


def _cards(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    event, mean, text = metrics["event"], metrics["overall"]["mean"], metrics["overall"]["text_mean"]
    low, high = event["intervals"]["balanced_accuracy"] or (None, None)
    accuracy, auroc = event["accuracy"], event["auroc"]
    extra = [
        f"accuracy {accuracy:.3f}" if accuracy is not None else "",
        f"AUROC {auroc:.3f}{f' ({note})' if (note := ranking_note(event)) else ''}" if auroc is not None else "",
    ]
    common = {"count_label": "Answers counted"}
    cards = [
        {
            "title": "Which event: balanced accuracy", "score": event["balanced_accuracy"], "low": low, "high": high,
            "baselines": [("Always one event", event["baseline"]["balanced_accuracy"])], "n": event["n"],
            "count_label": "Clips", "reason": _reason(event, "balanced_accuracy"),
            "note": "Also " + ", ".join(filter(None, extra)) + "." if any(extra) else "",
        },
        {
            "title": "Fields: exact match, end to end", **_parts(mean, ""), **common, "n": mean["n"],
            "reason": _reason(mean),
            "note": f"Mean of {mean['num_fields']} categorical and count fields; a wrong event makes its fields wrong.",
        },
        {
            "title": "Fields: exact match, given the event", **_parts(mean, "given_event"), **common, "n": mean["n"],
            "reason": _reason(mean), "note": "The same texts, read for the fields of the true event.",
        },
        {
            "title": "Free text: cosine, end to end", **_parts(text, ""), **common, "n": text["n"],
            "reason": _reason(text),
            "note": f"Mean of {text['num_fields']} text fields. A similar wording may still tell another story.",
        },
    ]  # fmt: skip
    bases = ("score", "score", "given_event", "score")  # blind is known on both; the others only given the event
    for card, entry, basis in zip(cards, (event, mean, mean, text), bases, strict=True):
        card["marks"] = [{"kind": "majority", "score": value} for _, value in card["baselines"] if value is not None]
        for kind, label in (("metadata", "Metadata alone"), ("blind", "The model, blind")):
            found = entry.get("baselines", {}).get(kind) or {}
            value = found.get(basis if kind == "blind" else "score")
            if value is not None:
                card["baselines"].append((label, value))
                card["marks"].append({"kind": kind, "score": value})
    return cards


def _parts(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    prefix = f"{kind}_" if kind else ""
    limits = {"low": entry[f"{prefix}low"], "high": entry[f"{prefix}high"]}
    return {"score": entry[kind or "score"], **limits, "baselines": [("Most frequent answer", entry["baseline"])]}
