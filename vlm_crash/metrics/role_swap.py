"""Texts with their roles swapped by rule: what a score of roles must notice, and a cosine hardly does.

Enters: a free text. Leaves: counterfactual texts by what was swapped; none where the text has nothing to swap.
"""

from __future__ import annotations

import re

from vlm_crash.metrics.role_words import ends_of_parts, party_words
from vlm_crash.schema.mirror import Mirror


def counterfactuals(text: str, mirror: Mirror | None = None) -> dict[str, str]:
    """The text with one thing swapped in all places: "who" does it, "side", "end", "party".

    >>> found = counterfactuals("The van struck the rear bumper of the ego vehicle.")
    >>> found["who"], found["end"]
    ('The ego vehicle struck the rear bumper of the van.', 'The van struck the front bumper of the ego vehicle.')
    """
    made = {
        "who": _who(text),
        "side": mirror.text(text) if mirror is not None else None,
        "end": _ends(text),
        "party": _parties(text),
    }
    return {kind: new for kind, new in made.items() if new is not None and new != text}


def _who(text: str) -> str | None:
    """The ego vehicle and the only other party take each other's place."""
    pattern, party_of = party_words()
    found = [match[0] for match in pattern.finditer(text)]
    egos = {word for word in found if party_of[word.casefold()] == "ego"}
    others = set(found) - egos
    if len({word.casefold() for word in egos}) != 1 or len({word.casefold() for word in others}) != 1:
        return None
    ego, other = min(egos).casefold(), min(others)
    if ego in ("we", "us", "i", "me", "my", "our"):
        return None  # another grammar
    return pattern.sub(lambda match: other if party_of[match[0].casefold()] == "ego" else ego, text)


def _ends(text: str) -> str | None:
    """Front and rear of a vehicle's parts; "in front of" is a place and stays."""
    front, rear = ends_of_parts()

    def swap(match: re.Match[str]) -> str:
        return re.sub(r"front|rear", _turned, match[0], flags=re.IGNORECASE)

    return re.sub(f"{front.pattern}|{rear.pattern}", swap, text, flags=re.IGNORECASE)


def _turned(word: re.Match[str]) -> str:
    other = "rear" if word[0].casefold() == "front" else "front"
    return other.capitalize() if word[0][0].isupper() else other


def _parties(text: str) -> str | None:
    """A pedestrian becomes a cyclist, and a cyclist a pedestrian."""
    other = {"pedestrian": "cyclist", "pedestrians": "cyclists"}
    other |= {cyclist: pedestrian for pedestrian, cyclist in other.items()}

    def swap(match: re.Match[str]) -> str:
        word = other[match[0].casefold()]
        return word.capitalize() if match[0][0].isupper() else word

    return re.sub(rf"\b(?:{'|'.join(sorted(other, key=len, reverse=True))})\b", swap, text, flags=re.IGNORECASE)
