"""The list of tensors of a checkpoint folder, read as data.

Enters: a folder of torch.distributed.checkpoint. Leaves: torch's reader of it. Invariant: no code that a file names is
run; torch's own reader unpickles the list with everything that it asks for.
"""

import pickle
from pathlib import PosixPath
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

_METADATA = "torch.distributed.checkpoint.metadata"
#: What a list of tensors is made of, by module.
_NAMES = {
    _METADATA: {
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta",
        "TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _NAMES.get(module, ()):
            return super().find_class(module, name)
        if module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        if name == PosixPath.__name__ and module.startswith("pathlib"):
            return PosixPath
        raise pickle.UnpicklingError(f"its list of tensors names {module}.{name}, which no checkpoint needs")


class ShardReader(FileSystemReader):
    """torch's reader of checkpoint folders, whose list of tensors is read as data.

    Replaces a method of torch (torch/distributed/checkpoint/filesystem.py, FileSystemReader.read_metadata); it can go
    when that one takes no more than it needs.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The list.

        Raises:
            pickle.UnpicklingError: it holds something else, or is damaged.
        """
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as stream:
            metadata = _read(stream)  # type: ignore[arg-type]
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _read(stream: BinaryIO) -> Metadata:
    metadata = _Unpickler(stream).load()
    if not isinstance(metadata, Metadata):
        raise pickle.UnpicklingError("its list of tensors is none")
    return metadata
