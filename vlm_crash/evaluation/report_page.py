"""metrics.json + records.json -> what the page shows: cards, field rows, matrices, the list and the data of the clips.

Pure: dictionaries in, dictionaries out; no file, no HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlm_crash.evaluation.confusion import field_matrices
from vlm_crash.schema.fields import Event, Field, Schema

NONE = "\N{EN DASH}"  # stands where there is no value
_NOT_SAID = {
    "missing": "missing", "not_understood": "not understood", "unknown": "unknown", "wrong_event": "wrong event"
}  # fmt: skip


def page_context(schema: Schema, metrics: dict[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the static part of the page shows."""
    events = [
        {
            "name": event.name,
            "title": event.title,
            "num_clips": metrics[event.name]["num_clips"],
            "rows": _field_rows(event, metrics[event.name]),
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
        "field_choices": [(field.name, _label(field)) for field in schema.fields if field.kind != "text"],
        "clips": [_list_item(schema, record) for record in records],
        "settings": metrics["settings"],
    }


def _label(field: Field) -> str:
    return field.name.replace("_", " ")


def _reason(entry: dict[str, Any], name: str = "score") -> str:
    return str(entry["reasons"].get(name, ""))


def _cards(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    event, mean, text = metrics["event"], metrics["overall"]["mean"], metrics["overall"]["text_mean"]
    low, high = event["intervals"]["balanced_accuracy"] or (None, None)
    accuracy, auroc = event["accuracy"], event["auroc"]
    extra = [
        f"accuracy {accuracy:.3f}" if accuracy is not None else "",
        f"AUROC {auroc:.3f}" if auroc is not None else "",
    ]
    common = {"baseline_label": "Most frequent answer", "count_label": "Answers counted"}
    return [
        {
            "title": "Which event: balanced accuracy", "score": event["balanced_accuracy"], "low": low, "high": high,
            "baseline": event["baseline"]["balanced_accuracy"], "n": event["n"], "baseline_label": "Always one event",
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


def _parts(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    prefix = f"{kind}_" if kind else ""
    limits = {"low": entry[f"{prefix}low"], "high": entry[f"{prefix}high"]}
    return {"score": entry[kind or "score"], **limits, "baseline": entry["baseline"]}


def _field_rows(event: Event, entry: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for field in event.fields:
        scores = entry["fields"][field.name]
        rows.append(scores | {"label": _label(field), "kind": field.kind, "reason": _reason(scores), "is_mean": False})
    for name, kind in (("mean", "categorical and count"), ("text_mean", "text")):
        mean = entry[name]
        blank = {"missing": "", "not_understood": "", "baseline_answer": None}
        if mean["num_fields"] or name == "mean":
            rows.append(mean | blank | {"label": "Mean", "kind": kind, "reason": _reason(mean), "is_mean": True})
    return rows


def _list_item(schema: Schema, record: dict[str, Any]) -> dict[str, Any]:
    scored = sum(one["verdict"] not in ("out", "compared") for one in record["fields"].values())
    wrong = record["num_wrong"]
    if record["status"] == "failed":
        state, text = "failed", "could not be read"
    elif record["status"] == "absent":
        state, text = "failed", "no prediction"
    elif record["predicted_event"] != record["event"]:
        said = record["predicted_event"]
        state, text = "event", f"taken for a {schema.event(said).title.lower()}" if said else "says no event"
    else:
        state = "wrong" if wrong else "right"
        text = f"{wrong} of {scored} fields wrong" if wrong else f"all {scored} fields right"
    return {
        "video": record["video"], "event_title": schema.event(record["event"]).title, "state": state, "state_text": text
    }  # fmt: skip


def clip_data(schema: Schema, record: dict[str, Any]) -> dict[str, Any]:
    """What the script needs to show and to filter one clip."""
    event = schema.event(record["event"])
    said, probability = record["predicted_event"], record["event_probability"]
    event_right = said == record["event"]
    title = schema.event(said).title if said else "no event"
    note = f"P({schema.events[0].title.lower()}) = {probability:.2f}" if probability is not None else ""
    problem = ""
    if record["status"] != "ok":
        problem = f"No answer: {record['error'] or 'no reason was given'}"
    elif not event_right:
        what = f"The answer is about another event: {title.lower()}." if said else "The answer names no event."
        problem = f"{what} Its fields count as wrong end to end; the marks below are given the true event."
    return {
        "key": f"{record['event']}/{record['video']}",
        "video": record["video"],
        "event": record["event"],
        "event_title": event.title,
        "event_right": event_right,
        "event_told": record["event_told"],
        "said_event": title if record["status"] == "ok" else "no answer",
        "event_note": note,
        "failed": record["status"] != "ok",
        "all_right": event_right and record["num_wrong"] == 0,
        "path": record["path"],
        "problem": problem,
        "response": record["response"],
        "fields": [_field_data(field, record["fields"][field.name]) for field in event.fields],
    }


def _field_data(field: Field, one: dict[str, Any]) -> dict[str, str]:
    """One row of truth beside answer; judged given the event, so that a reader sees what the text got right."""
    verdict, score = one["verdict_given_event"], one["score_given_event"]
    answer = one["answer"] or one["said"] or NONE
    note = ""
    if one["said"] and one["answer"] and one["said"].strip() != one["answer"]:
        note = f"said: {one['said']}"
    elif verdict == "not_understood":
        note = "not understood"
    if verdict == "out":
        mark, sign, truth = "out", "", "not known"
    elif verdict == "compared":
        mark, sign, truth = "text", NONE if score is None else f"{score:.2f}", one["truth"]
    else:
        mark, truth = "right" if verdict == "right" else "wrong", one["truth"]
        sign = "✓" if verdict == "right" else "✕ " + _NOT_SAID.get(verdict, "wrong")
    return {
        "name": field.name, "label": _label(field), "truth": truth, "answer": answer,
        "note": note, "mark": mark, "sign": sign,
    }  # fmt: skip
