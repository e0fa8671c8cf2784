"""Clips of unequal lengths that lie in memory, and the data module that feeds them.

Enters: a model folder. Leaves: items as vlm_crash makes them of rendered scenes, with random pixels; batches of them by
CrashDataModule's own samplers and collators.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from vlm_crash.data.collate import Item
from vlm_crash.data.conversation import question
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.data.dataset import ModelInputs, SampleRecipe
from vlm_crash.demo.scene import sample_scene
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation, VideoSample
from vlm_crash.schema.response import render


def make_items(inputs: ModelInputs, num_clips: int, frames: tuple[int, int]) -> list[Item]:
    """Records of rendered scenes (19 fields of a crash, 9 of a near miss) as answers.

    Args:
        frames: fewest and most of a clip, two a second; drawn for each.
    """
    schema, conversation = load_schema(), inputs.conversation_tokenizer
    generator = torch.Generator().manual_seed(0)
    items = []
    for number in range(num_clips):
        scene = sample_scene(number)
        annotation = Annotation.of(schema, scene.event, scene.values)
        count = int(torch.randint(frames[0], frames[1] + 1, (), generator=generator))
        answer = render(schema, annotation)
        tokens = conversation(question(schema, inputs.prompt), count, count / 2, answer)
        name = f"{number}.mp4"
        sample = VideoSample(name, name, Path(name), scene.event, annotation, count / 2)
        pixels = torch.randn(count, 3, inputs.image_size, inputs.image_size, generator=generator)
        items.append(Item(sample, tokens.input_ids_S, tokens.labels_S, pixels))
    return items


@dataclass(frozen=True)
class MemoryRecipe(SampleRecipe):
    """Items that are there already."""

    items: dict[str, Item] = field(default_factory=dict)

    def item(self, sample: VideoSample, supervised: bool, draw: object = None) -> Item:
        return self.items[sample.id]

    def lengths(self, samples: Sequence[VideoSample]) -> list[int]:
        return [len(self.items[sample.id].input_ids_S) for sample in samples]

    def longest(self, samples: Sequence[VideoSample], supervised: bool) -> int:
        return max(self.lengths(samples))


class MemoryClips(CrashDataModule):
    """CrashDataModule with clips that need no reading; samplers, collators and places in the epoch are its own."""

    def __init__(self, items: Sequence[Item], batching: str, batch_size: int) -> None:
        super().__init__(batching=batching, batch_size=batch_size, num_workers=0)
        self.items = list(items)

    def connect(self, inputs: ModelInputs) -> None:
        super().connect(inputs)
        self.recipe = MemoryRecipe(**vars(self.recipe), items={item.sample.id: item for item in self.items})

    def setup(self, stage: str) -> None:
        self.samples = {"train": [item.sample for item in self.items], "val": []}
        self._measure()
