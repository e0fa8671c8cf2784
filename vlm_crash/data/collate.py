"""Samples -> a batch.

Enters: items of a dataset, each a readable clip, a failed one or None (no clip). Leaves: a Batch; failed clips are
carried beside the tensors, by name and reason, and take no part in them. Training pads on the right or packs all clips
into one row, prediction pads on the left.
"""

# Suffixes: B batch, S sequence, N frames of all clips of the batch, H height, W width.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlm_crash.data.tokenization import IGNORE_INDEX
from vlm_crash.schema.records import VideoSample


@dataclass(frozen=True)
class Item:
    """One clip, ready for the model: ids, and pixels [F, 3, H, W] float32.

    A filler keeps its process in step with the others (see sampler.py): it has no labels, and its answer is dropped.
    One whose clip cannot be read (`unreadable`: why) stands for it where it is left out of training.
    """

    sample: VideoSample
    input_ids_S: Tensor
    labels_S: Tensor | None
    pixel_values_F3HW: Tensor
    is_filler: bool = False
    unreadable: str | None = None

    def as_filler(self) -> "Item":
        """The same to compute with, and nothing to learn from."""
        labels = None if self.labels_S is None else torch.full_like(self.labels_S, IGNORE_INDEX)
        return replace(self, labels_S=labels, is_filler=True)


@dataclass(frozen=True)
class FailedItem:
    """A clip that could not be read, and why."""

    sample: VideoSample
    reason: str


@dataclass
class Batch:
    """What a step gets.

    Lightning moves it to the device through `.to`; records stay as they are. The last `num_fillers` rows are fillers,
    which have no sample. With `clip_lengths`, the tokens of each clip, all clips stand in one row, one after the other
    and without padding.
    """

    samples: list[VideoSample]
    failed: list[FailedItem]
    input_ids_BS: Tensor
    attention_mask_BS: Tensor
    labels_BS: Tensor | None
    pixel_values_N3HW: Tensor
    num_fillers: int = 0
    clip_lengths: tuple[int, ...] | None = None
    #: Frames of each clip: some rules take more of longer clips.
    frames_per_clip: tuple[int, ...] = ()
    #: Only the probabilities of the events are asked for, and no answer (data/recordings.py).
    events_only: bool = False

    def to(self, *args: Any, **kwargs: Any) -> "Batch":
        """A copy whose tensors are on another device."""
        return replace(
            self,
            input_ids_BS=self.input_ids_BS.to(*args, **kwargs),
            attention_mask_BS=self.attention_mask_BS.to(*args, **kwargs),
            labels_BS=None if self.labels_BS is None else self.labels_BS.to(*args, **kwargs),
            pixel_values_N3HW=self.pixel_values_N3HW.to(*args, **kwargs),
        )

    def first(self, num_rows: int, num_clips: int) -> "Batch":
        """Its first rows alone, those after the first clips as fillers."""
        assert self.clip_lengths is None, "a row is a clip"
        frames_per_clip = self.frames_per_clip[:num_rows]
        input_ids_BS = self.input_ids_BS[:num_rows]
        samples = self.samples[: min(num_rows, num_clips)]
        return replace(
            self,
            samples=samples,
            num_fillers=len(input_ids_BS) - len(samples),
            input_ids_BS=input_ids_BS,
            attention_mask_BS=self.attention_mask_BS[:num_rows],
            labels_BS=None if self.labels_BS is None else self.labels_BS[:num_rows],
            pixel_values_N3HW=self.pixel_values_N3HW[: sum(frames_per_clip)],
            frames_per_clip=frames_per_clip,
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of the batch without padding."""
        return int(self.attention_mask_BS.sum())

    @property
    def longest(self) -> int:
        """Places of the longest clip, with its padding."""
        return self.input_ids_BS.shape[1] if self.clip_lengths is None else max(self.clip_lengths)

    @property
    def first_ids(self) -> Tensor:
        """Token ids of the first clip alone."""
        if self.clip_lengths is not None:
            return self.input_ids_BS[0, : self.clip_lengths[0]]
        return self.input_ids_BS[0][self.attention_mask_BS[0].bool()]


@dataclass(frozen=True)
class Collator:
    """Pads a list of items to one batch.

    Args:
        pad_token_id: id to pad with; padded places are masked, so any id does.
        padding_side: "right" (training) or "left" (generation).
    """

    pad_token_id: int
    padding_side: str = "right"

    def __call__(self, items: Sequence[Item | FailedItem | None]) -> Batch:
        good, failed = _parted(items)
        length = max((len(item.input_ids_S) for item in good), default=0)
        shape = (len(good), length)
        input_ids_BS = torch.full(shape, self.pad_token_id, dtype=torch.long)
        attention_mask_BS = torch.zeros(shape, dtype=torch.long)
        labelled = bool(good) and all(item.labels_S is not None for item in good)
        labels_BS = torch.full(shape, IGNORE_INDEX, dtype=torch.long) if labelled else None
        for row, item in enumerate(good):
            size = len(item.input_ids_S)
            place = slice(0, size) if self.padding_side == "right" else slice(length - size, length)
            input_ids_BS[row, place] = item.input_ids_S
            attention_mask_BS[row, place] = 1
            if labels_BS is not None and item.labels_S is not None:
                labels_BS[row, place] = item.labels_S
        pixels = [item.pixel_values_F3HW for item in good]
        return Batch(
            samples=[item.sample for item in good if not item.is_filler],
            num_fillers=sum(item.is_filler for item in good),
            failed=failed,
            input_ids_BS=input_ids_BS,
            attention_mask_BS=attention_mask_BS,
            labels_BS=labels_BS,
            pixel_values_N3HW=_joined(pixels) if pixels else torch.zeros(0, 3, 1, 1),
            frames_per_clip=tuple(map(len, pixels)),
        )


@dataclass(frozen=True)
class PackCollator:
    """Puts a list of items into one row.

    Args:
        pack_tokens: most tokens of the row.
    """

    pack_tokens: int

    def __call__(self, items: Sequence[Item]) -> Batch:
        items, failed = _parted(items)
        lengths = tuple(len(item.input_ids_S) for item in items)
        if sum(lengths) > self.pack_tokens:
            raise ValueError(
                f"{', '.join(item.sample.video for item in items)} take {sum(lengths)} tokens, more than the "
                f"{self.pack_tokens} of a pack and than was foreseen; set --data.batching to padded or grouped"
            )
        labels = [item.labels_S for item in items if item.labels_S is not None]
        assert len(labels) == len(items), "packs are for training"
        input_ids_BS = torch.cat([item.input_ids_S for item in items])[None]
        return Batch(
            samples=[item.sample for item in items if not item.is_filler],
            num_fillers=sum(item.is_filler for item in items),
            failed=failed,
            input_ids_BS=input_ids_BS,
            attention_mask_BS=torch.ones_like(input_ids_BS),
            labels_BS=torch.cat(labels)[None],
            pixel_values_N3HW=_joined([item.pixel_values_F3HW for item in items]),
            clip_lengths=lengths,
            frames_per_clip=tuple(len(item.pixel_values_F3HW) for item in items),
        )


def _joined(pixels: Sequence[Tensor]) -> Tensor:
    """One after the other; a copy is made of several alone, for it costs as much as filling them did."""
    return pixels[0] if len(pixels) == 1 else torch.cat(list(pixels))


def _parted(items: Sequence[Item | FailedItem | None]) -> tuple[list[Item], list[FailedItem]]:
    """Items to compute with, fillers last; clips that cannot be read, those that a filler stands for included."""
    good = sorted((item for item in items if isinstance(item, Item)), key=lambda item: item.is_filler)
    failed = [item for item in items if isinstance(item, FailedItem)]
    failed += [FailedItem(item.sample, item.unreadable) for item in good if item.unreadable is not None]
    return good, failed


def prompts_of(batch: Batch, pad_token_id: int) -> Batch:
    """The prompts of a training batch without their answers, padded on the left; fillers whole."""
    assert batch.labels_BS is not None and batch.clip_lengths is None
    is_label_BS = batch.labels_BS != IGNORE_INDEX
    lengths = torch.where(is_label_BS.any(dim=1), is_label_BS.int().argmax(dim=1), batch.attention_mask_BS.sum(dim=1))
    size = int(lengths.max())
    input_ids_BS = torch.full((len(lengths), size), pad_token_id, device=batch.input_ids_BS.device)
    attention_mask_BS = torch.zeros_like(input_ids_BS)
    for row, length in enumerate(lengths.tolist()):
        input_ids_BS[row, size - length :] = batch.input_ids_BS[row, :length]
        attention_mask_BS[row, size - length :] = 1
    return replace(batch, input_ids_BS=input_ids_BS, attention_mask_BS=attention_mask_BS, labels_BS=None)
