"""Everything that can be wrong with the YAML of a schema, found in one go.

Enters: the YAML as nested dicts. Leaves: a list of problems, each with place, what is wrong, and remedy.
Must hold: no check needs another to have passed; what has the wrong shape counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlm_crash.schema.consistency import consistency_problems
from vlm_crash.schema.lines import label_key, read_lines
from vlm_crash.schema.matcher import Matcher
from vlm_crash.schema.mirror import mirror_problems
from vlm_crash.schema.wording import clean_text, is_unknown, nearest, normal_form, words
from vlm_crash.schema.yaml_form import SECTIONS, is_background, is_closed

KINDS = ("categorical", "count", "text")
OLD_METRICS = ("exact_match", "cosine_similarity")
# Names that stand beside the events in metrics.json and in file names ("unknown_results.json").
RESERVED_NAMES = ("event", "overall", "clips", "settings", "consistency", "unknown")
EVENT_KEYS = ("title", "opening", "openings", "fields")
#: Marks an event as what there is when nothing happens.
BACKGROUND = "background"
_REQUIRED = ("label", "section", "kind")
_LISTS = ("columns", "aliases", "vocabulary", "doubts")
_TABLES = ("wordings", "whole")
FIELD_KEYS = (*_REQUIRED, *_LISTS, *_TABLES, "closed", "partial", "old_metric", "description")
_NAME = re.compile(r"[A-Za-z0-9_]+")


def schema_problems(data: object) -> list[str]:
    """All problems of a schema as it stands in the YAML."""
    if not isinstance(data, Mapping):
        return ["the file must hold the keys `events` and `fields`; start from the shipped crash.yaml"]
    problems = list(_unknown_keys("", data, SECTIONS))
    for key in ("events", "fields"):
        if not _mapping(data.get(key)):
            problems.append(f"{key}: missing or empty; give a mapping of name to properties, as in crash.yaml")
    fields, events = _mapping(data.get("fields")), _mapping(data.get("events"))
    for name, entry in fields.items():
        problems += _field(f"fields.{name}", name, entry)
    for name, entry in events.items():
        problems += _event(f"events.{name}", name, entry, fields)
    if "mirror" in data:
        problems += mirror_problems(data["mirror"], fields)
    if "consistency" in data:
        problems += consistency_problems(data["consistency"], events, fields)
    return [*problems, *_openings(events, fields), *_unused(events, fields), *_backgrounds(events)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def _labels(entry: object) -> list[str]:
    return _texts([_mapping(entry).get("label"), *_texts(_mapping(entry).get("aliases"))])


def _unknown_keys(place: str, entry: Mapping[str, Any], allowed: Sequence[str]) -> Iterator[str]:
    for key in entry:
        if key not in allowed:
            yield f"{place + '.' if place else ''}{key}: unknown key{nearest(key, allowed)}"


def _one_line(place: str, value: object) -> Iterator[str]:
    if not isinstance(value, str) or not value.strip():
        yield f"{place}: {'missing' if value is None else f'{value!r} is not a text'}; write one line of text"
    elif clean_text(value) != value:
        yield f"{place}: {value!r} has line breaks, double blanks or bold around it; write {clean_text(value)!r}"


def _text_list(place: str, value: object) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        yield f"{place}: {'missing' if value is None else f'{value!r} is not a list'}; write [first, second]"
        return
    for index, item in enumerate(value):
        yield from _one_line(f"{place}[{index}]", item)


def _field(place: str, name: object, entry: object) -> Iterator[str]:
    if not _NAME.fullmatch(str(name)):
        yield f"{place}: the name may hold letters, digits and _ only (it becomes a column)"
    if not isinstance(entry, Mapping):
        yield f"{place}: must hold at least {', '.join(_REQUIRED)}"
        return
    yield from _unknown_keys(place, entry, FIELD_KEYS)
    yield from _shapes(place, entry)
    yield from _read_back(place, entry)
    if entry.get("kind") == "categorical":
        yield from _vocabulary(place, entry)
    elif entry.get("kind") in KINDS:
        for key in ("vocabulary", "wordings", "whole", "partial", "doubts"):
            if entry.get(key):
                yield f"{place}.{key}: a {entry['kind']} field has none; leave it out or make the kind categorical"


def _shapes(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    for key in (*_REQUIRED, *(key for key in ("description",) if entry.get(key))):
        yield from _one_line(f"{place}.{key}", entry.get(key))
    for key, allowed in (("kind", KINDS), ("old_metric", OLD_METRICS)):
        if entry.get(key) and entry[key] not in allowed:
            yield f"{place}.{key}: {entry[key]!r} does not exist{nearest(entry[key], allowed)}"
    if str(entry.get("closed", "true")).casefold() not in ("true", "false"):
        yield f"{place}.closed: {entry['closed']!r}; write true or false"
    for key in _LISTS:
        if entry.get(key):
            yield from _text_list(f"{place}.{key}", entry[key])
    for key in _TABLES:
        if not isinstance(entry.get(key) or {}, Mapping):
            yield f"{place}.{key}: must map each term to the list of its wordings"
        for term, wordings in _mapping(entry.get(key)).items():
            yield from _text_list(f"{place}.{key}.{term}", wordings)
    yield from _partial(f"{place}.partial", entry.get("partial") or [])


def _partial(place: str, groups: object) -> Iterator[str]:
    if not isinstance(groups, list | tuple):
        yield f"{place}: must be a list of {{terms: [...], wordings: [...]}}"
        return
    for index, group in enumerate(groups):
        if not isinstance(group, Mapping):
            yield f"{place}[{index}]: must hold `wordings`, and `terms` (the terms they leave possible)"
            continue
        yield from _unknown_keys(f"{place}[{index}]", group, ("terms", "wordings"))
        yield from _text_list(f"{place}[{index}].wordings", group.get("wordings"))
        yield from _text_list(f"{place}[{index}].terms", group.get("terms") or [])


def _read_back(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Labels and headings that the parser would not find again as they are written."""
    for label in _labels(entry):
        line = next(read_lines(f"- {label}: value"))
        if not label_key(label) or line.label != label_key(label) or line.value[1] - line.value[0] != len("value"):
            yield f"{place}: label {label!r} cannot be read back; leave out colons, bullets, numbers and emphasis"
    if isinstance(section := entry.get("section"), str) and section.strip():
        line = next(read_lines(f"**{section}:**"))
        if line.label != label_key(section) or line.value[0] != line.value[1]:
            yield f"{place}.section: {section!r} cannot be read back; leave out colons, bullets, numbers and emphasis"


def _vocabulary(place: str, entry: Mapping[str, Any]) -> Iterator[str]:
    vocabulary = _texts(entry.get("vocabulary"))
    if is_closed(entry) and not vocabulary:
        yield f"{place}.closed: true, but there is no vocabulary; list the terms, or write false"
    forms: dict[str, str] = {}
    for term in vocabulary:
        other = forms.setdefault(normal_form(term), term)
        if is_unknown(term, frozenset({"unknown"})):
            yield f"{place}.vocabulary: {term!r} stands for a value that is not known; leave it out"
        elif vocabulary.count(term) > 1 or other != term:
            yield f"{place}.vocabulary: {term!r} and {other!r} differ in case, `_`, `-` or blanks at most; leave one"
    if is_closed(entry):
        yield from _wordings(place, entry, vocabulary)


def _wordings(place: str, entry: Mapping[str, Any], vocabulary: list[str]) -> Iterator[str]:
    terms_by_words = {words(term): term for term in vocabulary}
    partial = entry.get("partial")
    groups: list[tuple[str, tuple[str, ...], object]] = []
    for key in _TABLES:
        groups += [(key, (term,), wordings) for term, wordings in _mapping(entry.get(key)).items()]
    for group in partial if isinstance(partial, list | tuple) else ():
        groups.append(("partial", tuple(_texts(_mapping(group).get("terms"))), _mapping(group).get("wordings")))
    seen: dict[tuple[bool, tuple[str, ...]], tuple[str, ...]] = {}
    for key, terms, wordings in groups:
        for term in terms:
            if term not in vocabulary:
                yield f"{place}.{key}: {term!r} is not in the vocabulary{nearest(term, vocabulary)}"
        for wording in _texts(wordings):
            form = words(wording)
            other = seen.setdefault((key == "whole", form), terms)
            if not form:
                yield f"{place}.{key}: {wording!r} has no word in it; leave it out"
            elif form in terms_by_words and (terms_by_words[form],) != terms:
                yield f"{place}.{key}: {wording!r} is the term {terms_by_words[form]!r} itself; leave it out"
            elif other != terms:
                both = " and for ".join(" or ".join(t) or "nothing" for t in (other, terms))
                yield f"{place}.{key}: {wording!r} stands for {both}; leave it in one"


def _event(place: str, name: object, entry: object, fields: Mapping[str, Any]) -> Iterator[str]:
    if not _NAME.fullmatch(str(name)):
        yield f"{place}: the name may hold letters, digits and _ only (it becomes part of file names)"
    if str(name).casefold() in RESERVED_NAMES:
        yield f"{place}: the name is taken (metrics.json has a key of that name); choose another, as {name}_seen"
    if not isinstance(entry, Mapping):
        yield f"{place}: must hold {', '.join(EVENT_KEYS)}"
        return
    yield from _unknown_keys(place, entry, (*EVENT_KEYS, BACKGROUND))
    if str(entry.get(BACKGROUND, "false")).casefold() not in ("true", "false"):
        yield f"{place}.{BACKGROUND}: {entry[BACKGROUND]!r}; write true or false"
    for key in ("title", "opening"):
        yield from _one_line(f"{place}.{key}", entry.get(key))
    for key in ("openings", "fields"):
        yield from _text_list(f"{place}.{key}", entry.get(key))
        if entry.get(key) == [] and not (key == "fields" and is_background(entry)):
            why = f" (only an event with `{BACKGROUND}: true` has none)" if key == "fields" else ""
            yield f"{place}.{key}: empty; give at least one{why}"
    names = _texts(entry.get("fields"))
    for index, field in enumerate(names):
        if field not in fields:
            yield f"{place}.fields: {field!r} is not in `fields`{nearest(field, fields)}"
        elif field in names[:index]:
            yield f"{place}.fields: {field!r} is listed twice; leave one"
    yield from _clashes(place, list(dict.fromkeys(names)), fields)


def _backgrounds(events: Mapping[str, Any]) -> Iterator[str]:
    """Nothing to tell from the background, or several backgrounds."""
    names = [str(name) for name, entry in events.items() if is_background(_mapping(entry))]
    if len(names) > 1:
        yield f"events: {', '.join(names)} are all marked `{BACKGROUND}: true`; mark one"
    elif names and len(names) == len(events):
        yield f"events: {names[0]} is marked `{BACKGROUND}: true` and stands alone; add the events to tell from it"


def _clashes(place: str, names: list[str], fields: Mapping[str, Any]) -> Iterator[str]:
    labels: dict[str, str] = {}
    columns: dict[str, str] = {}
    for name in names:
        for label in _labels(fields.get(name)):
            if (other := labels.setdefault(label_key(label), name)) != name:
                yield f"{place}: label {label!r} belongs to {other!r} and to {name!r}; rename one of the two"
        for column in _texts(_mapping(fields.get(name)).get("columns")) or [name]:
            if (other := columns.setdefault(column, name)) != name:
                yield f"{place}: column {column!r} belongs to {other!r} and to {name!r}; rename one of the two"


def _openings(events: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[str]:
    """Openings that would not tell their own event."""
    owner: dict[tuple[str, ...], str] = {}
    for name, entry in events.items():
        for wording in _texts(_mapping(entry).get("openings")):
            if not words(wording):
                yield f"events.{name}.openings: {wording!r} has no word in it; leave it out"
            elif (other := owner.setdefault(words(wording), name)) != name:
                yield f"events.{name}.openings: {wording!r} tells {other!r} too; leave it in one"
    matcher = Matcher({wording: (name,) for wording, name in owner.items()})
    reserved = {label_key(label) for entry in fields.values() for label in _labels(entry)}
    reserved |= {label_key(str(_mapping(entry).get("section"))) for entry in fields.values()}
    for name, entry in events.items():
        opening = _mapping(entry).get("opening")
        if not isinstance(opening, str) or not opening.strip():
            continue
        if next(read_lines(opening)).label in reserved:
            yield f"events.{name}.opening: {opening!r} reads as a label or heading; write a sentence"
        if (told := matcher.term(opening)) != name:
            said = f"tells {told!r}" if told else "tells no event"
            yield f"events.{name}.opening: {opening!r} {said}; write one that has a wording of its `openings` only"


def _unused(events: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[str]:
    used = {field for event in events.values() for field in _texts(_mapping(event).get("fields"))}
    for name in fields:
        if name not in used:
            yield f"fields.{name}: in no event; list it under events.<name>.fields, or leave it out"
