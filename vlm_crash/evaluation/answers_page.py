"""predictions.jsonl alone -> a page of clips and answers, for clips of which no truth is known.

Pure: Predictions in, dictionaries out; no file, no HTML. No schema is needed: a line says its own event and fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Prediction

NO_EVENT = "of no event"


def answers_context(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """What the static part of the page shows."""
    answered = Counter(prediction.event or "" for prediction in predictions if prediction.status == "ok")
    counts = [{"event": event, "title": _title(event) if event else NO_EVENT, "n": n} for event, n in answered.items()]
    return {
        "page_title": f"Answers to {len(predictions)} clips",
        "num_failed": sum(prediction.status == "failed" for prediction in predictions),
        "counts": sorted(counts, key=lambda count: str(count["event"]) or "~"),
        "clips": [_list_item(prediction) for prediction in predictions],
    }


def _list_item(prediction: Prediction) -> dict[str, str]:
    failed = prediction.status == "failed"
    state = "no answer" if failed else _title(prediction.event) if prediction.event else "says no event"
    return {
        "video": prediction.video, "event_title": _source(prediction), "state": "failed" if failed else "",
        "state_text": state,
    }  # fmt: skip


def answer_data(prediction: Prediction) -> dict[str, Any]:
    """What the script needs to show and to filter one clip; `event_title` None: there is no truth."""
    failed, event = prediction.status == "failed", prediction.event
    first = load_schema().events[0]
    known = event in load_schema().event_names and prediction.event_probability is not None
    return {
        "key": "/".join(filter(None, (prediction.source_event, prediction.path or prediction.video))),
        "video": prediction.video,
        "event": event or "",
        "event_title": None,
        "event_right": True,
        "event_told": False,
        "said_event": "no answer" if failed else _title(event) if event else "no event",
        "event_note": f"P({first.title.lower()}) = {prediction.event_probability:.2f}" if known else "",
        "failed": failed,
        "all_right": True,
        "path": prediction.path,
        "problem": f"No answer: {prediction.error or 'no reason was given'}" if failed else "",
        "response": prediction.response,
        "fields": [
            {
                "name": name, "label": name.replace("_", " "), "truth": None, "answer": value, "note": "",
                "mark": "", "sign": "",
            }
            for name, value in prediction.fields.items()
        ],
    }  # fmt: skip


def _title(event: str) -> str:
    """The event for people: its title in the shipped schema, else its name."""
    titles = {known.name: known.title for known in load_schema().events}
    return titles.get(event, event.replace("_", " ")).lower()


def _source(prediction: Prediction) -> str:
    return f"from {prediction.source_event}" if prediction.source_event else ""
