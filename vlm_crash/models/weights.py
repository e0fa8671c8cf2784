"""Tensors of a model folder by name, read as they are asked for, in either layout.

Enters: a model folder, or tensors by their names in the model. Leaves: tensors by those names, or by the names that a
layout has on disk. Invariant: memory is that of the tensor asked for and, mapped, of one file.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial, reduce
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import InternVLConfig

from vlm_crash.models.checkpoints import layout_of, match, meta_model, name_on_disk
from vlm_crash.models.original_config import architecture_of
from vlm_crash.models.original_names import Packed, original_layout
from vlm_crash.models.saving import Entry
from vlm_crash.models.shards import Shard, open_shard, stored_tensors, weight_files

HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"


class Weights(Protocol):
    """Tensors by their names in the model."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]: ...

    def read(self, name: str) -> Tensor: ...


class StateDict:
    """Weights that are in memory, or mapped."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.dtypes = {name: tensor.dtype for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name].detach()


class FolderWeights:
    """Weights of a folder, one file of which is open. A tied output embedding is among them where it is stored."""

    def __init__(self, folder: Path, config: InternVLConfig, original: bool, stack: ExitStack) -> None:
        model = meta_model(config)
        shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}
        layout = layout_of(config, shapes, original)
        stored = stored_tensors(weight_files(folder))
        names = match(stored, layout, config, folder, original)
        self._places = {
            part: (stored[name].file, name, layout[names[name]], index)
            for name in stored
            for index, part in enumerate(layout[names[name]].parts)
        }
        self.shapes = {name: shapes[name] for name in shapes if name in self._places}
        found = {name: stored[self._places[name][1]].dtype for name in self.shapes}
        self.dtypes = {name: dtype for name, dtype in found.items() if dtype is not None}
        self._stack = stack
        self._open: tuple[Path, Shard] | None = None
        if (
            config.tie_word_embeddings
            and HEAD in self.shapes
            and not torch.equal(self.read(HEAD), self.read(EMBEDDING))
        ):
            raise ValueError(f"config.json ties the embeddings, but the two in {folder} differ")

    def read(self, name: str) -> Tensor:
        file, on_disk, packed, index = self._places[name]
        shard = self._shard(file)
        # A copy, as a view of mapped pages would keep the whole file mapped.
        return packed.read(index, 0, self.shapes[name][0], lambda low, high: shard.rows(on_disk, low, high)).clone()

    def row(self, name: str, number: int) -> Tensor:
        """One row; little more than it is read from the disk."""
        file, on_disk, packed, index = self._places[name]
        shard = self._shard(file)
        return packed.read(index, number, number + 1, lambda low, high: shard.rows(on_disk, low, high)).clone()

    def _shard(self, file: Path) -> Shard:
        if self._open is None or self._open[0] != file:
            self._stack.close()
            self._open = None
            self._open = (file, self._stack.enter_context(open_shard(file)))
        return self._open[1]


@contextmanager
def folder_weights(folder: Path, config: InternVLConfig, original: bool) -> Iterator[FolderWeights]:
    """The weights of a folder, read as they are asked for.

    Raises:
        ValueError: tensors that do not fit config.json, all of them.
    """
    with ExitStack() as stack:
        yield FolderWeights(folder, config, original, stack)


def tensors_on_disk(weights: Weights, config: InternVLConfig, original: bool) -> list[Entry]:
    """Every tensor in the layout asked for, by its name there."""
    if not original:
        return [
            Entry(name_on_disk(name), shape, weights.dtypes[name], partial(weights.read, name))
            for name, shape in weights.shapes.items()
        ]
    text = config.get_text_config()
    layout = original_layout(weights.shapes, architecture_of(config), text.num_key_value_heads)
    return [
        Entry(
            name,
            packed.shape,
            reduce(torch.promote_types, (weights.dtypes[part] for part in packed.parts)),
            partial(_packed, weights, packed),
        )
        for name, packed in layout.items()
    ]


def _packed(weights: Weights, packed: Packed) -> Tensor:
    return packed.pack([weights.read(part) for part in packed.parts])
