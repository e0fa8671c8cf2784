"""Words: how free text is cleaned and compared with the words of a schema.

Enters: text as people or models write it. Leaves: cleaned text, comparable forms, words.
Must hold: every function is linear in the length of the text, and gives the same for its own result.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Cells that mean "not filled in" (the first five in every file of the old scripts).
EMPTY_WORDS = frozenset({"", "nan", "none", "null", "unknown", "n/a", "na"})
# Answers that say "I do not know".
_UNKNOWN_WORDS = """not known|not available|not applicable|unspecified|not specified|not stated|not mentioned|not given|
not visible|undetermined|indeterminate|not determined|cannot be determined|can not be determined|unable to determine|
could not be determined|cannot tell|unknown value"""
UNKNOWN_WORDS = EMPTY_WORDS | frozenset(_UNKNOWN_WORDS.replace("\n", "").split("|"))
ARTICLES = frozenset({"a", "an", "the"})
# Tokens that stand for the ends of clauses and sentences; no word can be one of them.
BREAK, COMMA, STOP = "\x00", "\x01", "\x02"
MARKS = frozenset({BREAK, COMMA, STOP})

_TOKEN = re.compile(r"([^\W_]+|[/?])|(,)|([\n;!]|\.(?!\d))|[:()\[\]{}\u2014]|\s[-\u2013]\s")
_APOSTROPHES = str.maketrans("", "", "'\u2018\u2019`\\")
_SEPARATORS = re.compile(r"[\s_\-\u2010\u2011]+")


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


def is_unknown(text: str, unknown: frozenset[str] = UNKNOWN_WORDS) -> bool:
    """Whether the whole text only says that nothing is known.

    >>> is_unknown("N/A."), is_unknown("unknown driver")
    (True, False)
    """
    return normal_form(text).rstrip(".! ") in unknown


def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without articles and punctuation; a slash reads "or", a "?" is a word.

    >>> words("The Highway/Freeway isn't wet."), words("Wet?")
    (('highway', 'or', 'freeway', 'isnt', 'wet'), ('wet', '?'))
    """
    return tuple(token for token in tokens(text) if token not in MARKS)


def tokens(text: str) -> list[str]:
    """The words, with BREAK and COMMA between them where a clause may end, and STOP where a sentence does."""
    found = []
    for match in _TOKEN.finditer(text.casefold().translate(_APOSTROPHES)):
        if word := match.group(1):
            if word not in ARTICLES:
                found.append("or" if word == "/" else word)
            if word == "?":
                found.append(STOP)
        else:
            found.append(COMMA if match.group(2) else STOP if match.group(3) else BREAK)
    return found


def closest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that is meant, as it seems; None where none is near.

    >>> closest("predit", ["predict", "prepare"]), closest("x", ["predict", "prepare"])
    ('predict', None)
    """
    return next(iter(difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)), None)


def nearest(name: object, allowed: Iterable[str]) -> str:
    """The tail of a message: the nearest allowed name, or all of them.

    >>> nearest("Wether", ["Weather", "Lanes"]), nearest("x", ["Weather", "Lanes"])
    ("; nearest: 'Weather'", '; allowed: Weather, Lanes')
    """
    names = list(allowed)
    close = closest(str(name), names)
    return f"; nearest: {close!r}" if close else f"; allowed: {', '.join(names) or 'none'}"
