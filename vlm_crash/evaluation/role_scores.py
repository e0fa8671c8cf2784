"""Roles in the free texts: how often those that can be told are the truth's; and that swapped ones are noticed.

Enters: scored clips, or texts. Leaves: `roles` of each text field in metrics.json, what is swapped in each clip, and
figures of a counterfactual test. Must hold: a pair of texts of which nothing can be told is not counted at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlm_crash.evaluation.bootstrap import Resamples, no_interval, share_interval
from vlm_crash.evaluation.scoring import ScoredEvent
from vlm_crash.metrics.functional import Verdict, is_scored
from vlm_crash.metrics.role_swap import counterfactuals
from vlm_crash.metrics.roles import Facet, compare_roles, roles_verdict
from vlm_crash.metrics.text_similarity import SentenceEmbedder
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.mirror import Mirror

NOT_TOLD = "no answer and its truth both tell a role"
Roles = dict[tuple[str, str], list[list[Facet]]]


def check_roles(schema: Schema, scored: Sequence[ScoredEvent]) -> Roles:
    """By (event, text field) the facets that can be told of each clip of the event; given the event, as answered."""
    known: dict[tuple[str, str], list[Facet]] = {}

    def facets(truth: str, answer: str) -> list[Facet]:
        if (truth, answer) not in known:
            known[truth, answer] = compare_roles(truth, answer, schema.mirror)
        return known[truth, answer]

    return {
        (event.event.name, field.name): [
            facets(clip.joined.annotation.values[field.name], str(clip.answers[field.name].value))
            if clip.verdicts_given[field.name] is Verdict.COMPARED
            else []
            for clip in event.clips
        ]
        for event in scored
        for field in event.event.fields
        if not is_scored(field)
    }


def add_roles(metrics: dict[str, Any], roles: Roles, resamples: Mapping[str, Resamples]) -> None:
    """Give the text fields their `roles`: of the answers that tell a role, the share with none swapped."""
    for (event, name), found in roles.items():
        verdicts = [roles_verdict(facets) for facets in found]
        scores_N1 = np.array([[np.nan if v is None else float(v == "same")] for v in verdicts]).reshape(-1, 1)
        n = sum(verdict is not None for verdict in verdicts)
        entry: dict[str, Any] = {"score": None, "low": None, "high": None, "n": n,
                                 "swapped": sum(verdict == "swapped" for verdict in verdicts)}  # fmt: skip
        if n:
            num_units = resamples[event].num_units(~np.isnan(scores_N1[:, 0]))
            limits = share_interval(resamples[event].means(scores_N1)[:, 0], num_units)
            entry["low"], entry["high"] = limits or (None, None)
            if limits is None:
                entry["reasons"] = dict.fromkeys(("low", "high"), no_interval(num_units))
            entry["score"] = float(np.nanmean(scores_N1))
        else:
            entry["reasons"] = dict.fromkeys(("score", "low", "high"), NOT_TOLD)
        metrics[event]["fields"][name]["roles"] = entry


def roles_problem(facets: Sequence[Facet]) -> str | None:
    """What is swapped, in words; None: nothing that can be told."""
    return "; ".join(str(facet) for facet in facets if facet.verdict == "swapped") or None


def counterfactual_figures(
    texts: Sequence[str], mirror: Mirror | None, embedder: SentenceEmbedder
) -> dict[str, dict[str, float]]:
    """What role score and cosine make of texts with their roles swapped by rule, each against its own original.

    Of each kind of swap ("who", "side", "end", "party"): `n` texts that have something to swap, the mean `cosine`, and
    of those that tell a role (`told`) the share that the role score calls `right`; it is 1 for an unchanged text, and
    so is the cosine.
    """
    figures = {}
    made = [(text, counterfactuals(text, mirror)) for text in texts]
    for kind in ("who", "side", "end", "party"):
        pairs = [(text, swapped[kind]) for text, swapped in made if kind in swapped]
        if not pairs:
            continue
        verdicts = [roles_verdict(compare_roles(text, swapped, mirror)) for text, swapped in pairs]
        told = sum(verdict is not None for verdict in verdicts)
        cosine_N = embedder.cosine([text for text, _ in pairs], [swapped for _, swapped in pairs])
        figures[kind] = {
            "n": len(pairs),
            "told": told,
            "right": verdicts.count("same") / told if told else float("nan"),
            "cosine": float(cosine_N.double().mean()),
        }
    return figures
