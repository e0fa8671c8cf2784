"""Tensors -> *.safetensors, in files of bounded size.

Enters: what is to be written, by name, shape and dtype, and how to read it. Leaves: files in a folder. Invariant:
numbers and dtypes stay as they are unless another dtype is asked for; one tensor is in memory at a time.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from vlm_crash.models import shards

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
AS_STORED = "as_stored"
SHARD_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Entry:
    """A tensor that is to be written: what is known of it before it is read."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def save_weights(folder: Path, tensors: Sequence[Entry], dtype: str, shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors as model.safetensors, or in several files with an index.

    Args:
        dtype: float16, bfloat16, float32, or as_stored.
        shard_bytes: most bytes of a file, unless one tensor has more.

    Raises:
        ValueError: numbers too large for float16.
        OSError: what the system says, disk full for example.
    """
    files: list[list[Entry]] = [[]]
    for entry in (_cast_entry(entry, dtype) for entry in tensors):
        if files[-1] and sum(held.nbytes for held in files[-1]) + entry.nbytes > shard_bytes:
            files.append([])
        files[-1].append(entry)
    names = ["model.safetensors"] if len(files) == 1 else [
        f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)
    ]  # fmt: skip
    for entries, name in zip(files, names, strict=True):
        try:
            with (folder / name).open("wb") as stream:
                _write_file(stream, entries)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder / name)) from error
    if len(files) > 1:
        weight_map = {entry.name: name for entries, name in zip(files, names, strict=True) for entry in entries}
        total = sum(entry.nbytes for entries in files for entry in entries)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_file(stream: BinaryIO, entries: Sequence[Entry]) -> None:
    """A .safetensors file, tensor by tensor, byte for byte as safetensors' own save_file writes it.

    That one needs every tensor of the file in memory, twice. The format: https://github.com/huggingface/safetensors
    """
    names = {dtype: name for name, dtype in shards.DTYPES.items()}
    order = [torch.float32, torch.bfloat16, torch.float16]  # so that each lies at a multiple of its size
    entries = sorted(entries, key=lambda entry: (order.index(entry.dtype), entry.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        places = [offset, offset := offset + entry.nbytes]
        header[entry.name] = {"dtype": names[entry.dtype], "shape": entry.shape, "data_offsets": places}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for entry in entries:
        value = entry.read()
        assert (tuple(value.shape), value.dtype) == (entry.shape, entry.dtype), entry.name
        stream.write(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _cast_entry(entry: Entry, dtype: str) -> Entry:
    if dtype == AS_STORED:
        return entry
    return Entry(entry.name, entry.shape, DTYPES[dtype], lambda: cast(entry.name, entry.read(), dtype))


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
