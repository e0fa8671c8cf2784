"""A run of several processes stops at one place, and its last checkpoint is where it stopped.

Enters: SIGTERM or SIGUSR1, on any process at any time; Ctrl-C. Leaves: the end of the run on all processes, after the
same optimizer step, so that they can save together. Invariant: no process talks to others inside a signal handler.
"""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

log = logging.getLogger(__name__)


class StopTogether(Callback):
    """After SIGTERM or SIGUSR1 on one process, all end the current optimizer step, or the current batch of a
    validation, save (ModelCheckpoint's `save_on_exception`) and stop.

    Lightning broadcasts inside its signal handler, on the group of the gradients: whatever that process was doing at
    the moment is answered by it. It may also stop between two batches of one optimizer step.
    """

    def __init__(self) -> None:
        self._asked = False
        self._is_training = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's way under Slurm: a file of its own (hpc_ckpt, which it then prefers), from inside the handler.
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._asked, self._is_training = False, True
        self._first_step = trainer.global_step

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
            return  # gradients are half summed; or a validation is due, which asks in its turn
        self._stop_if_asked(trainer, "")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Within a validation of a training: a run that goes on begins with the whole of it (ExactResume)."""
        if self._is_training and not trainer.fit_loop.epoch_loop._should_accumulate():
            self._stop_if_asked(trainer, ", in the validation that follows it")

    def _stop_if_asked(self, trainer: Trainer, place: str) -> None:
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            log.info("asked to stop: saving after optimizer step %d%s", trainer.global_step, place)
            _save_last(trainer, is_ended=False)
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save where all come to save their parts, and where there is something whole to save.

        After an error of one process the others would not come. Before the first step weights, optimizers and counters
        may be restored in part, and the checkpoint that they are restored from must stay.
        """
        if isinstance(exception, SIGTERMException):
            # All end now: Lightning's observer would kill this one, as those that it has started end with an error.
            getattr(trainer.strategy.launcher, "procs", []).clear()
        elif trainer.world_size > 1 or not self._is_training:
            for keeper in _keepers(trainer):
                keeper.save_on_exception = False
        elif isinstance(exception, KeyboardInterrupt):
            _save_last(trainer, is_ended=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step > self._first_step:
            with _in_its_epoch(trainer):
                _save_last(trainer, is_ended=True)
        self._is_training = False


@contextmanager
def _in_its_epoch(trainer: Trainer) -> Iterator[None]:
    """The counters as they are when the last epoch's own checkpoint is saved.

    A little later Lightning counts the epoch as completed, and a run that goes on from a checkpoint saved then leaves
    out what the epoch still had, and the epoch after it.
    """
    progress = trainer.fit_loop.epoch_progress
    for counts in (progress.current, progress.total):
        counts.completed -= 1
    try:
        yield
    finally:
        for counts in (progress.current, progress.total):
            counts.completed += 1


def _keepers(trainer: Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def _save_last(trainer: Trainer, is_ended: bool) -> None:
    """Save the last checkpoint of each callback that keeps one, where it is not of this step already.

    ModelCheckpoint takes a step for saved once it has any file of it, so Ctrl-C between an epoch's file and the last
    one would leave the last one out; on_exception saves the same twice; and an epoch that was not among the best, or
    the steps after the last multiple of every_n_train_steps, never become the last.

    Args:
        is_ended: the run has come to its end; else it was stopped, and who does not save then is left alone.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    for keeper in _keepers(trainer):
        if not keeper.save_last or not (is_ended or keeper.save_on_exception):
            continue
        # Inside a validation a checkpoint says that it is still to come; one of the same step from before does not.
        if trainer.validating or not _has_last(keeper, trainer):
            keeper._save_last_checkpoint(trainer, keeper._monitor_candidates(trainer))


def _has_last(keeper: ModelCheckpoint, trainer: Trainer) -> bool:
    """Whether the file that a callback saved last is its last checkpoint (save_last "link": what that leads to)."""
    saved, last = Path(keeper._last_checkpoint_saved), Path(keeper.last_model_path)
    is_last = bool(keeper.last_model_path) and last.exists() and last.resolve() == saved.resolve()
    # The first process alone need see the files.
    return trainer.strategy.broadcast(is_last and keeper._last_global_step_saved == trainer.global_step)
