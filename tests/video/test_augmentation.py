"""What is drawn is a function of seed, epoch and clip; what is drawn is done to all frames alike."""

import numpy as np
import pytest

from vlm_crash.video.augmentation import PLAIN, Augmentation, Draw

ALL = Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, crop=0.2, jpeg=40, flip=0.5)


@pytest.fixture(scope="module")
def frames_FHWC() -> np.ndarray:
    """A clip that stands still, so that its frames must stay equal."""
    one = np.random.default_rng(0).integers(40, 200, (12, 16, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    return np.stack([one] * 3)


def test_a_draw_is_of_seed_epoch_and_clip():
    assert ALL.draw(0, 1, 2) == ALL.draw(0, 1, 2)
    assert len({ALL.draw(*place) for place in [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 2, 1)]}) == 5


def test_one_option_does_not_shift_the_others():
    alone = Augmentation(brightness=0.3).draw(0, 0, 7)
    assert alone.brightness == ALL.draw(0, 0, 7).brightness
    assert alone == Draw(brightness=alone.brightness)
    assert PLAIN.draw(0, 0, 7) == Draw() and not PLAIN.acts and ALL.acts


def test_draws_stay_within_what_is_asked_for():
    draws = [ALL.draw(0, 0, clip) for clip in range(400)]
    for name in ("brightness", "contrast", "saturation"):
        values = [getattr(draw, name) for draw in draws]
        assert 0.7 <= min(values) < 0.75 and 1.25 < max(values) <= 1.3
    qualities = [draw.quality for draw in draws]
    assert 40 <= min(qualities) < 45 and 90 < max(qualities) <= 95
    assert 0.4 < np.mean([draw.flipped for draw in draws]) < 0.6
    boxes = np.array([draw.box for draw in draws])
    assert (boxes >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-9).all()
    assert 0.8 <= boxes[:, 2:].min() < 0.81


def test_nothing_drawn_changes_nothing(frames_FHWC):
    np.testing.assert_array_equal(Draw().apply(frames_FHWC), frames_FHWC)


def test_twice_mirrored_is_what_it_was(frames_FHWC):
    mirror = Draw(flipped=True)
    np.testing.assert_array_equal(mirror.apply(frames_FHWC), frames_FHWC[:, :, ::-1])
    np.testing.assert_array_equal(mirror.apply(mirror.apply(frames_FHWC)), frames_FHWC)


def test_each_change(frames_FHWC):
    def spread(frames: np.ndarray) -> float:
        return float((frames.max(-1).astype(float) - frames.min(-1)).mean())

    plain = frames_FHWC.astype(float)
    np.testing.assert_allclose(Draw(brightness=0.5).apply(frames_FHWC), plain * 0.5, atol=1)
    weak = Draw(contrast=0.5).apply(frames_FHWC)
    assert weak.std() < 0.6 * plain.std() and abs(weak.mean() - plain.mean()) < 3
    assert spread(Draw(saturation=0.2).apply(frames_FHWC)) < 0.3 * spread(frames_FHWC)
    cut = Draw(box=(0.25, 0.5, 0.5, 0.25)).apply(frames_FHWC)
    np.testing.assert_array_equal(cut, frames_FHWC[:, 12:36, 32:48])
    worst, best = (np.abs(Draw(quality=quality).apply(frames_FHWC) - plain).mean() for quality in (10, 95))
    assert 0 < best < worst < 40


def test_all_frames_are_changed_alike(frames_FHWC):
    """Also where the others are dark: contrast is around the clip's mean."""
    for clip in range(20):
        changed = ALL.draw(0, 0, clip).apply(frames_FHWC)
        assert changed.dtype == np.uint8 and changed.ndim == 4
        assert (changed == changed[:1]).all()
    dark = np.concatenate([frames_FHWC, frames_FHWC // 4])
    changed = Draw(contrast=1.2).apply(dark)
    assert (changed[0] == changed[2]).all() and changed[3].mean() < dark[3].mean() - 5


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"brightness": 1.0}, r"augment.brightness=1.0 is not in \[0, 0.9\]; 0 leaves it out"),
        ({"crop": -0.1}, r"augment.crop=-0.1 is not in \[0, 0.5\]"),
        ({"flip": float("nan")}, r"augment.flip=nan is not in \[0, 1\]"),
        ({"jpeg": 100}, r"augment.jpeg=100 is not in \[1, 95\]"),
    ],
)
def test_settings_that_cannot_be(settings, reason):
    with pytest.raises(ValueError, match=reason):
        Augmentation(**settings)
