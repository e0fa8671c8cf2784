"""Who does what in a sentence: the subject or the "by" of each action, and the one to whom it is done.

Enters: the items of a sentence. Leaves: per action its actors and its target. Must hold: where nobody can say which of
two parties acts, or an action is denied, none does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlm_crash.metrics.role_words import PASSIVE, Item

_MOST_WORDS = 9  # between a verb and its object: "cut in from the left lane right in front of the van"
_MOST_WORDS_TO_IS = 2  # "was then suddenly hit"
_MOST_WORDS_TO_BY = 6  # "hit in the right rear corner by the van"


@dataclass(frozen=True)
class Action:
    """An action whose actor or target the sentence names.

    Attributes:
        family: which action, as in roles.yaml.
        actors, target: the parties that do it, and to whom it is done; "any" is some party of no kind.
        is_passive: it is told of the target.
        first, last: the numbers of its first and last word.
    """

    family: str
    actors: frozenset[str]
    target: frozenset[str]
    is_passive: bool
    first: int
    last: int


def actions_of(items: Sequence[Item]) -> Iterator[Action]:
    """The actions of a sentence; those that are denied, or have a subject that is in doubt, are left out."""
    for place, item in enumerate(items):
        if item.kind != "action":
            continue
        subjects, is_passive = _before(items, place)
        if subjects is None:
            continue
        after, by = _after(items, place)
        actors, target = (by, subjects) if is_passive else (subjects, after)
        yield Action(item.name, actors or _other_than(target), target, is_passive, item.first, item.last)


def told_of(action: Action) -> Iterator[tuple[str, str]]:
    """(facet, who acts): of ego and the other, and of two others by their names."""
    for actor in action.actors:
        yield f"who {action.family}", "ego" if actor == "ego" else "other"
    known = [*action.actors, *action.target]
    one_each = len(action.actors) == len(action.target) == 1
    if one_each and not {"ego", "any"} & set(known) and action.actors != action.target:
        yield f"who of {' and '.join(sorted(known))} {action.family}", next(iter(action.actors))


def _other_than(target: frozenset[str]) -> frozenset[str]:
    """Who acts where only the ego vehicle is named, and as the one to whom it is done."""
    return frozenset({"any"}) if target == {"ego"} else frozenset()


def _before(items: Sequence[Item], place: int) -> tuple[frozenset[str] | None, bool]:
    """Who stands before an action as its subject, and whether it is passive; None: it is denied, or nobody can say."""
    action = items[place]
    before = [*items[:place]]
    is_passive = False
    if before and before[-1].kind == "is" and action.first - before[-1].last <= _MOST_WORDS_TO_IS + 1:
        is_passive = PASSIVE in action.forms
        before.pop()
    if PASSIVE in action.forms and _is_followed_by_by(items, place):
        is_passive = True
    clause: list[Item] = []
    for item in reversed(before):
        if item.kind == "bounds":
            break
        clause.insert(0, item)
    if any(item.kind == "denials" for item in clause[-2:]):
        return None, is_passive
    return _subject(clause), is_passive


def _subject(clause: Sequence[Item]) -> frozenset[str] | None:
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


def _is_followed_by_by(items: Sequence[Item], place: int) -> bool:
    for item in items[place + 1 :]:
        if item.kind == "by":
            return item.first - items[place].last <= _MOST_WORDS_TO_BY + 1
        if item.kind in ("party", "action", "bounds", "joins"):
            return False
    return False


def _after(items: Sequence[Item], place: int) -> tuple[frozenset[str], frozenset[str]]:
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
