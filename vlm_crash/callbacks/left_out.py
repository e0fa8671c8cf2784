"""Training clips that cannot be read and are left out (--data.on_bad_clip skip): counted, named, the same everywhere.

Enters: the batches of each process, which carry the clips that it could not read beside their tensors; fillers stand
for these, so that all processes take as many steps and no token is weighed otherwise. Leaves: lines in the log, the
number in the loggers, and after each epoch the clips that no process tries again. Must hold: an optimizer step of which
no clip could be read changes no weight; a run that goes on from a checkpoint leaves out what it left out before.
"""

import logging
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from vlm_crash.data.collate import Batch
from vlm_crash.parallel.gathering import objects_of_all
from vlm_crash.schema.records import VideoSample

log = logging.getLogger(__name__)

KEY = "left_out_clips"

_MAX_NAMED = 10


class LeftOutClips(Callback):
    """Acts where the data module has `on_bad_clip` "skip"; must come after callbacks that look at gradients."""

    def __init__(self) -> None:
        #: id -> (name, reason), of clips that were read on this process.
        self._own: dict[str, tuple[str, str]] = {}
        self.left_out: dict[str, tuple[str, str]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        for item in batch.failed:
            if item.sample.id not in self._own and item.sample.id not in self.left_out:
                self._own[item.sample.id] = (item.sample.video, item.reason)
                log.warning("%s is left out of training: %s", item.sample.path, item.reason)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """AdamW would go on by its momentum; parameters without a gradient it leaves as they are."""
        if _skips(trainer) and pl_module.token_mean.is_empty:  # type: ignore[union-attr]
            log.warning("step %d: none of its clips can be read; no weight is changed", trainer.global_step)
            pl_module.zero_grad(set_to_none=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _skips(trainer):
            return
        self.left_out |= self._of_all(trainer)
        self._own = {}
        samples = self._mark(trainer)
        pl_module.log("data/left_out_clips", float(len(self.left_out)))
        if self.left_out and trainer.is_global_zero:
            known = sorted(self.left_out.values())
            names = "; ".join(f"{name}: {reason}" for name, reason in known[:_MAX_NAMED])
            log.warning(
                "epoch %d: %s of %s training clips used, %d left out as they cannot be read: %s%s",
                trainer.current_epoch, f"{len(samples) - len(known):,}", f"{len(samples):,}", len(known), names,
                "; ..." if len(known) > _MAX_NAMED else "",
            )  # fmt: skip

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Of this epoch so far, too: the run that goes on does not see these clips again in it."""
        if _skips(trainer):
            checkpoint[KEY] = {clip: list(told) for clip, told in {**self.left_out, **self._of_all(trainer)}.items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != TrainerFn.FITTING or not _skips(trainer):
            return
        before = checkpoint.get(KEY, {})
        # Those that are not among the clips any more, as `check` has found them since, count no more.
        ids = {sample.id for sample in trainer.datamodule.samples["train"]}  # type: ignore[attr-defined]
        self.left_out = {clip: (told[0], told[1]) for clip, told in before.items() if clip in ids}
        self._mark(trainer)

    def _of_all(self, trainer: Trainer) -> dict[str, tuple[str, str]]:
        """What all processes have found since the epoch began; all must call."""
        found: dict[str, tuple[str, str]] = {}
        for own in objects_of_all(self._own, getattr(trainer.strategy, "cpu_group", None)):
            found |= own
        return found

    def _mark(self, trainer: Trainer) -> list[VideoSample]:
        """Let no process try them again; all training clips."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        samples: list[VideoSample] = datamodule.samples["train"]
        for index, sample in enumerate(samples):
            if sample.id in self.left_out:
                datamodule.left_out[index] = True
        return samples


def _skips(trainer: Trainer) -> bool:
    return getattr(getattr(trainer, "datamodule", None), "on_bad_clip", "raise") == "skip"
