"""`legacy_score`: what the old scripts' scoring would have said of the same answers, beside our own score.

Enters: predictions and truth as loaded. Leaves: per field the old score (a share), its matched and total; the means.
Must hold: the old rules stand as they were (legacy_rules.py finds and maps; here they join and count). A pair with an
empty side leaves the count. Where the truth is a CSV, clips are joined by row number, whatever the CSV names them, and
a column counts under the very name of its field; cells are read by pandas, as they were: a column of whole numbers with
an empty cell reads "3.0". Where the truth is no CSV (a prepared dataset), its values are joined by clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_crash.evaluation.legacy_rules import is_known, legacy_value
from vlm_crash.evaluation.loading import LoadedPrediction
from vlm_crash.evaluation.scoring import ScoredEvent
from vlm_crash.metrics.functional import share
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import Field

NO_LABEL = "the old rules have no label for this field"
NO_COLUMN = "the truth has no column of exactly this name, and the old rules ask for no other"
NO_PAIR = "the old rules find no answer for this field that has a truth"
NO_MINILM = "the old rules compare texts by all-MiniLM-L6-v2; evaluate with --embedder minilm"
NO_OLD_MEAN = "the old rules score no field of this metric"
MANY_CSVS = "the old rules join by row number, and the truth of this event is more than one CSV"
OTHER_FORM = "the truth's values, joined by clip (no CSV was given, so there are no row numbers)"


@dataclass(frozen=True)
class _Side:
    """What is scored of one event: pairs of a response and the truth's cells by column.

    Attributes:
        columns: those of the CSV; None where the truth is no CSV.
        truth: in words where the truth comes from.
        reason: why there are no pairs to be had; None where there are.
    """

    pairs: Sequence[tuple[str, Mapping[str, str]]]
    columns: frozenset[str] | None
    truth: str
    reason: str | None = None


@dataclass(frozen=True)
class _OldScore:
    """One field's score by the old rules; None with a reason."""

    metric: str
    score: float | None
    matched: int | None
    total: int
    reason: str | None


def add_legacy_scores(
    metrics: dict[str, Any],
    scored: Sequence[ScoredEvent],
    loaded: Sequence[LoadedPrediction],
    csvs: Mapping[str, Sequence[Path]],
    embedder: SentenceEmbedder | None,
) -> None:
    """Fill in `legacy_score`, or the reason for its null, of every field and mean of metrics.json.

    Args:
        metrics: what `summarise` made; it is changed.
        scored: events with their clips.
        loaded: all predictions, those of clips without a truth too (the old join may give them one).
        csvs: by event the CSVs that were given as truth.
        embedder: of the texts; None, or another model than MiniLM: the old text scores are null.
    """
    everywhere: list[_OldScore] = []
    for event in scored:
        entry = metrics[event.event.name]
        side = _side(event, loaded, csvs.get(event.event.name, ()))
        pairs = {field.name: _pairs(event.event.name, field, side) for field in event.event.fields}
        _embed(event.event.fields, pairs, embedder)
        found = [_old_score(field, pairs[field.name], embedder) for field in event.event.fields]
        for field, old in zip(event.event.fields, found, strict=True):
            shown = {"metric": old.metric, "matched": old.matched, "total": old.total}
            entry["fields"][field.name] |= {"legacy_score": old.score, "legacy": shown}
            _give_reason(entry["fields"][field.name], old.reason)
        entry["legacy_truth"] = side.truth
        _add_means(entry, found)
        everywhere += found
    _add_means(metrics["overall"], everywhere)


def _side(scored: ScoredEvent, loaded: Sequence[LoadedPrediction], csvs: Sequence[Path]) -> _Side:
    name = scored.event.name
    if len(csvs) > 1:
        return _Side([], None, ", ".join(path.name for path in csvs), MANY_CSVS)
    if not csvs:
        known = [(c.prediction.response, c.joined.annotation.known) for c in scored.clips if c.prediction is not None]
        return _Side(known, None, OTHER_FORM)
    joined = {id(clip.joined.loaded) for clip in scored.clips if clip.joined.loaded is not None}
    responses = {
        item.prediction.video: item.prediction.response
        for item in loaded
        if (item.prediction.source_event == name if item.prediction.source_event else id(item) in joined)
    }
    try:
        columns, rows = _read(csvs[0])
    except ValueError as error:  # pandas: a row with too many cells
        reason = " ".join(str(error).split())
        return _Side([], None, csvs[0].name, f"the old rules cannot read {csvs[0].name} ({reason})")
    named = ((f"{number}.mp4", row) for number, row in enumerate(rows, start=1))
    pairs = [(responses[video], row) for video, row in named if video in responses]
    return _Side(pairs, frozenset(columns), f"{csvs[0].name}, joined by row number as <row>.mp4")


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows; cells as pandas types them, then as text; an empty one is "nan"."""
    import pandas as pd

    table = pd.read_csv(path)
    columns = {str(name): [str(cell) for cell in table[name].tolist()] for name in table.columns}
    return list(columns), [{name: cells[row] for name, cells in columns.items()} for row in range(len(table))]


def _pairs(event: str, field: Field, side: _Side) -> list[tuple[str, str]] | str:
    """The pairs that the old rules count for a field, or why there are none."""
    if side.reason is not None:
        return side.reason
    if not is_known(event, field.name):
        return NO_LABEL
    if side.columns is not None and field.name not in side.columns:
        return NO_COLUMN
    said = [(legacy_value(text, event, field.name).strip(), row.get(field.name, "").strip())
            for text, row in side.pairs]  # fmt: skip
    if field.old_metric == "exact_match":
        said = [(left.lower(), right.lower()) for left, right in said]
    return [pair for pair in said if not {"", "nan"} & set(pair)] or NO_PAIR


def _embed(
    fields: Sequence[Field], pairs: Mapping[str, list[tuple[str, str]] | str], embedder: SentenceEmbedder | None
) -> None:
    """All texts of an event at once; the cosines find them in the embedder's store."""
    if embedder is not None and embedder.is_minilm:
        found = [pairs[field.name] for field in fields if field.old_metric == "cosine_similarity"]
        embedder.embed([text for one in found if isinstance(one, list) for pair in one for text in pair])


def _old_score(field: Field, pairs: list[tuple[str, str]] | str, embedder: SentenceEmbedder | None) -> _OldScore:
    metric = field.old_metric
    if isinstance(pairs, str):
        return _OldScore(metric, None, None, 0, pairs)
    if metric == "exact_match":
        matched = sum(left == right for left, right in pairs)
        return _OldScore(metric, share(matched, len(pairs)), matched, len(pairs), None)
    if embedder is None or not embedder.is_minilm:
        return _OldScore(metric, None, None, len(pairs), NO_MINILM)
    cosine_N = embedder.cosine([left for left, _ in pairs], [right for _, right in pairs])
    return _OldScore(metric, float(cosine_N.double().mean()), len(pairs), len(pairs), None)


def _add_means(entry: dict[str, Any], found: Sequence[_OldScore]) -> None:
    """Means of the fields by their old metric: "mean" of exact matches, "text_mean" of cosines (Guilty's too)."""
    for key, metric in (("mean", "exact_match"), ("text_mean", "cosine_similarity")):
        scores = [one.score for one in found if one.metric == metric and one.score is not None]
        entry[key] |= {"legacy_score": share(sum(scores), len(scores)), "legacy_num_fields": len(scores)}
        _give_reason(entry[key], None if scores else NO_OLD_MEAN)


def _give_reason(entry: dict[str, Any], reason: str | None) -> None:
    entry["reasons"].pop("legacy_score", None)
    if reason is not None:
        entry["reasons"]["legacy_score"] = reason
