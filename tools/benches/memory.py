"""Peak bytes of tensors: counted without computing, or taken from torch's allocator in a real run.

Enters: a function over tensors. Leaves: by how many bytes its tensors outgrew, at most, what was there before. Neither
asks the system: what a process holds is more than its tensors, and what was freed before hides what is new.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Counter(TorchDispatchMode):
    """Counts the bytes of the storages that operators make, until they are gone.

    Under torch's FakeTensorMode nothing is computed, and a prompt of any length is counted in a second. What a kernel
    needs for itself is not seen.

    Args:
        held: tensors that are there already and do not count.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += self._sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def counted_peak(function: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Peak bytes of the tensors that a function makes, beside those that are held."""
    with Counter(held) as counter:
        function()
    return counter.peak


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
