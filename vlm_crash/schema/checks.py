"""Everything that can be wrong with the YAML of a schema, found in one go.

Enters: the YAML as nested dicts. Leaves: a list of problems, each with place, what is wrong, and the remedy; empty when good.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlm_crash.schema.lines import label_key, read_lines
from vlm_crash.schema.wording import Matcher, clean_text, is_unknown, normal_form, words

KINDS = ("categorical", "count", "text")
OLD_METRICS = ("exact_match", "cosine_similarity")
EVENT_KEYS = ("title", "opening", "openings", "fields")
FIELD_KEYS = (
    "columns",
    "label",
    "aliases",
    "section",
    "kind",
    "vocabulary",
    "closed",
    "wordings",
    "whole",
    "partial",
    "old_metric",
    "description",
)
_LISTS = ("columns", "aliases", "vocabulary")
_NAME = re.compile(r"[A-Za-z0-9_]+")


def nearest(name: object, allowed: Iterable[str]) -> str:
    """The tail of a message: the nearest allowed name, or all of them."""
    names = list(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"; nearest: {close[0]!r}" if close else f"; allowed: {', '.join(names) or 'none'}"


def schema_problems(data: object) -> list[str]:
    """All problems of a schema as it stands in the YAML. Checks of meaning wait until the shape is right."""
    if not isinstance(data, Mapping):
        return ["the file must hold the keys `events` and `fields`; start from the shipped crash.yaml"]
    problems = list(_unknown_keys("", data, ("events", "fields")))
    for key in ("events", "fields"):
        if not isinstance(data.get(key), Mapping) or not data[key]:
            problems.append(f"{key}: missing or empty; give a mapping of name to properties, as in crash.yaml")
    if problems:
        return problems
    for name, entry in data["fields"].items():
        problems += _field_shape(f"fields.{name}", name, entry)
    for name, entry in data["events"].items():
        problems += _event_shape(f"events.{name}", name, entry, data["fields"])
    if problems:
        return problems
    for name, entry in data["fields"].items():
        problems += _field_meaning(f"fields.{name}", entry)
    for name, entry in data["events"].items():
        problems += _clashes(f"events.{name}", entry, data["fields"])
    return problems + list(_openings(data["events"], data["fields"])) + list(_unused(data))


def _unknown_keys(place: str, entry: Mapping[str, Any], allowed: Sequence[str]) -> Iterator[str]:
    for key in entry:
        if key not in allowed:
            yield f"{place + '.' if place else ''}{key}: unknown key{nearest(key, allowed)}"


def _one_line(place: str, value: object) -> Iterator[str]:
    if not isinstance(value, str) or not value.strip():
        yield f"{place}: {value!r} is not a text; write one line"
    elif clean_text(value) != value:
        yield f"{place}: {value!r} has line breaks, double blanks or bold around it; write {clean_text(value)!r}"


def _text_list(place: str, value: object) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        yield f"{place}: {value!r} is not a list; write [first, second]"
        return
    for index, item in enumerate(value):
        yield from _one_line(f"{place}[{index}]", item)


def _field_shape(place: str, name: object, entry: object) -> Iterator[str]:
    if not _NAME.fullmatch(str(name)):
        yield f"{place}: the name may hold letters, digits and _ only (it becomes a column)"
    if not isinstance(entry, Mapping):
        yield f"{place}: must hold at least `label`, `section` and `kind`"
        return
    yield from _unknown_keys(place, entry, FIELD_KEYS)
    for key in ("label", "section", "kind"):
        if key not in entry:
            yield f"{place}.{key}: missing; every field needs one"
        else:
            yield from _one_line(f"{place}.{key}", entry[key])
    if "kind" in entry and entry["kind"] not in KINDS:
        yield f"{place}.kind: {entry['kind']!r} is not a kind{nearest(entry['kind'], KINDS)}"
    if entry.get("old_metric") and entry["old_metric"] not in OLD_METRICS:
        yield f"{place}.old_metric: {entry['old_metric']!r} is not a metric{nearest(entry['old_metric'], OLD_METRICS)}"
    if "closed" in entry and str(entry["closed"]).casefold() not in ("true", "false"):
        yield f"{place}.closed: {entry['closed']!r}; write true or false"
    for key in _LISTS:
        if entry.get(key):
            yield from _text_list(f"{place}.{key}", entry[key])
    for key in ("wordings", "whole"):
        table = entry.get(key) or {}
        if not isinstance(table, Mapping):
            yield f"{place}.{key}: must map each term to the list of its wordings"
            continue
        for term, wordings in table.items():
            yield from _text_list(f"{place}.{key}.{term}", wordings)
    yield from _partial_shape(f"{place}.partial", entry.get("partial") or [])


def _partial_shape(place: str, groups: object) -> Iterator[str]:
    if not isinstance(groups, list | tuple):
        yield f"{place}: must be a list of {{terms: [...], wordings: [...]}}"
        return
    for index, group in enumerate(groups):
        if not isinstance(group, Mapping) or "wordings" not in group:
            yield f"{place}[{index}]: must hold `wordings`, and `terms` (the terms they leave possible)"
            continue
        yield from _unknown_keys(f"{place}[{index}]", group, ("terms", "wordings"))
        yield from _text_list(f"{place}[{index}].wordings", group["wordings"])
        yield from _text_list(f"{place}[{index}].terms", group.get("terms") or [])


def _event_shape(place: str, name: object, entry: object, fields: Mapping[str, Any]) -> Iterator[str]:
    if not _NAME.fullmatch(str(name)):
        yield f"{place}: the name may hold letters, digits and _ only (it becomes part of file names)"
    if not isinstance(entry, Mapping):
        yield f"{place}: must hold {', '.join(EVENT_KEYS)}"
        return
    yield from _unknown_keys(place, entry, EVENT_KEYS)
    for key in ("title", "opening"):
        yield from _one_line(f"{place}.{key}", entry.get(key))
    for key in ("openings", "fields"):
        yield from _text_list(f"{place}.{key}", entry.get(key))
        if entry.get(key) == []:
            yield f"{place}.{key}: empty; give at least one"
    names = entry.get("fields")
    for index, field in enumerate(names if isinstance(names, list | tuple) else ()):
        if field not in fields:
            yield f"{place}.fields[{index}]: {field!r} is not in `fields`{nearest(field, fields)}"
        elif field in names[:index]:
            yield f"{place}.fields[{index}]: {field!r} is listed twice; leave one"


def _field_meaning(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    vocabulary = list(entry.get("vocabulary") or ())
    categorical = entry["kind"] == "categorical"
    closed = str(entry.get("closed", bool(vocabulary))).casefold() == "true"
    for index, label in enumerate((entry["label"], *(entry.get("aliases") or ()))):
        where = f"{place}.label" if index == 0 else f"{place}.aliases[{index - 1}]"
        line = next(read_lines(f"- {label}: value"))
        if line.label != label_key(label) or line.end - line.value[0] != len("value"):
            yield f"{where}: {label!r} cannot be read back before a colon; leave out colons, bullets and emphasis"
    if not categorical:
        for key in ("vocabulary", "wordings", "whole", "partial"):
            if entry.get(key):
                yield f"{place}.{key}: a {entry['kind']} field has none; leave it out or make the kind categorical"
        return
    if closed and not vocabulary:
        yield f"{place}.closed: true, but there is no vocabulary; list the terms, or write false"
    forms: dict[str, str] = {}
    for index, term in enumerate(vocabulary):
        if is_unknown(term, frozenset({"unknown"})):
            yield f"{place}.vocabulary[{index}]: {term!r} stands for a value that is not known; leave it out"
        elif normal_form(term) in forms:
            yield (
                f"{place}.vocabulary[{index}]: {term!r} and {forms[normal_form(term)]!r} differ only in case, `_`, `-` "
                "or blanks; leave one"
            )
        forms.setdefault(normal_form(term), term)
    yield from _wording_problems(place, entry, vocabulary, closed or bool(vocabulary))


def _wording_problems(place: str, entry: Mapping[str, Any], vocabulary: list[str], known: bool) -> Iterator[str]:
    terms_of = {words(term): term for term in vocabulary}
    groups = [("wordings", t, w) for t, w in (entry.get("wordings") or {}).items()]
    for index, group in enumerate(entry.get("partial") or ()):
        groups.append((f"partial[{index}]", tuple(group.get("terms") or ()), group["wordings"]))
    seen: dict[tuple[str, ...], object] = {}
    for key, target, wordings in [*groups, *(("whole", t, w) for t, w in (entry.get("whole") or {}).items())]:
        for term in (target,) if isinstance(target, str) else target:
            if known and term not in vocabulary:
                yield f"{place}.{key}: {term!r} is not in the vocabulary{nearest(term, vocabulary)}"
        for wording in wordings:
            form = words(wording)
            if not form:
                yield f"{place}.{key}: {wording!r} has no word in it; leave it out"
            elif form in terms_of and terms_of[form] != target:
                yield f"{place}.{key}: {wording!r} is the term {terms_of[form]!r} itself; leave it out"
            elif key != "whole" and seen.setdefault(form, target) != target:
                yield f"{place}.{key}: {wording!r} stands for {target!r} and for {seen[form]!r}; leave it in one"


def _clashes(place: str, entry: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[str]:
    labels: dict[str, str] = {}
    columns: dict[str, str] = {}
    for name in entry["fields"]:
        field = fields[name]
        for label in (field["label"], *(field.get("aliases") or ())):
            if (other := labels.setdefault(label_key(label), name)) != name:
                yield f"{place}: label {label!r} belongs to {other!r} and to {name!r}; rename one of the two"
        for column in field.get("columns") or (name,):
            if (other := columns.setdefault(column, name)) != name:
                yield f"{place}: column {column!r} belongs to {other!r} and to {name!r}; rename one of the two"


def _openings(events: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[str]:
    owner: dict[tuple[str, ...], str] = {}
    for name, entry in events.items():
        for wording in entry["openings"]:
            if not words(wording):
                yield f"events.{name}.openings: {wording!r} has no word in it; leave it out"
            elif (other := owner.setdefault(words(wording), name)) != name:
                yield f"events.{name}.openings: {wording!r} tells {other!r} too; leave it in one"
    matcher = Matcher({" ".join(wording): (name,) for wording, name in owner.items()})
    labels = {label_key(s) for f in fields.values() for s in (f["label"], *(f.get("aliases") or ()))}
    headings = {label_key(f["section"].rstrip(":")) for f in fields.values()}
    for name, entry in events.items():
        line = next(read_lines(entry["opening"]))
        if line.label in labels or label_key(entry["opening"].strip("*: ")) in headings:
            yield f"events.{name}.opening: {entry['opening']!r} reads as a label or heading; write a sentence"
        if (told := matcher.term(entry["opening"])) != name:
            said = f"tells {told!r}" if told else "tells no event"
            yield f"events.{name}.opening: {entry['opening']!r} {said}; use words of its `openings` only"


def _unused(data: Mapping[str, Any]) -> Iterator[str]:
    used = {field for event in data["events"].values() for field in event["fields"]}
    for name in data["fields"]:
        if name not in used:
            yield f"fields.{name}: in no event; list it under events.<name>.fields, or leave it out"
