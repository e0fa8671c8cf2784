"""A run of several processes stops at one place.

Enters: SIGTERM or SIGUSR1, on any process at any time. Leaves: the end of the run on all processes, after the same
optimizer step, so that they can save together. Invariant: no process talks to others inside a signal handler.
"""

import logging
import signal
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

log = logging.getLogger(__name__)


class StopTogether(Callback):
    """After SIGTERM or SIGUSR1 on one process, all end the current optimizer step, save (ModelCheckpoint's
    `save_on_exception`) and stop.

    Lightning broadcasts inside its signal handler, on the group of the gradients: whatever that process was doing at
    the moment is answered by it. It may also stop between two batches of one optimizer step.
    """

    def __init__(self) -> None:
        self._asked = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's way under Slurm: a file of its own (hpc_ckpt, which it then prefers), from inside the handler.
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._asked = False

        def ask(number: int, _: Any) -> None:
            launcher: Any = trainer.strategy.launcher
            if not self._asked and launcher is not None:
                launcher.kill(number)  # the processes that this one has started
            self._asked = True

        # Lightning puts the handlers that it found back when the run ends.
        for number in (signal.SIGTERM, signal.SIGUSR1):
            trainer._signal_connector._register_signal(number, ask)
        # Lightning's own question after every batch, in place of which on_train_batch_end asks.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate() or loop.batch_progress.is_last_batch:
            return  # gradients are half summed; or a validation is due, and its scores decide what is kept
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            log.info("asked to stop: saving after optimizer step %d", trainer.global_step)
            _save_last(trainer)
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Nothing is saved after an error of one process: the others would not come to save their parts."""
        if isinstance(exception, SIGTERMException):
            # All end now: Lightning's observer would kill this one, as those that it has started end with an error.
            getattr(trainer.strategy.launcher, "procs", []).clear()
        elif trainer.world_size > 1:
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint):
                    callback.save_on_exception = False


def _save_last(trainer: Trainer) -> None:
    """Save once, as the last: of a callback that keeps a last one, on_exception would save the same twice."""
    keepers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    for keeper in keepers:
        is_saved = keeper._last_global_step_saved == trainer.global_step
        if keeper.save_on_exception and keeper.save_last and not is_saved:
            keeper._save_last_checkpoint(trainer, keeper._monitor_candidates(trainer))
