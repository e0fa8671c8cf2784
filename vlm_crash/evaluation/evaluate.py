"""Predictions + truth -> metrics.json, the six CSVs of the old form and records.json (which the report reads).

The one way: load, join by event source and clip name, judge every field, summarise, write.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.data.files import write_files
from vlm_crash.data.prepared import load_vocabularies
from vlm_crash.evaluation.joining import Joined, join
from vlm_crash.evaluation.loading import load_predictions, load_truth
from vlm_crash.evaluation.scoring import ScoredEvent, score_clips, with_seen_vocabularies
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.evaluation.summary import EventSummary, mean_entry, summarise_event, summarise_event_choice
from vlm_crash.evaluation.tables import evaluation_csv, formatted_csvs, records_json
from vlm_crash.metrics.functional import is_scored
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import Schema, load_schema

logger = logging.getLogger(__name__)


def evaluate(
    predictions: Sequence[Path],
    truth: Sequence[Path],
    out: Path,
    schema: Schema | None = None,
    settings: EvaluationSettings | None = None,
) -> dict[str, Any]:
    """Score predictions against the truth and write all tables.

    Every clip of the truth counts: one without a prediction has all its fields wrong. A score is end to end (a crash
    called a near miss has its crash fields wrong); beside it stands the score given the true event.

    Args:
        predictions: predictions.jsonl, old <event>_results.json, or folders of them.
        truth: annotation CSVs, prepared JSONLs, or folders of a prepared dataset.
        out: folder for metrics.json, records.json and the CSVs; made when missing.
        schema: events and fields; the shipped one when None.
        settings: as EvaluationSettings says; its defaults when None.

    Returns:
        What metrics.json holds.

    Raises:
        ValueError, FileNotFoundError: files that cannot be used, with every problem named.
        OSError: the scores cannot be written; nothing was changed then.
    """
    settings = settings or EvaluationSettings()
    schema = schema or load_schema()
    loaded = load_predictions([Path(path) for path in predictions], schema)
    samples, bad_rows = load_truth([Path(path) for path in truth], schema, settings.split)
    joined = join(loaded, samples, settings.only_predicted)
    if all(clip.loaded is None for clip in joined.clips):
        raise ValueError("none of the predictions is of a clip in the truth; check that both are of the same dataset")
    _log_join(joined, len(bad_rows))
    schema = with_seen_vocabularies(schema, joined.clips, _vocabularies(truth))
    sentences = None if settings.embedder is None else SentenceEmbedder(settings.embedder)
    scored = score_clips(schema, joined.clips, sentences)
    metrics = summarise(schema, scored, sentences, settings)
    metrics["clips"] = {**_clip_counts(joined), "truth_rows_not_used": len(bad_rows), "split": settings.split}
    metrics["settings"] = {
        "embedder": settings.embedder, "only_predicted": settings.only_predicted, "seed": settings.seed,
        "bootstrap_draws": settings.num_draws, "schema": schema.fingerprint,
        "interval": "95 % percentile bootstrap; clips resampled within each event",
        "baseline": "the most frequent truth among the evaluated clips, given the event",
    }  # fmt: skip
    out = Path(out)
    _write(out, schema, scored, joined, metrics)
    logger.info("scores of %d clips are in %s", len(joined.clips), out)
    return metrics


def _write(out: Path, schema: Schema, scored: Sequence[ScoredEvent], joined: Joined, metrics: dict[str, Any]) -> None:
    """All files, or none."""
    texts = {
        "records.json": records_json(schema, scored, joined.without_truth),
        "metrics.json": json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False),
    }
    for event in (event for event in scored if event.clips):
        name = event.event.name
        texts |= formatted_csvs(event) | {f"evaluation_{name}.csv": evaluation_csv(metrics[name])}
    write_files({out / name: text for name, text in texts.items()})


def summarise(
    schema: Schema, scored: Sequence[ScoredEvent], embedder: SentenceEmbedder | None, settings: EvaluationSettings
) -> dict[str, Any]:
    """metrics.json without its description of the run: one entry per event, "event" and "overall"."""
    summaries: list[EventSummary] = []
    metrics: dict[str, Any] = {}
    for number, event in enumerate(scored):
        summaries.append(summarise_event(event, embedder, settings.num_draws, settings.seed + number))
        metrics[event.event.name] = summaries[-1].entry
    is_exact = [np.array([is_scored(field) for field in event.event.fields], dtype=bool) for event in scored]
    metrics["event"] = summarise_event_choice(schema, scored, settings.num_draws, settings.seed + len(scored))
    metrics["overall"] = {
        "mean": mean_entry(summaries, exact=True, is_exact=is_exact),
        "text_mean": mean_entry(summaries, exact=False, is_exact=is_exact),
    }
    return metrics


def _vocabularies(truth: Sequence[Path]) -> dict[str, list[str]]:
    """Terms of the open fields as `prepare` found them in the whole dataset."""
    folders = [path if path.is_dir() else path.parent for path in map(Path, truth)]
    return {name: terms for folder in folders for name, terms in load_vocabularies(folder).items()}


def _clip_counts(joined: Joined) -> dict[str, Any]:
    absent = [f"{clip.event}/{clip.truth.video}" for clip in joined.clips if clip.loaded is None]
    failed = [
        f"{clip.event}/{clip.truth.video}"
        for clip in joined.clips
        if clip.loaded is not None and clip.loaded.prediction.status == "failed"
    ]
    extra = [
        "/".join(part for part in (loaded.prediction.source_event, loaded.prediction.video) if part)
        for loaded in joined.without_truth
    ]
    return {
        "truths": len(joined.clips),
        "failed": {"n": len(failed), "clips": failed},
        "without_prediction": {"n": len(absent), "clips": absent},
        "without_truth": {"n": len(extra), "clips": extra},
    }


def _log_join(joined: Joined, num_bad_rows: int) -> None:
    counts = _clip_counts(joined)
    if absent := counts["without_prediction"]["n"]:
        logger.warning(
            "%d of %d clips with a truth have no prediction and count as wrong (the first: %s); "
            "give --split for one split of a prepared dataset, or --only_predicted true to leave them out",
            absent, counts["truths"], counts["without_prediction"]["clips"][0],
        )  # fmt: skip
    if extra := counts["without_truth"]["n"]:
        logger.warning("%d predictions are of clips without a truth: %s", extra, counts["without_truth"]["clips"][:5])
    if num_bad_rows:
        logger.warning("%d rows of the truth could not be used; `prepare` lists them in problems.csv", num_bad_rows)
