"""Field, Event, Schema: what a record says, read and checked from a YAML.

Enters: crash.yaml, or a lab's own. Leaves: frozen tables from which prompts, parser, metrics and reports are derived.
Must hold: a Schema that exists has no contradiction (checks.py found none).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from vlm_crash.schema.checks import schema_problems
from vlm_crash.schema.consistency import Rule, rules_entry, rules_of
from vlm_crash.schema.lines import label_key
from vlm_crash.schema.matcher import Matcher
from vlm_crash.schema.mirror import Mirror, mirror_entry, mirror_of
from vlm_crash.schema.wording import clean_text, is_unknown, nearest, normal_form, words
from vlm_crash.schema.yaml_form import (
    SECTIONS,
    extended,
    field_arguments,
    field_entry,
    is_background,
    parse_yaml,
    read_text,
    where_it_breaks,
)

UNKNOWN = "Unknown"  # a field whose value is not known; kept apart from every value
#: The largest count that is a value: a model can answer no larger one, and a larger one in a CSV is a slip.
MAX_COUNT = 99

Kind = Literal["categorical", "count", "text"]
OldMetric = Literal["exact_match", "cosine_similarity"]
SHIPPED = Path(__file__).with_name("crash.yaml")
_OTHER = "other"  # a term for what fits no other term; "with another", "other cars" do not say it


class SchemaError(ValueError):
    """The YAML of a schema contradicts itself; the message lists every problem."""


@dataclass(frozen=True)
class Field:
    """One field of a record.

    Attributes:
        columns: names of its column in a CSV, the preferred one first.
        label, aliases: what stands before the colon in a response; `label` is written, all are read.
        section: bold heading under which it is written.
        vocabulary: its terms; empty for counts, texts, and open fields before a dataset has filled them.
        closed: whether the vocabulary is the schema's (True) or a dataset's.
        wordings: free wording -> term, found anywhere in an answer.
        whole: wording -> term, where the wording is the whole answer.
        partial: wording -> the terms that it leaves possible ("night": lighted or not); none: it says nothing.
        doubts: words that leave an answer in doubt wherever they stand in it ("off", of lights).
        old_metric: how the old scripts scored it.
    """

    name: str
    columns: tuple[str, ...]
    label: str
    aliases: tuple[str, ...]
    section: str
    kind: Kind
    vocabulary: tuple[str, ...] = ()
    closed: bool = False
    wordings: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    whole: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    partial: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict, hash=False)
    doubts: tuple[str, ...] = ()
    old_metric: OldMetric = "exact_match"
    description: str = ""

    @cached_property
    def terms_by_form(self) -> dict[str, str]:
        """Vocabulary by comparable form."""
        return {normal_form(term): term for term in self.vocabulary}

    @cached_property
    def _terms_by_words(self) -> dict[tuple[str, ...], str]:
        """Vocabulary by words, without terms that differ in punctuation only ("C", "C+")."""
        counts = Counter(words(term) for term in self.vocabulary)
        return {words(term): term for term in self.vocabulary if words(term) and counts[words(term)] == 1}

    @cached_property
    def whole_answers(self) -> dict[tuple[str, ...], str]:
        """Words of a whole answer -> term."""
        answers = {words(wording): term for wording, term in self.whole.items() if term in self.vocabulary}
        return answers | self._terms_by_words

    @cached_property
    def matcher(self) -> Matcher:
        """Finds this field's terms in free wording; the terms themselves go before wordings."""
        wordings: dict[str, tuple[str, ...]] = dict(self.partial)
        wordings |= {wording: (term,) for wording, term in self.wordings.items()}
        phrases: dict[tuple[str, ...], tuple[str, ...]] = {}
        for wording, terms in wordings.items():
            known = tuple(term for term in terms if term in self.vocabulary)
            if known or not terms:
                phrases[words(wording)] = known
        phrases |= {key: (term,) for key, term in self._terms_by_words.items()}
        alone = {key for key, term in self._terms_by_words.items() if normal_form(term) == _OTHER}
        return Matcher(phrases, alone, [words(doubt) for doubt in self.doubts])


@dataclass(frozen=True)
class Event:
    """One kind of event: its name in files, its title for people, its opening sentence, and its fields in order.

    `background`: what there is when nothing happens (ordinary driving); it may have no fields.
    """

    name: str
    title: str
    opening: str
    openings: tuple[str, ...]
    fields: tuple[Field, ...]
    background: bool = False

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    def field(self, name: str) -> Field:
        """The field of this name; ValueError with the allowed names otherwise."""
        for field in self.fields:
            if field.name == name:
                return field
        raise ValueError(f"{name!r} is not a field of {self.name!r}{nearest(name, self.field_names)}")

    @cached_property
    def names_by_label(self) -> dict[str, str]:
        """Comparable form of each label and alias -> field name."""
        return {label_key(label): field.name for field in self.fields for label in (field.label, *field.aliases)}


@dataclass(frozen=True)
class Schema:
    """The events and their fields, what a mirrored clip's record says, and what no record can say at once (`rules`).

    `source` says where it was read.
    """

    events: tuple[Event, ...]
    source: str = dataclasses.field(default="", compare=False)
    mirror: Mirror | None = None
    rules: tuple[Rule, ...] = ()

    @property
    def event_names(self) -> tuple[str, ...]:
        return tuple(event.name for event in self.events)

    def event(self, name: str) -> Event:
        """The event of this name; ValueError with the allowed names otherwise."""
        for event in self.events:
            if event.name == name:
                return event
        raise ValueError(f"{name!r} is not an event of {self.source or 'the schema'}{nearest(name, self.event_names)}")

    @property
    def background(self) -> Event | None:
        """What there is when nothing happens, where the schema has a word for it."""
        return next((event for event in self.events if event.background), None)

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every field once, in order of first appearance."""
        return tuple({field.name: field for event in self.events for field in event.fields}.values())

    def field(self, name: str) -> Field:
        """The field of this name in whatever event; ValueError with the allowed names otherwise."""
        by_name = {field.name: field for field in self.fields}
        if name not in by_name:
            raise ValueError(f"{name!r} is not a field of {self.source or 'the schema'}{nearest(name, by_name)}")
        return by_name[name]

    @cached_property
    def event_matcher(self) -> Matcher:
        """Finds the event in an opening sentence."""
        return Matcher({words(wording): (event.name,) for event in self.events for wording in event.openings})

    def with_vocabularies(self, vocabularies: Mapping[str, Iterable[str]]) -> Schema:
        """The same schema with its open categorical fields filled with the terms of a dataset.

        Terms that differ only in case, `_`, `-` or blanks are one term in its first spelling; cells that say nothing
        are left out. Raises ValueError for fields that do not exist or are not open.
        """
        problems, filled = [], {}
        for name, terms in vocabularies.items():
            field = {f.name: f for f in self.fields}.get(name)
            if field is None:
                problems.append(f"{name!r} is not a field{nearest(name, [f.name for f in self.fields])}")
            elif field.kind != "categorical" or field.closed:
                kind = "closed" if field.closed else f"a {field.kind}"
                problems.append(f"{name!r} takes no terms from a dataset: it is {kind}")
            else:
                filled[name] = dataclasses.replace(field, vocabulary=_distinct(terms))
        if problems:
            raise ValueError("vocabularies of a dataset: " + "; ".join(problems))
        events = tuple(
            dataclasses.replace(event, fields=tuple(filled.get(f.name, f) for f in event.fields))
            for event in self.events
        )
        return dataclasses.replace(self, events=events)

    def to_dict(self) -> dict[str, Any]:
        """The schema in the YAML's own form; `from_dict` reads it back."""
        events = {
            e.name: {
                "title": e.title,
                "opening": e.opening,
                "openings": list(e.openings),
                "fields": list(e.field_names),
                # Only where it is: the fingerprints of schemas without one stay as they were.
                **({"background": "true"} if e.background else {}),
            }
            for e in self.events
        }
        names = [attribute.name for attribute in dataclasses.fields(Field)]
        fields = {f.name: field_entry({name: getattr(f, name) for name in names}) for f in self.fields}
        said: dict[str, Any] = {"events": events, "fields": fields}
        if self.mirror is not None:
            said["mirror"] = mirror_entry(self.mirror)
        return {**said, "consistency": rules_entry(self.rules)} if self.rules else said

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "") -> Schema:
        """Raises SchemaError with every problem of `data` at once."""
        if problems := schema_problems(data):
            head = f"{source or 'schema'}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"
            raise SchemaError("\n".join([head, *(f"  {problem}" for problem in problems)]))
        fields = {name: Field(**field_arguments(name, entry)) for name, entry in data["fields"].items()}
        events = tuple(
            Event(
                name=name,
                title=entry["title"],
                opening=entry["opening"],
                openings=tuple(entry["openings"]),
                fields=tuple(fields[f] for f in entry["fields"]),
                background=is_background(entry),
            )
            for name, entry in data["events"].items()
        )
        return cls(events, source, mirror_of(data.get("mirror")), rules_of(data.get("consistency")))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of all that the schema says of an answer (not where it was read, nor mirrored clips, nor rules)."""
        said = {key: value for key, value in self.to_dict().items() if key in ("events", "fields")}
        text = json.dumps([list(self.event_names), said], sort_keys=True, ensure_ascii=False)
        return _sha256(text)

    @cached_property
    def form(self) -> str:
        """sha256 of what a model writes: openings, headings, labels. Terms, wordings and columns are not in it."""
        rows = [[event.opening, *((field.section, field.label) for field in event.fields)] for event in self.events]
        return _sha256(json.dumps(rows, ensure_ascii=False))


def load_schema(path: str | Path | None = None) -> Schema:
    """Read and check a schema. None: the shipped crash.yaml; a bare name may be a shipped one's (scan.yaml).

    Raises FileNotFoundError, or SchemaError (a ValueError) with every problem of the YAML, its place and its remedy.
    """
    return _shipped() if path is None else _load(_found(Path(path)))


@cache
def _shipped() -> Schema:
    return _load(SHIPPED)


def _found(path: Path, folder: Path = Path()) -> Path:
    """A file of `folder`, else the shipped one where a bare name is its name."""
    shipped = SHIPPED.with_name(path.name)
    is_shipped = path == Path(path.name) and path.suffix == ".yaml" and shipped.is_file()
    return shipped if is_shipped and not (folder / path).exists() else folder / path


def _load(path: Path) -> Schema:
    data = _read(path)
    if isinstance(data, Mapping) and "extends" in data:
        base = _found(Path(str(data["extends"])), path.parent)
        own, data = {key: value for key, value in data.items() if key != "extends"}, _read(base)
        if not isinstance(data, Mapping) or "extends" in data:
            raise SchemaError(f"schema {path}: extends {base}, which must be a whole schema itself, as {SHIPPED}")
        unknown = [key for key in own if key not in SECTIONS]
        wrong = [key for key in SECTIONS if not isinstance(own.get(key) or {}, Mapping)]
        if unknown or wrong:
            named = ", ".join([*unknown, *wrong])
            raise SchemaError(
                f"schema {path}: {named}: give `extends`, and mappings of events, of fields and of mirror"
            )
        data = extended(own, data)
    return Schema.from_dict(data, str(path))


def _read(path: Path) -> Any:
    if path.is_dir():
        raise SchemaError(f"schema {path}: a folder; give a YAML such as {SHIPPED}, or leave --schema out")
    if not path.is_file():
        raise FileNotFoundError(f"schema {path}: no such file; give a YAML such as {SHIPPED}, or leave --schema out")
    try:
        text = read_text(path, "schema")
    except ValueError as error:
        raise SchemaError(str(error)) from error
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise SchemaError(f"schema {path}, {where_it_breaks(error, text)}; mend it there, as in {SHIPPED}") from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _distinct(terms: Iterable[str]) -> tuple[str, ...]:
    by_form: dict[str, str] = {}
    for term in terms:
        cleaned = clean_text(str(term))
        if not is_unknown(cleaned):
            by_form.setdefault(normal_form(cleaned), cleaned)
    return tuple(by_form.values())
