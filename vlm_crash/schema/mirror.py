"""What a record says of a mirrored clip: left is right, and right is left.

Enters: the table `mirror` of a schema, a record. Leaves: the mirrored record, or None. Must hold: nothing is guessed. A
"left" that is no side ("left its lane") stays, and where the table does not know which it is, there is no mirrored
record; mirrored twice, a record is what it was.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

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
        unsure: words that mean a side or not; one that is in none of the others' wordings leaves a text in doubt.
    """

    pairs: tuple[tuple[str, str], ...]
    keeps: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()

    def text(self, text: str) -> str | None:
        """The text with its sides swapped; None where a word may be a side or not.

        >>> mirror = Mirror((("left lane", "right lane"),), ("right in front",), ("left", "right"))
        >>> mirror.text("It cut in from the Left lane right in front.")
        'It cut in from the Right lane right in front.'
        >>> mirror.text("It left.") is None
        True
        """
        if self._unsure.search(self._known.sub(" ", text)):
            return None
        try:
            return self._known.sub(self._swapped, text)
        except _OddSpelling:
            return None

    def sides(self, text: str) -> frozenset[str]:
        """Which of the two sides a text names; none where a word may be a side or not.

        They are called by `unsure`, where that has a word for each, else by their place in the pairs.

        >>> mirror = Mirror((("left lane", "right lane"),), ("right in front",), ("left", "right"))
        >>> sorted(mirror.sides("From the left lane, right in front.")), sorted(mirror.sides("It left the left lane."))
        (['left'], [])
        """
        if self._unsure.search(self._known.sub(" ", text)):
            return frozenset()
        found = {match[0].casefold() for match in self._known.finditer(text)}
        first, second = ({pair[side].casefold() for pair in self.pairs} for side in (0, 1))
        names = self.unsure if len(self.unsure) == 2 else ("first", "second")
        return frozenset(name for name, words in zip(names, (first, second), strict=True) if found & words)

    def _swapped(self, found: re.Match[str]) -> str:
        said = found[0]
        other = self._others.get(said.casefold())
        if other is None:
            return said
        here, there = _PARTS.split(said), _PARTS.split(other)
        if len(here) != len(there):
            return _spelt_as(said, other)
        # Word by word: of "from the Left" the second is kept as it stands.
        return "".join(a if a.casefold() == b.casefold() else _spelt_as(a, b) for a, b in zip(here, there, strict=True))

    @cached_property
    def _others(self) -> dict[str, str]:
        return {a.casefold(): b for pair in self.pairs for a, b in (pair, pair[::-1])}

    @cached_property
    def _known(self) -> re.Pattern[str]:
        """The longest first; the two of a pair count as equally long, or a mirrored text would be read otherwise."""
        long = {word: max(map(len, pair)) for pair in self.pairs for word in pair}
        long |= {word: len(word) for word in self.keeps}
        return _any_of(sorted(long, key=lambda word: (-len(word.split()), -long[word])))

    @cached_property
    def _unsure(self) -> re.Pattern[str]:
        return _any_of(self.unsure)


def _any_of(wordings: Any) -> re.Pattern[str]:
    words = "|".join(map(re.escape, wordings)) or r"(?!)"
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE)


_PARTS = re.compile(r"([\s_\-]+)")


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
    words = [word.casefold() for pair in pairs for word in pair]
    for word in sorted({word for word in words if words.count(word) > 1}):
        yield f"mirror.pairs: {word!r} stands in it twice; leave one"
    others = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    for name, field in fields.items():
        # What an open field has beside these, its dataset decides.
        terms = (field.get("vocabulary") or []) if isinstance(field, Mapping) and is_closed(field) else []
        forms = {normal_form(str(term)) for term in terms}
        for term in terms:
            if term in others and normal_form(others[term]) not in forms:
                yield f"mirror.pairs: {term!r} is a term of {name}, and {others[term]!r} is none; add it to the terms"


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
