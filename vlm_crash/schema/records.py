"""The records that flow through the program, all frozen.

Enters: cells of a CSV, a model's answer. Leaves: Annotation, VideoSample, Answer, ParsedResponse, Prediction.
Must hold: an Annotation has every field of its event, each a term, a count, one line of text, or UNKNOWN.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlm_crash.schema.fields import MAX_COUNT, UNKNOWN, Event, Field, Schema
from vlm_crash.schema.terminology import to_term
from vlm_crash.schema.wording import clean_text, nearest


def cell_value(field: Field, cell: object) -> str | None:
    """What a cell of a CSV says: a term, a count, a text, or UNKNOWN; None where it is not understood."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return UNKNOWN
    value = to_term(field, str(cell))
    if field.kind == "count" and value is not None and value != UNKNOWN and not _is_count(value):
        return None
    return value


def _is_count(value: str) -> bool:
    """Digits up to MAX_COUNT; int() takes no text of thousands of digits."""
    return len(value) <= len(str(MAX_COUNT)) and int(value) <= MAX_COUNT


@dataclass(frozen=True)
class Annotation:
    """What is known of one clip: a value or UNKNOWN for every field of its event."""

    event: str
    values: Mapping[str, str] = dataclasses.field(hash=False)

    def __post_init__(self) -> None:
        cleaned = {name: clean_text(value) or UNKNOWN for name, value in self.values.items()}
        object.__setattr__(self, "values", cleaned)

    @property
    def known(self) -> dict[str, str]:
        """The fields whose value is not UNKNOWN."""
        return {name: value for name, value in self.values.items() if value != UNKNOWN}

    @classmethod
    def of(cls, schema: Schema, event: str, partial: Mapping[str, object]) -> Annotation:
        """Fill up what is not given with UNKNOWN and bring every value to its term.

        Raises ValueError with every name that is not a field of the event and every value that is not understood.
        """
        kind, problems = schema.event(event), []
        values = dict.fromkeys(kind.field_names, UNKNOWN)
        for name, cell in partial.items():
            if name not in values:
                problems.append(f"{name!r} is not a field of {event!r}{nearest(name, values)}")
            elif (value := cell_value(kind.field(name), cell)) is None:
                problems.append(f"{name}: {str(cell)!r} is not understood; {_allowed(kind, name)}")
            else:
                values[name] = value
        if problems:
            raise ValueError(f"{event} record: " + "; ".join(problems))
        return cls(event, values)


def _allowed(event: Event, name: str) -> str:
    field = event.field(name)
    if field.kind == "count":
        return f"write a whole number up to {MAX_COUNT}, or leave it empty"
    return f"allowed: {', '.join(field.vocabulary)}, or leave it empty"


@dataclass(frozen=True)
class VideoSample:
    """One clip of a dataset.

    Attributes:
        event: what its folder or CSV says; None where nobody says.
        question, answer: the human and the gpt turn of a JSONL, where there is one.
        quarantined: why the clip is not to be read, where a check has found a reason.
    """

    id: str
    video: str
    path: Path
    event: str | None
    annotation: Annotation | None
    duration_s: float | None
    question: str | None = None
    answer: str | None = None
    quarantined: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a response says about one field.

    Attributes:
        said: the text found, as it stands; span: where, so that response[slice(*span)] == said.
    """

    status: Literal["value", "missing", "not_understood"]
    value: str | None = None
    said: str | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class ParsedResponse:
    """What a response says. event: None where it says none or more than one."""

    event: str | None
    answers: Mapping[str, Answer] = dataclasses.field(hash=False)

    @property
    def values(self) -> dict[str, str]:
        """The fields that got a value, UNKNOWN included."""
        return {name: a.value for name, a in self.answers.items() if a.status == "value" and a.value is not None}


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.jsonl.

    Attributes:
        event_probability: of the schema's first event; crash, in the shipped one.
        field_probabilities: by choice and count field, by term; they sum to 1.
        source_event: the event that the clip's folder or CSV names; None where neither does.
        event_probabilities: by event; they sum to 1.
        text_log_probabilities: by text field the mean log-probability of its tokens.
        seconds: time spent on this clip.
    """

    video: str
    event: str | None
    event_probability: float | None
    fields: Mapping[str, str] = dataclasses.field(hash=False)
    field_probabilities: Mapping[str, Mapping[str, float]] = dataclasses.field(hash=False)
    response: str
    status: Literal["ok", "failed"]
    error: str | None = None
    seconds: float = 0.0
    provenance: str = ""
    path: str = ""
    source_event: str | None = None
    event_probabilities: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    text_log_probabilities: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)

    def to_json_dict(self) -> dict[str, Any]:
        """The keys of predictions.jsonl in their order."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {key: _plain(value) for key, value in values.items()}

    @classmethod
    def from_json_dict(cls, data: Any) -> Prediction:
        """Read a line back. Raises ValueError with every key that is missing, unknown or of a wrong kind."""
        if not isinstance(data, Mapping):
            raise ValueError(f"prediction line: it must be an object, not {type(data).__name__}")
        names = [f.name for f in dataclasses.fields(cls)]
        required = ("video", "event", "fields", "response", "status")
        problems = [f"key {key!r} is missing" for key in required if key not in data]
        problems += [f"key {key!r} is unknown{nearest(key, names)}" for key in data if key not in names]
        problems += [problem for key, value in data.items() for problem in _key_problems(key, value)]
        if problems:
            raise ValueError("prediction line: " + "; ".join(problems))
        return cls(**{"event_probability": None, "field_probabilities": {}} | dict(data))


def _plain(value: Any) -> Any:
    """Mappings as dicts; probabilities in ten decimals, of which a sum is still 1 as far as anyone looks."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return round(value, 10) if isinstance(value, float) else value


def _key_problems(key: str, value: Any) -> Iterator[str]:
    """What is wrong with a value of a prediction line, in words."""
    kind = type(value).__name__
    if key in ("fields", "field_probabilities", "event_probabilities", "text_log_probabilities"):
        if not isinstance(value, Mapping):
            yield f"key {key!r} must be an object, not {kind}"
        elif key == "fields" and (wrong := {name: v for name, v in value.items() if not isinstance(v, str)}):
            yield f"key 'fields' must hold texts, not {wrong}"
        elif key == "field_probabilities":
            for name, inner in value.items():
                yield from _probability_problems(f"{key}.{name}", inner)
        elif key == "event_probabilities":
            yield from _probability_problems(key, value)
    elif key == "status":
        if value not in ("ok", "failed"):
            yield f"status {value!r} is neither 'ok' nor 'failed'"
    elif key == "event_probability":
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= 1):
            yield f"event_probability {value!r} is neither null nor a number from 0 to 1"
    elif key in ("event", "source_event", "error"):
        if not isinstance(value, str | None):
            yield f"key {key!r} must be a text or null, not {kind}"
    elif key in ("video", "response", "path", "provenance") and not isinstance(value, str):
        yield f"key {key!r} must be a text, not {kind}"


def _probability_problems(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"key {key!r} must be an object, not {type(value).__name__}"
    elif wrong := {term: p for term, p in value.items() if not isinstance(p, int | float) or isinstance(p, bool)}:
        yield f"key {key!r} must hold numbers, not {wrong}"
