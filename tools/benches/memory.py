"""Bytes of tensors that are alive, counted as they are made: at every operation of this process, forward and backward.

Enters: a block of code. Leaves: its peak, above or with what was there before. Not the process' RSS, which the
allocator's caches and freed pages blur.
"""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class TensorBytes(TorchDispatchMode):
    """Counts the storages of the tensors that operations return, for as long as they live.

    Args:
        before: tensors that are there already (weights, optimizer state).
        keep_trace: note each operation with the bytes alive after it.
    """

    def __init__(self, before: Iterable[Tensor] = (), keep_trace: bool = False) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.trace: list[tuple[str, int]] | None = [] if keep_trace else None
        self._known: set[int] = set()
        for tensor in before:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        if self.trace is not None:
            self.trace.append((str(func), self.live))
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or tensor.device.type == "meta":
            return
        self._known.add(key)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
