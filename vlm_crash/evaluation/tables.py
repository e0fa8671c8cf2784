"""Scored clips and metrics as texts of files: the old scripts' six CSVs, records.json; a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from vlm_crash.evaluation.calibration import operating_sentence
from vlm_crash.evaluation.loading import LoadedPrediction
from vlm_crash.evaluation.probabilities import answer_probability, shown_probabilities
from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent
from vlm_crash.metrics.functional import Verdict
from vlm_crash.schema.fields import Schema


def formatted_csvs(scored: ScoredEvent) -> dict[str, str]:
    """File name -> text. formatted-<event>.csv (the wording as said) and formatted-normalized-<event>.csv (its term).

    A term is empty where the wording is missing or not understood. One row per predicted clip, in the truth's order.
    """
    names = scored.event.field_names
    said, terms = [], []
    for clip in scored.clips:
        if clip.prediction is None:
            continue
        answers = [clip.answers.get(name) for name in names]
        said.append([clip.prediction.video, *((answer.said or "") if answer else "" for answer in answers)])
        terms.append([clip.prediction.video, *((answer.value or "") if answer else "" for answer in answers)])
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


def records_json(schema: Schema, scored: Sequence[ScoredEvent], without_truth: Sequence[LoadedPrediction]) -> str:
    """The text of records.json: per clip the truth beside the answer, for the report and one's own analysis."""
    open_terms = {f.name: f.vocabulary for f in schema.fields if f.kind == "categorical" and not f.closed}
    records = {
        # A dataset's own terms stand apart: the YAML's form of a schema names none for its open fields.
        "schema": schema.with_vocabularies(dict.fromkeys(open_terms, ())).to_dict(),
        "vocabularies": open_terms,
        "clips": [_record(event, clip, n) for event in scored for n, clip in enumerate(event.clips)],
        "predictions_without_truth": [loaded.prediction.to_json_dict() for loaded in without_truth],
    }
    return json.dumps(records, ensure_ascii=False)


def _record(scored: ScoredEvent, clip: ScoredClip, n: int) -> dict[str, Any]:
    prediction, truth = clip.prediction, clip.joined.truth
    fields = {}
    for k, field in enumerate(scored.event.fields):
        answer = clip.answers.get(field.name)
        score, given = scored.end_to_end_NK[n, k], scored.given_event_NK[n, k]
        probability = answer_probability(clip, field)
        fields[field.name] = {
            "truth": clip.joined.annotation.values[field.name],
            "answer": answer.value if answer else None,
            "said": answer.said if answer else None,
            "verdict": clip.verdicts[field.name].value,
            "verdict_given_event": clip.verdicts_given[field.name].value,
            "score": None if score != score else float(score),
            "score_given_event": None if given != given else float(given),
            "probability": None if probability is None else round(probability, 4),
            "probabilities": shown_probabilities(clip, field),
        }
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
        "response": prediction.response if prediction else "",
        "num_wrong": sum(v not in (Verdict.RIGHT, Verdict.COMPARED) for v in exact),
        "fields": fields,
    }


def _clip_path(clip: ScoredClip) -> str:
    """Where the clip lies: as predicted, else as the truth knows it."""
    if clip.prediction is not None and clip.prediction.path:
        return clip.prediction.path
    return str(clip.joined.truth.path)


def format_table(metrics: dict[str, Any], schema: Schema) -> str:
    """The scores of metrics.json as aligned text for a terminal."""
    header = ["field", "kind", "score", "95 % interval", "given event", "baseline", "n", "missing", "not understood"]
    rows: list[list[str] | None] = []
    for event in schema.events:
        entry = metrics[event.name]
        if not entry["num_clips"]:
            continue
        rows += [None, [f"{event.title} ({entry['num_clips']} clips)"]]
        rows += [_table_row(name, field["kind"], field) for name, field in entry["fields"].items()]
        rows.append(_table_row("mean", "exact match", entry["mean"]))
        rows.append(_table_row("mean", "cosine", entry["text_mean"]))
    rows += [None, ["All events"]]
    rows.append(_table_row("mean", "exact match", metrics["overall"]["mean"]))
    rows.append(_table_row("mean", "cosine", metrics["overall"]["text_mean"]))
    for name in ("balanced_accuracy", "accuracy", "auroc", "average_precision"):
        rows.append(_event_row(name, metrics["event"]))
    widths = [max(len(row[c]) for row in [header, *filter(None, rows)] if len(row) > 1) for c in range(len(header))]
    lines = [_line(header, widths)]
    for row in rows:
        lines.append("-" * len(lines[0]) if row is None else row[0] if len(row) == 1 else _line(row, widths))
    lines += filter(None, [operating_sentence(metrics["overall"].get("operating_point"))])
    return "\n".join(line.rstrip() for line in lines)


def _table_row(name: str, kind: str, entry: dict[str, Any]) -> list[str]:
    counts = [str(entry["n"]), str(entry.get("missing", "")), str(entry.get("not_understood", ""))]
    limits = _interval(entry["low"], entry["high"])
    return [
        name,
        kind,
        _share(entry["score"]),
        limits,
        _share(entry["given_event"]),
        _share(entry["baseline"]),
        *counts,
    ]


def _event_row(name: str, entry: dict[str, Any]) -> list[str]:
    low, high = entry["intervals"].get(name) or (None, None)
    n = entry["n_event_probability"] if name in ("auroc", "average_precision") else entry["n"]
    scores = [_share(entry[name]), _interval(low, high), "", _share(entry["baseline"].get(name))]
    return [name.replace("_", " "), "event", *scores, str(n), "", ""]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(cells, widths, strict=True))]
    return "  ".join(padded)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
