"""The table of a categorical field: where each clip stands in it, and its two numbers with their intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from vlm_crash.evaluation.bootstrap import Resamples, interval
from vlm_crash.evaluation.class_table import ClassTable, add_class_tables
from vlm_crash.evaluation.joining import JoinedClip
from vlm_crash.evaluation.loading import LoadedPrediction
from vlm_crash.evaluation.scoring import ScoredEvent, score_clips
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation, Prediction, VideoSample
from vlm_crash.schema.response import render

SCHEMA = load_schema()
WEATHER = SCHEMA.event("crash").field("Weather")


def judged(pairs: list[tuple[str | None, str | None]], wrong_event: tuple[int, ...] = ()) -> ScoredEvent:
    """Crashes with a truth and an answer of the weather each; None: not known, not answered."""
    clips = []
    for n, (truth, said) in enumerate(pairs):
        annotation = Annotation.of(SCHEMA, "crash", {"Weather": truth} if truth else {})
        sample = VideoSample(f"crash_{n}", f"{n}.mp4", None, "crash", annotation, None)  # type: ignore[arg-type]
        text = render(SCHEMA, Annotation.of(SCHEMA, "crash", {}))
        text = (
            text.replace("Weather: Unknown", f"Weather: {said}") if said else text.replace("- Weather: Unknown\n", "")
        )
        event = "nearmiss" if n in wrong_event else "crash"
        made = Prediction(f"{n}.mp4", event, None, {}, {}, text, "ok", source_event="crash")
        clips.append(JoinedClip("crash", sample, annotation, LoadedPrediction(made, False, str(n))))
    return next(event for event in score_clips(SCHEMA, clips, None) if event.event.name == "crash")


def test_every_clip_with_a_truth_stands_in_one_place():
    pairs = [("Clear", "clear"), ("Clear", "Rainy"), ("Rainy", "Rainy"), ("Rainy", None), (None, "Clear"),
             ("Clear", "qwerty"), ("Clear", "Unknown"), ("Rainy", "Rainy")]  # fmt: skip
    table = ClassTable.of(judged(pairs, wrong_event=(7,)), WEATHER)
    assert table.terms == ("Clear", "Rainy")
    assert table.columns[-2:] == ("(wrong event)", "(no answer)")
    counts = {
        (truth, table.columns[a]): int(n)
        for truth, row in zip(table.terms, table.counts(), strict=True)
        for a, n in enumerate(row)
        if n
    }
    assert counts == {
        ("Clear", "Clear"): 1, ("Clear", "Rainy"): 1, ("Clear", "(no answer)"): 2,  # not understood, and Unknown
        ("Rainy", "Rainy"): 1, ("Rainy", "(no answer)"): 1, ("Rainy", "(wrong event)"): 1,
    }  # fmt: skip
    assert table.columns[table.given_N[-1]] == "Rainy" and table.columns[table.answer_N[-1]] == "(wrong event)"


@pytest.fixture(scope="module")
def many() -> tuple[list[tuple[str, str | None]], ScoredEvent]:
    rng = np.random.default_rng(0)
    terms = ["Clear", "Rainy", "Snowy"]
    truths = rng.choice(terms, 70, p=[0.6, 0.3, 0.1]).tolist()
    pairs = [(t, None if rng.random() < 0.1 else t if rng.random() < 0.6 else str(rng.choice(terms))) for t in truths]
    return pairs, judged(pairs)


def entries(scored: ScoredEvent, resamples: Resamples) -> dict[str, Any]:
    fields: dict[str, Any] = {f.name: {"n": len(scored.truths(f.name))} for f in scored.event.fields}
    add_class_tables(scored, fields, resamples)
    return fields


def _by_scikit(pairs: list[tuple[str, str | None]], weights: np.ndarray) -> tuple[float, float]:
    truth, said = [t for t, _ in pairs], [s or "none" for _, s in pairs]
    labels = sorted({t for t, w in zip(truth, weights, strict=True) if w})
    f1 = f1_score(truth, said, labels=labels, average="macro", sample_weight=weights)
    return balanced_accuracy_score(truth, said, sample_weight=weights), f1


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_scores_and_every_draw_are_those_of_scikit_learn(many):
    pairs, scored = many
    resamples = Resamples.of_clips(len(pairs), 100, seed=3)
    entry = entries(scored, resamples)["Weather"]
    (counts_RN,) = resamples.blocks()
    draws = np.array([_by_scikit(pairs, counts_N) for counts_N in counts_RN])
    point = _by_scikit(pairs, np.ones(len(pairs)))
    for k, name in enumerate(("balanced_accuracy", "macro_f1")):
        score = entry["scores"][name]
        assert score["value"] == score["given_event"] == pytest.approx(point[k])
        assert (score["low"], score["high"]) == pytest.approx(interval(draws[:, k]))
    most = max({t for t, _ in pairs}, key=[t for t, _ in pairs].count)
    constant = _by_scikit([(t, most) for t, _ in pairs], np.ones(len(pairs)))
    assert [entry["scores"][n]["baseline"] for n in ("balanced_accuracy", "macro_f1")] == pytest.approx(constant)
    assert entry["support"] == {t: [t for t, _ in pairs].count(t) for t in ("Clear", "Rainy", "Snowy")}
    matrix = np.array(entry["confusion"]["counts"])
    assert entry["confusion"]["answers"] == ["Clear", "Rainy", "Snowy", "(no answer)"]
    assert matrix.sum() == 70 and matrix[:, :3].trace() == sum(t == s for t, s in pairs)
    assert entry["answered"] == sum(s is not None for _, s in pairs)


def test_small_supports_are_said_in_words(many):
    pairs, scored = many
    few = pairs.count(("Snowy", "Snowy")) + sum(t == "Snowy" != s for t, s in pairs)
    fields = entries(scored, Resamples.of_clips(70, 100, 0))
    assert fields["Weather"]["flags"] == [
        f"fewer than 10 truths of Snowy ({few}): balanced accuracy and macro-F1 hang on these clips"
    ]
    grouped = entries(scored, replace(Resamples.of_clips(70, 100, 0), group_N=np.arange(70) % 4, num_groups=4))
    assert "only 4 groups" in grouped["Weather"]["flags"][0]
    one = entries(judged([("Clear", "Clear")] * 3), Resamples.of_clips(3, 100, 0))["Weather"]["flags"]
    assert "only 3 clips" in one[0] and "only Clear is ever true" in one[1]
    nothing = fields["Lanes"]
    assert nothing["scores"]["macro_f1"]["value"] is None and nothing["scores"]["macro_f1"]["reasons"]["value"]
    assert nothing["support"] == {} and nothing["flags"] == []
