"""How many optimizer steps a run has, and whether one was taken.

Enters: a Trainer. Leaves: numbers.
"""

import math

from lightning import Trainer


def loss_scale(trainer: Trainer) -> float:
    """Factor of the loss in fp16; 1 in other precisions."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return 1.0 if scaler is None else float(scaler.get_scale())


def may_fuse(trainer: Trainer) -> bool:
    """Whether an optimizer may take its step as one kernel, with nothing copied beside it.

    With a loss scaler it may not: a fused step wants to undo the scale itself, after the gradients were clipped.
    """
    plugin, strategy = getattr(trainer, "precision_plugin", None), getattr(trainer, "strategy", None)
    if strategy is None or getattr(plugin, "scaler", None) is not None:
        return False
    return strategy.root_device.type in ("cpu", "cuda")


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
