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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from vlm_crash.schema.mirror import Mirror
from vlm_crash.schema.yaml_form import parse_yaml

Verdict = Literal["same", "swapped"]
_MOST_WORDS = 9  # between a verb and its object: "cut in from the left lane right in front of the van"
_MOST_WORDS_TO_IS = 2  # "was then suddenly hit"
_MOST_WORDS_TO_BY = 6  # "hit in the right rear corner by the van"
_PASSIVE, _ACTIVE = "passive", "active"


@dataclass(frozen=True)
class Facet:
    """One thing that both texts say, in one way each.

    Attributes:
        name: "who hits", "side", "end" or "party".
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
    # That both speak of some other vehicle is nothing that could have been swapped.
    return [facet for facet in facets if not (facet.name == "party" and facet.truth == facet.answer == "vehicle")]


def roles_verdict(facets: Sequence[Facet]) -> Verdict | None:
    """Of all facets of a pair of texts: one that is swapped decides; None: cannot tell."""
    if not facets:
        return None
    return "swapped" if any(facet.verdict == "swapped" for facet in facets) else "same"


def facets_of(text: str, mirror: Mirror | None = None) -> dict[str, frozenset[str]]:
    """What a text says, facet by facet; a facet that it says in two ways has both.

    >>> facets_of("The truck cut in and struck the rear bumper of our car.")
    {'who cuts in or leaves its lane': frozenset({'other'}), 'who hits': frozenset({'other'}), \
'end': frozenset({'rear'}), 'party': frozenset({'vehicle'})}
    """
    found: dict[str, set[str]] = defaultdict(set)
    parties: set[str] = set()
    for sentence in re.split(r"[.;!?\n]+", text):
        words = list(_items(sentence))
        parties |= {item.name for item in words if item.kind == "party"}
        for name, way in _actions(words):
            found[name].add(way)
    others = parties - {"ego", "any"}
    if "ego" not in parties or len(parties) < 2:
        # Without both parties nothing is said of which of the two does it.
        found = defaultdict(set, {name: ways for name, ways in found.items() if name.startswith("who of ")})
    ends = {end for end, pattern in _tables().ends.items() if pattern.search(text)}
    sides = mirror.sides(text) if mirror is not None else frozenset()
    for name, ways in (("side", sides), ("end", ends), ("party", others)):
        found[name] |= ways
    return {name: frozenset(ways) for name, ways in found.items() if ways}


@dataclass(frozen=True)
class _Item:
    """A word or wording of the tables in a sentence, by the number of its first and last word."""

    kind: str
    name: str
    first: int
    last: int
    forms: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class _Tables:
    pattern: re.Pattern[str]
    items: Mapping[str, tuple[str, str, frozenset[str]]]
    ends: Mapping[str, re.Pattern[str]]


@cache
def _tables() -> _Tables:
    """roles.yaml as one pattern of all its wordings."""
    text = (resources.files("vlm_crash.metrics") / "roles.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = parse_yaml(text)
    items: dict[str, tuple[str, str, frozenset[str]]] = {}
    for kind in ("bounds", "joins", "both", "is", "by", "pronouns", "denials"):
        items |= {wording: (kind, wording, frozenset()) for wording in data[kind]}
    items |= {wording: ("party", "ego", frozenset()) for wording in data["ego"]}
    items |= {w: ("party", party, frozenset()) for party, wordings in data["parties"].items() for w in wordings}
    for family, forms in data["actions"].items():
        for wording in {*forms[_ACTIVE], *forms.get(_PASSIVE, ())}:
            has = frozenset(form for form in (_ACTIVE, _PASSIVE) if wording in forms.get(form, ()))
            items[wording] = ("action", family, has)
    ends = {end: re.compile(rf"\b(?:{_any_of(wordings)})\b", re.IGNORECASE) for end, wordings in data["ends"].items()}
    return _Tables(re.compile(rf"(?<![\w-])(?:{_any_of(items)})(?![\w-])"), items, ends)


def party_words() -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern of every wording of a party, and the party of each."""
    party_of = {wording: name for wording, (kind, name, _) in _tables().items.items() if kind == "party"}
    return re.compile(rf"(?<![\w-])(?:{_any_of(party_of)})(?![\w-])", re.IGNORECASE), party_of


def ends_of_parts() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of the wordings of a front and of a rear."""
    return _tables().ends["front"], _tables().ends["rear"]


def _any_of(wordings: Any) -> str:
    return "|".join(re.escape(wording) for wording in sorted(wordings, key=len, reverse=True))


def _items(sentence: str) -> Iterator[_Item]:
    """What the tables know of a sentence, in order; a comma joins as "and" does."""
    tables = _tables()
    text = sentence.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("'s ", " ")
    text = re.sub(r"n't\b", " not", text)
    for found in re.finditer(rf"{tables.pattern.pattern}|,", text):
        first = len(text[: found.start()].split())
        last = first + max(len(found[0].split()), 1) - 1
        kind, name, forms = tables.items.get(found[0], ("joins", ",", frozenset()))
        yield _Item(kind, name, first, last, forms)


def _actions(items: Sequence[_Item]) -> Iterator[tuple[str, str]]:
    """(facet, who acts) for each action whose actor the sentence names."""
    for place, item in enumerate(items):
        if item.kind != "action":
            continue
        subjects, is_passive = _before(items, place)
        if subjects is None:
            continue
        after, by = _after(items, place)
        actors, target = (by, subjects) if is_passive else (subjects, after)
        actors = actors or _other_than(target)
        for actor in actors:
            yield f"who {item.name}", "ego" if actor == "ego" else "other"
        known = [*actors, *target]
        if len(actors) == len(target) == 1 and not {"ego", "any"} & set(known) and actors != target:
            yield f"who of {' and '.join(sorted(known))} {item.name}", next(iter(actors))


def _other_than(target: frozenset[str]) -> frozenset[str]:
    """Who acts where only the ego vehicle is named, and as the one to whom it is done."""
    return frozenset({"any"}) if target == {"ego"} else frozenset()


def _before(items: Sequence[_Item], place: int) -> tuple[frozenset[str] | None, bool]:
    """Who stands before an action as its subject, and whether it is passive; None: it is denied, or nobody can say."""
    action = items[place]
    before = [*items[:place]]
    is_passive = False
    if before and before[-1].kind == "is" and action.first - before[-1].last <= _MOST_WORDS_TO_IS + 1:
        is_passive = _PASSIVE in action.forms
        before.pop()
    if _PASSIVE in action.forms and _is_followed_by_by(items, place):
        is_passive = True
    clause: list[_Item] = []
    for item in reversed(before):
        if item.kind == "bounds":
            break
        clause.insert(0, item)
    if any(item.kind == "denials" for item in clause[-2:]):
        return None, is_passive
    return _subject(clause), is_passive


def _subject(clause: Sequence[_Item]) -> frozenset[str] | None:
    """The parties that a clause names before its verb; two only where they are joined; empty: it names none."""
    if not clause:
        return frozenset()
    parties = [item for item in clause if item.kind in ("party", "pronouns")]
    if not parties:
        return frozenset()
    last = clause[-1]
    if last.kind in ("joins", "is") or any(item.kind == "action" for item in clause):
        # "X passed Y and hit ...": the subject is the first one, which is sure only where it is the only one.
        names = {item.name if item.kind == "party" else "it" for item in parties}
        return None if len(names) > 1 or "it" in names else frozenset(names)
    if parties[-1].kind == "pronouns":
        return None
    place = clause.index(parties[-1])
    others = clause[: place - 1] if clause[place - 1].name == "and" else []
    if any(item.kind == "both" for item in clause) or (others and others[-1].last + 1 == clause[place - 1].first):
        return frozenset(item.name for item in parties if item.kind == "party")
    return frozenset({parties[-1].name})


def _is_followed_by_by(items: Sequence[_Item], place: int) -> bool:
    for item in items[place + 1 :]:
        if item.kind == "by":
            return item.first - items[place].last <= _MOST_WORDS_TO_BY + 1
        if item.kind in ("party", "action", "bounds", "joins"):
            return False
    return False


def _after(items: Sequence[_Item], place: int) -> tuple[frozenset[str], frozenset[str]]:
    """The party to which it is done, and the one "by" which."""
    by = False
    for item in items[place + 1 :]:
        if item.kind == "by":
            by = True
        elif item.kind == "party" and item.first - items[place].last <= _MOST_WORDS + 1:
            names = frozenset({item.name})
            return (frozenset(), names) if by else (names, frozenset())
        elif item.kind != "is":
            break
    return frozenset(), frozenset()
