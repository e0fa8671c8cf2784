"""Two people's annotations of the same clips -> how far they agree: where they do not, a score speaks of them as well.

Enters: annotation CSVs (the event told by the file name, two of each), or two labels.csv of the report's page, whose
rows name their event. Leaves: Cohen's kappa (scikit-learn's definition, unweighted) by field, with its interval.
Must hold: a pair of which one says Unknown is no agreement and no disagreement, and is counted; where kappa has no
value (both always say the same one term) it is null with the reason. Suffixes: R draws, N clips, T terms.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from vlm_crash.data.annotations import read_annotations
from vlm_crash.data.csv_table import as_meant, read_table
from vlm_crash.evaluation.bootstrap import Array, draw_counts, interval, no_interval
from vlm_crash.evaluation.class_table import MIN_CLIPS
from vlm_crash.evaluation.inputs import check_annotators_file
from vlm_crash.evaluation.loading import event_of_file_name
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.metrics.functional import comparable, is_scored
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import UNKNOWN, Field, Schema
from vlm_crash.schema.records import Annotation, cell_value

logger = logging.getLogger(__name__)

#: What a labels.csv of the page has; its other columns say nothing here.
LABEL_COLUMNS = ("event", "video", "field", "new")
NO_CLIP = "no clip has a value of both annotators"
CONSTANT = "both annotators say the same one term of every clip: agreement by chance is complete, so kappa has no value"
ALWAYS_EQUAL = "the two never differ: every resample has the same kappa, which says nothing of how far it is off"
IS_TEXT = "free text has no kappa; `agreement` is the mean cosine of what the two wrote"
NO_EMBEDDER = "free text has no kappa, and text scores are turned off (embedder=null)"

#: Clip -> field -> value.
_Said = Mapping[str, Mapping[str, str]]


def add_agreement(
    metrics: dict[str, Any],
    schema: Schema,
    embedder: SentenceEmbedder | None,
    settings: EvaluationSettings,
    groups: Mapping[tuple[str, str], str],
) -> None:
    """Put `kappa` beside the scores of each field, and `annotators` beside the events; nothing without two people.

    Args:
        groups: (event, video) -> group, of clips of the truth that are drawn together.

    Raises:
        ValueError, FileNotFoundError: files that cannot be used, not two of an event, or no clip in both.
    """
    if not settings.annotators:
        return
    metrics["annotators"] = {}
    for event, (first, second) in load_annotators(settings.annotators, schema).items():
        both = [video for video in first if video in second]
        metrics["annotators"][event] = {
            "files": [str(path) for path in settings.annotators], "n": len(both),
            "only_first": len(first) - len(both), "only_second": len(second) - len(both),
        }  # fmt: skip
        group_of = [groups.get((event, video), f"clip {video}") for video in both]
        for k, field in enumerate(schema.event(event).fields):
            pairs = [(first[video].get(field.name, UNKNOWN), second[video].get(field.name, UNKNOWN)) for video in both]
            entry = field_agreement(field, pairs, embedder, settings.num_draws, settings.seed + k, group_of)
            metrics[event]["fields"][field.name]["kappa"] = entry
            if 0 < entry["n"] < MIN_CLIPS and entry["value"] is not None:
                flag = f"two readers: kappa is of only {entry['n']} clips (fewer than {MIN_CLIPS})"
                metrics[event]["fields"][field.name]["flags"].append(flag)


def field_agreement(
    field: Field,
    pairs: Sequence[tuple[str, str]],
    embedder: SentenceEmbedder | None,
    num_draws: int,
    seed: int,
    group_of: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Kappa of one field, with its interval, and the share of equal values (of texts the mean cosine).

    Args:
        pairs: what the two say of each clip, UNKNOWN included.
        num_draws: resamples of the clips.
        group_of: of each clip, which are drawn together; None: each by itself.

    Returns:
        value, low, high: kappa and its 95 % interval, if any; n: clips of which both know the field; one_unknown:
        clips of which one does; agreement; reasons.
    """
    is_known = [UNKNOWN not in pair for pair in pairs]
    known = list(compress(pairs, is_known))
    entry: dict[str, Any] = {
        "value": None, "low": None, "high": None, "n": len(known), "agreement": None,
        "one_unknown": sum((a == UNKNOWN) != (b == UNKNOWN) for a, b in pairs), "reasons": {},
    }  # fmt: skip
    left, right = [a for a, _ in known], [b for _, b in known]
    if not known:
        return _without(entry, NO_CLIP, agreement=False)
    if not is_scored(field):
        if embedder is None:
            return _without(entry, NO_EMBEDDER, agreement=False)
        entry["agreement"] = float(embedder.cosine(left, right).double().mean())
        return _without(entry, IS_TEXT, agreement=True)
    left, right = ([comparable(field, value) for value in values] for values in (left, right))
    entry["agreement"] = sum(a == b for a, b in zip(left, right, strict=True)) / len(known)
    if len({*left, *right}) == 1:
        return _without(entry, CONSTANT, agreement=True)
    from sklearn.metrics import cohen_kappa_score

    groups = list(compress(group_of or map(str, range(len(pairs))), is_known))
    place = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    counts_RG = draw_counts(len(place), num_draws, np.random.default_rng(seed))
    counts_RN = counts_RG[:, [place[group] for group in groups]]
    entry["value"] = float(cohen_kappa_score(left, right))
    limits = interval(resampled_kappa(left, right, counts_RN))
    entry["low"], entry["high"] = limits or (None, None)
    if limits is None:
        reason = ALWAYS_EQUAL if entry["agreement"] == 1 else no_interval(len(place))
        entry["reasons"] = dict.fromkeys(("low", "high"), reason)
    return entry


def resampled_kappa(left: Sequence[str], right: Sequence[str], counts_RN: Array) -> Array:
    """[R]: kappa in each draw; NaN in a draw of one term only.

    >>> resampled_kappa(["a", "a", "b"], ["a", "b", "b"], np.ones((1, 3))).round(3).tolist()
    [0.4]
    """
    terms = sorted({*left, *right})
    left_NT, right_NT = (np.array([[value == term for term in terms] for value in said]) for said in (left, right))
    same_N = (left_NT & right_NT).any(axis=1)
    total_R = counts_RN.sum(axis=1)
    observed_R = counts_RN @ same_N / total_R
    chance_R = ((counts_RN @ left_NT) * (counts_RN @ right_NT)).sum(axis=1) / total_R**2
    nan_R = np.full(len(counts_RN), np.nan)
    # A draw whose chance is 1 to the last bit has one term only.
    return np.divide(observed_R - chance_R, 1 - chance_R, out=nan_R, where=chance_R < 1 - 1e-12)


def _without(entry: dict[str, Any], reason: str, agreement: bool) -> dict[str, Any]:
    names = ("value", "low", "high", *(() if agreement else ("agreement",)))
    return {**entry, "reasons": dict.fromkeys(names, reason)}


def load_annotators(paths: Sequence[Path], schema: Schema) -> dict[str, tuple[_Said, _Said]]:
    """event -> what the first and the second annotator say, in the order of the files.

    Raises:
        ValueError, FileNotFoundError: with every problem of the files.
    """
    if len(paths) == 1:
        raise ValueError(f"annotators: {paths[0]} is of one person; give a second file, of another one")
    said: dict[str, list[tuple[Path, _Said]]] = defaultdict(list)
    for path in paths:
        check_annotators_file(path)
        for event, values in _read(path, schema).items():
            said[event].append((path, values))
    problems = []
    for event, found in said.items():
        if len(found) != 2:
            names = ", ".join(str(path) for path, _ in found)
            problems.append(f"{event} has {len(found)} annotators ({names}); give two files of it, one a person")
        elif not found[0][1].keys() & found[1][1].keys():
            problems.append(f"{event}: {found[0][0]} and {found[1][0]} have no clip in common; name the clips alike")
        elif found[0][0].read_bytes() == found[1][0].read_bytes():
            problems.append(
                f"{event}: {found[0][0]} and {found[1][0]} are one file, or a copy, so that they agree in all; give "
                "what two people have annotated each by themselves"
            )
    if problems:
        raise ValueError("the annotators cannot be compared: " + "; ".join(problems))
    return {event: (found[0][1], found[1][1]) for event, found in said.items()}


def _read(path: Path, schema: Schema) -> Mapping[str, _Said]:
    """What one file says, by event."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(io.StringIO(file.readline())), [])
    missing = [name for name in LABEL_COLUMNS if name not in {column.strip() for column in header}]
    if not missing:
        return _read_labels(path, schema)
    if len(missing) == 1:
        raise ValueError(
            f"annotators: {path}: the header lacks {missing[0]!r}; allowed: labels.csv of the page, with the columns "
            f"{', '.join(LABEL_COLUMNS)}, or annotation CSVs with the event in the name of the file"
        )
    try:
        event = event_of_file_name(path, schema)
    except ValueError as error:
        columns = ", ".join(LABEL_COLUMNS)
        raise ValueError(f"annotators: {error}; or give labels.csv of the page, with the columns {columns}") from error
    samples, bad_rows = read_annotations(path, event, schema, None, may_lack=True)
    if bad_rows:
        logger.warning("%s: %d rows or cells cannot be used; the first: %s", path, len(bad_rows), bad_rows[0])
    return {event: {s.video: s.annotation.values for s in samples if s.annotation is not None}}


def _read_labels(path: Path, schema: Schema) -> Mapping[str, _Said]:
    """A labels.csv of the report's page: a row a clip and field."""
    table, bad_rows = read_table(path, "label")
    columns = [table.column([name]) for name in LABEL_COLUMNS]
    said: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    problems = [str(problem) for problem in bad_rows]
    for number, cells in table.rows.items():
        event, video, name, new = (as_meant(cells[column].strip()) for column in columns if column is not None)
        try:
            value = cell_value(schema.event(event).field(name), new)
            if value is None:
                Annotation.of(schema, event, {name: new})  # says what is allowed
            before = said[event][video].setdefault(name, str(value))
            if before != value:
                raise ValueError(f"{event}/{video} {name} is both {before!r} and {value!r}; keep one of them")
        except ValueError as error:
            problems.append(f"{path}, row {number}: {error}")
    if problems:
        raise ValueError("the annotators cannot be compared:\n  " + "\n  ".join(problems[:20]))
    return said
