"""predictions.jsonl alone -> a page of clips and answers, for clips of which no truth is known.

Pure: Predictions in, dictionaries out; no file, no HTML. No schema is needed: a line says its own event and fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vlm_crash.evaluation.report_clips import EVENT, ranked
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Prediction

NO_EVENT = "of no event"


def answers_context(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """What the static part of the page shows."""
    answered = Counter(prediction.event or "" for prediction in predictions if prediction.status == "ok")
    counts = [{"event": event, "title": _title(event) if event else NO_EVENT, "n": n} for event, n in answered.items()]
    fields = {name: name.replace("_", " ") for prediction in predictions for name in prediction.fields}
    return {
        "page_title": f"Answers to {len(predictions)} clips",
        "num_failed": sum(prediction.status == "failed" for prediction in predictions),
        "counts": sorted(counts, key=lambda count: str(count["event"]) or "~"),
        "field_choices": list(fields.items()),
        "has_confidence": any(p.event_probability is not None or p.field_probabilities for p in predictions),
    }


def answers_data(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """All that is read at once; the page has no truths, so there is nothing to mark."""
    return {"truths": False, "id": "", "fields": {}, "clips": [answer_data(prediction) for prediction in predictions]}


def answer_data(prediction: Prediction) -> dict[str, Any]:
    """What the script needs to list, to filter and to search one clip."""
    failed, event = prediction.status == "failed", prediction.event
    return {
        "key": "/".join(filter(None, (prediction.source_event, prediction.path or prediction.video))),
        "video": prediction.video,
        "event": event or "",
        "event_title": f"from {prediction.source_event}" if prediction.source_event else "",
        "status": prediction.status,
        "state": "failed" if failed else "",
        "state_text": "no answer" if failed else _title(event) if event else "says no event",
        "all_right": True,
        "rows": [_event_row(prediction), *(_row(prediction, name, value) for name, value in prediction.fields.items())],
    }


def answer_detail(prediction: Prediction) -> dict[str, Any]:
    """What the script needs to draw a clip once it is opened."""
    failed = prediction.status == "failed"
    return {
        "path": prediction.path,
        "problem": f"No answer: {prediction.error or 'no reason was given'}" if failed else "",
        "response": prediction.response,
        "probabilities": {name: ranked(terms) for name, terms in prediction.field_probabilities.items() if terms},
        "roles": {},
    }


def _event_row(prediction: Prediction) -> dict[str, Any]:
    schema, event, probability = load_schema(), prediction.event, prediction.event_probability
    first = schema.events[0]
    answer = "no answer" if prediction.status == "failed" else _title(event) if event else "no event"
    row: dict[str, Any] = {
        "name": EVENT, "label": "Event", "truth": None, "answer": answer, "note": "", "mark": "", "sign": "",
    }  # fmt: skip
    if event in schema.event_names and probability is not None:  # whose probability it is, is not known otherwise
        row["note"] = f"P({first.title.lower()}) = {probability:.2f}"
        row["p"] = round(probability if event == first.name else 1 - probability, 4)
    return row


def _row(prediction: Prediction, name: str, value: str) -> dict[str, Any]:
    row = {
        "name": name, "label": name.replace("_", " "), "truth": None, "answer": value, "note": "", "mark": "",
        "sign": "",
    }  # fmt: skip
    probability = prediction.field_probabilities.get(name, {}).get(value)
    return row if probability is None else row | {"p": round(probability, 4)}


def _title(event: str) -> str:
    """The event for people: its title in the shipped schema, else its name."""
    titles = {known.name: known.title for known in load_schema().events}
    return titles.get(event, event.replace("_", " ")).lower()
