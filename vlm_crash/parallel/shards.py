"""Numbers of tensors that are spread over processes.

Enters: tensors, plain or sharded (DTensor); every process must call with its part of the same ones. Leaves: what one
process that held them whole would compute.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Shard


def local_part(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this process; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm over all elements of all tensors, in fp32.

    Returns:
        a scalar, equal on every process; on the device of the tensors' communication (a GPU's where they lie on the
        CPU only because they are offloaded).
    """
    squares: dict[tuple[DeviceMesh, tuple[Placement, ...]] | None, Tensor] = {}
    for tensor in tensors:
        norm = torch.linalg.vector_norm(local_part(tensor), dtype=torch.float32)
        key = None
        if isinstance(tensor, DTensor):
            key = (tensor.device_mesh, tensor.placements)
            norm = norm.to(tensor.device_mesh.device_type)
        squares[key] = squares[key] + norm.square() if key in squares else norm.square()
    for key, square in squares.items():
        for dimension, placement in enumerate(key[1] if key else ()):
            if key and isinstance(placement, Shard):
                dist.all_reduce(square, group=key[0].get_group(dimension))
    parts = list(squares.values())
    return torch.stack([part.to(parts[0].device) for part in parts]).sum().sqrt() if parts else torch.zeros(())
