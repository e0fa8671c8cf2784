"""Confusion of categorical fields: truth by answer, given the true event, as a torchmetrics Metric.

Enters: parsed answers beside their truths, on each process. Leaves: counts over all processes. Must hold: a clip is in
a field's matrix exactly when its truth is known, whatever was answered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from vlm_crash.metrics.functional import Verdict, comparable, field_verdict
from vlm_crash.schema.fields import Field, Schema
from vlm_crash.schema.records import Annotation, ParsedResponse

NO_ANSWER = "no answer"
OTHER = "(other words)"


def said_term(verdict: Verdict | str, truth: str, answer: str | None) -> str:
    """The answer as a column of a matrix; an answer judged right stands under the spelling of the truth.

    >>> said_term(Verdict.RIGHT, "Wet", "wet"), said_term(Verdict.WRONG, "Wet", "Dry"), said_term("unknown", "Wet", "?")
    ('Wet', 'Dry', 'no answer')
    """
    if verdict == Verdict.RIGHT:
        return truth
    return str(answer) if verdict == Verdict.WRONG else NO_ANSWER


class FieldConfusion(Metric):
    """Counts of truth by answer for the event and for each categorical field with a vocabulary.

    `compute` returns by name ("event", "crash/Weather") integer counts [rows, columns]; `terms` gives the words of the
    rows; the columns have two more: OTHER (a word out of the vocabulary) and NO_ANSWER.

    Args:
        schema: events and fields.
    """

    full_state_update = False

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.schema = schema
        self.terms: dict[str, tuple[str, ...]] = {"event": schema.event_names}
        self.fields: dict[str, Field] = {}
        for event in schema.events:
            for field in event.fields:
                if field.kind == "categorical" and field.vocabulary:
                    self.terms[f"{event.name}/{field.name}"] = field.vocabulary
                    self.fields[f"{event.name}/{field.name}"] = field
        self._places = {
            name: {
                comparable(self.fields[name], term) if name in self.fields else term: k for k, term in enumerate(terms)
            }
            for name, terms in self.terms.items()
        }
        for number, terms in enumerate(self.terms.values()):
            # Truths may be out of the vocabulary, too.
            shape = (len(terms) + 1, len(terms) + 2)
            self.add_state(f"counts_{number}", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Sequence[ParsedResponse], target: Sequence[Annotation]) -> None:
        """Count a batch of answers beside their truths."""
        for parsed, truth in zip(preds, target, strict=True):
            self._count("event", truth.event, parsed.event or NO_ANSWER)
            for name, field in self.fields.items():
                event, _, field_name = name.partition("/")
                if event == truth.event:
                    answer = parsed.answers.get(field_name)
                    verdict = field_verdict(field, truth.values[field_name], answer)
                    if verdict.counted:
                        value = None if answer is None else answer.value
                        said = said_term(verdict, truth.values[field_name], value)
                        self._count(name, truth.values[field_name], said)

    def _count(self, name: str, truth: str, said: str) -> None:
        counts: Tensor = getattr(self, f"counts_{list(self.terms).index(name)}")
        column = counts.shape[1] - 1 if said == NO_ANSWER else self._place(name, said)
        counts[self._place(name, truth), column] += 1

    def _place(self, name: str, word: str) -> int:
        field = self.fields.get(name)
        return self._places[name].get(comparable(field, word) if field else word, len(self.terms[name]))

    def compute(self) -> dict[str, Tensor]:
        """By name, what was counted at all."""
        counts = {name: getattr(self, f"counts_{number}") for number, name in enumerate(self.terms)}
        return {name: count for name, count in counts.items() if count.any()}
