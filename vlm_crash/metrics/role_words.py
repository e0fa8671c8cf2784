"""The words of roles.yaml in a text: parties, actions, ends of a vehicle, and the small words between them.

Enters: a sentence. Leaves: its known words in order, as items. Must hold: the longest wording wins, so that
"in front of" is a place and no front; and a word that does not act ("the turning van") is no action.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from vlm_crash.schema.yaml_form import parse_yaml

PASSIVE, ACTIVE = "passive", "active"
_ARTICLES = frozenset({"the", "a", "an", "another", "other", "oncoming", "slowly"})
_PLACED = frozenset({"in", "on", "at", "to", "from", "into"})
_ROADS = re.compile(r"\b(?:US|I)[ -](?=\d|[Hh]ighway|[Rr]oute)")  # neither "us" nor "I"
_POSSESSIVES = frozenset({"its", "their", "his", "her"})
_DETERMINERS = _POSSESSIVES | {"the"}
# "collided" says of neither that it hit the other, unless one comes from behind.
_FROM_BEHIND = re.compile(r"\bcollid(?:ed|es|ing) with (?=[^,]{1,60}? from (?:behind|the rear)\b)")


@dataclass(frozen=True)
class Item:
    """A word or wording of the tables in a sentence.

    Attributes:
        kind: the table it stands in: "party", "action", "end", "joins", ...
        name: the party (a vehicle by its sort), the family of an action, the end, or the wording itself.
        first, last: the numbers of its first and last word.
        forms: of an action "active" and "passive"; of an end how it stands: "of" (of whom follows), "at" (the place of
            a hit), "with" (what somebody hits with), "its" (of somebody named before).
    """

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
    sorts: frozenset[str]
    faults: frozenset[str]


@cache
def _data() -> dict[str, Any]:
    text = (resources.files("vlm_crash.metrics") / "roles.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = parse_yaml(text)
    return data


@cache
def _tables() -> _Tables:
    """roles.yaml as one pattern of all its wordings."""
    data = _data()
    items: dict[str, tuple[str, str, frozenset[str]]] = {}
    for kind in ("bounds", "joins", "both", "is", "by", "pronouns", "denials", "places"):
        items |= {wording: (kind, wording, frozenset()) for wording in data[kind]}
    items |= {wording: ("party", "ego", frozenset()) for wording in data["ego"]}
    for parties in (data["parties"], data["vehicles"]):
        items |= {w: ("party", party, frozenset()) for party, wordings in parties.items() for w in wordings}
    for family, forms in data["actions"].items():
        for wording in {*forms[ACTIVE], *forms.get(PASSIVE, ())}:
            has = frozenset(form for form in (ACTIVE, PASSIVE) if wording in forms.get(form, ()))
            items[wording] = ("action", family, has)
    ends: dict[str, re.Pattern[str]] = {}
    for end, wordings in data["ends"].items():
        for wording in wordings:
            items[f"{wording} of"] = ("end", end, frozenset({"of"}))
            if not wording.endswith(" of"):
                items[wording] = ("end", end, frozenset())
        items |= {f"~{word}": ("end", end, frozenset()) for word in data["bare_ends"][end]}
        items |= {f"{word} of": ("end", end, frozenset({"of"})) for word in data["bare_ends"][end]}
        bare = _any_of(data["bare_ends"][end])
        either = rf"\b(?:{_any_of(wordings)}|(?<!in )(?:{bare}) of)\b|(?:'s|\bmy|\bour) (?:{bare})\b"
        ends[end] = re.compile(either, re.IGNORECASE)
    pattern = re.compile(rf"(?<![\w-])(?:{_any_of(items)})(?![\w-])")
    return _Tables(pattern, items, ends, frozenset(data["vehicles"]), frozenset(data["faults"]))


def items_of(sentence: str) -> Iterator[Item]:
    """What the tables know of a sentence, in order; a comma joins as "and" does."""
    tables = _tables()
    text = _ROADS.sub("route ", sentence).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = re.sub(r"'s ", " ~", re.sub(r"\b(my|our) (front|rear|back)\b", r"\1 ~\2", text))
    text = _FROM_BEHIND.sub("hit ", re.sub(r"n't\b", " not", text))
    for found in re.finditer(rf"{tables.pattern.pattern}|,", text):
        before = text[: found.start()].split()
        kind, name, forms = tables.items.get(found[0], ("joins", ",", frozenset()))
        if kind == "action" and found[0].split()[0].endswith("ing") and before[-1:] and before[-1] in _ARTICLES:
            continue
        if kind == "end":
            forms |= _place_of_end(before, found[0])
        first = len(before)
        if before and text[found.start() - 1] == "~":
            first -= 1  # "~" and its word are one
        yield Item(kind, name, first, first + max(len(found[0].split()), 1) - 1, forms)


def _place_of_end(before: list[str], wording: str) -> frozenset[str]:
    if wording.split()[0] in _PLACED:
        return frozenset({"at"})
    words = [*before]
    forms = {"its"} if {wording.split()[0], *words[-1:]} & _POSSESSIVES else set()
    while words and words[-1] in _DETERMINERS:
        words.pop()
    if words and (words[-1] == "with" or words[-1] in _PLACED):
        forms.add("with" if words[-1] == "with" else "at")
    return frozenset(forms)


def kind_of_party(name: str) -> str:
    """Of a party's name its kind: each sort of vehicle is a vehicle."""
    return "vehicle" if name in _tables().sorts else name


def is_fault(family: str) -> bool:
    """Whether an action says of a sentence's only party that it, and not the other one, did it."""
    return family in _tables().faults


def party_words() -> tuple[re.Pattern[str], dict[str, str]]:
    """A pattern of every wording of a party, and the party of each."""
    party_of = {wording: name for wording, (kind, name, _) in _tables().items.items() if kind == "party"}
    return re.compile(rf"(?<![\w-])(?:{_any_of(party_of)})(?![\w-])", re.IGNORECASE), party_of


@cache
def side_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a left or right before a thing ("left-hand kerb": group 1), and after a verb (group 2)."""
    data = _data()
    nouns, verbs = (_any_of(data[name]) for name in ("side_nouns", "side_verbs"))
    of_noun = rf"\b(left|right)(?:[- ]?most)?(?:[- ]hand)?[- ](?=(?:{nouns})\b)"
    return re.compile(of_noun, re.IGNORECASE), re.compile(
        rf"\b({verbs}) (left|right)\b(?! (?:of|in|at)\b)", re.IGNORECASE
    )


@cache
def opposite_patterns() -> dict[str, list[tuple[re.Pattern[str], str]]]:
    """By facet its two ways: a pattern of the wordings of each, and its name, which is the first of them."""
    return {
        name: [(re.compile(rf"(?<![\w-])(?:{_any_of(way)})(?![\w-])", re.IGNORECASE), way[0]) for way in ways]
        for name, ways in _data()["opposites"].items()
    }


def ends_of_parts() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of the wordings of a front and of a rear."""
    return _tables().ends["front"], _tables().ends["rear"]


def _any_of(wordings: Iterable[str]) -> str:
    return "|".join(re.escape(wording) for wording in sorted(wordings, key=len, reverse=True))
