"""Words and phrases: how free text is compared with the words of a schema.

Enters: text as people or models write it. Leaves: cleaned text, comparable keys, or the one term that a text says.
Must hold: whole words only, the longest phrase first, a negated phrase says nothing, two phrases that contradict each
other say nothing. Every function is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Cells that mean "not filled in" (the first five in every file of the old scripts).
EMPTY_WORDS = frozenset({"", "nan", "none", "null", "unknown", "n/a", "na"})
# Answers that say "I do not know".
UNKNOWN_WORDS = EMPTY_WORDS | frozenset(
    "not known|not available|not applicable|unspecified|not specified|not stated|not mentioned|not visible|not given|"
    "undetermined|indeterminate|not determined|cannot be determined|can not be determined|could not be determined|"
    "unable to determine|cannot tell|unknown value".split("|")
)
ARTICLES = frozenset({"a", "an", "the"})
NEGATORS = frozenset(
    "no not non un never neither nor without none nothing nobody hardly barely scarcely lack lacks lacking absent "
    "absence except excluding unlike avoid avoids avoided avoiding averted prevented unsure uncertain unclear "
    "cannot cant isnt arent wasnt werent dont doesnt didnt couldnt wont wouldnt hasnt havent hadnt shouldnt aint".split()
)
NEGATOR_PHRASES = {("rather", "than"), ("instead", "of"), ("other", "than"), ("opposed", "to"), ("free", "of")}
# "not only rainy but foggy" denies nothing; "no doubt rainy" neither.
NEUTRAL_PHRASES = {("not", "only"), ("no", "doubt"), ("without", "doubt"), ("no", "question"), ("no", "matter")}
# Words after which a negation no longer acts, and words over which it does.
CLAUSE_WORDS = frozenset("but however although though yet instead whereas rather actually where which while when".split())
LINKS = frozenset({"and", "or", "nor"})

_BREAK, _COMMA = "\x00", "\x01"
_TOKEN = re.compile(r"([^\W_]+)|(,)|([\n;:!?()\[\]{}|—]|\.(?!\d)|\s[-–]\s)")
_APOSTROPHES = str.maketrans("", "", "'’‘`\\")
_SEPARATORS = re.compile(r"[\s_\-‐‑]+")


def clean_text(text: str) -> str:
    """One line, single blanks, no bold around the whole; cleaning twice changes nothing.

    >>> clean_text("  **two\\n lines** ")
    'two lines'
    """
    line = " ".join(text.split())
    inner = line[2:-2].strip()
    if len(line) > 4 and line.startswith("**") and line.endswith("**") and inner and "**" not in inner:
        return inner
    return line


def normal_form(text: str) -> str:
    """What is compared where case, underscores, hyphens and blanks do not matter.

    >>> normal_form("Dark_Lighted ") == normal_form("dark-lighted") == "dark lighted"
    True
    """
    return _SEPARATORS.sub(" ", text.casefold()).strip()


def is_unknown(text: str, words: frozenset[str] = UNKNOWN_WORDS) -> bool:
    """Whether the whole text only says that nothing is known."""
    return normal_form(text).rstrip(".! ") in words


def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without articles and punctuation.

    >>> words("The Highway/Freeway isn't wet")
    ('highway', 'freeway', 'isnt', 'wet')
    """
    return tuple(token for token in _tokens(text) if token not in (_BREAK, _COMMA))


def _tokens(text: str) -> list[str]:
    tokens = []
    for match in _TOKEN.finditer(text.casefold().translate(_APOSTROPHES)):
        if match.group(1):
            if match.group(1) not in ARTICLES:
                tokens.append(match.group(1))
        else:
            tokens.append(_COMMA if match.group(2) else _BREAK)
    return tokens


class Matcher:
    """Finds the one term that a text says.

    Args:
        phrases: wording -> the terms that it leaves possible ("night" leaves two); no term: the wording says nothing.
    """

    def __init__(self, phrases: Mapping[str, Iterable[str]]) -> None:
        self._phrases: dict[tuple[str, ...], frozenset[str]] = {}
        for wording, terms in phrases.items():
            if key := words(wording):
                self._phrases[key] = frozenset(terms)
        self._lengths = sorted({len(key) for key in self._phrases}, reverse=True)

    def term(self, text: str) -> str | None:
        """The only term that all said wordings allow; None where nothing, or more than one thing, is said."""
        possible: frozenset[str] | None = None
        denied: set[str] = set()
        for terms, negators in self._mentions(_tokens(text)):
            if negators > 1:  # "not without rain": too clever to be read
                return None
            if negators:
                denied |= terms
            elif terms:
                possible = terms if possible is None else possible & terms
        left = (possible or frozenset()) - denied
        return next(iter(left)) if len(left) == 1 else None

    def _mentions(self, tokens: list[str]) -> list[tuple[frozenset[str], int]]:
        """Each wording found: the terms it allows and how many negations act on it."""
        spans, joined = self._spans(tokens), _joined_commas(tokens)
        mentions: list[tuple[frozenset[str], int]] = []
        group = 0  # first mention of those that "and", "or" join to the last one
        before = after = 0  # negations since the clause began, and since its last mention
        met = linked = talk = False  # in this clause: a mention; a link since it; any other word
        position = 0
        while position <= len(tokens):
            length, what = spans.get(position, (1, None))
            token = tokens[position] if position < len(tokens) else _BREAK
            if isinstance(what, frozenset):
                group = group if met and linked else len(mentions)
                mentions.append((what, before))
                after, met, linked = 0, True, False
            elif what == "negator":
                before, after = before + 1, after + 1
            elif token == _BREAK or token in CLAUSE_WORDS or (token == _COMMA and position not in joined):
                if met or not talk:  # "fog is absent", "fog: no": what follows the last mention acts on it
                    mentions[group:] = [(terms, count + after) for terms, count in mentions[group:]]
                before = after = 0
                met = linked = talk = False
            elif token in LINKS or token == _COMMA:
                linked = True
            else:
                talk = True
            position += length
        return mentions

    def _spans(self, tokens: list[str]) -> dict[int, tuple[int, frozenset[str] | str]]:
        """Where phrases and negations stand: start -> (length, terms or kind); longest first, none overlap."""
        taken = [token in (_BREAK, _COMMA) for token in tokens]
        spans: dict[int, tuple[int, frozenset[str] | str]] = {}

        def take(start: int, length: int, what: frozenset[str] | str) -> None:
            if not any(taken[start : start + length]):
                taken[start : start + length] = [True] * length
                spans[start] = (length, what)

        for length in self._lengths:
            for start in range(len(tokens) - length + 1):
                key = tuple(tokens[start : start + length])
                if (terms := self._phrases.get(key)) is None:
                    continue
                follower = tokens[start + length] if start + length < len(tokens) else _BREAK
                if length == 1 and key[0] in NEGATORS and follower not in (_BREAK, _COMMA):
                    continue  # "No" is an answer, "no vehicle" is not
                take(start, length, terms)
        for start in range(len(tokens) - 1):
            pair = (tokens[start], tokens[start + 1])
            if pair in NEUTRAL_PHRASES or pair in NEGATOR_PHRASES:
                take(start, 2, "negator" if pair in NEGATOR_PHRASES else "neutral")
        for start, token in enumerate(tokens):
            if token in NEGATORS:
                take(start, 1, "negator")
        return spans


def _joined_commas(tokens: list[str]) -> set[int]:
    """Commas of a list such as "no rain, snow or fog", over which a negation reaches."""
    joined: set[int] = set()
    open_commas: list[int] = []
    for position, token in enumerate(tokens):
        if token == _COMMA:
            open_commas.append(position)
        elif token in ("or", "nor"):
            joined.update(open_commas)
            open_commas = []
        elif token == _BREAK or token in CLAUSE_WORDS:
            open_commas = []
    return joined
