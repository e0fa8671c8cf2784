"""Confusion matrices: what is counted where."""

import pytest
import torch

from vlm_crash.metrics.confusion import FieldConfusion
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation
from vlm_crash.schema.response import parse, render

SCHEMA = load_schema()
FIELD = "Weather"


def annotation(term, event="crash"):
    return Annotation.of(SCHEMA, event, {FIELD: term})


@pytest.fixture
def terms():
    return SCHEMA.event("crash").field(FIELD).vocabulary


def test_truth_by_answer(terms):
    first, second = terms[:2]
    said = [first, second, first, "Unknown"]
    true = [first, first, second, first]
    confusion = FieldConfusion(SCHEMA)
    answers = [parse(SCHEMA, render(SCHEMA, annotation(term))) for term in said]
    confusion.update(answers[:1], [annotation(true[0])])
    confusion.update(answers[1:], [annotation(term) for term in true[1:]])
    # Another event, whose answer has a word for the field all the same; no answer; a truth that is not known.
    nearmiss = parse(SCHEMA, render(SCHEMA, annotation(second, "nearmiss")))
    confusion.update([nearmiss, parse(SCHEMA, "?"), answers[0]], [annotation(t) for t in (second, second, "Unknown")])
    counts = confusion.compute()
    want = torch.zeros(len(terms) + 1, len(terms) + 2, dtype=torch.long)
    want[0, 0] = want[0, 1] = want[0, -1] = 1  # right, wrong, "Unknown" said
    want[1, 0] = want[1, 1] = want[1, -1] = 1  # wrong, right though under another event, nothing
    assert torch.equal(counts[f"crash/{FIELD}"], want)
    crash, near = SCHEMA.event_names.index("crash"), SCHEMA.event_names.index("nearmiss")
    assert counts["event"][crash, [crash, near, -1]].tolist() == [5, 1, 1]
    assert counts["event"].sum() == 7


def test_what_was_never_true_has_no_matrix():
    confusion = FieldConfusion(SCHEMA)
    confusion.update([parse(SCHEMA, "?")], [annotation("Unknown")])
    assert list(confusion.compute()) == ["event"]
    assert all(field.kind == "categorical" for field in confusion.fields.values())


def test_parts_add_up(terms):
    """Over processes: tests/parallel/test_sentinel.py."""
    parts = [FieldConfusion(SCHEMA) for _ in range(2)]
    for part, term in zip(parts, terms, strict=False):
        part.update([parse(SCHEMA, render(SCHEMA, annotation(term)))], [annotation(term)])
    total = sum(part.compute()[f"crash/{FIELD}"] for part in parts)
    assert total[0, 0] == total[1, 1] == 1 and total.sum() == 2
