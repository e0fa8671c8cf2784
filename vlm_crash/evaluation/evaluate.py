"""Predictions + truth -> metrics.json, the six CSVs of the old form and records.json (which the report reads).

The one way: load, join by event source and clip name, judge every field, summarise, write.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.data.files import write_files
from vlm_crash.data.prepared import load_vocabularies
from vlm_crash.evaluation.agreement import add_agreement
from vlm_crash.evaluation.baseline_scores import NOT_GIVEN, add_baselines, blind, blind_clips, majority, metadata
from vlm_crash.evaluation.blind_run import check_blind
from vlm_crash.evaluation.bootstrap import Resamples
from vlm_crash.evaluation.calibration import add_calibration
from vlm_crash.evaluation.calibration_clips import calibration_clips
from vlm_crash.evaluation.calibration_file import CALIBRATION_FILE, calibration_json, runs_of
from vlm_crash.evaluation.consistency import consistency, consistency_csv
from vlm_crash.evaluation.grouping import (
    ClipGroups,
    clip_groups,
    column_cells,
    groups_by_clip,
    resamples_by_event,
)
from vlm_crash.evaluation.joining import Joined, join
from vlm_crash.evaluation.legacy_scores import add_legacy_scores
from vlm_crash.evaluation.loading import TruthProblems, load_predictions, load_truth, truth_csvs
from vlm_crash.evaluation.metadata_baseline import MetadataAnswers, metadata_answers
from vlm_crash.evaluation.older_files import older_metrics, remove_older
from vlm_crash.evaluation.role_scores import add_roles, check_roles
from vlm_crash.evaluation.scoring import ScoredEvent, score_clips, with_seen_vocabularies
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.evaluation.summary import EventSummary, mean_entry, summarise_event, summarise_event_choice
from vlm_crash.evaluation.tables import evaluation_csv, formatted_csvs, records_json
from vlm_crash.metrics.functional import is_scored
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import Schema, load_schema

logger = logging.getLogger(__name__)

MAJORITY = "the most frequent truth among the evaluated clips, given the event"


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
    given = schema or load_schema()
    predictions, truth = list(map(Path, predictions)), list(map(Path, truth))
    loaded = load_predictions(predictions, given)
    samples, unused = load_truth(truth, given, settings.split)
    joined = join(loaded, samples, settings.only_predicted)
    if all(clip.loaded is None for clip in joined.clips):
        raise ValueError("none of the predictions is of a clip in the truth; check that both are of the same dataset")
    _check_join(joined, settings.split)
    _say_unused(unused)
    blind_check = check_blind(list(map(Path, settings.blind)), predictions)
    schema = with_seen_vocabularies(given, joined.clips, _vocabularies(truth))
    groups = clip_groups(truth, schema, settings.group_column, joined.clips)
    cells = column_cells(truth, schema, settings.group_column)
    held_out = calibration_clips(given, schema, truth, joined, cells, settings)
    sentences = None if settings.embedder is None else SentenceEmbedder(settings.embedder)
    scored = score_clips(schema, joined.clips, sentences)
    resamples = resamples_by_event(schema, joined.clips, groups, settings)
    metrics = summarise(schema, scored, sentences, resamples)
    answers = metadata_answers(given, scored, truth, groups.labels, settings)
    baselines = {
        "majority": majority(metrics, scored, sentences),
        "metadata": metadata(answers, scored),
        "blind": blind(blind_clips(settings.blind, schema, joined.clips, sentences), scored),
    }
    add_baselines(metrics, scored, resamples, baselines)
    roles = check_roles(schema, scored)
    add_roles(metrics, roles, resamples)
    together = groups_by_clip(truth, given, cells) if settings.annotators else {}
    add_agreement(metrics, schema, sentences, settings, together)
    add_calibration(metrics, schema, scored, held_out, resamples, settings)
    add_legacy_scores(metrics, scored, loaded, truth_csvs(truth, schema, settings.split), sentences)
    metrics["consistency"] = consistency(schema, scored, resamples)
    metrics["clips"] = {
        **_clip_counts(joined), "truth_rows_not_used": unused.num_rows,
        "truth_cells_not_understood": unused.num_cells, "split": settings.split,
    }  # fmt: skip
    metrics["settings"] = _settings(settings, schema, answers, groups) | {"blind_check": blind_check}
    broken = consistency_csv(schema, metrics["consistency"])
    records = records_json(schema, scored, joined.without_truth, roles, groups.labels, metrics)
    formatted = {
        name: text for event in scored for name, text in formatted_csvs(schema, event, joined.without_truth).items()
    }
    texts = {"records.json": records, "consistency.csv": broken} | formatted
    if settings.calibrate_on:
        texts[CALIBRATION_FILE] = calibration_json(given, metrics, runs_of(joined.clips))
    _write(Path(out), metrics, scored, texts)
    logger.info("scores of %d clips are in %s", len(joined.clips), out)
    return metrics


def _settings(
    settings: EvaluationSettings, schema: Schema, answers: MetadataAnswers, groups: ClipGroups
) -> dict[str, Any]:
    """How the scores were made, in words where it is no number."""
    drawn = "clips resampled within each event" if groups.said is None else f"resampled whole: {groups.said}"
    return {
        "embedder": settings.embedder,
        "only_predicted": settings.only_predicted,
        "seed": settings.seed,
        "bootstrap_draws": settings.num_draws,
        "schema": schema.fingerprint,
        "group_column": settings.group_column,
        "interval": "95 % percentile bootstrap, exact (Clopper-Pearson, of as many answers as there are groups) where "
        "all are right or none is; AUROC and average precision by the draws' spread in log-odds; " + drawn,
        "groups": groups.said,
        "baseline": MAJORITY,
        "baselines": {
            "majority": MAJORITY,
            "metadata": answers.reason
            or f"a forest on duration, size, fps, bitrate and file name, given the event; "
            f"fitted on {answers.fitted_on}",
            "blind": "the same model on black frames, end to end" if settings.blind else NOT_GIVEN,
        },
        "blind": [str(path) for path in settings.blind],
        "calibrate_on": [str(path) for path in settings.calibrate_on],
        "wanted_accuracy": settings.wanted_accuracy,
        "annotators": [str(path) for path in settings.annotators],
    }


def _write(out: Path, metrics: dict[str, Any], scored: Sequence[ScoredEvent], texts: dict[str, str]) -> None:
    """All files, or none; then none of an older evaluation stays beside them."""
    texts = texts | {"metrics.json": json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False)}
    for event in (event for event in scored if event.clips):
        name = event.event.name
        texts[f"evaluation_{name}.csv"] = evaluation_csv(metrics[name])
    older = older_metrics(out)
    write_files({out / name: text for name, text in texts.items()})
    remove_older(out, older, texts.keys())


def summarise(
    schema: Schema,
    scored: Sequence[ScoredEvent],
    embedder: SentenceEmbedder | None,
    resamples: Mapping[str, Resamples],
) -> dict[str, Any]:
    """metrics.json without its description of the run: one entry per event, "event" and "overall"."""
    summaries: list[EventSummary] = []
    metrics: dict[str, Any] = {}
    for event in scored:
        summaries.append(summarise_event(event, embedder, resamples[event.event.name]))
        metrics[event.event.name] = summaries[-1].entry
    is_exact = [np.array([is_scored(field) for field in event.event.fields], dtype=bool) for event in scored]
    metrics["event"] = summarise_event_choice(schema, scored, resamples)
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


def _check_join(joined: Joined, split: str | None) -> None:
    """Say which clips stand alone; ValueError where most of both sides do: they are of two datasets."""
    counts = _clip_counts(joined)
    absent, extra = counts["without_prediction"], counts["without_truth"]
    num_predictions = counts["truths"] - absent["n"] + extra["n"]
    alone = f"{extra['n']} of {num_predictions} predictions are of clips without a truth: {_some(extra['clips'])}"
    if 2 * extra["n"] > num_predictions and 2 * absent["n"] > counts["truths"]:
        raise ValueError(
            f"predictions and truth seem to be of two datasets: {alone}; {absent['n']} of {counts['truths']} clips "
            f"with a truth have no prediction: {_some(absent['clips'])}; give the truth of these predictions, or "
            "--only_predicted true to score those that are in both"
        )
    if absent["n"]:
        logger.warning(
            "%d of %d clips with a truth have no prediction and count as wrong (%s); give %s--only_predicted true to "
            "leave them out",
            absent["n"], counts["truths"], _some(absent["clips"]),
            "" if split else "--split for one split of a prepared dataset, or ",
        )  # fmt: skip
    if extra["n"]:
        logger.warning("%s; they are not scored", alone)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _say_unused(unused: TruthProblems) -> None:
    if unused.num_rows or unused.num_cells:
        logger.warning(
            "%d rows of the truth could not be used, and %d cells of the others were not understood and count as "
            "unknown; `prepare` lists them in problems.csv",
            unused.num_rows, unused.num_cells,
        )  # fmt: skip
