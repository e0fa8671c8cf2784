"""The old scripts' way from a response to a value, to the letter: which label is found first, which term it becomes.

Enters: a response, an event, a field. Leaves: the text that the old scripts compared with the truth ("" for none).
Must hold: no quirk is mended. Labels are regular expressions that match inside other words, `**` stays in front of a
value until it is stripped, tables are tried in their order and a key counts wherever it stands. The tables lie in
legacy_rules.json, in that order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

_TRAFFIC_KEYWORDS = "Traffic_condition_keywords"
# Mapped in crash answers only; a lab's near-miss form with such a field would have kept the wording.
_CRASH_ONLY = ("Crash_type", "Type_of_impact", "Crash_severity")


@cache
def _rules() -> Mapping[str, Any]:
    text = resources.files("vlm_crash.evaluation").joinpath("legacy_rules.json").read_text(encoding="utf-8")
    rules: dict[str, Any] = json.loads(text)
    return rules


def is_known(event: str, field: str) -> bool:
    """Whether the old scripts looked for the field in answers about the event."""
    return field in _rules()["labels_in_order"].get(event, {})


def legacy_value(response: str, event: str, field: str) -> str:
    """What the old scripts took from a response for a field that they know.

    >>> legacy_value("- **Road type:** An unsignalized intersection", "crash", "Road_type")
    'Signalized_intersection'
    >>> legacy_value("- Surface_state: Wet", "crash", "Road_surface_condition")
    ''
    """
    return mapped(found_value(response, event, field), event, field)


def found_value(response: str, event: str, field: str) -> str:
    """The wording behind the first of the field's labels that has one.

    >>> found_value("Crash reason: **Ice**  on the road", "crash", "Crash_reason")
    'Ice on the road'
    """
    for search in _searches(event, field):
        if (match := search.search(response)) is not None:
            value = re.sub(r"\s+", " ", match[1].strip().replace("**", ""))
            if value:
                return value
    return ""


@cache
def _searches(event: str, field: str) -> tuple[re.Pattern[str], ...]:
    """For each label: behind a dash, behind a dash with blanks for underscores, then both anywhere."""
    patterns = []
    for label in _rules()["labels_in_order"][event][field]:
        spelled = (label, label.replace("_", " "))
        patterns += [rf"-\s*{text}:\s*(.+?)(?:\n|$)" for text in spelled]
        patterns += [rf"{text}:\s*(.+?)(?:\n|$)" for text in spelled]
    # Of equal searches (a label without underscores) the second finds what the first found.
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in dict.fromkeys(patterns))


def mapped(value: str, event: str, field: str) -> str:
    """The term that a wording became; the wording itself where no table has it.

    >>> mapped("A dark, unlit street", "crash", "Light_condition"), mapped("2 or 3", "crash", "Lanes")
    ('Dark_lighted', '2')
    >>> mapped("Not clear, maybe both", "crash", "Guilty"), mapped("", "crash", "Guilty")
    ('Both', '')
    """
    if not value.strip() or (field in _CRASH_ONLY and event != "crash"):
        return value
    form = re.sub(r"\s+", " ", re.sub(r"[_-]", " ", value.strip().lower()))
    if field == "Lanes":
        digits = re.search(r"\d+", value)
        return digits[0] if digits else value
    if field == "Traffic_condition":
        return _traffic(form, value)
    if field == "Guilty" and (said := _guilty(form)) is not None:
        return said
    table: Mapping[str, str] = _rules()["wording_to_term_in_order"].get(field, {})
    if form in table:
        return table[form]
    return next((term for key, term in table.items() if key in form or form in key), value)


def _traffic(form: str, value: str) -> str:
    keywords: Mapping[str, list[str]] = _rules()["wording_to_term_in_order"][_TRAFFIC_KEYWORDS]
    found = (name for name, words in keywords.items() if any(word in form for word in words))
    name = next(found, None)
    return value if name is None else f"{name.capitalize()}_traffic"


def _guilty(form: str) -> str | None:
    """Words that decide before the table is asked; "unknown" has "no" in it, but is not "no"."""
    if "not" in form or "no (" in form or form == "no":
        return "Both" if "both" in form else "No"
    if any(word in form for word in ("both", "two", "each")):
        return "Both"
    if any(word in form for word in ("ego", "our", "yes")):
        return "Yes"
    return None
