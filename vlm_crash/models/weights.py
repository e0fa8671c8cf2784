"""Weights on their way from one folder to another: read one tensor at a time, written in files of bounded size.

Enters: a model folder in either layout, or tensors by their names in the model. Leaves: *.safetensors. Invariant:
numbers and dtypes stay as they are unless another dtype is asked for; memory is that of one file of the output.
"""

import errno
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import InternVLConfig

from vlm_crash.models.checkpoints import layout_of, match, meta_model, name_on_disk
from vlm_crash.models.original_config import architecture_of
from vlm_crash.models.original_names import original_layout
from vlm_crash.models.shards import open_shard, stored_tensors, weight_files

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
AS_STORED = "as_stored"
SHARD_BYTES = 2 * 10**9
HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"


class Weights(Protocol):
    """Tensors by their names in the model."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> Tensor: ...


class StateDict:
    """Weights that are in memory, or mapped."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name].detach()


class FolderWeights:
    """Weights of an open folder. A tied output embedding is among them where the folder holds it."""

    def __init__(self, folder: Path, config: InternVLConfig, original: bool, stack: ExitStack) -> None:
        model = meta_model(config)
        shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}
        layout = layout_of(config, shapes, original)
        files = weight_files(folder)
        names = match(stored_tensors(files), layout, config, folder, original)
        shards = {file: stack.enter_context(open_shard(file)) for file in files}
        self._places = {
            part: (shard, name, layout[names[name]], index)
            for shard in shards.values()
            for name in shard.names()
            for index, part in enumerate(layout[names[name]].parts)
        }
        self.shapes = {name: shapes[name] for name in shapes if name in self._places}
        if (
            config.tie_word_embeddings
            and HEAD in self.shapes
            and not torch.equal(self.read(HEAD), self.read(EMBEDDING))
        ):
            raise ValueError(f"config.json ties the embeddings, but the two in {folder} differ")

    def read(self, name: str) -> Tensor:
        shard, on_disk, packed, index = self._places[name]
        rows = self.shapes[name][0]
        return packed.read(index, 0, rows, lambda low, high: shard.rows(on_disk, low, high))

    def row(self, name: str, number: int) -> Tensor:
        """One row; little more than it is read from the disk."""
        shard, on_disk, packed, index = self._places[name]
        return packed.read(index, number, number + 1, lambda low, high: shard.rows(on_disk, low, high))


@contextmanager
def folder_weights(folder: Path, config: InternVLConfig, original: bool) -> Iterator[FolderWeights]:
    """The weights of a folder, read as they are asked for.

    Raises:
        ValueError: tensors that do not fit config.json, all of them.
    """
    with ExitStack() as stack:
        yield FolderWeights(folder, config, original, stack)


def tensors_on_disk(weights: Weights, config: InternVLConfig, original: bool) -> Iterator[tuple[str, Tensor]]:
    """Name on disk and tensor, in the layout asked for."""
    if not original:
        yield from ((name_on_disk(name), weights.read(name)) for name in weights.shapes)
        return
    text = config.get_text_config()
    layout = original_layout(weights.shapes, architecture_of(config), text.num_key_value_heads)
    for name, packed in layout.items():
        yield name, packed.pack([weights.read(part) for part in packed.parts])


def save_weights(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], dtype: str, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write tensors as model.safetensors, or in several files with an index.

    Args:
        dtype: float16, bfloat16, float32, or as_stored.
        shard_bytes: most bytes of a file, unless one tensor has more.

    Raises:
        ValueError: numbers too large for float16.
        OSError: what the system says, disk full for example.
    """
    files: list[Path] = []
    places: dict[str, int] = {}
    total = 0
    buffer: dict[str, Tensor] = {}

    def flush() -> None:
        files.append(folder / f"part-{len(files)}.safetensors")
        try:
            save_file(buffer, files[-1], metadata={"format": "pt"})
        except SafetensorError as error:
            raise as_os_error(error, files[-1]) from error
        buffer.clear()

    for name, tensor in tensors:
        value = cast(name, tensor, dtype).cpu().contiguous()
        if buffer and sum(held.nbytes for held in buffer.values()) + value.nbytes > shard_bytes:
            flush()
        buffer[name] = value
        places[name] = len(files)
        total += value.nbytes
    flush()
    names = ["model.safetensors"] if len(files) == 1 else [
        f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)
    ]  # fmt: skip
    for file, name in zip(files, names, strict=True):
        file.rename(folder / name)
    if len(files) > 1:
        weight_map = {name: names[place] for name, place in places.items()}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def cast(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """The tensor in another dtype.

    Raises:
        ValueError: a number of it is too large for float16.
    """
    if dtype == AS_STORED:
        return tensor
    if dtype == "float16" and tensor.dtype != torch.float16 and bool((tensor.abs() > 65504).any()):
        raise ValueError(f"{name} has numbers above 65504, the largest of float16; set --dtype to bfloat16 or float32")
    return tensor.to(DTYPES[dtype])


def as_os_error(error: SafetensorError, path: Path) -> OSError:
    """safetensors tells the system's error as text.

    >>> error = as_os_error(SafetensorError("I/O error: No space left on device (os error 28)"), Path("m"))
    >>> error.errno == errno.ENOSPC
    True
    """
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]) if number else errno.EIO, str(error), str(path))
