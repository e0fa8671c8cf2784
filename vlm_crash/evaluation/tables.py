"""Scored clips and metrics as texts of files: the old scripts' six CSVs, records.json; a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlm_crash.evaluation.calibration import applied_temperature, operating_sentence
from vlm_crash.evaluation.grouping import group_key
from vlm_crash.evaluation.loading import LoadedPrediction
from vlm_crash.evaluation.probabilities import answer_probability, event_probabilities, shown_probabilities, tempered
from vlm_crash.evaluation.ranking import ANSWERED, SCORES, ranking_note
from vlm_crash.evaluation.role_scores import Roles, roles_problem
from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent, answers_of
from vlm_crash.metrics.functional import Verdict
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Prediction


def formatted_csvs(
    schema: Schema, scored: ScoredEvent, without_truth: Sequence[LoadedPrediction] = ()
) -> dict[str, str]:
    """File name -> text. formatted-<event>.csv (the wording as said) and formatted-normalized-<event>.csv (its term).

    A term is empty where the wording is missing or not understood. One row per predicted clip, in the truth's order;
    then the clips that have no truth, of the event that their file tells, else of the one that the answer says. No file
    of an event without any clip.
    """
    names = scored.event.field_names
    rows = [(clip.prediction.video, clip.answers) for clip in scored.clips if clip.prediction is not None]
    for prediction in (loaded.prediction for loaded in without_truth):
        if (prediction.source_event or prediction.event) == scored.event.name:
            answers = answers_of(schema, scored.event, prediction) if prediction.status == "ok" else {}
            rows.append((prediction.video, answers))
    if not scored.clips and not rows:
        return {}
    said, terms = [], []
    for video, found in rows:
        in_order = [found.get(name) for name in names]
        said.append([video, *((answer.said or "") if answer else "" for answer in in_order)])
        terms.append([video, *((answer.value or "") if answer else "" for answer in in_order)])
    return {
        f"formatted-{scored.event.name}.csv": _csv(["video", *names], said),
        f"formatted-normalized-{scored.event.name}.csv": _csv(["video", *names], terms),
    }


def evaluation_csv(entry: dict[str, Any]) -> str:
    """The text of evaluation_<event>.csv: percent, as the old scripts wrote it; an empty score where there is none."""
    rows = []
    for name, field in entry["fields"].items():
        is_text = field["kind"] == "text"
        score = "" if field["score"] is None else round(100 * field["score"], 4)
        matched = field["compared"] if is_text else field["right"]
        rows.append(
            [
                name,
                "text" if is_text else "categorical",
                "cosine_similarity" if is_text else "exact_match",
                score,
                matched,
                field["n"],
            ]
        )
    return _csv(["field", "type", "metric", "score", "matched", "total"], rows)


def records_json(
    schema: Schema,
    scored: Sequence[ScoredEvent],
    without_truth: Sequence[LoadedPrediction],
    roles: Roles,
    groups: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> str:
    """The text of records.json: per clip the truth beside the answer, for the report and one's own analysis.

    Args:
        metrics: with the `calibration` whose temperatures the probabilities are given at.
    """
    open_terms = {f.name: f.vocabulary for f in schema.fields if f.kind == "categorical" and not f.closed}
    records = {
        # A dataset's own terms stand apart: the YAML's form of a schema names none for its open fields.
        "schema": schema.with_vocabularies(dict.fromkeys(open_terms, ())).to_dict(),
        "vocabularies": open_terms,
        "clips": [
            _record(schema, event, clip, n, roles, groups, metrics)
            for event in scored
            for n, clip in enumerate(event.clips)
        ],
        "predictions_without_truth": [loaded.prediction.to_json_dict() for loaded in without_truth],
    }
    return json.dumps(records, ensure_ascii=False)


def _record(
    schema: Schema,
    scored: ScoredEvent,
    clip: ScoredClip,
    n: int,
    roles: Roles,
    groups: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    prediction, truth = clip.prediction, clip.joined.truth
    fields = {}
    for k, field in enumerate(scored.event.fields):
        answer = clip.answers.get(field.name)
        score, given = scored.end_to_end_NK[n, k], scored.given_event_NK[n, k]
        temperature = applied_temperature(metrics[scored.event.name]["fields"][field.name].get("calibration"))
        probability, as_said = (answer_probability(clip, field, t) for t in (temperature, None))
        fields[field.name] = {
            "truth": clip.joined.annotation.values[field.name],
            "answer": answer.value if answer else None,
            "said": answer.said if answer else None,
            "verdict": clip.verdicts[field.name].value,
            "verdict_given_event": clip.verdicts_given[field.name].value,
            "score": None if score != score else float(score),
            "score_given_event": None if given != given else float(given),
            "probability": None if probability is None else round(probability, 4),
            "probabilities": shown_probabilities(clip, field, temperature),
        }
        if temperature is not None and as_said is not None:
            fields[field.name] |= {"calibrated": True, "probability_as_predicted": round(as_said, 4)}
        if (found := roles.get((scored.event.name, field.name))) is not None:
            fields[field.name]["roles"] = roles_problem(found[n])
    exact = [v for v in clip.verdicts.values() if v.counted and v is not Verdict.COMPARED]
    return {
        "event": clip.joined.event,
        "video": truth.video,
        "id": truth.id,
        "path": _clip_path(clip),
        "status": "absent" if prediction is None else prediction.status,
        "error": "no prediction for this clip" if prediction is None else prediction.error,
        "event_told": clip.joined.loaded is not None and clip.joined.loaded.told_event,
        "predicted_event": clip.predicted_event,
        "event_probability": prediction.event_probability if prediction else None,
        **_calibrated_event(prediction, schema.event_names, applied_temperature(metrics["event"].get("calibration"))),
        "response": prediction.response if prediction else "",
        "num_wrong": sum(v not in (Verdict.RIGHT, Verdict.COMPARED) for v in exact),
        "fields": fields,
        # What `compare` draws together; only where clips have groups.
        **({"group": group_key(groups, truth.id)} if groups else {}),
    }


def _calibrated_event(
    prediction: Prediction | None, names: Sequence[str], temperature: float | None
) -> dict[str, float]:
    """P(first event) at the temperature of the event, which is of all events' probabilities; nothing without either."""
    if prediction is None or prediction.event_probability is None or temperature is None:
        return {}
    found = event_probabilities(prediction, names)
    return {} if found is None else {"event_probability_calibrated": round(tempered(found, temperature)[names[0]], 4)}


def _clip_path(clip: ScoredClip) -> str:
    """Where the clip lies: as predicted, else as the truth knows it."""
    if clip.prediction is not None and clip.prediction.path:
        return clip.prediction.path
    return str(clip.joined.truth.path)


#: Over the columns of the table; "bal." and "F1" are balanced accuracy and macro-F1. Only like may be held beside like:
#: first what is scored end to end, then what is given the event.
_HEADER: tuple[tuple[str, ...], ...] = (
    ("", "", "", "", "macro", "", "", "major-", "meta-", "", "parsed", "miss-", "not un-"),
    (
        "field",
        "score",
        "95 % interval",
        "bal.",
        "F1",
        "blind",
        "score",
        "ity",
        "data",
        "blind",
        "of n",
        "ing",
        "derst.",
    ),
)
#: What the caption over majority and metadata does not hold for.
_NOT_TOLD = (
    "event: majority and metadata are not told it, but predict it, end to end as the score; beside AUROC and average "
    "precision stands what chance gives"
)
#: From this column on a blank parts the columns, before it two; here begins what is given the event, and there it ends.
_NARROW, _END = 6, 10


def format_table(metrics: dict[str, Any], schema: Schema) -> str:
    """The scores of metrics.json as aligned text for a terminal of 120 columns; what makes them doubtful below."""
    rows: list[list[str] | None] = []
    for event in schema.events:
        entry = metrics[event.name]
        if not entry["num_clips"]:
            continue
        rows += [None, [f"{event.title} ({entry['num_clips']} clips)"]]
        rows += [
            _table_row(name + "*" * bool(field["flags"]), field) + _kappa(field)
            for name, field in entry["fields"].items()
        ]
        rows.append(_table_row("mean (exact match)", entry["mean"]))
        rows.append(_table_row("mean (cosine)", entry["text_mean"]))
    rows += [None, ["All events"]]
    rows.append(_table_row("mean (exact match)", metrics["overall"]["mean"]))
    rows.append(_table_row("mean (cosine)", metrics["overall"]["text_mean"]))
    for name in ("balanced_accuracy", "accuracy", "auroc", "average_precision"):
        rows.append(_event_row(name, metrics["event"]))
    rows += [[row] for row in _ranking_rows(metrics["event"])]
    header = _HEADER
    if any("kappa" in field for event in schema.events for field in metrics[event.name]["fields"].values()):
        header = tuple((*line, cell) for line, cell in zip(_HEADER, ("", "kappa"), strict=True))
    rows = [row if row is None or len(row) == 1 else [*row, ""][: len(header[0])] for row in rows]
    table = [*header, *(row for row in rows if row is not None and len(row) > 1)]
    widths = [max(len(row[c]) for row in table) for c in range(len(header[0]))]
    lines = [_captions(widths), *(_line(row, widths) for row in header)]
    for row in rows:
        lines.append("-" * len(lines[2]) if row is None else row[0] if len(row) == 1 else _line(row, widths))
    return "\n".join(line.rstrip() for line in [*lines, *_remarks(metrics, schema)])


def _remarks(metrics: dict[str, Any], schema: Schema) -> list[str]:
    """Roles of the texts, why a baseline is empty, and what * stands for; wrapped."""
    remarks = []
    for event in schema.events:
        for name, field in metrics[event.name]["fields"].items():
            if (roles := field.get("roles")) and roles["n"]:
                remarks.append(
                    f"{event.title}, {name}: of {roles['n']} answers that tell who does what {roles['swapped']} have "
                    f"swapped roles (right: {_share(roles['score'])}, {_interval(roles['low'], roles['high'])})"
                )
    said = metrics["settings"]["baselines"]
    remarks += [f"{name}: {said[name]}" for name in ("majority", "metadata", "blind")]
    remarks.append(_NOT_TOLD)
    remarks += filter(None, [operating_sentence(metrics["overall"].get("operating_point"))])
    flags: dict[str, dict[str, list[str]]] = {}
    for event in schema.events:
        for name, field in metrics[event.name]["fields"].items():
            for flag in field["flags"]:
                kind = re.sub(r"truths of .*: ", "truths of a term: ", flag)  # metrics.json names them
                flags.setdefault(kind, {}).setdefault(event.title, []).append(name)
    for flag, fields in flags.items():
        where = "; ".join(f"{title}: {', '.join(names)}" for title, names in fields.items())
        remarks.append(f"* {flag} ({where})")
    return ["", *(line for remark in remarks for line in textwrap.wrap(remark, 118, subsequent_indent="  "))]


def _table_row(name: str, entry: dict[str, Any]) -> list[str]:
    scores, baselines = entry.get("scores", {}), entry["baselines"]
    return [
        name,
        _share(entry["score"]),
        _interval(entry["low"], entry["high"]),
        *(_share(scores[kind]["value"]) if kind in scores else "" for kind in ("balanced_accuracy", "macro_f1")),
        _share(baselines["blind"]["score"]),
        _share(entry["given_event"]),
        *(_share(baselines[kind]["score"]) for kind in ("majority", "metadata")),
        _share(baselines["blind"].get("given_event")),
        _parsed(entry.get("answered"), entry["n"]),
        *(str(entry.get(kind, "")) for kind in ("missing", "not_understood")),
    ]


def _parsed(answered: int | None, n: int) -> str:
    """How many of n clips have an answer that counts as one; n alone where that is of no single choice."""
    return str(n) if answered is None else f"{answered}/{n}"


def _kappa(field: dict[str, Any]) -> list[str]:
    """A cell more: how far two annotators agree; nothing where there are none."""
    return [_share(field["kappa"]["value"])] if "kappa" in field else []


def _event_row(name: str, entry: dict[str, Any]) -> list[str]:
    low, high = entry["intervals"].get(name) or (None, None)
    chance, metadata, blind = _share(entry["baseline"].get(name)), "", ""
    if name == "balanced_accuracy":
        chance, metadata, blind = (_share(baseline["score"]) for baseline in entry["baselines"].values())
    label = f"event: {name.replace('_', ' ')}"
    answered = entry["n_event_probability"] if name in SCORES else entry["n"] - entry["without_event"]
    parsed = _parsed(answered, entry["n"])
    score = [_share(entry[name]), _interval(low, high)]
    return [label, *score, "", "", blind, "", chance, metadata, "", parsed, "", ""]


def _ranking_rows(entry: dict[str, Any]) -> list[str]:
    """A line below auroc and average precision where some clips have no probability."""
    if (note := ranking_note(entry)) is None:
        return []
    shares = ", ".join(_share(entry[name]) for name in ANSWERED)
    return [f"  ({note}; the others are ranked worst. Of those alone: {shares})"]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _captions(widths: Sequence[int]) -> str:
    """Over the columns what they have in common: one event's score is no score given the event."""
    end_to_end = sum(widths[1:_NARROW]) + 2 * (_NARROW - 2)
    given = sum(widths[_NARROW:_END]) + _END - _NARROW - 1
    captions = " end to end ".center(end_to_end, "-"), " given the event ".center(given, "-")
    return " ".join([" " * (widths[0] + 1), *captions])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
    return " ".join(["  ".join([cells[0].ljust(widths[0]), *padded[1:_NARROW]]), *padded[_NARROW:]])


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
