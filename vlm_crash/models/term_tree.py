"""The terms of a choice as a tree of token ids.

Enters: the token ids of each term's line. Leaves: what a model is fed to judge all terms in one pass, and from its
scores the probability of each term. Invariants: every term ends at a leaf, so that no term is the beginning of another;
the probabilities of the terms sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: The place from which a tree grows: the last token before the first choice.
ROOT = -1


@dataclass(frozen=True)
class Choice:
    """A place where terms part.

    Args:
        node: the node after which they do, or ROOT.
        children: the tokens with which they go on.
    """

    node: int
    children: tuple[int, ...]


@dataclass
class TermTree:
    """Terms, and the tokens that tell them apart.

    A term's probability is the product of its probabilities at the choices on its way, each normalised over the tokens
    that lead to a term. Tokens without an alternative cost nothing: a longer term has no disadvantage.

    Attributes:
        terms: in their order.
        head: tokens that all terms begin with.
        node_ids: tokens after which a choice is made or yet to come, parents before their children.
        parents: of each node, a node or ROOT.
        choices: all of them.
        kept: per term its nodes, from the root on.
        rest: per term its tokens after those.
    """

    terms: tuple[str, ...]
    head: tuple[int, ...] = ()
    node_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    kept: list[tuple[int, ...]] = field(default_factory=list)
    rest: list[tuple[int, ...]] = field(default_factory=list)
    _ways: list[list[tuple[int, int]]] = field(default_factory=list)

    @classmethod
    def of(cls, sequences: Mapping[str, Sequence[int]]) -> TermTree:
        """The tree of some terms, by term the tokens of its line up to what ends it.

        Raises:
            ValueError: the tokens of one term are, or begin, those of another.
        """
        tokens = {term: tuple(ids) for term, ids in sequences.items()}
        size = _common(list(tokens.values())) if len(tokens) > 1 else min(map(len, tokens.values()))
        tree = cls(tuple(tokens), next(iter(tokens.values()))[:size])
        tree._ways, tree.kept = [[] for _ in tokens], [() for _ in tokens]
        tree.rest = [ids[size:] for ids in tokens.values()]
        if len(tokens) > 1:
            tree._grow(list(range(len(tokens))), (), ROOT)
        return tree

    def _grow(self, members: list[int], kept: tuple[int, ...], node: int) -> None:
        """Part the terms that go on from a node, and grow a tree from each token that leads to several."""
        by_token: dict[int, list[int]] = {}
        for member in members:
            if not self.rest[member]:
                other = next(self.terms[index] for index in members if index != member)
                raise ValueError(
                    f"the tokenizer writes {self.terms[member]!r} as the beginning of {other!r}, so that a choice "
                    "between them cannot be read; use one that keeps line breaks, or --model.decoding free"
                )
            by_token.setdefault(self.rest[member][0], []).append(member)
        if len(by_token) > 1:
            for place, group in enumerate(by_token.values()):
                for member in group:
                    self._ways[member].append((len(self.choices), place))
            self.choices.append(Choice(node, tuple(by_token)))
        for token, group in by_token.items():
            if len(group) == 1:
                continue
            self.node_ids.append(token)
            self.parents.append(node)
            place = len(self.node_ids) - 1
            for member in group:
                self.kept[member] = (*kept, place)
                self.rest[member] = self.rest[member][1:]
            self._grow(group, (*kept, place), place)

    @property
    def depths(self) -> list[int]:
        """Of each node its distance from the head, from 0 on."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        return depths

    def tokens(self, term: int) -> tuple[int, ...]:
        """All tokens of a term."""
        return (*self.head, *(self.node_ids[node] for node in self.kept[term]), *self.rest[term])

    def log_probs(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """Log-probability of each term.

        Args:
            scores: per choice the logits of its children, or numbers that differ from them by a constant.
        """
        normalised = [_log_softmax(row) for row in scores]
        return [sum(normalised[choice][child] for choice, child in way) for way in self._ways]

    def probabilities(self, scores: Sequence[Sequence[float]]) -> dict[str, float]:
        """Probability of each term, by term; scores as in log_probs."""
        return {term: math.exp(value) for term, value in zip(self.terms, self.log_probs(scores), strict=True)}

    def greedy(self, scores: Sequence[Sequence[float]]) -> int:
        """The term to which the best token of each choice leads, one after the other."""
        best = [max(range(len(row)), key=row.__getitem__) for row in scores]
        (term,) = (place for place, way in enumerate(self._ways) if all(best[choice] == child for choice, child in way))
        return term


def best_term(log_probs: Sequence[float]) -> int:
    """The most probable term; of equal ones the first."""
    return max(range(len(log_probs)), key=log_probs.__getitem__)


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens that all begin with."""
    size = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        size += 1
    return size


def _log_softmax(row: Sequence[float]) -> list[float]:
    largest = max(row)
    total = largest + math.log(sum(math.exp(value - largest) for value in row))
    return [value - total for value in row]
