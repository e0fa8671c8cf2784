"""What one record cannot say at once: rules between fields, as a schema writes them down.

Enters: the table `consistency` of a schema, values of a record. Leaves: which rules a record breaks.
Must hold: a rule is broken only by what is said; a value that is not known breaks none. All rules name fields, events
and terms that exist (`consistency_problems`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vlm_crash.schema.wording import nearest, normal_form
from vlm_crash.schema.yaml_form import is_closed

RULE_KEYS = ("sentence", "event", "when")
SAID = "said"
_LIMIT = re.compile(r"(below|above) (\d+)")
_FORMS = "a list of terms, `below N` or `above N` for a count, or `said` (any value)"


@dataclass(frozen=True)
class Condition:
    """What a field says: one of `terms`, a count below or above a limit, or (all three unset) any value."""

    field: str
    terms: tuple[str, ...] = ()
    below: int | None = None
    above: int | None = None

    @property
    def asks_for_any(self) -> bool:
        return not self.terms and self.below is None and self.above is None

    @cached_property
    def _forms(self) -> frozenset[str]:
        return frozenset(map(normal_form, self.terms))

    def holds(self, value: str | None) -> bool:
        """Whether a value says it; None: the value is not known.

        >>> Condition("Lanes", below=1).holds("0"), Condition("Weather", ("Snowy",)).holds(None)
        (True, False)
        """
        if value is None or self.asks_for_any:
            return value is not None
        if self.terms:
            return normal_form(value) in self._forms
        if not re.fullmatch(r"\d+", value):
            return False
        return (self.below is None or int(value) < self.below) and (self.above is None or int(value) > self.above)


@dataclass(frozen=True)
class Rule:
    """A contradiction: all conditions at once.

    Attributes:
        sentence: what a record that breaks it says, for people.
        event: the only event that it is about; None: every event that has all its fields. Of a field that this event
            lacks, the response may still speak (a severity in an answer about a near miss).
    """

    name: str
    sentence: str
    when: tuple[Condition, ...]
    event: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(condition.field for condition in self.when)

    def is_checked(self, values: Mapping[str, str]) -> bool:
        """Whether a record knows enough to break the rule: every field but those of which any value will do."""
        return all(condition.field in values for condition in self.when if not condition.asks_for_any)

    def is_broken(self, values: Mapping[str, str]) -> bool:
        """Whether a record of these known values breaks it."""
        return all(condition.holds(values.get(condition.field)) for condition in self.when)

    def concerns(self, event: str, fields: Sequence[str]) -> bool:
        """Whether it is about an event with these fields."""
        return event == self.event if self.event is not None else set(self.fields) <= set(fields)


# ----------------------------------------------------------------------------------------------------- the YAML's form


def rules_of(entry: Mapping[str, Any] | None) -> tuple[Rule, ...]:
    """The rules from their form in the YAML."""
    return tuple(
        Rule(name, rule["sentence"], tuple(_condition(f, said) for f, said in rule["when"].items()), rule.get("event"))
        for name, rule in (entry or {}).items()
    )


def rules_entry(rules: Sequence[Rule]) -> dict[str, Any]:
    """The inverse of `rules_of`."""
    return {
        rule.name: {
            "sentence": rule.sentence,
            **({"event": rule.event} if rule.event is not None else {}),
            "when": {condition.field: _said(condition) for condition in rule.when},
        }
        for rule in rules
    }


def _condition(field: str, said: Any) -> Condition:
    if isinstance(said, list | tuple):
        return Condition(field, tuple(said))
    if (limit := _LIMIT.fullmatch(said)) is None:
        return Condition(field)
    limits: dict[str, int] = {limit[1]: int(limit[2])}
    return Condition(field, below=limits.get("below"), above=limits.get("above"))


def _said(condition: Condition) -> list[str] | str:
    if condition.terms:
        return list(condition.terms)
    if condition.below is not None:
        return f"below {condition.below}"
    return SAID if condition.above is None else f"above {condition.above}"


def consistency_problems(entry: object, events: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[str]:
    """All problems of the table as it stands in the YAML."""
    if not isinstance(entry, Mapping):
        yield "consistency: it is no mapping of name to rule; write it as in crash.yaml"
        return
    for name, rule in entry.items():
        place = f"consistency.{name}"
        if not isinstance(rule, Mapping) or not isinstance(rule.get("when"), Mapping) or not rule["when"]:
            yield f"{place}: must hold `sentence` and `when` (field: what it says)"
            continue
        yield from (f"{place}.{key}: unknown key{nearest(key, RULE_KEYS)}" for key in rule if key not in RULE_KEYS)
        if not isinstance(rule.get("sentence"), str) or not rule["sentence"].strip():
            yield f"{place}.sentence: missing; say in one line what is contradictory"
        if (event := rule.get("event")) is not None and event not in events:
            yield f"{place}.event: {event!r} is not in `events`{nearest(event, events)}"
        for field, said in rule["when"].items():
            yield from _condition_problems(f"{place}.when.{field}", field, said, fields)
        if event is None and set(rule["when"]) <= set(fields) and not _in_one_event(rule["when"], events):
            yield f"{place}.when: no event has all of {', '.join(rule['when'])}; name the one it is about in `event`"


def _in_one_event(names: Mapping[str, Any], events: Mapping[str, Any]) -> bool:
    return any(set(names) <= set(entry.get("fields") or ()) for entry in events.values() if isinstance(entry, Mapping))


def _condition_problems(place: str, name: str, said: object, fields: Mapping[str, Any]) -> Iterator[str]:
    field = fields.get(name)
    if not isinstance(field, Mapping):
        yield f"{place}: {name!r} is not in `fields`{nearest(name, fields)}"
        return
    if isinstance(said, list) and said and all(isinstance(term, str) for term in said):
        if field.get("kind") != "categorical":
            yield f"{place}: a {field.get('kind')} field has no terms; write {_FORMS}"
            return
        vocabulary = [str(term) for term in field.get("vocabulary") or ()]
        known = {normal_form(term) for term in vocabulary} if is_closed(field) else None
        for term in said if known is not None else ():
            if normal_form(term) not in (known or ()):
                yield f"{place}: {term!r} is not in the vocabulary{nearest(term, vocabulary)}"
    elif isinstance(said, str) and _LIMIT.fullmatch(said):
        if field.get("kind") != "count":
            yield f"{place}: {said!r} is for counts, and {name} is a {field.get('kind')} field; write {_FORMS}"
    elif said != SAID:
        yield f"{place}: {said!r} is none of: {_FORMS}"
