"""Annotation <-> response text: one renderer and its exact inverse.

Enters: an Annotation, or whatever text a model or a user wrote. Leaves: text, or a ParsedResponse.
Must hold: parse(schema, render(schema, a)) gives back exactly `a`; what is not understood is said so, never guessed.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from vlm_crash.schema.fields import UNKNOWN, Event, Field, Schema
from vlm_crash.schema.lines import Line, label_key, read_lines
from vlm_crash.schema.records import Annotation, Answer, ParsedResponse
from vlm_crash.schema.terminology import to_term

MISSING = Answer("missing")
FREE_LABELS = frozenset({"description"})  # written in old answers; no field, and no part of the opening


def render(schema: Schema, annotation: Annotation) -> str:
    """Write a record as a response: the opening, then `- Label: value` lines under bold headings.

    Raises ValueError where the annotation has other fields than its event, or a value that could not be read back.
    """
    event = schema.event(annotation.event)
    _check(event, annotation)
    lines = [event.opening]
    section = None
    for field in event.fields:
        if field.section != section:
            section = field.section
            lines += ["", f"**{section}:**"]
        lines.append(f"- {field.label}: {annotation.values[field.name]}")
    return "\n".join(lines)


def parse(schema: Schema, text: str, event: str | None = None) -> ParsedResponse:
    """Read a response, in our wording or one of the old ones.

    Args:
        event: look for this event's fields. None: the text tells the event; where it does not (or tells two), the
            fields of all events are looked for, without labels that belong to different fields of different events.
    """
    lines = list(read_lines(text))
    told = event if event is not None else _tell_event(schema, text, lines)
    fields = schema.event(told).fields if told is not None else schema.fields
    names = _names_by_label((schema.event(told),) if told is not None else schema.events)
    found: dict[str, list[tuple[int, int]]] = {}
    below: dict[str, list[tuple[int, int]]] = {}
    ends = _labels(schema) | _headings(schema) | FREE_LABELS
    for index, line in enumerate(lines):
        if line.label not in names:
            continue
        if line.value[0] < line.value[1]:
            found.setdefault(names[line.label], []).append(line.value)
        elif span := _paragraph(text, lines, index + 1, ends):
            below.setdefault(names[line.label], []).append(span)
    # A label alone on its line can be a heading ("Additional Notes:"): what stands below it goes after "Note: value".
    found = below | found
    answers = {field.name: _answer(field, text, found.get(field.name, [])) for field in fields}
    return ParsedResponse(told, answers)


def tell_event(schema: Schema, text: str) -> str | None:
    """The event that the opening of a response says; None where it says none, or more than one."""
    return _tell_event(schema, text, list(read_lines(text)))


def _tell_event(schema: Schema, text: str, lines: list[Line]) -> str | None:
    labels, headings = _labels(schema), _headings(schema)
    opening: list[str] = []
    for line in lines:
        if line.label in labels:
            break
        if line.label in FREE_LABELS or _bare(text, line) in headings:
            continue
        opening.append(text[line.start : line.end])
    return schema.event_matcher.term("\n".join(opening))


def _labels(schema: Schema) -> set[str]:
    return {label for event in schema.events for label in event.names_by_label}


def _headings(schema: Schema) -> set[str]:
    return {label_key(field.section) for field in schema.fields}


def _bare(text: str, line: Line) -> str:
    """The line as a heading: without marks around it."""
    return label_key(text[line.start : line.end].strip("*#: "))


def _paragraph(text: str, lines: list[Line], at: int, ends: Container[str]) -> tuple[int, int] | None:
    """Where the text below a label stands: until a blank line, a label or a heading; None where there is none."""
    span = None
    for index in range(at, len(lines)):
        line = lines[index]
        if line.start == line.end and span is None:
            continue
        if line.start == line.end or line.label in ends or _bare(text, line) in ends:
            break
        span = (span[0] if span else line.body, line.end)
    return span if span and span[0] < span[1] else None


def _names_by_label(events: Iterable[Event]) -> dict[str, str]:
    names: dict[str, str] = {}
    clashing = set()
    for event in events:
        for label, name in event.names_by_label.items():
            if names.setdefault(label, name) != name:
                clashing.add(label)
    return {label: name for label, name in names.items() if label not in clashing}


def _answer(field: Field, text: str, spans: list[tuple[int, int]]) -> Answer:
    """One answer of all places where a field is answered: those that contradict each other are not understood."""
    if not spans:
        return MISSING
    values = [to_term(field, text[slice(*span)]) for span in spans]
    said = text[slice(*spans[0])]
    if values[0] is None or len(set(values)) > 1:
        return Answer("not_understood", None, said, spans[0])
    return Answer("value", values[0], said, spans[0])


def _check(event: Event, annotation: Annotation) -> None:
    names, given = set(event.field_names), set(annotation.values)
    problems = [f"{name} is missing" for name in event.field_names if name not in given]
    problems += [f"{name} is not a field of {event.name}" for name in annotation.values if name not in names]
    for name in event.field_names:
        value = annotation.values.get(name, UNKNOWN)
        if value != UNKNOWN and to_term(event.field(name), value) != value:
            problems.append(f"{name}: {value!r} would not be read back as itself")
    if problems:
        raise ValueError(f"{event.name} record: {'; '.join(problems)}; make records with Annotation.of")
