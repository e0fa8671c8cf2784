"""records.json -> what the page's script knows of each clip: rows of truth beside answer, and what is drawn on opening.

Pure: dictionaries in, dictionaries out; no file, no HTML. Rows are judged given the event, so that a reader sees what
the text got right. Keys that an older evaluation lacks (probabilities, roles) are left out, not invented.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_crash.models.answer_form import COUNTS
from vlm_crash.schema.fields import UNKNOWN, Field, Schema

NONE = "\N{EN DASH}"  # stands where there is no value
EVENT = "event"  # the name of a clip's first row
_NOT_SAID = {
    "missing": "missing", "not_understood": "not understood", "unknown": "unknown", "wrong_event": "wrong event"
}  # fmt: skip


def browser_data(schema: Schema, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All that is read at once: the clips, and the terms that a reader may choose from."""
    return {
        "truths": True,
        "id": _identity(records),
        "fields": {
            field.name: {
                "kind": field.kind,
                "closed": field.closed,
                "terms": [*field.vocabulary, UNKNOWN],
                # Beyond what decoding can say and the truths hold, a count is a slip of the hand.
                "largest": max(_counts(field, records), default=0),
            }
            for field in schema.fields
        }
        | {EVENT: {"kind": "categorical", "closed": True, "terms": list(schema.event_names), "largest": 0}},
        "clips": [clip_data(schema, record) for record in records],
    }


def _counts(field: Field, records: Sequence[dict[str, Any]]) -> list[int]:
    if field.kind != "count":
        return []
    truths = [record["fields"][field.name]["truth"] for record in records if field.name in record["fields"]]
    return [int(count) for count in (*COUNTS, *truths) if count.isdecimal()]


def _identity(records: Sequence[dict[str, Any]]) -> str:
    """The same for every evaluation of these clips and truths: a reader's marks are about truths, not about answers."""
    facts = [
        [record["event"], record["video"], {name: one["truth"] for name, one in record["fields"].items()}]
        for record in records
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def clip_data(schema: Schema, record: dict[str, Any]) -> dict[str, Any]:
    """What the script needs to list, to filter and to search one clip."""
    event = schema.event(record["event"])
    state, state_text = _state(schema, record)
    event_right = record["predicted_event"] == record["event"]
    return {
        "key": f"{record['event']}/{record['video']}",
        "video": record["video"],
        "event": record["event"],
        "event_title": event.title,
        "status": record["status"],
        "state": state,
        "state_text": state_text,
        "all_right": event_right and record["num_wrong"] == 0,
        "rows": [
            _event_row(schema, record, event_right),
            *(_row(field, record["fields"][field.name]) for field in event.fields),
        ],
    }


def clip_detail(schema: Schema, record: dict[str, Any]) -> dict[str, Any]:
    """What the script needs to draw a clip once it is opened; its frames come beside."""
    said, problem = record["predicted_event"], ""
    if record["status"] != "ok":
        problem = f"No answer: {record['error'] or 'no reason was given'}"
    elif said != record["event"]:
        title = schema.event(said).title.lower() if said else ""
        what = f"The answer is about another event: {title}." if said else "The answer names no event."
        problem = f"{what} Its fields count as wrong end to end; the marks below are given the true event."
    probabilities = {name: one.get("probabilities") for name, one in record["fields"].items()}
    return {
        "path": record["path"],
        "problem": problem,
        "response": record["response"],
        "probabilities": {name: ranked(terms) for name, terms in probabilities.items() if terms},
        "roles": {name: one["roles"] for name, one in record["fields"].items() if isinstance(one.get("roles"), str)},
    }


def ranked(terms: Mapping[str, float]) -> list[list[Any]]:
    """Pairs of term and probability, the most probable first."""
    return [[term, round(p, 4)] for term, p in sorted(terms.items(), key=lambda item: (-item[1], item[0]))]


def _state(schema: Schema, record: dict[str, Any]) -> tuple[str, str]:
    scored = sum(one["verdict"] not in ("out", "compared") for one in record["fields"].values())
    wrong, said = record["num_wrong"], record["predicted_event"]
    if record["status"] == "failed":
        return "failed", "could not be read"
    if record["status"] == "absent":
        return "failed", "no prediction"
    if said != record["event"]:
        return EVENT, f"taken for a {schema.event(said).title.lower()}" if said else "says no event"
    return ("wrong", f"{wrong} of {scored} fields wrong") if wrong else ("right", f"all {scored} fields right")


def _event_row(schema: Schema, record: dict[str, Any], right: bool) -> dict[str, Any]:
    said, probability = record["predicted_event"], record["event_probability"]
    calibrated = record.get("event_probability_calibrated")
    probability = probability if calibrated is None else calibrated
    answer = schema.event(said).title if said else "no event"
    row = {
        "name": EVENT, "label": "Event", "truth": schema.event(record["event"]).title,
        "answer": answer if record["status"] == "ok" else "no answer",
        "note": "" if probability is None else f"P({schema.events[0].title.lower()}) = {probability:.2f}"
        + (f"; before calibration {record['event_probability']:.2f}" if calibrated is not None else ""),
        "mark": "right" if right else "wrong", "sign": "✓" if right else "✕ wrong",
        # What a correction says: names, not titles.
        "old": record["event"], **({"term": said} if said and not record["event_told"] else {}),
    }  # fmt: skip
    if record["event_told"]:
        return row | {"mark": "out", "sign": "", "note": "the model was told the event"}
    if probability is not None and said and len(schema.events) == 2:
        row["p"] = round(probability if said == schema.events[0].name else 1 - probability, 4)
    return row


def _row(field: Field, one: dict[str, Any]) -> dict[str, Any]:
    verdict, score = one["verdict_given_event"], one["score_given_event"]
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
    row = {
        "name": field.name, "label": field.name.replace("_", " "), "truth": truth,
        "answer": one["answer"] or one["said"] or NONE, "note": note, "mark": mark, "sign": sign,
    }  # fmt: skip
    if one["answer"]:
        row["term"] = one["answer"]  # what a reader may take for the truth: an answer that was understood
    if one.get("probability") is not None:
        row["p"] = round(one["probability"], 4)
    if one.get("calibrated"):
        row["as_predicted"] = one["probability_as_predicted"]
    return row
