"""Scored clip -> the probabilities that its prediction gives to the terms of a field, and to its answer.

`tempered` makes calibrated ones of them (docs/calibration.md). They are conditional on the event that the model told.
Where that is another event than the true one, they belong to another record and there are none here, though the text of
the answer may be read for the true event's fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from vlm_crash.evaluation.scoring import ScoredClip
from vlm_crash.metrics.functional import comparable, is_scored
from vlm_crash.schema.fields import Field
from vlm_crash.schema.records import Prediction

#: Terms less probable than this are left out of records.json; predictions.jsonl has them.
LEAST = 1e-3


def term_probabilities(clip: ScoredClip, field: Field) -> Mapping[str, float] | None:
    """By term, of a categorical or count field; None where the prediction gives none that is of the true event."""
    if clip.prediction is None or clip.prediction.status != "ok" or not clip.event_right or not is_scored(field):
        return None
    return clip.prediction.field_probabilities.get(field.name) or None


def answer_probability(clip: ScoredClip, field: Field, temperature: float | None = None) -> float | None:
    """Of the answer that was given; None without probabilities, and where the answer is none of their terms."""
    found, answer = term_probabilities(clip, field), clip.answers.get(field.name)
    if found is None or answer is None or answer.value is None:
        return None
    return probability_of(field, tempered(found, temperature), answer.value)


def probability_of(field: Field, probabilities: Mapping[str, float], value: str) -> float | None:
    """Of a value, under whatever spelling a term of the same meaning has; None where no term means it."""
    term = term_of(field, probabilities, value)
    return None if term is None else probabilities[term]


def event_probabilities(prediction: Prediction, names: Sequence[str]) -> Mapping[str, float] | None:
    """By event, of these in this order; of two events the first one's probability does. None: it gives none."""
    if prediction.event_probabilities:
        return {name: prediction.event_probabilities.get(name, 0.0) for name in names}
    first = prediction.event_probability
    return None if first is None or len(names) != 2 else {names[0]: first, names[1]: 1 - first}


def term_of(field: Field, probabilities: Mapping[str, float], value: str) -> str | None:
    """The term that a value is, or means; None: none of them."""
    if value in probabilities:
        return value
    wanted = _comparable(field, value)
    return next((term for term in probabilities if _comparable(field, term) == wanted), None)


def tempered(probabilities: Mapping[str, float], temperature: float | None) -> Mapping[str, float]:
    """To the power of 1 / temperature, summing to 1 again; as they are without one.

    >>> {term: round(p, 3) for term, p in tempered({"Clear": 0.8, "Rainy": 0.2}, 2.0).items()}
    {'Clear': 0.667, 'Rainy': 0.333}
    """
    most = max(probabilities.values(), default=0.0)
    if temperature is None or most <= 0:
        return probabilities
    powers = {term: (max(p, 0.0) / most) ** (1 / temperature) for term, p in probabilities.items()}
    total = sum(powers.values())
    return {term: power / total for term, power in powers.items()}


_comparable = lru_cache(maxsize=100_000)(comparable)


def shown_probabilities(clip: ScoredClip, field: Field, temperature: float | None = None) -> dict[str, float] | None:
    """The same for records.json: what is above LEAST, the most probable first, in four digits."""
    found = term_probabilities(clip, field)
    if found is None:
        return None
    all_terms = tempered(found, temperature).items()
    kept = sorted(((p, term) for term, p in all_terms if p >= LEAST), key=lambda pair: (-pair[0], pair[1]))
    return {term: round(p, 4) for p, term in kept}
