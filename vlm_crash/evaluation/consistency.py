"""How often answers contradict themselves, beside how often the truths do: the schema's rules, counted.

Enters: scored clips. Leaves: "consistency" of metrics.json, the list of consistency.csv, a line for the terminal.
Must hold: an answer is judged as a record of the event that it names, right or wrong; one that says too little to break
a rule is not in that rule's count. A rule that the truths break as often says nothing of the answers, and is flagged.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent, answers_of
from vlm_crash.schema.consistency import Rule
from vlm_crash.schema.fields import UNKNOWN, Event, Schema
from vlm_crash.schema.records import Answer
from vlm_crash.schema.response import parse

NO_ANSWERS = "no answer says enough to break it"
NO_TRUTHS = "no truth says enough to break it"
NOT_SPARED = "the truths break it as often: it says nothing of the answers"
Z95 = 1.959964  # of the standard normal, two-sided
COLUMNS = ("of", "event", "video", "answered_event", "rule", "sentence", "values")


@dataclass(frozen=True)
class _Record:
    """What an answer or a truth says, as a record of one event."""

    clip: ScoredClip
    event: str
    values: Mapping[str, str]


def consistency(schema: Schema, scored: Sequence[ScoredEvent]) -> dict[str, Any]:
    """Rules with their rates among answers and among truths, and every clip that breaks one.

    "answers" and "truths" count records that break any rule. Intervals are 95 % Wilson intervals of a share, which say
    something of 0 in N too; clips count as independent.
    """
    clips = [clip for event in scored for clip in event.clips]
    answers = [record for clip in clips if (record := _answer(schema, clip)) is not None]
    truths = [_Record(clip, clip.joined.event, clip.joined.annotation.known) for clip in clips]
    found = {"answer": _broken(schema, answers), "truth": _broken(schema, truths)}
    return {
        "answers": _any_broken(answers, found["answer"], NO_ANSWERS),
        "truths": _any_broken(truths, found["truth"], NO_TRUTHS),
        "rules": [
            _rule_entry(rule, event, answers, truths)
            for rule in schema.rules
            for event in schema.events
            if rule.concerns(event.name, event.field_names)
        ],
        "violations": [_violation(record, rule) for record, rule in found["answer"]],
        "truth_violations": [_violation(record, rule) for record, rule in found["truth"]],
    }


def _answer(schema: Schema, clip: ScoredClip) -> _Record | None:
    """What was answered, as a record of the event that was named; None where there is no such answer."""
    if clip.prediction is None or clip.prediction.status != "ok" or clip.predicted_event is None:
        return None
    event = schema.event(clip.predicted_event)
    answers = clip.answers if clip.event_right else answers_of(schema, event, clip.prediction)
    beside = _beside(schema, event, clip.prediction.response)
    return _Record(clip, event.name, _known(answers) | beside)


def _beside(schema: Schema, event: Event, response: str) -> dict[str, str]:
    """What a response says of fields that its event does not have, as far as a rule asks for them."""
    asked = {f for rule in schema.rules if rule.event == event.name for f in rule.fields} - set(event.field_names)
    others = [other for other in schema.events if other is not event and asked & set(other.field_names)]
    said = [_known(parse(schema, response, event=other.name).answers) for other in others]
    return {name: value for one in said for name, value in one.items() if name in asked}


def _known(answers: Mapping[str, Answer]) -> dict[str, str]:
    return {
        name: answer.value
        for name, answer in answers.items()
        if answer.status == "value" and answer.value is not None and answer.value != UNKNOWN
    }


def _broken(schema: Schema, records: Sequence[_Record]) -> list[tuple[_Record, Rule]]:
    return [
        (record, rule)
        for record in records
        for rule in schema.rules
        if rule.concerns(record.event, schema.event(record.event).field_names) and rule.is_broken(record.values)
    ]


def _any_broken(records: Sequence[_Record], broken: Sequence[tuple[_Record, Rule]], reason: str) -> dict[str, Any]:
    violations = len({id(record) for record, _ in broken})
    entry = {"n": len(records), "violations": violations, **_share(violations, len(records))}
    return {**entry, "reasons": {} if records else dict.fromkeys(("rate", "low", "high"), reason)}


def _rule_entry(rule: Rule, event: Event, answers: Sequence[_Record], truths: Sequence[_Record]) -> dict[str, Any]:
    def counted(records: Sequence[_Record], has: Callable[[Mapping[str, str]], bool]) -> int:
        return sum(record.event == event.name and has(record.values) for record in records)

    n, violations = counted(answers, rule.is_checked), counted(answers, rule.is_broken)
    # A truth has no column for a field that its event lacks.
    told = set(rule.fields) <= set(event.field_names)
    truth_n = counted(truths, rule.is_checked) if told else 0
    truth_violations = counted(truths, rule.is_broken)
    of_truth = {f"truth_{name}": value for name, value in _share(truth_violations, truth_n).items()}
    entry: dict[str, Any] = {
        "name": rule.name, "sentence": rule.sentence, "event": event.name,
        "n": n, "violations": violations, **_share(violations, n),
        "truth_n": truth_n, "truth_violations": truth_violations, **of_truth,
    }  # fmt: skip
    as_often = violations and truth_n and entry["truth_rate"] >= entry["low"]
    entry["flags"] = [NOT_SPARED] if as_often else []
    entry["reasons"] = {
        **({} if n else dict.fromkeys(("rate", "low", "high"), NO_ANSWERS)),
        **({} if truth_n else dict.fromkeys(of_truth, NO_TRUTHS)),
    }
    return entry


def _violation(record: _Record, rule: Rule) -> dict[str, Any]:
    clip = record.clip.joined
    return {
        "event": clip.event, "video": clip.truth.video, "answered_event": record.event, "rule": rule.name,
        "values": {name: record.values[name] for name in rule.fields},
    }  # fmt: skip


def _share(violations: int, n: int) -> dict[str, float | None]:
    """The share with its Wilson interval; None without any.

    >>> {name: round(value, 3) for name, value in _share(0, 36).items()}
    {'rate': 0.0, 'low': 0.0, 'high': 0.096}
    """
    if n == 0:
        return dict.fromkeys(("rate", "low", "high"))
    rate, z2 = violations / n, Z95**2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return {"rate": rate, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def consistency_csv(schema: Schema, entry: Mapping[str, Any]) -> str:
    """The text of consistency.csv: one row for each broken rule, of answers, then of truths."""
    sentences = {rule.name: rule.sentence for rule in schema.rules}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for of, key in (("answer", "violations"), ("truth", "truth_violations")):
        writer.writerows(
            [of, v["event"], v["video"], v["answered_event"], v["rule"], sentences[v["rule"]], _shown(v["values"])]
            for v in entry[key]
        )
    return text.getvalue()


def consistency_line(entry: Mapping[str, Any]) -> str:
    """One line for a terminal; empty where the schema has no rules."""
    answers, truths = entry["answers"], entry["truths"]
    if not entry["rules"] or not answers["n"]:
        return ""
    line = f"{_of(answers)} answers contradict themselves; of the truths {_of(truths)}"
    worst = max(entry["rules"], key=lambda rule: rule["violations"])
    if not worst["violations"]:
        return line
    return f"{line} (consistency.csv). Most often: {worst['name']}, {worst['violations']} of {worst['n']}"


def _of(counts: Mapping[str, Any]) -> str:
    return f"{counts['violations']} of {counts['n']}"


def _shown(values: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in values.items())
