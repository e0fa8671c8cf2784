"""Finds the one term that a free text says.

Enters: phrases with the terms that they allow, and a text. Leaves: a term, or None.
Must hold: whole words only, the longest phrase first; a negated phrase says nothing, and phrases that contradict each
other say nothing. Linear in the length of the text.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from itertools import pairwise

from vlm_crash.schema.wording import BREAK, COMMA, tokens

_NEGATORS = """no not non un never neither nor without none nothing nobody hardly barely scarcely almost nearly free
lack lacks lacking absent absence except excluding unlike unsure uncertain unclear cannot cant isnt arent wasnt werent
dont doesnt didnt couldnt wont wouldnt hasnt havent avoid avoids avoided avoiding avoidance avert averts averted
averting prevent prevents prevented preventing evade evades evaded escape escapes escaped"""
NEGATORS = frozenset(_NEGATORS.split())
_NEGATOR_PAIRS = {("rather", "than"), ("instead", "of"), ("other", "than"), ("opposed", "to")}
# "not only rainy but foggy" denies nothing; "no doubt rainy" neither.
_NEUTRAL_PAIRS = {("not", "only"), ("no", "doubt"), ("without", "doubt"), ("no", "question"), ("no", "matter")}
# Words at which a negation ends, and words over which it reaches.
_CLAUSE_WORDS = frozenset(
    {"but", "however", "although", "though", "yet", "instead", "whereas", "rather", "actually"}
    | {"where", "which", "while", "when"}
)
_LINKS = {"and": "link", "or": "or", "nor": "or"}


_DOUBT: tuple[frozenset[str], int] = (frozenset(), 2)  # a mention that cannot be read


class Matcher:
    """Finds the one term that a text says.

    Args:
        phrases: words -> the terms that they leave possible ("night" leaves two); no term: the words say nothing.
        alone: words among them that count only where nothing else is said beside them.
    """

    def __init__(
        self, phrases: Mapping[tuple[str, ...], Iterable[str]], alone: Container[tuple[str, ...]] = frozenset()
    ) -> None:
        self._alone = alone
        self._phrases = {key: frozenset(terms) for key, terms in phrases.items() if key}
        self._lengths = sorted({len(key) for key in self._phrases}, reverse=True)

    def term(self, text: str) -> str | None:
        """The only term that all said phrases allow; None where nothing, or more than one thing, is said.

        >>> weather = Matcher({("foggy",): ["Foggy"], ("rain",): ["Rainy"]})
        >>> weather.term("dense and foggy"), weather.term("not foggy, rain"), weather.term("not foggy")
        ('Foggy', 'Rainy', None)
        """
        possible: frozenset[str] | None = None
        denied: set[str] = set()
        for terms, negations in _mentions(self._steps(tokens(text))):
            if negations > 1:  # "not without rain": too clever to be read
                return None
            if negations:
                denied |= terms
            elif terms:
                possible = terms if possible is None else possible & terms
        left = (possible or frozenset()) - denied
        return next(iter(left)) if len(left) == 1 else None

    def _steps(self, found: list[str]) -> list[frozenset[str] | str]:
        """The text as phrases (their terms), "negation", "link", "or", "break" and "word", in order."""
        steps: dict[int, frozenset[str] | str] = {}
        taken = [token in (BREAK, COMMA) for token in found]

        def take(start: int, length: int, what: frozenset[str] | str) -> None:
            if not any(taken[start : start + length]):
                taken[start : start + length] = [True] * length
                steps[start] = what

        for length in self._lengths:
            for start in range(len(found) - length + 1):
                key = tuple(found[start : start + length])
                if (terms := self._phrases.get(key)) is None or (length == 1 and _denies_next(found, start)):
                    continue
                if key not in self._alone or _stands_alone(found, start, start + length):
                    take(start, length, terms)
        for start, pair in enumerate(pairwise(found)):
            if pair in _NEGATOR_PAIRS or pair in _NEUTRAL_PAIRS:
                take(start, 2, "negation" if pair in _NEGATOR_PAIRS else "word")
        list_commas = _list_commas(found)
        for start, token in enumerate(found):
            if token == BREAK or (token == COMMA and start not in list_commas):
                steps[start] = "break"
            elif token == COMMA:
                steps[start] = "link"
            elif token in NEGATORS:
                take(start, 1, "negation")
            elif token in _CLAUSE_WORDS:
                take(start, 1, "break")
            else:
                take(start, 1, _LINKS.get(token, "word"))
        return [steps[start] for start in sorted(steps)]


def _denies_next(found: list[str], at: int) -> bool:
    """Whether this is the "no" of "no vehicle", not the answer "No"."""
    return found[at] in NEGATORS and at + 1 < len(found) and found[at + 1] not in (BREAK, COMMA)


def _stands_alone(found: list[str], start: int, end: int) -> bool:
    before, after = found[max(start - 1, 0) : start], found[end : end + 1]
    return all(token in (BREAK, COMMA) or token in _LINKS for token in (*before, *after))


def _mentions(steps: list[frozenset[str] | str]) -> list[tuple[frozenset[str], int]]:
    """Each phrase found: the terms it allows, and how many negations act on it.

    A negation acts on what follows it in its clause. Where nothing follows, it acts on what stands before it ("fog is
    absent", "fog: no"), together with what "and" or "or" joins to that. An "or" with a phrase on one side only
    ("turning left or right") leaves the text in doubt.
    """
    mentions: list[tuple[frozenset[str], int]] = []
    group = 0  # first mention of those that are joined to the last one
    behind = 0  # negations behind this group that act on it
    before = after = 0  # negations since the clause began, and since its last mention
    met = linked = talk = False  # in this clause: a mention; a link since the last one; any other word
    alternative = False  # in this clause: an "or" that still lacks the phrase after it
    for what in [*steps, "break"]:
        if isinstance(what, frozenset):
            if not (met and linked):
                mentions[group:] = [(terms, count + behind) for terms, count in mentions[group:]]
                group, behind = len(mentions), 0
            if alternative and not met and not before:
                mentions.append(_DOUBT)
            mentions.append((what, before))
            after, met, linked, alternative = 0, True, False, False
        elif what == "negation":
            before, after = before + 1, after + 1
        elif what == "break":
            behind += after if met or not talk else 0
            if alternative and met and not before:
                mentions.append(_DOUBT)
            before = after = 0
            met = linked = talk = alternative = False
        elif what in ("link", "or"):
            linked, alternative = True, what == "or"
        else:
            talk = True
    mentions[group:] = [(terms, count + behind) for terms, count in mentions[group:]]
    return mentions


def _list_commas(found: list[str]) -> set[int]:
    """Commas of a list such as "no rain, snow or fog", over which a negation reaches."""
    joined: set[int] = set()
    waiting: list[int] = []
    for position, token in enumerate(found):
        if token == COMMA:
            waiting.append(position)
        elif token in ("or", "nor"):
            joined.update(waiting)
            waiting = []
        elif token == BREAK or token in _CLAUSE_WORDS:
            waiting = []
    return joined
