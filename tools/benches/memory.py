"""Bytes that tensors hold, at their peak: what a GPU would have to give, without one.

Enters: whatever runs inside. Leaves: bytes. Counted are the storages that operations make inside, from when they are
made to when nothing refers to them; what was there before (weights, data) is not. Not seen is what a kernel takes for
itself while it runs.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorBytes(TorchDispatchMode):
    """Counts while it is entered; `held` and `peak` in bytes.

    A storage that changes its size after it was made counts with the size that it was made with.

    Args:
        before: tensors that are there already and are to count, too.
        counts_given: an operation that returns what it was given, and nothing has made inside, counts it (constants
            that Python makes); without, all that is there already need not be named.
    """

    def __init__(self, before: Iterable[Tensor] = (), counts_given: bool = False) -> None:
        super().__init__()
        self.counts_given = counts_given
        self.held = 0
        self.peak = 0
        self._known: set[int] = set()
        for tensor in before:
            if _key(tensor) not in self._known:
                self._add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = () if self.counts_given else tree_leaves((args, kwargs))
        given = {_key(tensor) for tensor in inputs if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (key := _key(tensor)) not in given and key not in self._known:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def counted_peak(function: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Peak bytes of the tensors that a function makes, beside those that are held."""
    with TensorBytes(held, counts_given=True) as counter:
        before = counter.held
        function()
    return counter.peak - before


def measured_peak(function: Callable[[], object]) -> int:
    """The same from torch's CPU allocator: every allocation and release of a real run, kernels' own ones included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        function()
    changes: list[tuple[int, int]] = []

    def walk(events: Iterable[Any]) -> None:
        for event in events:
            if event.tag == torch._C._profiler._EventType.Allocation:
                changes.append((event.start_time_ns, event.extra_fields.alloc_size))
            walk(event.children)

    walk(found.profiler.kineto_results.experimental_event_tree())
    now = peak = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        now += size
        peak = max(peak, now)
    return peak
