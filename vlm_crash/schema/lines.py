"""Lines such as `- **Label:** value`: where the label and the value stand.

Enters: a response text. Leaves: one LabelLine per line that has a colon after something short; no label is judged here.
Must hold: `- Label: value` gives back the value exactly; one pass over the text, no backtracking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlm_crash.schema.wording import normal_form

MAX_LABEL_CHARS = 200
_BULLET = re.compile(r"(?:[-+>#\u2022\u2013\u2014\u00b7\u25cf\u25aa\u25e6\u2023\ufeff]|\*(?=\s)|\(?[0-9]{1,4}[.)])\s*")
_EMPHASIS = re.compile(r"[*_]+")
_COLON = re.compile(r"[:\uff1a]")


@dataclass(frozen=True)
class Line:
    """One line of a text.

    Attributes:
        start, end: where it stands in the text, without its line break.
        label: comparable form of what stands before the colon; None where the line has no label.
        value: where the value stands; (n, n) where nothing follows the colon.
        body: where the line begins behind its bullet or number.
    """

    start: int
    end: int
    label: str | None
    value: tuple[int, int]
    body: int


def label_key(label: str) -> str:
    """Labels that differ only in case, underscores, hyphens or blanks are one label.

    >>> label_key("Type_of_Impact")
    'type of impact'
    """
    return normal_form(label)


def read_lines(text: str) -> Iterator[Line]:
    """Every line of the text with its label, whatever bullet, number or emphasis stands around it.

    >>> [line.label for line in read_lines("Here:\\r\\n3. **Road_type**: x\\n* talk")]
    ['here', 'road type', None]
    """
    start = 0
    for raw in text.splitlines(keepends=True):
        yield _read_line(text, start, start + len(raw))
        start += len(raw)


def _read_line(text: str, start: int, end: int) -> Line:
    start, end = _trim(text, start, end)
    at, body, emphasis = start, start, ""
    for _ in range(6):  # "- 1. **" is two bullets and an emphasis
        if bullet := _BULLET.match(text, at, end):
            at = bullet.end()
            body = body if emphasis else at
        elif not emphasis and (mark := _EMPHASIS.match(text, at, end)):
            at, emphasis = mark.end(), mark.group()
        else:
            break
    colon = _COLON.search(text, at, min(end, at + MAX_LABEL_CHARS))
    if colon is None:
        return Line(start, end, None, (end, end), body)
    label = text[at : colon.start()].rstrip()
    bare = label.rstrip(emphasis[0]) if emphasis else label
    value_start, value_end = _trim(text, colon.end(), end)
    if emphasis and bare == label:  # the emphasis was not closed before the colon
        if text.startswith(emphasis, value_start, value_end):
            value_start += len(emphasis)
        elif text.endswith(emphasis, value_start, value_end):
            value_end -= len(emphasis)
        value_start, value_end = _trim(text, value_start, value_end)
    return Line(start, end, label_key(bare), (value_start, value_end), body)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
