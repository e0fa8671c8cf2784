"""Clips that temperatures and thresholds are chosen on: predictions of the same model for other clips with a truth."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_crash.data.prepared import DATA_FILE, SPLITS_FILE, load_prepared
from vlm_crash.evaluation.grouping import kept_together
from vlm_crash.evaluation.joining import Joined, join
from vlm_crash.evaluation.loading import load_predictions, load_truth
from vlm_crash.evaluation.scoring import ScoredEvent, score_clips
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.schema.fields import Schema

logger = logging.getLogger(__name__)


def calibration_clips(
    schema: Schema,
    filled: Schema,
    truth: Sequence[Path],
    evaluated: Joined,
    groups: Mapping[str, str],
    settings: EvaluationSettings,
) -> list[ScoredEvent] | None:
    """Scored clips of `calibrate_on`, by event; None where it is not given. Its clips without a truth are left out.

    Args:
        schema: by which the files are read.
        filled: the same with the terms of the dataset.
        groups: id -> group by the group column; empty without one.

    Raises:
        ValueError: they are of another model, or of no clip of the truth, or of clips that are evaluated or belong to
            such ones.
    """
    if not settings.calibrate_on:
        return None
    loaded = load_predictions(settings.calibrate_on, schema)
    samples, _ = load_truth([Path(path) for path in truth], schema)
    joined = join(loaded, samples, only_predicted=True)
    if not joined.clips:
        raise ValueError(
            "none of the predictions of calibrate_on is of a clip in the truth; give those of the val split"
        )
    named = {id: f"{n} {group}" for n, kept in enumerate(kept_together(truth)) for id, group in kept.items()}
    _check_apart(joined, evaluated, {"the group column": groups, SPLITS_FILE: named})
    _check_model(joined, evaluated)
    if joined.without_truth:
        logger.warning("%d predictions of calibrate_on are of clips without a truth", len(joined.without_truth))
    _warn_of_training(schema, truth, joined)
    return score_clips(filled, joined.clips, embedder=None)


def _check_apart(joined: Joined, evaluated: Joined, groups: Mapping[str, Mapping[str, str]]) -> None:
    """No clip on both sides, nor two of one group, by whatever says what belongs together (its name -> id -> group)."""
    names = {(clip.event, clip.truth.video) for clip in evaluated.clips}
    both = [f"{clip.event}/{clip.truth.video}" for clip in joined.clips if (clip.event, clip.truth.video) in names]
    if both:
        raise ValueError(
            f"{len(both)} clips of calibrate_on are evaluated themselves ({', '.join(both[:5])}); a threshold must be "
            "chosen on other clips: give --split test and predictions of val, or --only_predicted true"
        )
    for what, group_of in groups.items():
        there = {group_of[clip.truth.id] for clip in evaluated.clips if clip.truth.id in group_of}
        near = [f"{clip.event}/{clip.truth.video}" for clip in joined.clips if group_of.get(clip.truth.id) in there]
        if near:
            raise ValueError(
                f"{len(near)} clips of calibrate_on are of evaluated groups, by {what} ({', '.join(near[:5])}); "
                "a threshold must be chosen on other clips: leave their predictions out of it"
            )


def _check_model(joined: Joined, evaluated: Joined) -> None:
    """A run's id is of the model and all that could change an answer; predictions of other programs may have none."""
    theirs, ours = (
        {clip.loaded.prediction.provenance for clip in side.clips if clip.loaded is not None} - {""}
        for side in (joined, evaluated)
    )
    if ours and (others := theirs - ours):
        raise ValueError(
            f"calibrate_on is of another model or of other settings (run {', '.join(sorted(others))}; evaluated is "
            f"{', '.join(sorted(ours))}); a temperature is of one model: predict both with the same"
        )
    silent = sum(clip.loaded is not None and not clip.loaded.prediction.provenance for clip in joined.clips)
    if ours and silent:
        logger.warning(
            "%d predictions of calibrate_on do not say of which run they are, and the evaluated are of run %s; "
            "whether both are of one model cannot be checked",
            silent, ", ".join(sorted(ours)),
        )  # fmt: skip


def _warn_of_training(schema: Schema, truth: Sequence[Path], joined: Joined) -> None:
    split_of = {
        (sample.event, sample.video): split
        for path in map(Path, truth)
        if (path / DATA_FILE).is_file()
        for split, samples in load_prepared(path, schema).items()
        for sample in samples
    }
    counts = Counter(split_of.get((clip.event, clip.truth.video)) for clip in joined.clips)
    if counts["train"]:
        logger.warning(
            "%d of %d clips of calibrate_on are of the train split; a model is surer of clips that it was trained on, "
            "and thresholds chosen on them are too low: give predictions of val",
            counts["train"], len(joined.clips),
        )  # fmt: skip
