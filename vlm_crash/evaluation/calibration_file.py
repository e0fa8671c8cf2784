"""calibration.json: temperatures and thresholds of an evaluation, to be used on clips of which no truth is known.

Enters: metrics.json's `calibration`s; the file, read back. Leaves: the file; for a prediction, which of its answers can
be taken without a look. Must hold: an answer is taken by the rule by which `evaluate` accepted it; what has no
probability or no threshold is for somebody to look at; a rule is of one model, and not used on another's answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_crash.evaluation.calibration import applied_temperature
from vlm_crash.evaluation.joining import JoinedClip
from vlm_crash.evaluation.probabilities import event_probabilities, tempered, term_of
from vlm_crash.metrics.functional import is_scored
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Prediction

CALIBRATION_FILE = "calibration.json"
#: Stands for the event among the fields of a clip.
EVENT = "event"


@dataclass(frozen=True)
class Rule:
    """When an answer is taken: at a temperature, from a threshold on; None: as predicted; never."""

    temperature: float | None
    threshold: float | None


@dataclass(frozen=True)
class Judged:
    """An answer with its (calibrated) probability, and whether it can be taken; no probability: it cannot."""

    value: str
    probability: float | None
    is_taken: bool


@dataclass(frozen=True)
class Calibration:
    """What calibration.json holds.

    Attributes:
        event: of the event that is named; fields: of each event's fields that are chosen among terms or counted.
        runs: run ids of the predictions that were evaluated; empty: they named none.
        expected: overall.operating_point of metrics.json: what was reached on the evaluated clips.
    """

    schema: Schema
    event: Rule
    fields: Mapping[str, Mapping[str, Rule]]
    runs: tuple[str, ...]
    expected: Mapping[str, Any] | None

    @classmethod
    def read(cls, path: Path, schema: Schema) -> Calibration:
        """Read the file, or that of an evaluation's folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is not what `evaluate --calibrate_on` writes, or of another schema.
        """
        path = path / CALIBRATION_FILE if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; `evaluate` writes it where --calibrate_on is given")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            names = {event: list(rules) for event, rules in found["fields"].items()}
            if found["schema"] != schema.fingerprint:
                raise ValueError(f"{path} is of another schema; give the --schema that it was evaluated with")
            for event, known in names.items():
                if unknown := set(known) - set(schema.event(event).field_names):
                    raise ValueError(f"{path}: {', '.join(sorted(unknown))}: no fields of {event}; `evaluate` again")
            fields = {e: {name: Rule(**rule) for name, rule in rules.items()} for e, rules in found["fields"].items()}
            return cls(schema, Rule(**found["event"]), fields, tuple(found["runs"]), found["expected"])
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is not a calibration.json of this version ({error!r}); `evaluate` again"
            ) from error

    def check_run(self, prediction: Prediction, where: str) -> str | None:
        """Why nobody can tell whether a prediction is of the calibrated model; None: it is.

        Raises:
            ValueError: it says that it is of another model or other settings.
        """
        if not self.runs:
            return f"{CALIBRATION_FILE} has no run id"
        if not prediction.provenance:
            return "the prediction has no run id"
        if prediction.provenance not in self.runs:
            raise ValueError(
                f"{where} is of run {prediction.provenance}, and the calibration of {', '.join(self.runs)}: another "
                "model or other settings; predict with those that were evaluated, or evaluate these"
            )
        return None

    def judge(self, prediction: Prediction) -> dict[str, Judged]:
        """The event and each choice or count of the record that was told, by field; nothing of a failed clip."""
        if prediction.status != "ok" or prediction.event not in self.schema.event_names:
            return {}
        event = self.schema.event(prediction.event)
        events = event_probabilities(prediction, self.schema.event_names) or {}
        found = {EVENT: _judged(prediction.event, events, prediction.event, self.event)}
        for field in filter(is_scored, event.fields):
            value = prediction.fields.get(field.name)
            terms = prediction.field_probabilities.get(field.name) or {}
            term = None if value is None else term_of(field, terms, value)
            rule = self.fields.get(event.name, {}).get(field.name, Rule(None, None))
            found[field.name] = _judged(value or "", terms, term, rule)
        return found


def _judged(value: str, terms: Mapping[str, float], term: str | None, rule: Rule) -> Judged:
    if term is None or term not in terms:
        return Judged(value, None, False)
    probability = tempered(terms, rule.temperature)[term]
    return Judged(value, probability, rule.threshold is not None and probability >= rule.threshold)


def calibration_json(schema: Schema, metrics: Mapping[str, Any], runs: Sequence[str]) -> str:
    """The text of calibration.json."""
    fields = {
        event.name: {
            field.name: _rule(metrics[event.name]["fields"][field.name].get("calibration"))
            for field in event.fields
            if is_scored(field)
        }
        for event in schema.events
    }
    content = {
        "schema": schema.fingerprint, "runs": list(runs), "wanted": metrics["settings"]["wanted_accuracy"],
        "event": _rule(metrics["event"].get("calibration")), "fields": fields,
        "expected": metrics["overall"]["operating_point"],
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rule(entry: Mapping[str, Any] | None) -> dict[str, float | None]:
    point = None if entry is None else entry["operating_point"]
    return {"temperature": applied_temperature(entry), "threshold": None if point is None else point["threshold"]}


def runs_of(clips: Iterable[JoinedClip]) -> list[str]:
    """The run ids that the predictions of evaluated clips name."""
    loaded = [clip.loaded for clip in clips if clip.loaded is not None]
    return sorted({one.prediction.provenance for one in loaded if one.prediction.provenance})
