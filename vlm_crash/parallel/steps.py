"""How many optimizer steps a run has, whether one was taken, and what it may leave behind.

Enters: a Trainer. Leaves: numbers.
"""

import math
from typing import Any

from lightning import Callback, LightningModule, Trainer


class DropGradients(Callback):
    """No gradients of the last optimizer step beside the next forward pass.

    Lightning drops them after it (so as to let a step be skipped); at the peak of memory that is as much as the model.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            pl_module.zero_grad(set_to_none=True)


def loss_scale(trainer: Trainer) -> float:
    """Factor of the loss in fp16; 1 in other precisions."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return 1.0 if scaler is None else float(scaler.get_scale())


def fused_step(trainer: Trainer) -> bool | None:
    """torch's `fused`: True where an optimizer may take its step as one kernel, with nothing copied beside it.

    With a loss scaler (None) it may not: a fused step wants to undo the scale itself, after the gradients were clipped.
    """
    plugin, strategy = getattr(trainer, "precision_plugin", None), getattr(trainer, "strategy", None)
    if strategy is None or getattr(plugin, "scaler", None) is not None:
        return None
    return True if strategy.root_device.type in ("cpu", "cuda") else None


def num_optimizer_steps(trainer: Trainer) -> int:
    """Optimizer steps of a run, skipped ones included.

    `trainer.estimated_stepping_batches` would make the training loader to count its batches: before a checkpoint is
    restored, so that its workers would begin the epoch that they should go on with.
    """
    batches = getattr(getattr(trainer, "datamodule", None), "num_train_batches", None)
    if batches is None or trainer.max_epochs == -1:
        return int(trainer.estimated_stepping_batches)
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * max(trainer.max_epochs or 1, 1)
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
