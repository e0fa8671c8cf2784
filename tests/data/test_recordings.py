"""Batches of windows of a recording: all of them, or those that hold a window which is judged again."""

from pathlib import Path

import pytest

from tests.video.conftest import write_clip
from vlm_crash.data.collate import Collator
from vlm_crash.data.conversation import ChatTemplate
from vlm_crash.data.dataset import SampleRecipe
from vlm_crash.data.recordings import ScanPlan, WindowBatches
from vlm_crash.data.tokenization import ConversationTokenizer
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.schema import load_schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.video import FrameSampling


@pytest.fixture
def windows(tiny_model, tmp_path):
    conversation = ConversationTokenizer(load_tokenizer(tiny_model), 16, ChatTemplate(""))
    sampling = FrameSampling(2)
    recipe = SampleRecipe(load_schema(), conversation, sampling, 32, "short", tell_event=False, blank_frames=False)
    path = write_clip(tmp_path / "a.mp4")
    recording = VideoSample("a", "a.mp4", Path(path), None, None, None)

    def judged(**plan):
        batches = WindowBatches([recording], recipe, ScanPlan(1.0, 0.25, **plan), 3, Collator(0, "left"))
        return [[sample.window for sample in batch.samples] for batch in batches]

    return judged


def test_only_the_batches_that_are_wanted_are_judged(windows):
    whole = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12]]
    assert windows() == whole
    assert windows(first={"a": None}) == []
    assert windows(first={"a": 6}) == whole[2:]
    assert windows(first={"a": 3}, only={"a": frozenset({4, 9})}) == [whole[1], whole[3]]
    assert windows(first={"a": 12}, only={"a": frozenset({12})}) == whole[4:]
