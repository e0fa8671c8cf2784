"""Confusion matrices of the categorical and count fields: truth by answer, given the true event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from vlm_crash.metrics.confusion import NO_ANSWER, said_term
from vlm_crash.schema.fields import UNKNOWN, Event, Field

MAX_TERMS = 14  # rarer ones are gathered
#: Columns of metrics.json's matrices that are no terms.
NO_ANSWER_COLUMN, WRONG_EVENT_COLUMN = f"({NO_ANSWER})", "(wrong event)"
RARER = "(rarer terms)"


def field_matrices(event: Event, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One confusion matrix per categorical or count field: truth by answer, given the true event."""
    matrices = []
    for field in event.fields:
        pairs = Counter(
            (one["truth"], _said_term(one))
            for record in records
            if record["event"] == event.name and field.kind != "text"
            for one in [record["fields"][field.name]]
            if one["truth"] != UNKNOWN
        )
        if not pairs:
            continue
        terms = _shown_terms(field, pairs)
        pairs = Counter(
            {
                pair: sum(n for (t, a), n in pairs.items() if (_in(t, terms), _in(a, terms)) == pair)
                for pair in {(_in(truth, terms), _in(answer, terms)) for truth, answer in pairs}
            }
        )
        truths = [term for term in (*terms, RARER) if any(truth == term for truth, _ in pairs)]
        answers = [term for term in (*terms, RARER, NO_ANSWER) if term in truths or any(a == term for _, a in pairs)]
        matrices.append(
            {
                "label": field.name.replace("_", " "),
                "n": sum(pairs.values()),
                "columns": [answer.replace("_", " ") for answer in answers],
                "rows": [_matrix_row(truth, answers, pairs) for truth in truths],
            }
        )
    return matrices


def _said_term(one: dict[str, Any]) -> str:
    return said_term(one["verdict_given_event"], str(one["truth"]), one["answer"])


def _shown_terms(field: Field, pairs: Counter[tuple[str, str]]) -> list[str]:
    """The most frequent terms, in the order of the vocabulary (counts: by number)."""
    seen: Counter[str] = Counter()
    for (truth, answer), n in pairs.items():
        seen[truth] += n
        if answer != NO_ANSWER:
            seen[answer] += n
    kept = [term for term, _ in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:MAX_TERMS]]
    return term_order(field, kept)


def term_order(field: Field, terms: Iterable[str]) -> list[str]:
    """In the order of the vocabulary, then counts by number, then words.

    >>> from vlm_crash.schema.fields import load_schema
    >>> weather, lanes = (load_schema().field(name) for name in ("Weather", "Lanes"))
    >>> term_order(weather, {"Hail", "Rainy", "Clear"}), term_order(lanes, {"10", "2"})
    (['Clear', 'Rainy', 'Hail'], ['2', '10'])
    """
    order = {term: n for n, term in enumerate(field.vocabulary)}
    return sorted(terms, key=lambda t: (order.get(t, len(order)), not t.isdecimal(), int(t) if t.isdecimal() else 0, t))


def _in(term: str, terms: Sequence[str]) -> str:
    return term if term in terms or term == NO_ANSWER else RARER


def _matrix_row(truth: str, answers: Sequence[str], pairs: Counter[tuple[str, str]]) -> dict[str, Any]:
    total = sum(pairs[truth, answer] for answer in answers)
    cells = [
        {
            "n": pairs[truth, answer],
            "share": pairs[truth, answer] / total,
            "right": answer == truth and truth != RARER,
        }
        for answer in answers
    ]
    return {"term": truth.replace("_", " "), "cells": cells}
