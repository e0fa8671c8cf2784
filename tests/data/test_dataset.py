"""One path from a sample to tokens and pixels, for training and prediction alike."""

import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.video.conftest import write_clip
from vlm_crash.data.collate import FailedItem, Item
from vlm_crash.data.conversation import ChatTemplate
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.dataset import UNREADABLE_REMEDY, ClipDataset, SampleRecipe
from vlm_crash.data.prepared import load_prepared
from vlm_crash.data.tokenization import IGNORE_INDEX, ConversationTokenizer
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.schema import UNKNOWN, Annotation, load_schema, render
from vlm_crash.schema.records import VideoSample
from vlm_crash.video import FrameSampling, guarded
from vlm_crash.video.frame_cache import CacheSettings, FrameCache
from vlm_crash.video.image_transform import to_pixel_values
from vlm_crash.video.reader import UnreadableClipError

SCHEMA = load_schema()


@pytest.fixture(scope="module")
def recipe(tiny_model: Path) -> SampleRecipe:
    conversation = ConversationTokenizer(load_tokenizer(tiny_model), 16, ChatTemplate(""))
    return SampleRecipe(
        SCHEMA, conversation, FrameSampling(2), 32, prompt="short", tell_event=False, blank_frames=False
    )


@pytest.fixture(scope="module")
def sample(prepared: Path) -> VideoSample:
    return load_prepared(prepared, SCHEMA)["train"][0]


def text(recipe: SampleRecipe, item: Item) -> str:
    return str(recipe.tokenizer.tokenizer.decode(item.input_ids_S))


def test_training_and_prediction_see_the_same(recipe, sample):
    trained, asked = recipe.item(sample, supervised=True), recipe.item(sample, supervised=False)
    size = len(asked.input_ids_S)
    assert torch.equal(trained.input_ids_S[:size], asked.input_ids_S)
    assert torch.equal(trained.pixel_values_F3HW, asked.pixel_values_F3HW)
    assert asked.labels_S is None
    assert trained.labels_S is not None
    assert bool((trained.labels_S[:size] == IGNORE_INDEX).all())
    # A loose clip, without annotation and event, asks with the same ids as well.
    loose = VideoSample("x", sample.video, sample.path, event=None, annotation=None, duration_s=None)
    assert torch.equal(recipe.item(loose, supervised=False).input_ids_S, asked.input_ids_S)


def test_the_event_is_not_in_the_prompt_unless_told(recipe, sample):
    title = SCHEMA.event(sample.event).title.lower()
    plain = text(recipe, recipe.item(sample, supervised=False))
    told = text(recipe, replace(recipe, tell_event=True).item(sample, supervised=False))
    assert f"this event: {title}" in told
    assert not any(word in plain for word in ("crash", "near", str(sample.path.parent)))
    loose = replace(sample, event=None)
    with pytest.raises(ValueError, match="nothing says which event"):
        replace(recipe, tell_event=True).item(loose, supervised=False)


def test_prompts(recipe, sample):
    full = text(recipe, replace(recipe, prompt="full").item(sample, supervised=False))
    assert "- Weather: one of" in full and "Near miss".lower() in full
    own = replace(sample, question="<image>\nWhat do you see?")
    asked = text(recipe, replace(recipe, prompt="dataset").item(own, supervised=False))
    assert asked.endswith("</img>What do you see?<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(ValueError, match="has no human turn"):
        replace(recipe, prompt="dataset").item(replace(sample, question=None), supervised=False)


def test_blank_frames_are_black_and_of_the_same_size(recipe, sample):
    seen = recipe.item(sample, supervised=False).pixel_values_F3HW
    blank = replace(recipe, blank_frames=True).item(sample, supervised=False).pixel_values_F3HW
    assert blank.shape == seen.shape
    assert bool((blank.flatten(2).amax(2) == blank.flatten(2).amin(2)).all())
    assert not torch.equal(blank, seen)


def test_what_nobody_annotated_is_not_learnt(recipe, sample):
    values = {**sample.annotation.values, "Weather": UNKNOWN}
    annotation = Annotation.of(SCHEMA, sample.event, values)
    item = recipe.item(replace(sample, annotation=annotation, answer=None), supervised=True)
    learnt = recipe.tokenizer.tokenizer.decode(item.labels_S[item.labels_S != IGNORE_INDEX])
    assert "- Weather: Unknown" in render(SCHEMA, annotation)
    assert "- Weather: \n" in learnt.replace("- Weather:\n", "- Weather: \n")


def test_a_clip_that_cannot_be_read(recipe, sample, tmp_path):
    broken = replace(sample, path=tmp_path / "broken.mp4")
    broken.path.write_bytes(b"")
    with pytest.raises(UnreadableClipError, match=r"broken\.mp4"):
        ClipDataset([broken], recipe, supervised=True, on_unreadable="raise")[0]
    item = ClipDataset([broken], recipe, supervised=False, on_unreadable="fail")[0]
    assert item == FailedItem(broken, "the file is empty (0 bytes)")


def test_a_decoder_that_crashes_or_takes_too_long(recipe, sample, tmp_path, monkeypatch):
    """In training a stop that names the clip, in prediction a failed one."""
    monkeypatch.setattr(guarded, "MODULE", "tests.video.odd_reader")
    monkeypatch.setattr(guarded, "_own", threading.local())
    crashes, hangs = (replace(sample, path=tmp_path / f"{name}.mp4") for name in ("crashes", "hangs"))
    with pytest.raises(UnreadableClipError, match=r"crashes\.mp4: the decoder died by SIGSEGV"):
        ClipDataset([crashes], recipe, supervised=True, on_unreadable="raise")[0]
    hasty = replace(recipe, clip_timeout_s=0.5)
    failed = FailedItem(hangs, f"the decoder took longer than 0.5 s and was killed; {guarded.TIMEOUT_REMEDY}")
    assert ClipDataset([hangs], hasty, supervised=False, on_unreadable="fail")[0] == failed


@pytest.mark.parametrize("name", ["unseen", "unhashable"])
def test_a_file_that_does_not_answer_costs_one_clip_beside_a_cache(recipe, sample, tmp_path, monkeypatch, name):
    """Whatever is done to a clip's own file is done where it can be ended: the worker itself would wait for ever."""
    monkeypatch.setattr(guarded, "MODULE", "tests.video.odd_reader")
    monkeypatch.setattr(guarded, "_own", threading.local())
    cached = replace(recipe, clip_timeout_s=0.5, cache=FrameCache(CacheSettings(tmp_path / "cache")))
    gone = replace(sample, path=tmp_path / f"{name}.mp4")
    shutil.copy(sample.path, gone.path)
    clips = ClipDataset([gone], cached, supervised=False, on_unreadable="fail")
    assert clips[0] == FailedItem(gone, f"the decoder took longer than 0.5 s and was killed; {guarded.TIMEOUT_REMEDY}")
    patient = replace(cached, clip_timeout_s=None)
    assert isinstance(ClipDataset([sample], patient, supervised=False, on_unreadable="fail")[0], Item)


def test_training_needs_an_annotation(recipe, sample):
    with pytest.raises(ValueError, match="has no annotation"):
        recipe.item(replace(sample, annotation=None, answer=None), supervised=True)


def test_the_reader_that_is_asked_for_decodes(recipe, sample, tmp_path):
    """decord reads no GIF, PyAV does."""
    moving = replace(sample, path=write_clip(tmp_path / "a.gif", num_frames=4, codec="gif"))
    assert recipe.item(moving, supervised=False).pixel_values_F3HW.shape == (2, 3, 32, 32)
    pytest.importorskip("decord")
    with pytest.raises(UnreadableClipError, match=r"a\.gif: decord"):
        replace(recipe, reader="decord").item(moving, supervised=False)
    with pytest.raises(ValueError, match="reader='opencv' is not one of"):
        CrashDataModule(reader="opencv")


def test_frames_are_resized_as_the_model_wants_them(recipe, sample):
    """While they are read, and as all at once would be."""
    whole = guarded.read_frames(sample.path, recipe.sampling)
    item = recipe.item(sample, supervised=False)
    assert torch.equal(item.pixel_values_F3HW, to_pixel_values(whole.frames_FHWC, 32))


def test_the_remedy_is_one_of_what_is_wrong(recipe, sample, tmp_path):
    """`check` looks at whole clips, by one reader: it would keep neither of these out."""
    late = replace(recipe, sampling=FrameSampling(2, start_s=100.0))
    for way in ("raise", "skip"):  # or a wrong window would leave out the whole dataset
        with pytest.raises(UnreadableClipError, match=r"begins at 100 s, and it ends at .* s; lower --data.frames.sta"):
            ClipDataset([sample], late, supervised=True, on_unreadable=way)[0]
    failed = ClipDataset([sample], late, supervised=False, on_unreadable="fail")[0]
    assert isinstance(failed, FailedItem) and failed.reason.startswith("the window begins at 100 s")
    broken = replace(sample, path=tmp_path / "broken.mp4")
    broken.path.write_bytes(b"")
    plain = f"the file is empty \\(0 bytes\\); {re.escape(UNREADABLE_REMEDY)}"
    for reader, remedy in (
        ("auto", plain),
        ("decord", "; set --data.reader auto; where that cannot read it .* run `check`"),
    ):
        pytest.importorskip("decord" if reader == "decord" else "av")
        with pytest.raises(UnreadableClipError, match=remedy):
            ClipDataset([broken], replace(recipe, reader=reader), supervised=True, on_unreadable="raise")[0]
