"""How well P(first event of the schema) ranks the clips: AUROC and average precision, over all clips and over those
that have a probability.

Enters: scored clips, their draws. Leaves: the ranking's part of `event` in metrics.json. Must hold: no clip leaves the
figure of all: one without a probability (failed, or absent) is ranked as badly as can be, a positive below all others
and a negative above all others; among themselves they tie. The figures of the answered clips have names of their own.
Suffixes: N clips, R draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlm_crash.evaluation.bootstrap import NO_SPREAD, Resamples, clip_draws, logit_interval, ranking_scores

SCORES = ("auroc", "average_precision")
ANSWERED = tuple(f"{name}_answered" for name in SCORES)
NO_PROBABILITY = "no prediction carries an event_probability"
#: Below and above every probability.
_BELOW, _ABOVE = -1.0, 2.0

#: By event the place of each clip among the event's, with its P(first event); None where it has none.
Probabilities = Mapping[str, Sequence[tuple[int, float | None]]]


def add_ranking(
    entry: dict[str, Any],
    events: Sequence[str],
    found: Probabilities,
    resamples: Mapping[str, Resamples],
    reasons: tuple[str, str],
) -> None:
    """Give `event` its SCORES, their ANSWERED, and `n_event_probability`; null with the reason where there is none.

    Args:
        events: of the schema; the first is the positive one.
        found: of the clips whose event was not told.
        resamples: by event, of all its clips.
        reasons: why there is no score without any clip, and without clips of both events.
    """
    told, one_event = reasons
    answered = {name: [one for one in clips if one[1] is not None] for name, clips in found.items()}
    n = sum(map(len, answered.values()))
    entry["n_event_probability"] = n
    reason = None
    if len(events) != 2:
        reason = f"event_probability ranks two events; the schema has {len(events)}"
    elif not found:
        reason = told
    elif n == 0:
        reason = NO_PROBABILITY
    for names, clips in ((SCORES, found), (ANSWERED, answered)):
        has_both = {name == events[0] for name, some in clips.items() if some} == {True, False}
        if reason is None and has_both:
            _add_scores(entry, names, events[0], {name: some for name, some in clips.items() if some}, resamples)
            continue
        for place in (entry, entry["intervals"], entry["baseline"]):
            place |= dict.fromkeys(names)
        entry["reasons"] |= dict.fromkeys(names, reason or one_event)


def _add_scores(
    entry: dict[str, Any], names: Sequence[str], positive: str, clips: Probabilities, resamples: Mapping[str, Resamples]
) -> None:
    probability_N = np.array([ranked(p, name == positive) for name, some in clips.items() for _, p in some])
    positive_N = np.concatenate([np.full(len(some), name == positive) for name, some in clips.items()])
    point = ranking_scores(probability_N, positive_N, np.ones((1, len(positive_N))))
    places = [(resamples[name], np.array([place for place, _ in some])) for name, some in clips.items()]
    draws = [ranking_scores(probability_N, positive_N, np.concatenate(counts, axis=1)) for counts in clip_draws(places)]
    for name, value, draw_R in zip(names, point, map(np.concatenate, zip(*draws, strict=True)), strict=True):
        entry[name] = float(value[0])
        entry["intervals"][name] = logit_interval(entry[name], draw_R)
        if entry["intervals"][name] is None:
            entry["reasons"][f"intervals.{name}"] = NO_SPREAD
    entry["baseline"] |= dict(zip(names, (0.5, float(positive_N.mean())), strict=True))


def ranked(probability: float | None, is_positive: bool) -> float:
    """Where a clip stands; one without a probability where it does most harm.

    >>> ranked(0.4, True), ranked(None, True), ranked(None, False)
    (0.4, -1.0, 2.0)
    """
    if probability is not None:
        return probability
    return _BELOW if is_positive else _ABOVE


def ranking_note(event: Mapping[str, Any]) -> str | None:
    """What the ranking hides, in words; None where every clip has a probability, or there is no ranking."""
    n, known = event["n"], event["n_event_probability"]
    if event["auroc"] is None or known == n:
        return None
    return f"{known} of {n} have a probability"
