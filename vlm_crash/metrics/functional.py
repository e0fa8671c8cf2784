"""Pure counts: one parsed answer beside one truth gives a verdict per field; verdicts give sums.

In: `Annotation` (the truth) and `ParsedResponse` (what the model said). Out: verdicts and integer counts.
Must hold: a field enters the count exactly when its truth is known, whatever was answered. Silence, "Unknown",
a wording that is not understood and every field of a wrongly named event are wrong; none leaves the count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from vlm_crash.schema.fields import UNKNOWN, Event, Field
from vlm_crash.schema.records import Annotation, Answer, ParsedResponse
from vlm_crash.schema.terminology import to_term


class Verdict(StrEnum):
    """What became of one field of one clip. `OUT` alone is not counted: its truth is not known."""

    RIGHT = "right"
    WRONG = "wrong"
    COMPARED = "compared"  # a text field that was answered: scored by its similarity
    UNKNOWN = "unknown"  # the answer says that it does not know
    MISSING = "missing"
    NOT_UNDERSTOOD = "not_understood"
    WRONG_EVENT = "wrong_event"
    OUT = "out"

    @property
    def counted(self) -> bool:
        return self is not Verdict.OUT


def comparable(field: Field, text: str) -> str:
    """The form in which two values of a field are compared: its term where it has one, case and underscores aside."""
    term = None if field.kind == "text" else to_term(field, text)
    return " ".join((text if term is None else term).replace("_", " ").casefold().split())


def is_scored(field: Field) -> bool:
    """Whether exact match decides the field (categorical and count); text fields are scored by similarity."""
    return field.kind != "text"


def field_verdict(field: Field, truth: str, answer: Answer | None) -> Verdict:
    """Judge one answer; `None` stands for no answer at all."""
    if truth == UNKNOWN:
        return Verdict.OUT
    if answer is None or answer.status == "missing":
        return Verdict.MISSING
    if answer.status == "not_understood" or answer.value is None:
        return Verdict.NOT_UNDERSTOOD
    if answer.value == UNKNOWN:
        return Verdict.UNKNOWN
    if not is_scored(field):
        return Verdict.COMPARED
    return Verdict.RIGHT if comparable(field, answer.value) == comparable(field, truth) else Verdict.WRONG


def clip_verdicts(
    event: Event, truth: Annotation, parsed: ParsedResponse | None, given_event: bool = False
) -> dict[str, Verdict]:
    """Verdict of every field of the true event.

    Args:
        event: the schema's event of that truth.
        truth: what happened.
        parsed: what was said; None where nothing was (a failed or absent prediction).
        given_event: read the answers as they stand, whichever event they name. Otherwise an answer that names another
            event, or none, has all its fields wrong.

    Raises:
        ValueError: the truth is of another event than `event`.
    """
    if truth.event != event.name:
        raise ValueError(f"the truth is of event {truth.event!r}, its fields were asked for as {event.name!r}")
    answers: Mapping[str, Answer] = {} if parsed is None else parsed.answers
    verdicts = {field.name: field_verdict(field, truth.values[field.name], answers.get(field.name))
                for field in event.fields}  # fmt: skip
    if given_event or parsed is None or parsed.event == event.name:
        return verdicts
    return {name: Verdict.WRONG_EVENT if verdict.counted else verdict for name, verdict in verdicts.items()}


def share(numerator: float, denominator: int) -> float | None:
    """A share, or None (never 0) where there is nothing to take it of."""
    return None if denominator == 0 else numerator / denominator


def majority(values: Sequence[str]) -> tuple[str, int] | None:
    """Most frequent value and its count; ties go to the first in alphabetical order, so that reruns agree.

    >>> majority(["Wet", "Dry", "Dry"])
    ('Dry', 2)
    """
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return min(counts.items(), key=lambda item: (-item[1], item[0])) if counts else None
