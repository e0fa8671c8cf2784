"""Whether two texts about one event give the same roles: who hits whom, left or right, front or rear, which party.

Enters: the truth's text and the answer's. Leaves: per facet "same", "swapped" or nothing, which is "cannot tell".
Must hold: nothing is called swapped unless both texts have the facet, each in one way only, and the two ways differ.
A sentence embedding hardly sees such a swap: the words stay, only their places change.

The words are those of roles.yaml; left and right those of the schema's `mirror`. English, by rules, no parser: a
sentence that the rules do not read says nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vlm_crash.metrics.role_actions import actions_of, told_of
from vlm_crash.metrics.role_places import ends_told, opposites_told, sides_told
from vlm_crash.metrics.role_words import is_fault, items_of, kind_of_party, opposite_patterns
from vlm_crash.schema.mirror import Mirror

Verdict = Literal["same", "swapped"]
_PLACES = ("side", "end", "end of it", "end of ego", "end of the other")


@dataclass(frozen=True)
class Facet:
    """One thing that both texts say, in one way each.

    Attributes:
        name: "who hits", "side", "end", "end of ego", "party" and the like.
        truth, answer: what each says.
    """

    name: str
    truth: str
    answer: str

    @property
    def verdict(self) -> Verdict:
        return "same" if self.truth == self.answer else "swapped"

    def __str__(self) -> str:
        return f"{self.name}: {self.truth} in the truth, {self.answer} in the answer"


def compare_roles(truth: str, answer: str, mirror: Mirror | None = None) -> list[Facet]:
    """The facets that can be told, in both texts.

    Args:
        truth, answer: free texts.
        mirror: the schema's table of left and right; None: sides are not told.

    >>> [str(facet) for facet in compare_roles("The van hit the ego vehicle.", "The ego vehicle was hit by a van.")]
    ['who hits: other in the truth, other in the answer']
    >>> [str(facet) for facet in compare_roles("The van hit the ego vehicle.", "The ego vehicle hit a cyclist.")]
    ['who hits: other in the truth, ego in the answer', 'party: vehicle in the truth, cyclist in the answer']
    >>> compare_roles("They collided.", "The ego vehicle hit a van.")
    []
    """
    told, said = facets_of(truth, mirror), facets_of(answer, mirror)
    facets = [
        Facet(name, *ways, *said[name])
        for name, ways in told.items()
        if len(ways) == 1 and len(said.get(name, ())) == 1
    ]
    is_blurred = any(len(told.get(name, ())) > 1 and len(said.get(name, ())) > 1 for name in _PLACES)
    if is_blurred and truth != answer and roles_verdict(facets) == "same":
        # Which left or front is whose can have been swapped: that the rest agrees does not make it right.
        return []
    # That both speak of some other vehicle is nothing that could have been swapped, and that both name the car ahead or
    # the nearside says nothing of who did what.
    weak = {"party": {"vehicle"}} | {name: {way for _, way in ways} for name, ways in opposite_patterns().items()}
    return [f for f in facets if f.verdict == "swapped" or f.truth not in weak.get(f.name, ())]


def _walks(parties: set[str]) -> str:
    """What "a woman" is: who rides something, if the text names one such thing, else somebody on foot."""
    rides = parties & {"cyclist", "motorcycle", "e-scooter", "skater"}
    return next(iter(rides)) if len(rides) == 1 and "pedestrian" not in parties else "pedestrian"


def roles_verdict(facets: Sequence[Facet]) -> Verdict | None:
    """Of all facets of a pair of texts: one that is swapped decides; None: cannot tell."""
    if not facets:
        return None
    return "swapped" if any(facet.verdict == "swapped" for facet in facets) else "same"


def facets_of(text: str, mirror: Mirror | None = None) -> dict[str, frozenset[str]]:
    """What a text says, facet by facet; a facet that it says in two ways has both.

    >>> facets_of("The truck cut in and struck the rear bumper of our car.")
    {'who cuts in or leaves its lane': frozenset({'other'}), 'who hits': frozenset({'other'}), \
'end of ego': frozenset({'rear'}), 'party': frozenset({'vehicle'})}
    """
    found: dict[str, set[str]] = defaultdict(set)
    alone: dict[str, set[str]] = defaultdict(set)
    parties: set[str] = set()
    sentences = [list(items_of(sentence)) for sentence in re.split(r"[.;!?\n]+", text)]
    walks = _walks({item.name for items in sentences for item in items if item.kind == "party"})
    for unnamed in sentences:
        items = [replace(item, name=walks) if item.name == "person" else item for item in unnamed]
        parties |= {item.name for item in items if item.kind == "party"}
        words = [item for item in items if item.kind not in ("end", "places")]
        actions = list(actions_of(words))
        for action in actions:
            for name, way in told_of(action):
                found[name].add(way)
                if name.startswith("who of ") or is_fault(action.family) or action.target == {"ego"}:
                    alone[name].add(way)
        for name, way in ends_told(items, actions):
            found[name].add(way)
    if "ego" not in parties or len(parties) < 2:
        # Without both parties only a fault, or a hit that ego took, says which of the two does it.
        found = defaultdict(set, {n: w for n, w in found.items() if not n.startswith("who ")} | alone)
    for name, way in (*sides_told(text, mirror), *opposites_told(text)):
        found[name].add(way)
    found["party"] |= {kind_of_party(name) for name in parties - {"ego", "any"}}
    return {name: frozenset(ways) for name, ways in found.items() if ways}
