"""Wordings of sides, and where they stand in a text.

Enters: wordings as a schema writes them, a text. Leaves: its words, and the wordings found in them. Must hold: of
wordings that stand inside a longer one only the longest counts, so that "right of way" is no "right".

A wording is words; "(a|b)" is either of the two, and "*" in a word any letters ("bright*"). Case does not matter, nor
whether blanks, one hyphen or one underscore stand between two words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

#: What a wording may be, the surer the first: of two with the same words it counts.
PAIR, KEEP, UNSURE = "pair", "keep", "unsure"
_KINDS = (PAIR, KEEP, UNSURE)
_WORD = re.compile(r"[^\W_]+")
_STARRED = re.compile(r"(?:[^\W_]|\*)+")
_SOFT = re.compile(r"[^\S\n]+|[-_\u2010\u2011]")
_GROUP = re.compile(r"\(([^()]*)\)")


def expanded(wording: str) -> list[str]:
    """All that a wording stands for.

    >>> expanded("(turn|turned) left")
    ['turn left', 'turned left']
    """
    parts = [part.split("|") if place % 2 else [part] for place, part in enumerate(_GROUP.split(wording))]
    return ["".join(chosen) for chosen in itertools.product(*parts)]


class Found(NamedTuple):
    """A wording in a text: its kind, its first and last word, and the words of its counterpart, where it has one."""

    kind: str
    first: int
    last: int
    other: tuple[str, ...] = ()
    side: int = 0


@dataclass
class _Node:
    """What may come next after the words so far: by what stands between (a blank: anything soft) and the word."""

    next: dict[tuple[str, str], _Node] = field(default_factory=dict)
    starred: list[tuple[str, re.Pattern[str], _Node]] = field(default_factory=list)
    ends: dict[str, tuple[tuple[str, ...], int]] = field(default_factory=dict)


class SideWords:
    """All wordings of a table, found together.

    Args:
        pairs: wordings that take each other's place; neither has a star.
        others: kind -> wordings without a counterpart.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], others: Mapping[str, Iterable[str]]) -> None:
        self._root = _Node()
        for pair in pairs:
            for two in zip(*map(expanded, pair), strict=True):
                words = [tuple(_WORD.findall(one)) for one in two]
                for side in (0, 1):
                    self._add(PAIR, two[side], words[1 - side], side)
        for kind, wordings in others.items():
            for wording in itertools.chain.from_iterable(map(expanded, wordings)):
                self._add(kind, wording)

    def found(self, text: str) -> tuple[list[re.Match[str]], list[Found]]:
        """The words of a text, and the wordings in it that stand in no longer one."""
        words = list(_WORD.finditer(text))
        between = ["", *(_gap(text[a.end() : b.start()]) for a, b in itertools.pairwise(words))]
        all_found = [one for first in range(len(words)) for one in self._from(first, words, between)]
        longest: list[Found] = []
        last = -1
        for one in sorted(all_found, key=lambda one: (one.first, -one.last, _KINDS.index(one.kind))):
            if one.last > last:  # what ends no later than one that begins no later stands in that one
                longest.append(one)
                last = one.last
        return words, longest

    def _from(self, first: int, words: list[re.Match[str]], between: list[str]) -> list[Found]:
        found, nodes = [], [self._root]
        for place in range(first, len(words)):
            gap, word = between[place] if place > first else "", words[place][0].casefold()
            nodes = [then for node in nodes for then in _followed(node, gap, word)]
            if not nodes:
                break
            found += [Found(kind, first, place, *end) for node in nodes for kind, end in node.ends.items()]
        return found

    def _add(self, kind: str, wording: str, other: tuple[str, ...] = (), side: int = 0) -> None:
        node, end = self._root, None
        for match in _STARRED.finditer(wording):
            gap, word = "" if end is None else _gap(wording[end : match.start()]), match[0].casefold()
            node, end = _child(node, gap, word), match.end()
        if end is not None:
            node.ends[kind] = (other, side)


def _followed(node: _Node, gap: str, word: str) -> list[_Node]:
    then = node.next.get((gap, word))
    starred = [after for between, pattern, after in node.starred if between == gap and pattern.fullmatch(word)]
    return starred if then is None else [then, *starred]


def _child(node: _Node, gap: str, word: str) -> _Node:
    if "*" not in word:
        return node.next.setdefault((gap, word), _Node())
    pattern = re.compile(r"[^\W_]*".join(map(re.escape, word.split("*"))))
    for between, known, after in node.starred:
        if (between, known) == (gap, pattern):
            return after
    node.starred.append((gap, pattern, _Node()))
    return node.starred[-1][-1]


def _gap(between: str) -> str:
    return " " if _SOFT.fullmatch(between) else between
