"""The loss of an optimizer step as one number, however its tokens are spread over batches and processes.

Enters: of each batch on each process the sum of the loss and the number of tokens it is summed over. Leaves: losses to
differentiate, and gradients of the mean per token over all of them. A mean of the batches' means would weigh a token by
how few others share its batch.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vlm_crash.parallel.shards import local_part


class TokenMean:
    """Mean per token over the batches of an optimizer step and over all processes.

    The number of tokens is known only when the last batch has come. Until then losses are divided by the number in the
    first batch, so that they have the size of a mean (fp16 overflows in a sum), and the gradients are corrected once.
    """

    def __init__(self) -> None:
        self._unit = torch.ones(())
        self._sums = torch.zeros(2)

    def loss(self, loss_sum: Tensor, num_tokens: Tensor, is_first: bool) -> Tensor:
        """What to differentiate for one batch. Every process must call.

        Args:
            loss_sum: of the batch on this process.
            num_tokens: that it is summed over; may be 0.
            is_first: this batch is the first of an optimizer step.
        """
        sums = torch.stack([loss_sum.detach().double(), num_tokens.double()])
        num_processes = 1
        if dist.is_initialized():
            dist.all_reduce(sums)
            num_processes = dist.get_world_size()
        if is_first:
            self._unit = sums[1].clamp(min=1).float()
            self._sums = torch.zeros_like(sums)
        self._sums = self._sums + sums
        # Gradients are averaged over the processes: the number of processes makes that a sum.
        return loss_sum * num_processes / self._unit

    def again(self, loss_sum: Tensor) -> Tensor:
        """What `loss` gave for a batch of the present optimizer step; nothing is summed, and no process is asked."""
        return loss_sum * (dist.get_world_size() if dist.is_initialized() else 1) / self._unit

    @property
    def is_empty(self) -> bool:
        """Whether the batches of the optimizer step until now have no token at all, on any process."""
        return float(self._sums[1]) == 0

    @property
    def value(self) -> Tensor:
        """Mean loss per token of the optimizer step until now, equal on all processes."""
        return (self._sums[0] / self._sums[1].clamp(min=1)).float()

    @torch.no_grad()
    def correct(self, parameters: Iterable[nn.Parameter], num_batches: int) -> None:
        """Turn gradients, summed over the step's batches and divided by `num_batches`, into those of `value`."""
        if num_batches == 1:
            return
        factor = num_batches * self._unit / self._sums[1].clamp(min=1).float()
        for parameter in parameters:
            if parameter.grad is not None:
                grad = local_part(parameter.grad)
                grad.mul_(factor.to(grad.device, grad.dtype))
