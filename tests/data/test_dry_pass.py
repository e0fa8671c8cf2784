"""Samples from which nothing can be learned, or that have no place, are named before the first step."""

from dataclasses import replace

import pytest

from vlm_crash.data.conversation import ChatTemplate
from vlm_crash.data.dataset import SampleRecipe
from vlm_crash.data.dry_pass import dry_pass, is_cut
from vlm_crash.data.tokenization import ConversationTokenizer
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.schema.mirror import mirrored
from vlm_crash.schema.records import Annotation, VideoSample
from vlm_crash.schema.response import render
from vlm_crash.video.augmentation import Augmentation
from vlm_crash.video.frame_sampling import FrameSampling

LONG_SIDE = "the other side of the ship as one looks ahead"


@pytest.fixture(scope="module")
def recipe(tiny_model, schema) -> SampleRecipe:
    tokenizer = ConversationTokenizer(load_tokenizer(tiny_model), 16, ChatTemplate(""))
    return SampleRecipe(schema, tokenizer, FrameSampling(2), 32, "short", tell_event=False, blank_frames=False)


@pytest.fixture
def sample(schema, crash_row, tmp_path) -> VideoSample:
    known = {field.name: field.vocabulary[0] for field in schema.event("crash").fields if field.vocabulary}
    annotation = Annotation.of(schema, "crash", {**known, "Note": "It rained."})
    answer = render(schema, annotation)
    return VideoSample("crash_1", "1.mp4", tmp_path / "1.mp4", "crash", annotation, 8.0, "What?", answer)


def numbered(sample, count, **changes):
    return [replace(sample, id=f"crash_{n}", video=f"{n}.mp4", **changes) for n in range(1, count + 1)]


def size(recipe, sample) -> int:
    asked, answer, _ = recipe.texts(sample)
    return len(recipe.tokenizer(asked, 2, sample.duration_s, answer).input_ids_S)


def test_what_fits_exactly_passes(recipe, sample):
    dry_pass(recipe, [sample], "train", size(recipe, sample))
    dry_pass(recipe, [sample], "train", None)


def test_too_many_tokens(recipe, sample):
    places = size(recipe, sample) - 1
    short = replace(sample, video="short.mp4", answer="It crashed.")
    with pytest.raises(ValueError) as caught:
        dry_pass(recipe, [short, *numbered(sample, 7)], "val", places)
    said = str(caught.value)
    assert said.startswith(f"of 8 val clips, 7 have too many tokens: a prompt and its answer takes {places + 1} tokens")
    assert f"has places for {places} (max_position_embeddings" in said
    assert "(1.mp4, 2.mp4, 3.mp4, 4.mp4, 5.mp4, and 2 more)" in said and "short.mp4" not in said
    with pytest.raises(ValueError, match="the 2 frames of a clip are 32 image tokens, and the model has places for 31"):
        dry_pass(recipe, [sample], "train", 31)


def test_the_mirrored_answer_must_fit_too(recipe, sample, schema):
    """Only of training clips, and only where they may be mirrored."""
    sides = replace(schema, mirror=replace(schema.mirror, pairs=(*schema.mirror.pairs, ("portside", LONG_SIDE))))
    told = replace(sample, answer=sample.answer + " It came from portside.")
    flips = replace(recipe, schema=sides, augmentation=Augmentation(flip=0.5))
    places, mirror = size(recipe, told), mirrored(sides, told)
    assert mirror is not None and size(recipe, mirror) > places
    for one, split in ((recipe, "train"), (flips, "val")):
        dry_pass(one, [told], split, places)
    dry_pass(flips, [told], "train", size(recipe, mirror))
    with pytest.raises(ValueError, match=f"a prompt and its answer takes {size(recipe, mirror)} tokens"):
        dry_pass(flips, [told], "train", size(recipe, mirror) - 1)


def test_nothing_to_learn_from(recipe, sample, schema):
    """An empty answer; one that says nothing but what nobody knows has its words to learn, at least."""
    unknown = Annotation.of(schema, "crash", {})
    dry_pass(recipe, [replace(sample, annotation=unknown, answer=render(schema, unknown))], "train", None)
    with pytest.raises(
        ValueError, match=r"of 3 train clips, 2 have no token to learn from \(1.mp4, 2.mp4\): give them"
    ):
        dry_pass(recipe, [sample, *numbered(sample, 2, answer="")], "train", None)


def test_answers_that_were_cut_off(recipe, sample, schema):
    assert not is_cut(schema, sample)
    lines = sample.answer.split("\n")
    places = [number for number, line in enumerate(lines) if line.startswith("- ")]
    cuts = [
        "\n".join(lines[: places[3]]),  # after a whole line: what is known comes after it
        "\n".join([*lines[: places[3]], lines[places[3]][:9]]),  # inside a label
        "\n".join([*lines[: places[1]], lines[places[1]][:-3]]),  # inside a term
        "\n".join(lines[:-1]),  # without the note
    ]
    assert all(is_cut(schema, replace(sample, answer=cut)) for cut in cuts)
    with pytest.raises(
        ValueError, match=r"1 have no token .*\(0.mp4\).*; 2 have an answer that was cut off \(1.mp4, 2"
    ):
        bad = [replace(sample, video="0.mp4", answer=""), *numbered(sample, 2, answer=cuts[0]), sample]
        dry_pass(recipe, bad, "train", None)


def test_clips_that_end_before_the_window_begins(recipe, sample):
    late = replace(recipe, sampling=FrameSampling(2, start_s=7.5))
    unknown = replace(sample, duration_s=None)
    dry_pass(late, [sample, unknown], "train", None)
    with pytest.raises(
        ValueError,
        match=r"of 4 train clips, 2 end before the window begins, at 7\.5 s \(1\.mp4, 2\.mp4\): lower --data.frames.st",
    ):
        dry_pass(late, [sample, unknown, *numbered(sample, 2, duration_s=7.2)], "train", None)


def test_answers_of_another_form_are_nobodys_business(schema, sample):
    others = ["A car hits another one", "- It rains\n- A car brakes", "", "This is a crash scenario."]
    assert not any(is_cut(schema, replace(sample, answer=other)) for other in others)
    assert not is_cut(schema, replace(sample, answer=None))
    # An old file, whose record was read from its own answer, may leave fields out.
    partial = Annotation.of(schema, "crash", {"Weather": "Clear"})
    old = render(schema, sample.annotation).split("\n- Note")[0]
    assert not is_cut(schema, replace(sample, annotation=replace(partial), answer=old))
