"""Numbers of a training run.

Enters: batches, gradients and timings of the loops, on every process. Leaves: learning rates, gradient norms, loss
scale, throughput and memory of all processes, in the loggers; plain lines where there is no progress bar.
"""

import logging
import time
from dataclasses import astuple, dataclass
from typing import Any

import psutil
import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer

from vlm_crash.data.collate import Batch
from vlm_crash.models.internvl import TOWERS, tower_of
from vlm_crash.parallel.shards import total_norm
from vlm_crash.parallel.steps import loss_scale

log = logging.getLogger(__name__)

#: What is said of a validation run in one line; all scores are in the loggers.
VALIDATION_RESULTS = ("val/loss", "val/event/balanced_accuracy", "val/mean")
#: By epoch, the largest share of its time that a process waited for data.
EPOCH_WAIT = "speed/epoch_data_wait_share"
GIB = 2**30


@dataclass
class Work:
    """What one process did between two lines of a log; times in seconds."""

    tokens: float = 0.0
    clips: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, tokens: int, clips: int, seconds: float, waited: float) -> None:
        self.tokens += tokens
        self.clips += clips
        self.seconds += seconds
        self.waited += waited


class TrainingMonitor(Callback):
    """Logs learning rates, gradient norms, loss scale and skipped steps, and of all processes together tokens/s and
    clips/s since the last log, the largest share of time spent waiting for data (also of each epoch), and the most
    memory.
    """

    def __init__(self) -> None:
        self._batch_end: float | None = None
        self._batch_start = 0.0
        self._step = 0
        self._work, self._epoch = Work(), Work()
        self._scale: float | None = None
        self._num_skipped = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        self._work, self._num_skipped = Work(), 0
        self._batch_end = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # What came before, saving a checkpoint for one, is no waiting for data; that workers start anew is.
        self._epoch, self._batch_end = Work(), time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every process must call."""
        if not self._epoch.seconds:
            return
        rows = of_all_processes([*astuple(self._epoch), 0.0], trainer.strategy.root_device)
        share = throughput(rows)["speed/data_wait_share"]
        pl_module.log(EPOCH_WAIT, share)
        if trainer.is_global_zero:
            log.info("epoch %d: %.1f %% of the time waiting for data", trainer.current_epoch, 100 * share)

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
        self._scale = loss_scale(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        assert self._batch_end is not None
        waited = self._batch_start - self._batch_end
        for work in (self._work, self._epoch):
            work.add(batch.num_tokens, len(batch.samples), now - self._batch_end, waited)
        self._batch_end = now
        # Several batches may make one step.
        has_stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if has_stepped:
            self._log_scale(trainer, pl_module)
        if has_stepped and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log_work(trainer, pl_module)

    def _log_scale(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The scale of the step that was taken, and how many were not since the run began."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is None or self._scale is None:
            return
        self._num_skipped += loss_scale(trainer) < self._scale
        # FSDPPrecision's own count goes on over a resume.
        num_skipped = getattr(trainer.precision_plugin, "num_skipped", self._num_skipped)
        pl_module.log_dict({"fp16/loss_scale": self._scale, "fp16/skipped_steps": float(num_skipped)})

    def _log_work(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every process must call."""
        numbers = throughput(of_all_processes([*astuple(self._work), *memory()], trainer.strategy.root_device))
        self._work = Work()
        pl_module.log_dict(numbers)
        if trainer.is_global_zero and trainer.progress_bar_callback is None:
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


def memory() -> list[float]:
    """Bytes of this process: resident; and on a GPU the most that tensors had, and the most that was reserved."""
    most = [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()] if torch.cuda.is_initialized() else []
    return [float(size) for size in (psutil.Process().memory_info().rss, *most)]


def of_all_processes(numbers: list[float], device: torch.device) -> torch.Tensor:
    """A row a process, float64, on the CPU. Every process must call."""
    mine = torch.tensor([numbers], dtype=torch.float64, device=device)
    if not dist.is_initialized():
        return mine.cpu()
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, mine)
    return torch.cat(rows).cpu()


def throughput(rows: torch.Tensor) -> dict[str, float]:
    """Names and values for the loggers of rows (tokens, clips, seconds, seconds waited, bytes of memory ...).

    >>> both = torch.tensor([[100.0, 4, 2, 0.5, 2**30], [50, 2, 2, 1, 2**31]])
    >>> throughput(both)  # doctest: +NORMALIZE_WHITESPACE
    {'speed/tokens_per_s': 75.0, 'speed/clips_per_s': 3.0, 'speed/data_wait_share': 0.5,
     'memory/process_gib': 2.0}
    """
    tokens, clips, seconds, waited = rows[:, :4].T
    elapsed = float(seconds.max())
    names = ("memory/process_gib", "memory/gpu_allocated_gib", "memory/gpu_reserved_gib")
    return {
        "speed/tokens_per_s": float(tokens.sum()) / elapsed,
        "speed/clips_per_s": float(clips.sum()) / elapsed,
        # The others wait for the one that waits longest.
        "speed/data_wait_share": float((waited / seconds).max()),
        **{name: float(most) / GIB for name, most in zip(names, rows[:, 4:].amax(dim=0), strict=False)},
    }


def decoded(pl_module: LightningModule, batch: Batch) -> str:
    """The first conversation of a batch as text, image tokens counted instead of repeated."""
    text = pl_module.tokenizer.decode(batch.first_ids)  # type: ignore[operator, union-attr]
    token = "<IMG_CONTEXT>"
    pieces = text.split("<img>")
    return "<img>".join(
        piece.replace(token * piece.count(token), f"{piece.count(token)} x {token}") if token in piece else piece
        for piece in pieces
    )
