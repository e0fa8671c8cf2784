"""Terms of the open fields, which a dataset's own CSVs decide: one spelling each, and which there are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from vlm_crash.schema.fields import UNKNOWN, Schema
from vlm_crash.schema.records import Annotation, VideoSample
from vlm_crash.schema.wording import normal_form


def _open_fields(schema: Schema) -> set[str]:
    return {field.name for field in schema.fields if field.kind == "categorical" and not field.closed}


def same_spellings(samples: Sequence[VideoSample], schema: Schema) -> list[VideoSample]:
    """Terms of open fields that differ in case, blanks or underscores only take their most frequent spelling."""
    spellings: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    open_fields = _open_fields(schema)
    for sample in samples:
        for name, value in _annotation(sample).known.items():
            if name in open_fields:
                spellings[name, normal_form(value)][value] += 1
    chosen = {key: min(counts, key=lambda value: (-counts[value], value)) for key, counts in spellings.items()}
    result = []
    for sample in samples:
        annotation = _annotation(sample)
        values = {name: chosen.get((name, normal_form(value)), value) for name, value in annotation.values.items()}
        result.append(replace(sample, annotation=Annotation.of(schema, annotation.event, values)))
    return result


def observed_vocabularies(samples: Sequence[VideoSample], schema: Schema) -> dict[str, list[str]]:
    """Terms of each open field, the most frequent first."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in sorted(_open_fields(schema))}
    for sample in samples:
        for name, value in _annotation(sample).values.items():
            if name in counts and value != UNKNOWN:
                counts[name][value] += 1
    return {name: sorted(terms, key=lambda term: (-terms[term], term)) for name, terms in counts.items()}


def _annotation(sample: VideoSample) -> Annotation:
    assert sample.annotation is not None, "rows of a CSV are annotated"
    return sample.annotation
