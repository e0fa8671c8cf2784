from dataclasses import replace
from pathlib import Path

import pytest

from vlm_crash.evaluation.joining import join
from vlm_crash.evaluation.loading import LoadedPrediction
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Annotation, Prediction, VideoSample


def _truth(schema: Schema, event: str, video: str) -> VideoSample:
    return VideoSample(
        f"{event}_{video}", video, Path(f"/clips/{event}/{video}"), event, Annotation.of(schema, event, {}), None
    )


def _said(video: str, source: str | None, path: str = "") -> LoadedPrediction:
    prediction = Prediction(video, "crash", None, {}, {}, "", "ok", source_event=source, path=path)
    return LoadedPrediction(prediction, told_event=False, where=f"line of {video}")


def test_same_names_are_kept_apart_by_the_event_source(schema: Schema):
    truths = [_truth(schema, "crash", "1.mp4"), _truth(schema, "nearmiss", "1.mp4")]
    joined = join([_said("1.mp4", "nearmiss"), _said("1.mp4", "crash")], truths)
    assert [clip.loaded.prediction.source_event for clip in joined.clips if clip.loaded] == ["crash", "nearmiss"]


def test_order_of_lines_does_not_matter_and_row_numbers_join_nothing(schema: Schema):
    truths = [_truth(schema, "crash", name) for name in ("10.mp4", "2.mp4")]
    joined = join([_said("2.mp4", "crash"), _said("10.mp4", "crash")], truths)
    assert all(clip.loaded and clip.loaded.prediction.video == clip.truth.video for clip in joined.clips)


def test_without_source_the_name_decides_when_it_is_in_one_truth(schema: Schema):
    joined = join([_said("7.mp4", None)], [_truth(schema, "nearmiss", "7.mp4"), _truth(schema, "crash", "8.mp4")])
    assert [clip.loaded is not None for clip in joined.clips] == [True, False]


def test_a_name_in_the_other_form_of_unicode_is_the_same(schema: Schema):
    truths = [
        _truth(schema, "crash", name) for name in ("Z\xfcrich.mp4", "\xf6.mp4", "b.mp4", "u\u0308.mp4", "\xfc.mp4")
    ]
    said = [_said(name, "crash") for name in ("Zu\u0308rich.mp4", "o\u0308.avi", "\xfc.mp4")]
    answers = [clip.loaded and clip.loaded.prediction.video for clip in join(said, truths).clips]
    assert answers == ["Zu\u0308rich.mp4", "o\u0308.avi", None, None, "\xfc.mp4"]


def test_without_source_the_path_decides_between_two(schema: Schema):
    truths = [_truth(schema, "crash", "1.mp4"), _truth(schema, "nearmiss", "1.mp4")]
    joined = join([_said("1.mp4", None, "/clips/nearmiss/1.mp4")], truths)
    assert [clip.loaded is not None for clip in joined.clips] == [False, True]


def test_what_cannot_be_told_apart_is_an_error_with_its_remedy(schema: Schema):
    truths = [_truth(schema, "crash", "1.mp4"), _truth(schema, "nearmiss", "1.mp4")]
    with pytest.raises(ValueError, match=r"1\.mp4 .*fits the truths crash/1\.mp4, nearmiss/1\.mp4\. Predict each"):
        join([_said("1.mp4", None)], truths)


def test_two_predictions_of_one_truth_are_an_error(schema: Schema):
    with pytest.raises(ValueError, match=r"crash/1\.mp4 is predicted twice"):
        join([_said("1.mp4", None), _said("1.mp4", "crash")], [_truth(schema, "crash", "1.mp4")])


def test_folders_in_names_count_when_both_sides_have_them(schema: Schema):
    truths = [_truth(schema, "crash", "a/1.mp4"), _truth(schema, "crash", "b/1.mp4")]
    joined = join([_said("b/1.mp4", "crash")], truths)
    assert [clip.loaded is not None for clip in joined.clips] == [False, True]
    assert len(join([_said("c/1.mp4", "crash")], truths).without_truth) == 1


def test_a_clip_that_a_csv_names_by_its_id_may_have_another_suffix(schema: Schema):
    truths = [_truth(schema, event, "7.mp4") for event in ("crash", "nearmiss")]
    joined = join([_said("7.avi", "nearmiss")], truths)
    assert [clip.loaded is not None for clip in joined.clips] == [False, True]
    assert len(join([_said("7.avi", None)], truths).without_truth) == 1  # of which event?
    both = join([_said("7.avi", "crash"), _said("7.mp4", "crash")], truths)  # the name goes first
    assert both.clips[0].loaded and both.clips[0].loaded.prediction.video == "7.mp4"
    assert len(join([_said("7.avi", "crash"), _said("7.mkv", "crash")], truths).without_truth) == 2
    assert len(join([_said("7.mp4", "crash")], [_truth(schema, "crash", "7.avi")]).without_truth) == 1


def test_lone_truths_and_lone_predictions_are_kept_apart(schema: Schema):
    truths = [_truth(schema, "crash", "1.mp4"), _truth(schema, "crash", "2.mp4")]
    predictions = [_said("1.mp4", "crash"), _said("2.mp4", "nearmiss"), _said("9.mp4", None)]
    joined = join(predictions, truths)
    assert [clip.loaded is not None for clip in joined.clips] == [True, False]
    assert [loaded.prediction.video for loaded in joined.without_truth] == ["2.mp4", "9.mp4"]
    assert [clip.truth.video for clip in join(predictions, truths, only_predicted=True).clips] == ["1.mp4"]


def test_a_failed_clip_is_a_prediction(schema: Schema):
    failed = replace(_said("1.mp4", "crash"), prediction=replace(_said("1.mp4", "crash").prediction, status="failed"))
    assert len(join([failed], [_truth(schema, "crash", "1.mp4")], only_predicted=True).clips) == 1


def test_a_clip_whose_event_was_corrected_keeps_its_predictions(schema: Schema):
    """crash/1.mp4 became a near miss: old predictions find it by its id, new ones by its name."""
    moved = replace(
        _truth(schema, "nearmiss", "1.mp4"), id="crash_1", video="../crash/1.mp4", path=Path("/clips/crash/1.mp4")
    )
    other = replace(_truth(schema, "nearmiss", "1.mp4"), id="nearmiss_1")
    for said in (_said("1.mp4", "crash"), _said("../crash/1.mp4", "nearmiss")):
        joined = join([said, _said("1.mp4", "nearmiss")], [moved, other])
        assert [clip.loaded and clip.loaded.prediction.video for clip in joined.clips] == [
            said.prediction.video,
            "1.mp4",
        ]
    assert join([_said("1.mp4", "nearmiss")], [moved]).clips[0].loaded is None


@pytest.mark.parametrize(
    ("truth", "said", "joins"),
    [
        ("a/Z\xfcrich.mp4", "a/Zu\u0308rich.mp4", True),
        ("a/Z\xfcrich.mp4", "b/Zu\u0308rich.mp4", False),
        ("D:\\data\\3.mp4", "3.mp4", True),
        ("D:\\data\\3.mp4", "3.avi", True),
        ("a\\3.mp4", "a/3.mp4", True),
        ("a\\3.mp4", "b/3.mp4", False),
        ("IMG_1.MP4", "img_1.mp4", True),
        ("img.mp4", "IMG.avi", True),
        ("img.avi", "IMG.mkv", False),
        ("1699.264", "1699.264.mp4", True),
    ],
)
def test_a_clip_that_prepare_finds_by_a_csv_s_name_has_its_truth_there(schema: Schema, truth, said, joins):
    for source in ("crash", None):
        joined = join([_said(said, source)], [_truth(schema, "crash", "x.mp4"), _truth(schema, "crash", truth)])
        assert [clip.loaded is not None for clip in joined.clips] == [False, joins]


def test_names_that_differ_in_case_only_are_two_clips(schema: Schema):
    truths = [_truth(schema, "crash", name) for name in ("a.mp4", "A.mp4", "b\xe9.mp4")]
    joined = join([_said(name, "crash") for name in ("A.avi", "Be\u0301.avi", "bE\u0301.avi")], truths)
    assert [clip.loaded and clip.loaded.prediction.video for clip in joined.clips] == [None, "A.avi", None]
