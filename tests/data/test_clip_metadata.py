"""What a file tells without its pictures, and how well a label can be told from that."""

from pathlib import Path

import numpy as np
import pytest

from vlm_crash.data.check import check
from vlm_crash.data.clip_metadata import FEATURE_GROUPS, FEATURE_NAMES, clip_metadata, metadata_features
from vlm_crash.data.clip_table import read_rows
from vlm_crash.data.metadata_classifier import NUM_FOLDS, cross_predict, fit_and_predict, folds
from vlm_crash.schema.records import VideoSample
from vlm_crash.video.preflight import Limits


def sample(path: Path) -> VideoSample:
    return VideoSample(path.stem, path.name, path, None, None, None)


def test_the_container_and_clips_csv_say_the_same(tmp_path, clip_bytes, schema):
    """One clip, one that is no clip, and one that is not there."""
    (tmp_path / "night_07.mp4").write_bytes(clip_bytes(100))
    (tmp_path / "8.mp4").write_bytes(b"no clip")
    samples = [sample(tmp_path / name) for name in ("night_07.mp4", "8.mp4", "9.mp4")]
    probed = clip_metadata(samples)
    good, bad, absent = probed
    assert (good.width, good.height, good.fps, good.duration_s, good.codec) == (32, 32, 10, 0.5, "h264")
    assert good.bitrate == 8 * len(clip_bytes(100)) / 0.5
    assert (bad.num_bytes, bad.codec, np.isnan(bad.fps)) == (7, "", True)
    assert absent is None
    check(tmp_path, schema, Limits(), 1)
    assert len(read_rows(tmp_path / "clips.csv")) == 2
    np.testing.assert_equal(metadata_features(clip_metadata(samples)[:2]), metadata_features(probed[:2]))
    (tmp_path / "night_07.mp4").write_bytes(clip_bytes(100, 8))  # another file: its row says nothing
    assert clip_metadata(samples)[0].duration_s == 0.8


def test_every_feature_has_a_name_for_people():
    names = [name for group in FEATURE_GROUPS.values() for name in group]
    assert sorted(names) == sorted(FEATURE_NAMES)


@pytest.fixture
def clips() -> tuple[np.ndarray, list[str]]:
    """Of 90 clips one feature tells the label; the other is noise, and half of it is not known."""
    rng = np.random.default_rng(1)
    features_NP = rng.normal(size=(90, 2))
    features_NP[::2, 1] = np.nan
    return features_NP, ["wide" if value > 0 else "narrow" for value in features_NP[:, 0]]


def test_a_label_that_metadata_tell_is_found_and_one_by_chance_is_not(clips):
    features_NP, labels = clips
    assert np.mean(np.array(cross_predict(features_NP, labels)) == labels) > 0.9
    by_chance = np.random.default_rng(2).permutation(labels).tolist()
    assert np.mean(np.array(cross_predict(features_NP, by_chance)) == by_chance) < 0.65
    assert cross_predict(features_NP, labels) == cross_predict(features_NP, labels)


def test_no_clip_of_a_group_helps_to_tell_another(clips):
    """Each label belongs to one group: without its group no clip's label can be known."""
    features_NP, _ = clips
    groups = [str(n % 9) for n in range(90)]
    assert set(cross_predict(features_NP, groups, groups)) <= set(groups)
    assert not np.any(np.array(cross_predict(features_NP, groups, groups)) == groups)
    assert len(set(zip(groups, folds(groups).tolist(), strict=True))) == 9
    assert cross_predict(features_NP[:3], ["a", "b", "a"], ["one"] * 3) is None


def test_one_label_needs_no_forest_and_none_is_an_error(clips):
    features_NP, _ = clips
    assert fit_and_predict(features_NP[:4], ["a"] * 4, features_NP[:2]) == ["a", "a"]
    with pytest.raises(ValueError, match="no clips to fit"):
        fit_and_predict(features_NP[:0], [], features_NP)
    assert np.bincount(folds(90)).tolist() == [18] * NUM_FOLDS
