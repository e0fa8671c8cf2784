"""Names the module in which numbers stop being finite, and ends a run that does not recover.

Enters: batches and gradients of the optimizer steps. Leaves: a line in overflow.jsonl and a text in TensorBoard for
each step that was not finite; the end of the run, on all processes together. Invariants: a step that is finite costs a
look at flags that are there already (in fp32: one pass over the gradients), and no module has hooks; where one process
is not finite, all compute the step again, as weights may be shared out.
"""

import json
import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.optim import Optimizer

from vlm_crash.callbacks.overflow_report import Report, Run, as_markdown, event
from vlm_crash.callbacks.whole_lines import cannot_write
from vlm_crash.data.collate import Batch
from vlm_crash.parallel.fsdp import FSDPStrategy
from vlm_crash.parallel.overflow_search import (
    BackwardSearch,
    Finding,
    ForwardSearch,
    bad_gradients,
    bad_weights,
    measure,
)
from vlm_crash.parallel.precision import AgreedGradScaler
from vlm_crash.parallel.shards import local_part
from vlm_crash.parallel.steps import loss_scale

log = logging.getLogger(__name__)

FILE = "overflow.jsonl"
AGAIN = "loss_again"


class NotFinite(ValueError):
    """The run was stopped, as its steps were not finite."""


class OverflowSentinel(Callback):
    """At an optimizer step whose loss or gradients are not finite, computes it again and names the first module that
    made such a number, the clips, the sizes and the process: in the log, in TensorBoard (text) and in overflow.jsonl.

    Args:
        max_in_a_row: steps in a row that are not finite after which the run is stopped. Where no loss scale would skip
            the step (32-true, bf16-mixed), the first one stops it, before the weights take it.
    """

    def __init__(self, max_in_a_row: int = 20) -> None:
        if max_in_a_row < 1:
            raise ValueError(
                f"overflow_sentinel={max_in_a_row} is below 1; set --overflow_sentinel to the steps in a row that may "
                "be skipped, or leave it out"
            )
        self.max_in_a_row = max_in_a_row
        self._in_a_row = 0
        #: Of the present optimizer step: batches, and the random state before each.
        self._batches: list[tuple[Batch, list[Tensor]]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_a_row = 0
        self._batches.clear()
        if AGAIN not in vars(pl_module):  # weights are gathered for it as for a training step
            register_fsdp_forward_method(pl_module, AGAIN)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if self._batches:
            # A GPU's memory is for one batch at a time. The copy is not waited for.
            last, state = self._batches[-1]
            self._batches[-1] = last.to("cpu", non_blocking=True), state
        self._batches.append((batch, _random_state(trainer.strategy.root_device)))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.fit_loop._should_accumulate():
            self._batches.clear()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        is_skipped = scaler is not None and scaler.is_enabled()
        bad_grads = _scaled_is_bad(scaler, optimizer) if is_skipped else _is_bad(optimizer)
        loss: Tensor = pl_module.token_mean.value  # type: ignore[union-attr, assignment]
        both = torch.stack([bad_grads, (~loss.isfinite()).to(bad_grads)])
        if dist.is_initialized() and not isinstance(scaler, AgreedGradScaler):
            both = both.to(trainer.strategy.root_device)
            dist.all_reduce(both, op=dist.ReduceOp.MAX)
        grads_are_bad, loss_is_bad = both.tolist()
        if not grads_are_bad and not loss_is_bad:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        run = Run(
            trainer.global_step, trainer.current_epoch, str(trainer.precision), loss_scale(trainer), self._in_a_row,
            len(self._batches),
        )  # fmt: skip
        found = event(run, self._look(trainer, pl_module, bool(grads_are_bad)))
        if trainer.is_global_zero:
            _tell(trainer, found)
        if self._in_a_row >= self.max_in_a_row or not is_skipped:
            self._stop(trainer, found, is_skipped)

    def _look(self, trainer: Trainer, pl_module: LightningModule, grads_are_bad: bool) -> list[Report]:
        """What each process finds; all compute the same batches, and stop after the same one."""
        rank, weights = trainer.global_rank, bad_weights(pl_module)
        summed = next(
            (Finding("reduced", *_owner(name), outputs=size) for name, size in bad_gradients(pl_module)), None
        )
        with _as_if_nothing_happened(pl_module, trainer.strategy.root_device):
            for search in (_forward, _backward) if grads_are_bad else (_forward,):
                for place, (batch, state) in enumerate(self._batches):
                    _set_random_state(state, trainer.strategy.root_device)
                    exact = search(trainer, pl_module, batch.to(trainer.strategy.root_device))
                    if _any(trainer, exact is not None):
                        found = replace(exact, batch=place) if exact else None
                        return _of_all(trainer, Report(rank, found, _clips([batch]), weights))
        return _of_all(trainer, Report(rank, summed, _clips([batch for batch, _ in self._batches]), weights))

    def _stop(self, trainer: Trainer, found: dict[str, Any], is_skipped: bool) -> None:
        """Every process comes here; the first one says why."""
        # Lightning's observer would kill this process, as those that it has started end with an error.
        getattr(trainer.strategy.launcher, "procs", []).clear()
        if not trainer.is_global_zero:
            raise SystemExit(2)
        why = (
            f"{self._in_a_row} optimizer steps in a row were not finite"
            if is_skipped
            else f"{trainer.precision} has no loss scale that would skip a step, and the weights would take it"
        )
        path = Path(trainer.default_root_dir) / FILE
        raise NotFinite(f"stopped before the step was taken: {why}; the last one, {found['message']}; all: {path}")


def _owner(parameter: str) -> tuple[str, str]:
    """Module of a parameter, and what of it."""
    module, _, part = parameter.rpartition(".")
    return module, f"the gradient of its {part}"


def _clips(batches: list[Batch]) -> tuple[str, ...]:
    return tuple(sample.video for batch in batches for sample in batch.samples)


# ------------------------------------------------------------------------------------------------ whether it is finite


def _scaled_is_bad(scaler: Any, optimizer: Optimizer) -> Tensor:
    """What the loss scaling has found as it took its factor out of the gradients: 0 or 1."""
    flags = [flag.reshape(()) for flag in scaler._found_inf_per_device(optimizer).values()]
    return torch.stack([flag.to(flags[0].device) for flag in flags]).amax() if flags else torch.zeros(())


def _is_bad(optimizer: Optimizer) -> Tensor:
    """The same look without loss scaling, by the same kernel with a factor of 1: one pass over the gradients."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and local_part(parameter.grad).numel():
                grad = local_part(parameter.grad)
                kinds.setdefault((grad.device, grad.dtype), []).append(grad)
    flags = []
    for (device, _), grads in kinds.items():
        flags.append(torch.zeros((), device=device))
        torch._amp_foreach_non_finite_check_and_unscale_(grads, flags[-1], torch.ones((), device=device))
    return torch.stack([flag.to(flags[0].device) for flag in flags]).amax() if flags else torch.zeros(())


# ------------------------------------------------------------------------------------------------- the step once again


def _forward(trainer: Trainer, pl_module: LightningModule, batch: Batch) -> Finding | None:
    size = measure(batch.pixel_values_N3HW)
    with ForwardSearch(pl_module) as search, torch.no_grad(), trainer.precision_plugin.train_step_context():
        loss = getattr(pl_module, AGAIN)(batch)
    if size is not None and size.num_not_finite:
        return Finding("batch", "", "the pixels", outputs=size)
    if search.found is None and not loss.isfinite():
        return Finding("forward", "", "the loss", outputs=measure(loss))
    return search.found


def _backward(trainer: Trainer, pl_module: LightningModule, batch: Batch) -> Finding | None:
    """Gradients are added to those that are there, which nobody wants any more."""
    with BackwardSearch(pl_module) as search:
        with torch.enable_grad(), trainer.precision_plugin.train_step_context():
            loss = getattr(pl_module, AGAIN)(batch)
        search.end_forward()
        (loss * (loss_scale(trainer) / trainer.accumulate_grad_batches)).backward()
    return search.found


@contextmanager
def _as_if_nothing_happened(pl_module: LightningModule, device: torch.device) -> Iterator[None]:
    """Random generators go on from where they were; no weights stay gathered."""
    state, python = _random_state(device), random.getstate()
    try:
        yield
    finally:
        _set_random_state(state, device)
        random.setstate(python)
        for module in pl_module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def _random_state(device: torch.device) -> list[Tensor]:
    """Of the generators that a model draws from (dropout)."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(state: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for value in state[1:]:
        torch.cuda.set_rng_state(value, device)


# ------------------------------------------------------------------------------------------------------ all processes


def _any(trainer: Trainer, decision: bool) -> bool:
    return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))


def _of_all(trainer: Trainer, report: Report) -> list[Report]:
    if isinstance(trainer.strategy, FSDPStrategy):
        return trainer.strategy.cpu_group.gather_object(report)
    if not dist.is_initialized():
        return [report]
    reports: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(reports, report)
    return reports


def _tell(trainer: Trainer, found: dict[str, Any]) -> None:
    """The log, TensorBoard, and a line of the file, whole or not at all."""
    log.warning("%s", found["message"])
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("overflow", as_markdown(found), found["step"])
            logger.experiment.flush()
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **found}, ensure_ascii=False) + "\n"
    path = Path(trainer.default_root_dir) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:  # one write: a run that is killed leaves whole lines
            file.write(line.encode(errors="backslashreplace"))
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error
