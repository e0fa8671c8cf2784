"""The weight files of a model folder: which there are, what is in them, rows of a tensor.

Enters: a folder with *.safetensors or pytorch_model*.bin, in one file or several. Leaves: names, shapes and rows,
without ever holding more than a file. No code in a file is run (`weights_only`).
"""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

KINDS = (("*.safetensors", "model.safetensors.index.json"), ("*.bin", "pytorch_model.bin.index.json"))
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype | None  # None: none of float16, bfloat16, float32


class Shard(Protocol):
    """An open file."""

    def stored(self, name: str) -> Stored: ...

    def names(self) -> list[str]: ...

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of a tensor, in the file's dtype."""


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: those of the index where there is one, else all of the kind.

    Raises:
        ValueError: none, or the index names files that are not there.
    """
    for pattern, index in KINDS:
        if (folder / index).is_file():
            return _indexed(folder / index)
        found = [path for path in sorted(folder.glob(pattern)) if path.name not in ("training_args.bin",)]
        if found:
            return found
    raise ValueError(
        f"{folder} has no weights (*.safetensors or pytorch_model*.bin); "
        "copy the whole folder or set --model.init random"
    )


def has_weights(folder: Path) -> bool:
    """Whether a folder has files of weights at all."""
    return any((folder / index).is_file() or any(folder.glob(pattern)) for pattern, index in KINDS)


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({error}); copy the model folder again") from error
    files = [index.parent / Path(name).name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{index} names files that are not there: {', '.join(missing)}; copy the whole folder")
    return files


@contextmanager
def open_shard(file: Path) -> Iterator[Shard]:
    """Open a weight file; its pages are mapped, not copied, and given back at the end.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as handle:
                yield _Safetensors(file, handle)
        else:
            yield _Pickled(file, torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file)))
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the weights in {file} cannot be read ({reason}); copy the model folder again") from error


def _is_zip(file: Path) -> bool:
    """Files of torch before 1.6 are not, and cannot be mapped."""
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


class _Safetensors:
    def __init__(self, file: Path, handle: Any) -> None:
        self.file, self.handle = file, handle

    def names(self) -> list[str]:
        return list(self.handle.keys())

    def stored(self, name: str) -> Stored:
        part = self.handle.get_slice(name)
        return Stored(self.file, tuple(part.get_shape()), DTYPES.get(part.get_dtype()))

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return self.handle.get_slice(name)[start:stop]


class _Pickled:
    def __init__(self, file: Path, content: Any) -> None:
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise ValueError(f"{file} holds something else than tensors by name; copy the model folder again")
        self.file, self.tensors = file, content

    def names(self) -> list[str]:
        return list(self.tensors)

    def stored(self, name: str) -> Stored:
        tensor = self.tensors[name]
        return Stored(self.file, tuple(tensor.shape), tensor.dtype if tensor.dtype in DTYPES.values() else None)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return self.tensors[name][start:stop]


def stored_tensors(files: list[Path]) -> dict[str, Stored]:
    """Every tensor of the files, from their headers.

    Raises:
        ValueError: a name in two files, or a file that cannot be read.
    """
    found: dict[str, Stored] = {}
    for file in files:
        with open_shard(file) as shard:
            for name in shard.names():
                if name in found:
                    raise ValueError(
                        f"{name} lies in {found[name].file.name} and in {file.name}; "
                        "the folder holds files of two models, copy it again"
                    )
                found[name] = shard.stored(name)
    return found
