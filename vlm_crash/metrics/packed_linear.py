"""Linear layers whose weights lie in oneDNN's own order: the same products in less time on a CPU.

Enters: a model in fp32 on a CPU, for inference. Leaves: the same model, its linear layers replaced. Must hold: results
differ by rounding alone. torch's own fp32 path (MKL's sgemm, as of 2.14) orders the weights anew in every call; these
operators are the ones that torch.compile writes for a frozen model. To be removed when nn.Linear does it by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """`nn.Linear` of [..., in] -> [..., out], its weight ordered once."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.packed, self.bias, "none", [], "")
        return out


def pack_linears(model: nn.Module) -> nn.Module:
    """Replace the linear layers of a model; where torch lacks the operators, or a weight is not fp32 on a CPU, none."""
    if not (torch.backends.mkldnn.is_available() and _has_operators()):
        return model
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.weight.dtype == torch.float32 and child.weight.device.type == "cpu":
                setattr(module, name, PackedLinear(child))
    return model


def _has_operators() -> bool:
    operators: Any = torch.ops.mkldnn
    return hasattr(operators, "_reorder_linear_weight") and hasattr(operators, "_linear_pointwise")
