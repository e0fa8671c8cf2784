"""Numbers and pictures of a training run.

Enters: batches, gradients and timings of the loops. Leaves: learning rates, gradient norms, throughput, and one
validation clip with its frames, truth and answer, in the loggers; plain lines where there is no progress bar.
"""

import logging
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from vlm_crash.data.collate import Batch
from vlm_crash.models.internvl import TOWERS, tower_of
from vlm_crash.parallel.shards import total_norm
from vlm_crash.schema.fields import UNKNOWN
from vlm_crash.schema.records import Prediction
from vlm_crash.video.image_transform import IMAGENET_MEAN, IMAGENET_STD

log = logging.getLogger(__name__)

#: What is said of a validation run in one line; all scores are in the loggers.
VALIDATION_RESULTS = ("val/loss", "val/event/balanced_accuracy", "val/mean")


class TrainingMonitor(Callback):
    """Logs learning rates, gradient norms, tokens/s, clips/s and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self._batch_end: float | None = None
        self._batch_start = 0.0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        self._batch_end = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._batch_start = time.perf_counter()
        if trainer.global_step == 0 and batch_idx == 0 and trainer.is_global_zero:
            log.info("first conversation:\n%s", decoded(pl_module, batch))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        grads: dict[str, list[torch.Tensor]] = {tower: [] for tower in TOWERS}
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                grads[tower_of(name)].append(parameter.grad)
        norms = {tower: total_norm(found) for tower, found in grads.items() if found}
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        pl_module.log_dict({f"grad_norm/{tower}": norm for tower, norm in norms.items()} | {"grad_norm/all": total})
        # Here, as the scheduler has gone on to the next step's rate when the batch ends.
        pl_module.log_dict({f"lr/{group['name']}": group["lr"] for group in optimizer.param_groups})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        assert self._batch_end is not None
        elapsed, waited = now - self._batch_end, self._batch_start - self._batch_end
        self._batch_end = now
        numbers = {
            "speed/tokens_per_s": batch.num_tokens / elapsed,
            "speed/clips_per_s": len(batch.samples) / elapsed,
            "speed/data_wait_share": waited / elapsed,
        }
        pl_module.log_dict(numbers)
        # Several batches may make one step.
        has_stepped, self._step = trainer.global_step != self._step, trainer.global_step
        is_due = has_stepped and trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if is_due and trainer.is_global_zero and trainer.progress_bar_callback is None:
            log.info(
                "epoch %d, step %d of %d: loss %.4f, %.2f clips/s, %.0f %% of the time waiting for data",
                trainer.current_epoch, trainer.global_step, trainer.estimated_stepping_batches,
                float(trainer.callback_metrics["train/loss"]), numbers["speed/clips_per_s"],
                100 * numbers["speed/data_wait_share"],
            )  # fmt: skip

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Validation is no waiting for training data.
        self._batch_end = time.perf_counter()
        if trainer.is_global_zero and not trainer.sanity_checking:
            found = {name: trainer.callback_metrics.get(name) for name in VALIDATION_RESULTS}
            results = ", ".join(f"{name} {float(value):.4f}" for name, value in found.items() if value is not None)
            log.info("validation after step %d: %s", trainer.global_step, results or "nothing was scored")


def decoded(pl_module: LightningModule, batch: Batch) -> str:
    """The first conversation of a batch as text, image tokens counted instead of repeated."""
    text = pl_module.tokenizer.decode(batch.first_ids)  # type: ignore[operator, union-attr]
    token = "<IMG_CONTEXT>"
    pieces = text.split("<img>")
    return "<img>".join(
        piece.replace(token * piece.count(token), f"{piece.count(token)} x {token}") if token in piece else piece
        for piece in pieces
    )


class ValidationSample(Callback):
    """Shows one validation clip in TensorBoard: its frames, the truth and the answer."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx or not outputs["predictions"] or trainer.sanity_checking:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                self._show(logger, trainer.global_step, batch, outputs["predictions"][0])

    @rank_zero_only
    def _show(self, logger: TensorBoardLogger, step: int, batch: Batch, prediction: Prediction) -> None:
        num_frames = len(batch.pixel_values_N3HW) // len(batch.input_ids_BS)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        frames = (batch.pixel_values_N3HW[:num_frames].float().cpu() * std + mean).clamp(0, 1)
        truth = batch.samples[0].annotation
        logger.experiment.add_images("validation_clip/frames", frames, step)
        rows = "\n".join(
            f"| {name} | {value} | {prediction.fields.get(name, 'no answer')} |"
            for name, value in (truth.values.items() if truth else ())
            if value != UNKNOWN
        )
        table = f"{prediction.video}: {truth.event if truth else '?'}, answered {prediction.event}\n\n"
        logger.experiment.add_text(
            "validation_clip/answer", f"{table}| field | truth | answer |\n|---|---|---|\n{rows}", step
        )
