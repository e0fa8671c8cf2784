"""What a record says of a mirrored clip: left is right, and right is left.

Enters: the table `mirror` of a schema, a record. Leaves: the mirrored record, or None. Must hold: nothing is guessed. A
"left" that is no side ("left its lane") stays, and where the table does not know which it is, there is no mirrored
record; mirrored twice, a record is what it was, or in doubt: "turned left in front of us" is sure, and "turned right in
front of us" may mean "directly".
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from vlm_crash.schema.side_words import KEEP, PAIR, UNSURE, Found, SideWords, expanded
from vlm_crash.schema.wording import normal_form
from vlm_crash.schema.yaml_form import is_closed

if TYPE_CHECKING:
    from vlm_crash.schema.fields import Schema
    from vlm_crash.schema.records import VideoSample

KEYS = ("pairs", "keeps", "unsure")


@dataclass(frozen=True)
class Mirror:
    """A schema's table of sides.

    Attributes:
        pairs: terms and wordings that take each other's place.
        keeps: wordings that have such a word in them, and mean no side.
        unsure: wordings that mean a side or not; one that is in none of the others' leaves a text in doubt.
    """

    pairs: tuple[tuple[str, str], ...]
    keeps: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()

    def text(self, text: str) -> str | None:
        """The text with its sides swapped; None where a word may be a side or not.

        >>> mirror = Mirror((("left lane", "right lane"),), ("right in front", "bright*"), ("*left*", "*right*"))
        >>> mirror.text("It cut in from the Left lane right in front, its lights bright.")
        'It cut in from the Right lane right in front, its lights bright.'
        >>> mirror.text("It left.") is None, mirror.text("on the leftside") is None
        (True, True)
        """
        words, found = self._words.found(text)
        if _in_doubt(found):
            return None
        try:
            swapped = [part for one in found if one.kind == PAIR for part in _swapped(text, words, one)]
        except _OddSpelling:
            return None
        made, end = [], 0
        for part in sorted(set(swapped)):  # wordings that share a word say the same of it, or it is in doubt
            if part.start < end:
                return None
            made += [text[end : part.start], part.new]
            end = part.end
        return "".join([*made, text[end:]])

    def sides(self, text: str) -> frozenset[str]:
        """Which of the two sides a text names; none where a word may be a side or not.

        They are called by the first two of `unsure`, where there are two, else by their place in the pairs.

        >>> mirror = Mirror((("left lane", "right lane"),), ("right in front",), ("left", "right"))
        >>> sorted(mirror.sides("From the left lane, right in front.")), sorted(mirror.sides("It left the left lane."))
        (['left'], [])
        """
        _words, found = self._words.found(text)
        if _in_doubt(found):
            return frozenset()
        names = [word.strip("*") for word in self.unsure[:2]] if len(self.unsure) > 1 else ["first", "second"]
        return frozenset(names[one.side] for one in found if one.kind == PAIR)

    @cached_property
    def _words(self) -> SideWords:
        return SideWords(self.pairs, {KEEP: self.keeps, UNSURE: self.unsure})


class _Swapped(NamedTuple):
    """A part of a text, and what stands there in the mirrored one."""

    start: int
    end: int
    new: str


def _in_doubt(found: Sequence[Found]) -> bool:
    """Whether a wording is unsure, or a word is a side by one wording and none by another ("turned right behind")."""
    if any(one.kind == UNSURE for one in found):
        return True
    return any(
        one.kind == PAIR and other.kind == KEEP and one.first <= other.last and other.first <= one.last
        for one in found
        for other in found
    )


def _swapped(text: str, words: Sequence[re.Match[str]], one: Found) -> list[_Swapped]:
    said = words[one.first : one.last + 1]
    if len(said) != len(one.other):
        start, end = said[0].start(), said[-1].end()
        return [_Swapped(start, end, _spelt_as(text[start:end], " ".join(one.other)))]
    # Word by word: of "from the Left" the second is kept as it stands.
    return [
        _Swapped(word.start(), word.end(), _spelt_as(word[0], new))
        for word, new in zip(said, one.other, strict=True)
        if word[0].casefold() != new.casefold()
    ]


class _OddSpelling(ValueError):
    """A word is written in a way that its counterpart could not be written back from."""


def _spelt_as(said: str, other: str) -> str:
    for way in (str.lower, str.upper, str.capitalize):
        if way(said) == said:
            return way(other)
    raise _OddSpelling


def mirrored(schema: Schema, sample: VideoSample) -> VideoSample | None:
    """A sample of the mirrored clip; None where what is said of it leaves a side in doubt.

    The question stays: it asks the same of every clip.
    """
    assert schema.mirror is not None
    annotation, answer = sample.annotation, sample.answer
    if annotation is not None:
        swapped = {name: schema.mirror.text(value) for name, value in annotation.values.items()}
        values = {name: value for name, value in swapped.items() if value is not None}
        if len(values) < len(swapped):
            return None
        annotation = dataclasses.replace(annotation, values=values)
    if answer is not None and (answer := schema.mirror.text(answer)) is None:
        return None
    return dataclasses.replace(sample, annotation=annotation, answer=answer)


# ----------------------------------------------------------------------------------------------------- the YAML's form


def mirror_of(entry: Mapping[str, Any] | None) -> Mirror | None:
    """The table from its form in the YAML."""
    if not entry:
        return None
    pairs = tuple((pair[0], pair[1]) for pair in entry["pairs"])
    return Mirror(pairs, tuple(entry.get("keeps") or ()), tuple(entry.get("unsure") or ()))


def mirror_entry(mirror: Mirror) -> dict[str, list[Any]]:
    """The inverse of `mirror_of`."""
    return {"pairs": [list(pair) for pair in mirror.pairs], "keeps": list(mirror.keeps), "unsure": list(mirror.unsure)}


def mirror_problems(entry: object, fields: Mapping[str, Any]) -> Iterator[str]:
    """All problems of a table as it stands in the YAML."""
    if not isinstance(entry, Mapping):
        yield "mirror: it is no mapping; give pairs, keeps and unsure, as in crash.yaml"
        return
    yield from (f"mirror.{key}: unknown key; allowed: {', '.join(KEYS)}" for key in entry if key not in KEYS)
    for key in ("keeps", "unsure"):
        if not _is_list(entry.get(key) or [], str):
            yield f"mirror.{key}: it is no list of texts; write [first, second]"
    pairs = entry.get("pairs")
    if not pairs or not _is_list(pairs, list) or not all(len(pair) == 2 and _is_list(pair, str) for pair in pairs):
        yield "mirror.pairs: it is no list of pairs; write [[left lane, right lane], ...]"
        return
    every: list[tuple[str, str]] = []
    for pair in pairs:
        both = [expanded(wording) for wording in pair]
        if len(both[0]) != len(both[1]) or any(set("()|*") & set(wording) for wording in both[0] + both[1]):
            yield (
                f"mirror.pairs: {pair[0]!r} and {pair[1]!r} are no pair: as many (a|b), with as many words, must stand "
                "in both, and no *"
            )
        else:
            every += zip(*both, strict=True)
    for word, count in Counter(word.casefold() for pair in every for word in pair).items():
        if count > 1:
            yield f"mirror.pairs: {word!r} stands in it twice; leave one"
    mirror = Mirror(tuple(every))
    for name, field in fields.items():
        # What an open field has beside these, its dataset decides.
        terms = (field.get("vocabulary") or []) if isinstance(field, Mapping) and is_closed(field) else []
        forms = {normal_form(str(term)) for term in terms}
        for term in map(str, terms):
            if (other := mirror.text(term)) is not None and normal_form(other) not in forms:
                yield f"mirror.pairs: {term!r} is a term of {name}, and {other!r} is none; add it to the terms"


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
