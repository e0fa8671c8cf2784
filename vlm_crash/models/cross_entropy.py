"""Cross entropy that keeps nothing but its logits.

Enters: logits and targets. Leaves: their summed loss. In the backward pass the gradient is written over the logits: one
matrix of tokens by vocabulary lives, in the dtype of the logits, where torch's own keeps the logits, their softmax in
fp32 and the gradient.
"""

# Suffixes: L supervised positions, V vocabulary, R rows that are worked on at once.

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Numbers in fp32 beside the logits: rows of them are worked on so many at a time.
MOST_AT_ONCE = 2**22


def summed_cross_entropy(logits_LV: Tensor, target_L: Tensor) -> Tensor:
    """Sum of the cross entropy in fp32, whatever the dtype of the logits.

    Logits that want a gradient are written over in the backward pass: nothing else may read them after it.
    """
    return _SummedCrossEntropy.apply(logits_LV, target_L)


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_LV: Tensor, target_L: Tensor) -> Tensor:
        rows = max(1, MOST_AT_ONCE // logits_LV.shape[1])
        norms = [rows_RV.float().logsumexp(dim=1) for rows_RV in logits_LV.split(rows)]
        norm_L = torch.cat(norms) if norms else logits_LV.new_zeros(0, dtype=torch.float32)
        ctx.save_for_backward(target_L, norm_L)
        # Not among the saved tensors, which must not change; here nothing but the backward pass changes it.
        ctx.logits_LV, ctx.rows = logits_LV, rows
        return (norm_L - logits_LV.gather(1, target_L[:, None])[:, 0].float()).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        target_L, norm_L = ctx.saved_tensors
        logits_LV, ctx.logits_LV = ctx.logits_LV, None
        if logits_LV is None:
            raise RuntimeError("the logits were written over in a backward pass: a second one needs a new forward pass")
        pieces = (tensor.split(ctx.rows) for tensor in (logits_LV, target_L, norm_L))
        for logits_RV, target_R, norm_R in zip(*pieces, strict=True):
            _write_gradient(logits_RV, target_R, norm_R, grad)
        return logits_LV, None


def _write_gradient(logits_RV: Tensor, target_R: Tensor, norm_R: Tensor, grad: Tensor) -> None:
    """Put the gradient in the place of the logits; computed in fp32, as fp16 rounds small shares of a vocabulary."""
    grad_RV = logits_RV.float()  # the logits themselves where they are fp32
    grad_RV.sub_(norm_R[:, None]).exp_()
    grad_RV.scatter_add_(1, target_R[:, None], torch.full_like(norm_R, -1.0)[:, None])
    grad_RV.mul_(grad)
    logits_RV.copy_(grad_RV)
