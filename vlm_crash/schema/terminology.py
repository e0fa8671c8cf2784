"""Free wording -> vocabulary term.

Enters: a Field and what was said. Leaves: its term, UNKNOWN, or None where the words are ambiguous or not understood.
Must hold: never a guess; a term maps to itself.
"""

from __future__ import annotations

import re

from vlm_crash.schema.fields import UNKNOWN, Field
from vlm_crash.schema.matcher import HEDGES, NEGATORS
from vlm_crash.schema.wording import EMPTY_WORDS, clean_text, is_unknown, normal_form, words

_NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS.split())} | {"single": "1"}
# Words beside which a number is no longer one exact count.
_QUALIFIERS = """least most more than over under less fewer about around approximately approx roughly nearly almost up
to or and with each per both either every way ways other others another additional extra minimum
maximum min max several between plus half some few couple many multiple x"""
_INEXACT = NEGATORS | HEDGES | frozenset(_QUALIFIERS.split())
# Signs that do the same: 3+, ~3, 2-3, -1, 2.5, 1/2
_DASH = r"[\-\u2010-\u2014\u2212_]"
_INEXACT_SIGN = re.compile(
    rf"[+~<>\u2264\u2265\u00b1\u2248?*/\u00d7%\u00bc-\u00be]|\d\s?{_DASH}\s?\d|(?:^|\s){_DASH}\s?\d|\d[,.:]\d"
)
_DECIMAL_COUNT = re.compile(r"(?<!\d)(\d+)\.0+(?=\s|$)", re.ASCII)


def to_term(field: Field, text: str) -> str | None:
    """The term that `text` says.

    Text fields give back the cleaned text, and so do open fields as long as no dataset has filled their vocabulary.
    None: ambiguous, negated, in doubt, or not understood. Words such as "unknown" give UNKNOWN.
    """
    said = clean_text(text)
    if field.kind == "text":
        return UNKNOWN if is_unknown(said, EMPTY_WORDS) else said
    if said in field.vocabulary:
        return said
    if (term := field.terms_by_form.get(normal_form(said))) is not None:
        return term
    if (term := field.whole_answers.get(words(said))) is not None:
        return term
    if is_unknown(said):
        return UNKNOWN
    if field.kind == "count":
        return _to_count(said)
    return field.matcher.term(said) if field.vocabulary else said


def _to_count(said: str) -> str | None:
    """The only exact number in the text, as a non-negative integer.

    >>> _to_count("two lanes"), _to_count("2.0"), _to_count("2-3"), _to_count("no lanes")
    ('2', '2', None, None)
    """
    said = _DECIMAL_COUNT.sub(r"\1", said.replace("**", ""))  # a table with empty cells writes 2 as 2.0
    if _INEXACT_SIGN.search(said):
        return None
    numbers = set()
    for word in words(said):
        if word in _INEXACT:
            return None
        if word in _NUMBER_WORDS:
            numbers.add(_NUMBER_WORDS[word])
        elif word.isascii() and word.isdigit():
            numbers.add(word.lstrip("0") or "0")
        elif any(character.isdigit() for character in word):  # 2nd, 3x
            return None
    return numbers.pop() if len(numbers) == 1 else None
