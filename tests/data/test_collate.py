"""Padding sides, labels, failed clips beside the batch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vlm_crash.data.collate import Collator, FailedItem, Item, PackCollator
from vlm_crash.schema.records import VideoSample


def _sample(name: str) -> VideoSample:
    return VideoSample(id=name, video=name, path=Path(name), event=None, annotation=None, duration_s=None)


def _item(size: int, labels: bool = True) -> Item:
    ids = torch.arange(1, size + 1)
    return Item(_sample(f"{size}.mp4"), ids, ids.clone() if labels else None, torch.full((2, 3, 4, 4), float(size)))


def test_right_padding() -> None:
    batch = Collator(0)([_item(3), _item(1)])
    assert batch.input_ids_BS.tolist() == [[1, 2, 3], [1, 0, 0]]
    assert batch.attention_mask_BS.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels_BS is not None and batch.labels_BS.tolist() == [[1, 2, 3], [1, -100, -100]]
    assert batch.num_tokens == 4
    assert batch.pixel_values_N3HW[:, 0, 0, 0].tolist() == [3, 3, 1, 1]


def test_clips_of_several_numbers_of_frames() -> None:
    few = replace(_item(1), pixel_values_F3HW=torch.full((5, 3, 4, 4), 9.0))
    batch = Collator(0)([few, _item(2), _item(3)])
    assert batch.frames_per_clip == (5, 2, 2)
    first = batch.first(2, 1)
    assert first.pixel_values_N3HW[:, 0, 0, 0].tolist() == [9] * 5 + [2, 2]
    assert first.frames_per_clip == (5, 2) and first.num_fillers == 1


def test_left_padding() -> None:
    batch = Collator(9, "left")([_item(1, labels=False), _item(3, labels=False)])
    assert batch.input_ids_BS.tolist() == [[9, 9, 1], [1, 2, 3]]
    assert batch.labels_BS is None


def test_failed_clips_are_carried_by_name() -> None:
    batch = Collator(0)([FailedItem(_sample("bad.mp4"), "empty file"), _item(2)])
    assert [item.sample.video for item in batch.failed] == ["bad.mp4"]
    assert [sample.video for sample in batch.samples] == ["2.mp4"]
    assert len(batch.input_ids_BS) == 1


def test_a_batch_of_failures_only() -> None:
    batch = Collator(0, "left")([FailedItem(_sample("bad.mp4"), "empty file")])
    assert batch.samples == [] and len(batch.failed) == 1
    assert batch.to("cpu").failed == batch.failed


def test_a_pack_is_one_row_without_padding() -> None:
    batch = PackCollator(6)([_item(3), _item(2), _item(1).as_filler()])
    assert batch.input_ids_BS.tolist() == [[1, 2, 3, 1, 2, 1]]
    assert bool(batch.attention_mask_BS.all()) and batch.num_tokens == 6
    assert batch.labels_BS is not None and batch.labels_BS.tolist() == [[1, 2, 3, 1, 2, -100]]
    assert batch.clip_lengths == (3, 2, 1) and batch.longest == 3
    assert batch.first_ids.tolist() == [1, 2, 3]
    assert [sample.video for sample in batch.samples] == ["3.mp4", "2.mp4"] and batch.num_fillers == 1
    assert batch.pixel_values_N3HW[:, 0, 0, 0].tolist() == [3, 3, 2, 2, 1, 1]
    assert batch.to("cpu").clip_lengths == (3, 2, 1)


def test_a_pack_with_more_tokens_than_foreseen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3\.mp4, 2\.mp4 take 5 tokens, more than the 4 of a pack"):
        PackCollator(4)([_item(3), _item(2)])
