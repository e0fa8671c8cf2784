"""A categorical or count field of an event as a table: truths by answers, what it says in two numbers, and how much
either can be trusted.

Enters: scored clips, their draws. Leaves: the parts of metrics.json that come from such a table. Must hold: every clip
with a known truth is in the table once; what is missing, not understood, unknown to the model, or of another event
stands in a column of its own and is wrong.
Suffixes: N clips, T terms that are true at least once, A columns, R draws, r draws of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_crash.evaluation.bootstrap import NO_SPREAD, Array, Resamples, interval
from vlm_crash.evaluation.confusion import NO_ANSWER_COLUMN, WRONG_EVENT_COLUMN, term_order
from vlm_crash.evaluation.scoring import ScoredClip, ScoredEvent
from vlm_crash.metrics.class_scores import balanced_accuracy, macro_f1
from vlm_crash.metrics.functional import Verdict, comparable, is_scored
from vlm_crash.schema.fields import UNKNOWN, Field

#: Fewer clips than these make an interval that says less than it seems to.
MIN_CLIPS, MIN_OF_TERM, MIN_GROUPS = 30, 10, 30
_SCORES = ("balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class ClassTable:
    """Clips of a field with a known truth, by numbers of rows and columns.

    Attributes:
        terms: rows; they are also the first columns.
        columns: the terms, other words that were answered, WRONG_EVENT_COLUMN and NO_ANSWER_COLUMN where they occur.
        clip_N: places of these clips among the event's.
        truth_N, answer_N: row and column of each, end to end; given_N: the column given the true event.
    """

    terms: tuple[str, ...]
    columns: tuple[str, ...]
    clip_N: NDArray[np.int64]
    truth_N: NDArray[np.int64]
    answer_N: NDArray[np.int64]
    given_N: NDArray[np.int64]

    @classmethod
    def of(cls, scored: ScoredEvent, field: Field) -> ClassTable:
        """The table of one field."""
        clips = [(n, c) for n, c in enumerate(scored.clips) if c.joined.annotation.values[field.name] != UNKNOWN]
        shown: dict[str, str] = {}  # comparable form -> the spelling that is met first
        truths = [_spelt(shown, field, c.joined.annotation.values[field.name]) for _, c in clips]
        answers = [_column(shown, field, c, c.verdicts[field.name]) for _, c in clips]
        given = [_column(shown, field, c, c.verdicts_given[field.name]) for _, c in clips]
        terms = term_order(field, set(truths))
        others = term_order(field, {*answers, *given} - {*terms, WRONG_EVENT_COLUMN, NO_ANSWER_COLUMN})
        columns = [*terms, *others, WRONG_EVENT_COLUMN, NO_ANSWER_COLUMN]
        place = {column: number for number, column in enumerate(columns)}

        def places(words: Sequence[str]) -> NDArray[np.int64]:
            return np.array([place[word] for word in words], dtype=np.int64)

        clip_N = np.array([n for n, _ in clips], dtype=np.int64)
        return cls(tuple(terms), tuple(columns), clip_N, places(truths), places(answers), places(given))

    def counts(self) -> NDArray[np.int64]:
        """[T, A] clips by truth and answer, end to end."""
        counts_TA = np.zeros((len(self.terms), len(self.columns)), dtype=np.int64)
        np.add.at(counts_TA, (self.truth_N, self.answer_N), 1)
        return counts_TA

    def indicators(self, num_clips: int) -> Array:
        """[N, 5 T] of all the event's clips: truths; hits and answers end to end; hits and answers given the event."""
        terms_T = np.arange(len(self.terms))
        truth_NT = self.truth_N[:, None] == terms_T
        parts = [truth_NT]
        for column_N in (self.answer_N, self.given_N):
            answer_NT = column_N[:, None] == terms_T
            parts += [truth_NT & answer_NT, answer_NT]
        all_N5T = np.zeros((num_clips, 5 * len(self.terms)))
        all_N5T[self.clip_N] = np.concatenate(parts, axis=1)
        return all_N5T


def _spelt(shown: dict[str, str], field: Field, word: str) -> str:
    return shown.setdefault(comparable(field, word), word)


def _column(shown: dict[str, str], field: Field, clip: ScoredClip, verdict: Verdict) -> str:
    if verdict is Verdict.WRONG_EVENT:
        return WRONG_EVENT_COLUMN
    if verdict is Verdict.RIGHT:
        return _spelt(shown, field, clip.joined.annotation.values[field.name])
    return _spelt(shown, field, str(clip.answers[field.name].value)) if verdict is Verdict.WRONG else NO_ANSWER_COLUMN


def add_class_tables(scored: ScoredEvent, fields: dict[str, Any], resamples: Resamples) -> None:
    """Give the entries of the categorical and count fields their scores, support, confusion and answered count."""
    tables = {f.name: ClassTable.of(scored, f) for f in scored.event.fields if is_scored(f)}
    draws = _draws(tables, len(scored.clips), resamples)
    for field in scored.event.fields:
        entry = fields[field.name]
        entry["answered"] = sum(
            verdict in (Verdict.RIGHT, Verdict.WRONG, Verdict.COMPARED)
            for verdict in scored.verdicts(field.name, given_event=True)
        )
        entry["flags"] = _flags(entry["n"], resamples)
        if field.name not in tables:
            continue
        table = tables[field.name]
        points = _scores(table.indicators(len(scored.clips)).sum(0, keepdims=True))
        entry["scores"] = {
            name: _score_entry(float(points[k, 0]), draws[field.name][k], float(points[k + 2, 0]), table, name)
            for k, name in enumerate(_SCORES)
        }
        counts_TA = table.counts()
        entry["support"] = dict(zip(table.terms, counts_TA.sum(1).tolist(), strict=True))
        # Other words and columns that only the reading given the event has are left out; so are no counts.
        kept = [a for a in range(len(table.columns)) if a < len(table.terms) or counts_TA[:, a].any()]
        entry["confusion"] = {
            "truths": list(table.terms),
            "answers": [table.columns[a] for a in kept],
            "counts": counts_TA[:, kept].tolist(),
        }
        entry["flags"] += _term_flags(entry["support"])


def _draws(tables: dict[str, ClassTable], num_clips: int, resamples: Resamples) -> dict[str, Array]:
    """By field [4, R]: balanced accuracy and macro-F1 end to end, then given the event. One pass over the draws."""
    grouped = {name: resamples.grouped(table.indicators(num_clips)) for name, table in tables.items()}
    parts: dict[str, list[Array]] = {name: [] for name in tables}
    for counts_rG in resamples.blocks():
        for name, values_G5T in grouped.items():
            parts[name].append(_scores(counts_rG @ values_G5T))
    return {name: np.concatenate(found, axis=1) for name, found in parts.items()}


def _scores(sums_R5T: Array) -> Array:
    """[4, R] of the sums of `ClassTable.indicators`."""
    truths, hits, answers, given_hits, given_answers = np.split(sums_R5T, 5, axis=1)
    return np.stack(
        [
            balanced_accuracy(hits, truths),
            macro_f1(hits, truths, answers),
            balanced_accuracy(given_hits, truths),
            macro_f1(given_hits, truths, given_answers),
        ]
    )


def _score_entry(value: float, draws_R: Array, given: float, table: ClassTable, name: str) -> dict[str, Any]:
    if not table.terms:
        nothing = dict.fromkeys(("value", "low", "high", "baseline", "given_event"))
        return {**nothing, "reasons": dict.fromkeys(nothing, "no clip has a known truth for this field")}
    low, high = interval(draws_R) or (None, None)
    # Without limits every answer is right, or none is.
    reasons = {"reasons": dict.fromkeys(("low", "high"), NO_SPREAD)} if low is None else {}
    # Always the most frequent term: its recall is 1 and its precision its share; the other terms have 0.
    share = np.bincount(table.truth_N).max() / len(table.truth_N)
    best = 1.0 if name == "balanced_accuracy" else 2 * share / (1 + share)
    return {
        "value": value,
        "low": low,
        "high": high,
        "baseline": best / len(table.terms),
        "given_event": given,
    } | reasons


def _flags(n: int, resamples: Resamples) -> list[str]:
    """What makes the numbers of any field doubtful, in words."""
    flags = []
    if 0 < n < MIN_CLIPS:
        flags.append(f"only {n} clips have a known truth (fewer than {MIN_CLIPS}): take the interval as too narrow")
    num_groups = resamples.num_groups_here
    if n and num_groups < min(MIN_GROUPS, len(resamples.group_N)):
        flags.append(f"the clips are of only {num_groups} groups (fewer than {MIN_GROUPS}): the interval is too narrow")
    return flags


def _term_flags(support: dict[str, int]) -> list[str]:
    flags = []
    few = [f"{term} ({n})" for term, n in support.items() if n < MIN_OF_TERM]
    if len(support) == 1:
        flags.append(f"only {next(iter(support))} is ever true: nothing is told apart here")
    elif few:
        flags.append(
            f"fewer than {MIN_OF_TERM} truths of {', '.join(few)}: balanced accuracy and macro-F1 hang on these clips"
        )
    return flags
