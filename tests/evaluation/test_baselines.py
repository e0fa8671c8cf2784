from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vlm_crash.evaluation.baselines import _project, clip_features, linear_baseline, majority_baseline
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Annotation, VideoSample

RED, BLUE = (190, 60, 60), (60, 60, 190)


class _Equal:
    def cosine(self, left: list[str], right: list[str]) -> torch.Tensor:
        return torch.tensor([1.0 if a == b else 0.2 for a, b in zip(left, right, strict=True)])


def test_majority_of_terms_and_texts(schema: Schema):
    weather = majority_baseline(schema.field("Weather"), ["Rainy", "Clear", "Rainy", "Foggy"], None)
    assert (weather.value, weather.score) == ("Rainy", 0.5)
    open_field = majority_baseline(schema.field("Crash_with"), ["Dump truck", "dump_truck", "Tram"], None)
    assert open_field.score == pytest.approx(2 / 3)  # one term in two spellings
    text = majority_baseline(schema.field("Crash_reason"), ["Ice", "Ice", "Fog"], _Equal())  # type: ignore[arg-type]
    assert text.value == "Ice" and text.score == pytest.approx(2.2 / 3)


def test_no_majority_is_none(schema: Schema):
    assert majority_baseline(schema.field("Weather"), [], None).score is None
    assert majority_baseline(schema.field("Crash_reason"), ["Ice"], None).score is None


def _sample(schema: Schema, make_clip, number: int, event: str, colour: tuple[int, int, int]) -> VideoSample:
    path: Path = make_clip(f"{event}/{number}.mp4", colour, noise=number)
    weather = "Rainy" if number % 2 else "Clear"
    annotation = Annotation.of(schema, event, {"Weather": weather, "Lanes": 2})
    return VideoSample(f"{event}_{number}", path.name, path, event, annotation, None)


def test_features_are_the_mean_and_the_last_frame(make_clip):
    path = make_clip("red.mp4", RED)
    features_NP = clip_features([path])
    assert features_NP.shape == (1, 2 * 32 * 32 * 3)
    np.testing.assert_allclose(features_NP.reshape(2, -1, 3).mean(1) * 255, [RED, RED], atol=6)


def test_linear_baseline_sees_colour_and_nothing_else(schema: Schema, make_clip):
    """The event is in the colour; the weather is in nothing: found, and not found."""
    samples = [
        _sample(schema, make_clip, n, event, colour)
        for n in range(12)
        for event, colour in (("crash", RED), ("nearmiss", BLUE))
    ]
    found = linear_baseline(samples[:12], samples[12:], schema)
    assert found.event_balanced_accuracy == 1
    assert (found.num_train, found.num_test) == (12, 12)
    assert found.exact_match == found.exact_match_given_event
    assert 0.5 <= found.exact_match <= 0.9  # Lanes is constant and right, Weather is a coin


def test_linear_baseline_pays_for_a_wrong_event(schema: Schema, make_clip):
    train = [_sample(schema, make_clip, n, e, c) for n in range(4) for e, c in (("crash", RED), ("nearmiss", BLUE))]
    turned = [_sample(schema, make_clip, n, e, c) for n in (5, 7) for e, c in (("crash", BLUE), ("nearmiss", RED))]
    found = linear_baseline(train, turned, schema)
    assert found.event_balanced_accuracy == 0
    assert found.exact_match == 0
    assert found.exact_match_given_event >= 0.5


def test_linear_baseline_needs_both_sides(schema: Schema):
    with pytest.raises(ValueError, match="0 to fit, 0 to score"):
        linear_baseline([], [], schema)


def test_the_projection_changes_no_prediction_but_its_size():
    """Regression on the projection predicts what regression on the standardised pixels predicts."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 3, 30)
    pixels_NP = rng.normal(size=(40, 500)) + 0.4 * np.eye(3)[rng.integers(0, 3, 40)] @ rng.normal(size=(3, 500))
    fit_NQ, score_NQ = _project(pixels_NP[:30], pixels_NP[30:])
    assert fit_NQ.shape[1] <= 30
    scaler = StandardScaler().fit(pixels_NP[:30])
    settings = {"C": 1e-3, "tol": 1e-8, "max_iter": 2000}
    small = LogisticRegression(**settings).fit(fit_NQ, labels_N)
    whole = LogisticRegression(**settings).fit(scaler.transform(pixels_NP[:30]), labels_N)
    want = whole.predict_proba(scaler.transform(pixels_NP[30:]))
    np.testing.assert_allclose(small.predict_proba(score_NQ), want, atol=1e-4)
