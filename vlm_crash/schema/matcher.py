"""Finds the one term that a free text says.

Enters: phrases with the terms that they allow, and a text. Leaves: a term, or None.
Must hold: whole words only, the longest phrase first; a negated phrase says nothing, phrases that contradict each
other say nothing, and neither does a text that hedges. Linear in the length of the text.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from vlm_crash.schema.wording import BREAK, COMMA, MARKS, STOP, tokens

_NEGATORS = """no not non un never neither nor without none nothing nobody hardly barely scarcely almost nearly free
lack lacks lacking absent absence except excluding unlike unlikely improbable cannot cant isnt arent wasnt werent
dont doesnt didnt couldnt wont wouldnt hasnt havent avoid avoids avoided avoiding avoidance avert averts averted
averting prevent prevents prevented preventing evade evades evaded escape escapes escaped innocent blameless"""
NEGATORS = frozenset(_NEGATORS.split())
# Words of one who does not know: what stands in their sentence is not taken as said.
_HEDGES = """? maybe perhaps possible possibly possibility probable probably probability presumably presumed supposedly
supposed apparently seemingly seem seems seemed potential potentially conceivably conceivable plausible plausibly
hypothetical likely likelihood might may could would should if whether unless assume assumes assumed assuming assumption
guess guesses guessed guessing think believe believed suspect suspected suspicion suspiciously doubt doubtful dubious
debatable disputed questionable arguably arguable unsure uncertain uncertainty unclear ambiguous inconclusive
undetermined indeterminate unknown unconfirmed unverified allegedly alleged reportedly chance chances risk risks
expected forecast predicted suggests suggesting"""
HEDGES = frozenset(_HEDGES.split())
# What the words do that are no phrase of a field.
_GRAMMAR: dict[tuple[str, ...], str] = {
    **dict.fromkeys(((word,) for word in NEGATORS), "negation"),
    **dict.fromkeys(((word,) for word in HEDGES), "hedge"),
    **dict.fromkeys([("rather", "than"), ("instead", "of"), ("other", "than"), ("opposed", "to")], "negation"),
    **dict.fromkeys([("clear", "of"), ("devoid", "of"), ("far", "from"), ("anything", "but")], "negation"),
    **dict.fromkeys([("not", "sure"), ("not", "certain"), ("not", "confirmed"), ("hard", "to")], "hedge"),
    **dict.fromkeys([("difficult", "to"), ("about", "to"), ("going", "to", "be")], "hedge"),
    # "not only rainy but foggy" denies nothing; "no doubt rainy" neither.
    **dict.fromkeys([("not", "only"), ("no", "doubt"), ("without", "doubt"), ("no", "question")], "word"),
    ("no", "matter"): "word",
    # Where a negation ends, and where a hedge does.
    **dict.fromkeys([("but",), ("however",), ("although",), ("though",), ("yet",), ("instead",)], "break"),
    **dict.fromkeys([("whereas",), ("rather",), ("actually",), (BREAK,)], "break"),
    **dict.fromkeys([("where",), ("which",), ("while",), ("when",), (STOP,)], "stop"),
    ("and",): "link",
    ("or",): "or",
    ("nor",): "or",
}
_BREAKS, _LINKS = ("break", "stop"), ("link", "or")


_DOUBT: tuple[frozenset[str], int] = (frozenset(), 2)  # a mention that cannot be read


class Matcher:
    """Finds the one term that a text says.

    Args:
        phrases: words -> the terms that they leave possible ("night" leaves two); no term: the words say nothing.
        alone: words among them that count only where nothing else is said beside them.
        doubts: words that leave in doubt what stands in their sentence, as "maybe" does everywhere.
    """

    def __init__(
        self,
        phrases: Mapping[tuple[str, ...], Iterable[str]],
        alone: Container[tuple[str, ...]] = frozenset(),
        doubts: Iterable[tuple[str, ...]] = (),
    ) -> None:
        self._alone = alone
        self._phrases = {key: frozenset(terms) for key, terms in phrases.items() if key}
        self._grammar = _GRAMMAR | dict.fromkeys(doubts, "hedge")
        self._lengths = sorted({len(key) for key in (*self._phrases, *self._grammar) if key}, reverse=True)

    def term(self, text: str) -> str | None:
        """The only term that all said phrases allow; None where nothing, or more than one thing, or a maybe is said.

        >>> weather = Matcher({("foggy",): ["Foggy"], ("rain",): ["Rainy"]})
        >>> weather.term("dense and foggy"), weather.term("not foggy, rain"), weather.term("not foggy")
        ('Foggy', 'Rainy', None)
        """
        possible: frozenset[str] | None = None
        denied: set[str] = set()
        steps = self._steps(tokens(text))
        if _hedges(steps):
            return None
        for terms, negations in _mentions(steps):
            if negations > 1:  # "not without rain": too clever to be read
                return None
            if negations:
                denied |= terms
            elif terms:
                possible = terms if possible is None else possible & terms
        left = (possible or frozenset()) - denied
        return next(iter(left)) if len(left) == 1 else None

    def _steps(self, found: list[str]) -> list[frozenset[str] | str]:
        """The text as phrases (their terms) and the roles of _GRAMMAR, in order; "word" for all else."""
        steps: dict[int, frozenset[str] | str] = {}
        taken = [False] * len(found)

        def take(start: int, length: int, what: frozenset[str] | str) -> None:
            if not any(taken[start : start + length]):
                taken[start : start + length] = [True] * length
                steps[start] = what

        list_commas = _list_commas(found)
        for start in (start for start, token in enumerate(found) if token == COMMA):
            take(start, 1, "link" if start in list_commas else "break")
        for length in self._lengths:
            for start in range(len(found) - length + 1):
                key = tuple(found[start : start + length])
                if (terms := self._phrases.get(key)) is not None and self._counts(key, found, start):
                    take(start, length, terms)
                elif (role := self._grammar.get(key)) is not None:
                    take(start, length, role)
        for start in range(len(found)):
            take(start, 1, "word")
        return [steps[start] for start in sorted(steps)]

    def _counts(self, key: tuple[str, ...], found: list[str], start: int) -> bool:
        """Whether the phrase means its terms where it stands."""
        if len(key) == 1 and _denies_next(found, start):
            return False
        return key not in self._alone or _stands_alone(found, start, start + len(key))


def _denies_next(found: list[str], at: int) -> bool:
    """Whether this is the "no" of "no vehicle", not the answer "No"."""
    return found[at] in NEGATORS and at + 1 < len(found) and found[at + 1] not in MARKS


def _stands_alone(found: list[str], start: int, end: int) -> bool:
    before, after = found[max(start - 1, 0) : start], found[end : end + 1]
    return all(token in MARKS or _GRAMMAR.get((token,)) in _LINKS for token in (*before, *after))


def _hedges(steps: list[frozenset[str] | str]) -> bool:
    """Whether a sentence with a phrase hedges ("clear, maybe"), or one says nothing else ("Clear. Maybe.")."""
    hedged = met = talk = False
    for what in [*steps, "stop"]:
        if what == "stop":
            if hedged and (met or not talk):
                return True
            hedged = met = talk = False
        hedged |= what == "hedge"
        met |= isinstance(what, frozenset) and bool(what)
        talk |= what == "word"
    return False


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
        elif what in _BREAKS:
            behind += after if met or not talk else 0
            if alternative and met and not before:
                mentions.append(_DOUBT)
            before = after = 0
            met = linked = talk = alternative = False
        elif what in _LINKS:
            linked, alternative = True, what == "or"
        elif what == "word":
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
        elif _GRAMMAR.get((token,)) in _BREAKS:
            waiting = []
    return joined
