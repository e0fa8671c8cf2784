"""Training clips are changed, alike in any number of workers and processes, and their labels stay true."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.data.test_datamodule import connected
from vlm_crash.data.batching import PackedSampler
from vlm_crash.data.collate import Batch
from vlm_crash.data.dataset import ModelInputs
from vlm_crash.data.sampler import SharedSampler
from vlm_crash.models.tokenizers import load_tokenizer
from vlm_crash.schema import load_schema, parse
from vlm_crash.schema.mirror import mirrored
from vlm_crash.video.augmentation import Augmentation, Draw

SCHEMA = load_schema()
ALL = Augmentation(brightness=0.3, contrast=0.3, saturation=0.3, crop=0.2, jpeg=40, flip=0.5)


@pytest.fixture(scope="module")
def inputs(tiny_model: Path) -> ModelInputs:
    return ModelInputs(load_tokenizer(tiny_model), 16, 32, prompt="short", system_message="")


def sums(batches: list[Batch]) -> dict[str, float]:
    """A number of each clip's pixels, by the clip."""
    return {
        sample.id: float(pixels.double().sum())
        for batch in batches
        for sample, pixels in zip(batch.samples, batch.pixel_values_N3HW.split(batch.frames_per_clip), strict=False)
    }


def train(inputs, prepared: Path, epoch: int = 0, **options):
    data = connected(inputs, "fit", folder=prepared, **options)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return data, list(loader)


def test_the_same_draw_in_any_process(inputs, prepared):
    _, plain = train(inputs, prepared)
    _, changed = train(inputs, prepared, augment=ALL)
    found = sums(changed)
    assert found.keys() == sums(plain).keys() and all(found[name] != value for name, value in sums(plain).items())
    assert sums(train(inputs, prepared, augment=ALL, num_workers=2, batch_size=2)[1]) == found
    assert sums(train(inputs, prepared, augment=ALL, batching="packed", batch_size=2)[1]) == found
    assert sums(train(inputs, prepared, epoch=1, augment=ALL)[1]) != found
    assert sums(train(inputs, prepared, seed=1, augment=ALL)[1]) != found
    # A run that goes on in that epoch sees what is left of it as it would have been.
    data = connected(inputs, "fit", folder=prepared, augment=ALL)
    data.resumed = (0, 3)
    rest = sums(list(data.train_dataloader()))
    assert len(rest) == len(found) - 3 and rest == {name: found[name] for name in rest}


@pytest.mark.parametrize("option", ["brightness", "contrast", "saturation", "crop", "jpeg", "flip"])
def test_each_option_acts(inputs, prepared, option):
    value = 30 if option == "jpeg" else 1.0 if option == "flip" else 0.4
    data = connected(inputs, "fit", folder=prepared, augment=Augmentation(**{option: value}))
    clips = data.train_dataloader().dataset
    plain = replace(data.recipe, augmentation=None).item(clips.samples[0], supervised=True)
    assert not torch.equal(clips[0].pixel_values_F3HW, plain.pixel_values_F3HW)


def test_only_training_clips_are_changed(inputs, prepared):
    data = connected(inputs, "fit", folder=prepared, augment=ALL)
    val = data.val_dataloader().dataset
    plain = replace(data.recipe, augmentation=None).item(val.samples[0], supervised=True)
    assert torch.equal(val[0].pixel_values_F3HW, plain.pixel_values_F3HW)


def test_what_a_mirrored_clip_is_taught(inputs, prepared):
    """The sides of the answer change with the picture; where the answer leaves one in doubt, neither does."""
    data = connected(inputs, "fit", folder=prepared, augment=Augmentation(flip=1.0))
    recipe = data.recipe
    sided = next(s for s in data.samples["train"] if mirrored(SCHEMA, s) != s)
    draw = Draw(flipped=True)
    item, plain = recipe.item(sided, True, draw), recipe.item(sided, True)
    assert torch.allclose(item.pixel_values_F3HW.flip(-1), plain.pixel_values_F3HW, atol=0.03)
    said = inputs.tokenizer.decode(item.labels_S[item.labels_S >= 0]).removesuffix("<|im_end|>\n")
    other = mirrored(SCHEMA, sided)
    assert parse(SCHEMA, said, sided.event).values == other.annotation.values != sided.annotation.values
    doubtful = replace(sided, answer="This is a crash scenario.\n- Weather: Rainy\n- Note: It left.")
    assert torch.equal(recipe.item(doubtful, True, draw).pixel_values_F3HW, plain.pixel_values_F3HW)


def test_packs_have_room_for_both_answers(inputs, prepared):
    data = connected(inputs, "fit", folder=prepared, batching="packed", batch_size=2, augment=Augmentation(flip=1.0))
    for sample, length in zip(data.samples["train"], data.lengths, strict=True):
        for one in (sample, mirrored(SCHEMA, sample)):
            assert len(replace(data.recipe, augmentation=None).item(one, True).input_ids_S) <= length


def test_what_cannot_be(inputs, prepared, tmp_path):
    with pytest.raises(ValueError, match="does nothing to black frames"):
        connected(inputs, "fit", folder=prepared, blank_frames=True, augment=ALL)
    with pytest.raises(ValueError, match=r"seed=-1 is below 0; set --data\.seed to 0 or more"):
        connected(inputs, "fit", folder=prepared, seed=-1, augment=ALL)
    bare = replace(SCHEMA, mirror=None, source="mine.yaml")
    recipe = connected(inputs, "fit", folder=prepared).recipe
    with pytest.raises(ValueError, match=r"augment.flip mirrors clips, and mine.yaml has no table"):
        replace(recipe, schema=bare, augmentation=ALL)
    assert not replace(recipe, schema=bare, augmentation=Augmentation(crop=0.1)).flips


def test_stamps():
    options = {"num_replicas": 2, "seed": 3, "stamped": True}
    for rank in (0, 1):
        sampler = SharedSampler(range(5), rank=rank, **options)
        sampler.set_epoch(4)
        plain = SharedSampler(range(5), rank=rank, num_replicas=2, seed=3)
        plain.set_epoch(4)
        assert [entry % 5 if entry >= 0 else ~(~entry % 5) for entry in sampler] == list(plain)
        assert {(entry if entry >= 0 else ~entry) // 5 for entry in sampler} == {4}
    packed = PackedSampler([3, 4, 5], 8, seed=0, stamped=True)
    packed.set_epoch(2)
    assert sorted(index for pack in packed for index in pack) == [6, 7, 8]
