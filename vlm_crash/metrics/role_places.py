"""Where on a vehicle, and on which side: ends bound to whose they are, sides to what happens there.

Enters: the items and actions of a sentence; a text. Leaves: (facet, way). Must hold: "the front of the van" is
never held against "the front of the ego vehicle", nor the side of a turn against the side of a hit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vlm_crash.metrics.role_actions import Action
from vlm_crash.metrics.role_words import Item, items_of, opposite_patterns, side_patterns
from vlm_crash.schema.mirror import Mirror

_MOST_WORDS_TO_OWNER = 4  # "the rear bumper of the small black van"
_CLAUSES = re.compile(
    r"[.;!?,\n]+|\b(?:and|then|when|while|because|as|after|before|since|until|but|where|who|which|that)\b"
)


def ends_told(items: Sequence[Item], actions: Sequence[Action]) -> Iterator[tuple[str, str]]:
    """("end of ego", "end of the other", "end of it" or "end", "front" or "rear"): of nobody named it is "end"."""
    for place, item in enumerate(items):
        if item.kind != "end":
            continue
        owner = _owner(items, place, actions)
        if owner is not None:
            yield f"end of {'ego' if owner == 'ego' else 'the other'}", item.name
        elif "with" not in item.forms:  # "with its front": whose, is not looked up
            yield "end of it" if "its" in item.forms else "end", item.name


def _owner(items: Sequence[Item], place: int, actions: Sequence[Action]) -> str | None:
    item = items[place]
    before = items[place - 1] if place else None
    after = items[place + 1] if place + 1 < len(items) else None
    if "of" in item.forms:
        is_near = after is not None and after.kind == "party" and after.first - item.last <= _MOST_WORDS_TO_OWNER
        return after.name if after is not None and is_near else None
    is_next = before is not None and before.kind == "party" and item.first - before.last == 1
    if "at" not in item.forms:
        return before.name if before is not None and is_next else None
    # "hit the van from behind", "was hit in the rear": it is the end of whom it is done to.
    last = next((other.last for other in reversed(items[:place]) if other.kind == "action"), None)
    targets = [action.target for action in actions if action.last == last and action.family == "hits"]
    return next(iter(targets[0])) if targets and len(targets[0]) == 1 else None


def opposites_told(text: str) -> Iterator[tuple[str, str]]:
    """(facet, way) of the pairs of roles.yaml that are no left and right of the schema, each where one way is said.

    >>> list(opposites_told("The offside door of the car ahead"))
    [('near or off side', 'offside'), ('ahead or behind', 'car ahead')]
    """
    for name, patterns in opposite_patterns().items():
        said = [pattern.search(text) is not None for pattern, _ in patterns]
        if sum(said) == 1:
            yield name, patterns[said.index(True)][1]


def sides_told(text: str, mirror: Mirror | None) -> Iterator[tuple[str, str]]:
    """("side", "left" or "right"); where a text has both, also of each clause that has one, by what is done in it."""
    nouns, verbs = side_patterns()
    text = verbs.sub(r"\1 to the \2", nouns.sub(r"\1 side ", text))
    sides = mirror.sides(text) if mirror is not None else frozenset()
    yield from (("side", side) for side in sorted(sides))
    if mirror is None or len(sides) < 2:
        return
    for clause in _CLAUSES.split(text.casefold()):
        families = {item.name for item in items_of(clause) if item.kind == "action"}
        here = mirror.sides(clause)
        if len(here) == len(families) == 1:
            what = "lane" if re.search(r"\blanes?\b", clause) else "side"
            yield f"{what} where one {next(iter(families))}", next(iter(here))
