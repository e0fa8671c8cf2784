"""Sharded tensors -> whole ones on the first process, and whole ones -> shards.

Enters: tensors, plain or sharded (DTensor) by rows. Leaves: whole tensors on the first process' CPU, one after the
other; shards filled from whole tensors. Gathering goes over a CPU group with a time-out of its own: a collective of
the GPUs that waits for a slow disk would stop the run by its watchdog.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


class CPUGroup:
    """The processes of a run, connected through their CPUs; made by all of them at the same time.

    Args:
        timeout: the longest wait for another process.
    """

    def __init__(self, timeout: timedelta) -> None:
        self.timeout = timeout
        group = dist.new_group(backend="gloo", timeout=timeout)
        assert isinstance(group, dist.ProcessGroup)
        self.group = group
        self.rank = dist.get_rank()

    def gather_dict(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors on the CPU of the first process; nothing on the others.

        Raises:
            RuntimeError: a process did not send its part in time, or is gone.
        """
        whole = {}
        done: dict[int, Tensor] = {}
        for name, tensor in tensors.items():
            # Tied weights are two names of one tensor, and stay so.
            key = local_address(tensor)
            if key not in done or not key:
                try:
                    done[key] = self._gather(tensor)
                except RuntimeError as error:
                    raise RuntimeError(
                        f"{name} could not be gathered within {self.timeout}: a process is gone or too slow ({error}); "
                        "raise --trainer.strategy.init_args.checkpoint_timeout if the machine is busy"
                    ) from error
            if self.rank == 0:
                whole[name] = done[key]
        return whole

    def _gather(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor.detach().cpu()
        assert all(placement in (Shard(0), Replicate()) for placement in tensor.placements), tensor.placements
        mesh = tensor.device_mesh.mesh
        sharers = (mesh if mesh.ndim == 1 else mesh[0]).tolist()
        rows = tensor.shape[0]
        share = -(-rows // len(sharers))
        local = tensor.to_local().detach().cpu().contiguous()
        whole = torch.empty(tensor.shape if self.rank == 0 else 0, dtype=tensor.dtype)
        for place, rank in enumerate(sharers):
            low, high = min(place * share, rows), min((place + 1) * share, rows)
            if low == high:
                continue
            if rank == self.rank == 0:
                whole[low:high] = local
            elif self.rank == 0:
                dist.recv(whole[low:high], src=rank, group=self.group)
            elif self.rank == rank:
                dist.send(local, dst=0, group=self.group)
        return whole

    def gather_object(self, item: object) -> list:
        """The items of all processes, on all of them."""
        found: list = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(found, item, group=self.group)
        return found

    def any(self, decision: bool) -> bool:
        """Whether one process says yes; no GPU waits for it."""
        flag = torch.tensor(int(decision))
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.group)
        return bool(flag)

    def barrier(self) -> None:
        """Wait for all."""
        self.any(False)


def local_address(tensor: Tensor) -> int:
    """Where this process' part of a tensor lies; 0 for an empty part."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).data_ptr()


@torch.no_grad()
def fill(target: Tensor, whole: Tensor) -> None:
    """Copy a whole tensor into a tensor of which this process may hold a part."""
    if not isinstance(target, DTensor):
        target.copy_(whole)
        return
    shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
    if 0 not in shape:
        part = whole[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
        target.to_local().copy_(part)


def objects_of_all(own: Any, group: CPUGroup | None) -> list[Any]:
    """One object of every process, in their order; all must call, each with its own.

    Args:
        group: of their CPUs; None: the run's own, or one process.
    """
    if group is not None:
        return group.gather_object(own)
    found: list[Any] = [own]
    if dist.is_initialized() and dist.get_world_size() > 1:
        found *= dist.get_world_size()
        dist.all_gather_object(found, own)
    return found
