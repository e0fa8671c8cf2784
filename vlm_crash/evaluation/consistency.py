"""How often answers contradict themselves, beside how often the truths do: the schema's rules, counted.

Enters: scored clips. Leaves: "consistency" of metrics.json, the list of consistency.csv, a line for the terminal.
Must hold: an answer is judged as a record of the event that it names, right or wrong; one that says too little to break
a rule is not in that rule's count. A rule that the truths break as often says nothing of the answers, and is flagged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_crash.evaluation.bootstrap import Resamples, counted_share_interval, no_interval
from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent, answers_of
from vlm_crash.schema.consistency import Rule
from vlm_crash.schema.fields import UNKNOWN, Event, Schema
from vlm_crash.schema.records import Answer
from vlm_crash.schema.response import parse

NO_ANSWERS = "no answer says enough to break it"
NO_TRUTHS = "no truth says enough to break it"
NOT_SPARED = "the truths break it as often: it says nothing of the answers"
COLUMNS = ("of", "event", "video", "answered_event", "rule", "sentence", "values")


@dataclass(frozen=True)
class _Record:
    """What an answer or a truth says, as a record of one event. place: of its clip among all."""

    place: int
    clip: ScoredClip
    event: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class _Records:
    """Answers or truths, and the draws of the clips that they are of."""

    all: Sequence[_Record]
    resamples: Resamples

    def share(self, counted: Sequence[_Record], broken: Sequence[_Record]) -> dict[str, Any]:
        """`n`, `violations`, and their rate with its interval; None without any, or where all are of one group."""
        entry: dict[str, Any] = {
            "n": len(counted), "violations": len(broken), **dict.fromkeys(("rate", "low", "high")),
        }  # fmt: skip
        if not counted:
            return entry
        broken_N, counted_N = self._mask(broken), self._mask(counted)
        low, high = counted_share_interval(broken_N, counted_N, self.resamples) or (None, None)
        return {**entry, "rate": len(broken) / len(counted), "low": low, "high": high}

    def _mask(self, records: Sequence[_Record]) -> NDArray[np.bool_]:
        mask_N = np.zeros(len(self.resamples.group_N), dtype=bool)
        mask_N[[record.place for record in records]] = True
        return mask_N

    def reasons(self, counted: Sequence[_Record], entry: Mapping[str, Any], nothing: str) -> dict[str, str]:
        """Why `rate` or its limits are null."""
        if not counted:
            return dict.fromkeys(("rate", "low", "high"), nothing)
        if entry["low"] is not None:
            return {}
        groups = len({self.resamples.group_N[record.place] for record in counted})
        return dict.fromkeys(("low", "high"), no_interval(groups))


def consistency(schema: Schema, scored: Sequence[ScoredEvent], resamples: Mapping[str, Resamples]) -> dict[str, Any]:
    """Rules with their rates among answers and among truths, and every clip that breaks one.

    "answers" and "truths" count records that break any rule. Intervals are those of counted_share_interval, which say
    something of 0 in N too.

    Args:
        resamples: draws of the clips of each event.
    """
    clips = [clip for event in scored for clip in event.clips]
    joint = Resamples.joint([resamples[event.event.name] for event in scored])
    answers = _Records([record for n, clip in enumerate(clips) if (record := _answer(schema, clip, n))], joint)
    truths = _Records(
        [_Record(n, clip, clip.joined.event, clip.joined.annotation.known) for n, clip in enumerate(clips)], joint
    )
    found = {"answer": _broken(schema, answers.all), "truth": _broken(schema, truths.all)}
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


def _answer(schema: Schema, clip: ScoredClip, place: int) -> _Record | None:
    """What was answered, as a record of the event that was named; None where there is no such answer."""
    if clip.prediction is None or clip.prediction.status != "ok" or clip.predicted_event is None:
        return None
    event = schema.event(clip.predicted_event)
    answers = clip.answers if clip.event_right else answers_of(schema, event, clip.prediction)
    beside = _beside(schema, event, clip.prediction.response)
    return _Record(place, clip, event.name, _known(answers) | beside)


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


def _any_broken(records: _Records, broken: Sequence[tuple[_Record, Rule]], reason: str) -> dict[str, Any]:
    entry = records.share(records.all, list({record.place: record for record, _ in broken}.values()))
    return {**entry, "reasons": records.reasons(records.all, entry, reason)}


def _rule_entry(rule: Rule, event: Event, answers: _Records, truths: _Records) -> dict[str, Any]:
    def those(records: _Records, has: Callable[[Mapping[str, str]], bool]) -> list[_Record]:
        return [record for record in records.all if record.event == event.name and has(record.values)]

    counted = those(answers, rule.is_checked)
    # A truth has no column for a field that its event lacks.
    told = set(rule.fields) <= set(event.field_names)
    counted_truths = those(truths, rule.is_checked) if told else []
    of_answers = answers.share(counted, those(answers, rule.is_broken))
    of_truths = truths.share(counted_truths, those(truths, rule.is_broken) if told else [])
    entry: dict[str, Any] = {
        "name": rule.name, "sentence": rule.sentence, "event": event.name, **of_answers,
        **{f"truth_{name}": value for name, value in of_truths.items()},
    }  # fmt: skip
    rate, low = entry["truth_rate"], entry["rate"] if entry["low"] is None else entry["low"]
    entry["flags"] = [NOT_SPARED] if entry["violations"] and rate is not None and rate >= low else []
    why = truths.reasons(counted_truths, of_truths, NO_TRUTHS)
    entry["reasons"] = {
        **answers.reasons(counted, of_answers, NO_ANSWERS), **{f"truth_{name}": reason for name, reason in why.items()}
    }  # fmt: skip
    return entry


def _violation(record: _Record, rule: Rule) -> dict[str, Any]:
    clip = record.clip.joined
    return {
        "event": clip.event, "video": clip.truth.video, "answered_event": record.event, "rule": rule.name,
        "values": {name: record.values[name] for name in rule.fields},
    }  # fmt: skip


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
