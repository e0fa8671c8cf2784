"""fp16 with loss scaling over sharded gradients.

Enters: losses, and gradients that each process holds a part of. Leaves: optimizer steps. Invariant: a step is taken by
all processes or by none; master weights and optimizer state stay fp32.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule
from lightning.pytorch.plugins.precision.fsdp import FSDPPrecision as LightningFSDPPrecision
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.optim import Optimizer

from vlm_crash.parallel.shards import local_part, total_norm

log = logging.getLogger(__name__)

#: precision -> dtype of the gathered weights and of the computation.
COMPUTE_DTYPES = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


#: Settings of FSDPPrecision, where no scaler is passed.
INIT_SCALE, GROWTH_INTERVAL = 2.0**16, 2000


class AgreedGradScaler(torch.amp.GradScaler):
    """Loss scaling in which an overflow on one process is an overflow on all.

    torch's own ShardedGradScaler works on FSDP1's flat tensors, and its device is "cuda" unless told otherwise; this
    one scales wherever the loss is.

    Args:
        init_scale: factor of the loss in the first step.
        growth_factor: the factor is multiplied by it after `growth_interval` steps without overflow.
        backoff_factor: the factor is multiplied by it after an overflow.
        growth_interval: steps without overflow before the factor grows.
    """

    def __init__(
        self,
        init_scale: float = INIT_SCALE,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = GROWTH_INTERVAL,
    ) -> None:
        if not (init_scale > 0 and growth_interval >= 1 and growth_factor > 1 > backoff_factor > 0):
            raise ValueError(
                f"a loss scale needs init_scale above 0 (is {init_scale}), growth_interval of at least 1 (is "
                f"{growth_interval}), growth_factor above 1 (is {growth_factor}) and backoff_factor between 0 and 1 "
                f"(is {backoff_factor}); leave them out for {INIT_SCALE:g}, {GROWTH_INTERVAL}, 2 and 0.5"
            )
        # Its device says no more than whether there is one; "cpu" always is.
        super().__init__("cpu", init_scale, growth_factor, backoff_factor, growth_interval)

    def _unscale_grads_(
        self, optimizer: Optimizer, inv_scale: Tensor, found_inf: Tensor, allow_fp16: bool
    ) -> dict[torch.device, Tensor]:
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and local_part(parameter.grad).numel():
                    grad = local_part(parameter.grad)
                    kinds[grad.device, grad.dtype].append(grad)
        for (device, _), grads in kinds.items():
            flag = torch.zeros((), device=device)
            torch._amp_foreach_non_finite_check_and_unscale_(grads, flag, inv_scale.to(device))
            found_inf = torch.maximum(found_inf, flag.to(found_inf.device))
        if dist.is_initialized():
            dist.all_reduce(found_inf, op=dist.ReduceOp.MAX)
        return {found_inf.device: found_inf}


def _agreed(scaler: torch.amp.GradScaler) -> AgreedGradScaler:
    """A scaler on whose overflows all processes agree, with the settings and the factor of the given one.

    Raises:
        ValueError: it is switched off, or has ways of its own.
    """
    if isinstance(scaler, AgreedGradScaler):
        return scaler
    name = f"{type(scaler).__module__}.{type(scaler).__qualname__}"
    if not name.startswith("torch."):
        raise ValueError(
            f"scaler={name} would decide on each process alone which steps are skipped, and the weights of the "
            "processes would part; make it a subclass of vlm_crash.parallel.AgreedGradScaler"
        )
    if not scaler.is_enabled():
        raise ValueError(
            f"scaler={name} is switched off (enabled=False, or made for a device that is not here); "
            "give vlm_crash.parallel.AgreedGradScaler, which scales on any device"
        )
    settings = (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval())
    agreed = AgreedGradScaler(scaler.get_scale(), *settings)
    agreed.load_state_dict(scaler.state_dict())
    return agreed


class FSDPPrecision(LightningFSDPPrecision):
    """Precision of FSDPStrategy: fp16 (or bf16) weights are gathered and computed with, fp32 ones are kept and trained.

    Differs from Lightning's: no autocast (every weight that computes is in the compute dtype already, and autocast
    would undo fp32 islands), buffers stay as they are (RoPE frequencies in fp32), clipping by norm works, scaling works
    on any device.

    Args:
        precision: 16-mixed, bf16-mixed or 32-true.
        init_scale: factor of the loss in the first step (16-mixed).
        growth_interval: steps without overflow after which the factor is doubled (16-mixed).
        scaler: a loss scaler of your own (16-mixed), in place of these two: an AgreedGradScaler, or one of torch's,
            whose settings and factor are taken over.
    """

    def __init__(
        self,
        precision: str,
        init_scale: float = INIT_SCALE,
        growth_interval: int = GROWTH_INTERVAL,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        # Lightning's own constructor would make a scaler for "cuda".
        if precision not in COMPUTE_DTYPES:
            raise ValueError(
                f"precision={precision!r} is not one of {list(COMPUTE_DTYPES)}, which FSDPStrategy computes in; "
                "set --trainer.precision to one of them"
            )
        given = (init_scale, growth_interval) != (INIT_SCALE, GROWTH_INTERVAL)
        if precision != "16-mixed" and (given or scaler is not None):
            raise ValueError(
                f"init_scale, growth_interval and scaler have no effect at precision={precision!r}, which scales no "
                "loss; leave them out, or set precision 16-mixed"
            )
        if given and scaler is not None:
            raise ValueError("init_scale or growth_interval is given beside a scaler, which has its own; leave it out")
        self.precision = precision  # type: ignore[assignment]
        self.scaler: AgreedGradScaler | None = None  # type: ignore[assignment]
        if precision == "16-mixed":
            self.scaler = (
                _agreed(scaler) if scaler is not None else AgreedGradScaler(init_scale, growth_interval=growth_interval)
            )
        #: Optimizer steps that were skipped since the run began, and in a row until now.
        self.num_skipped = 0
        self.num_skipped_in_a_row = 0

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of the gathered weights."""
        return COMPUTE_DTYPES[self.precision]

    def policy(self, reduce_dtype: torch.dtype, is_fp32: bool = False) -> MixedPrecisionPolicy:
        """What a wrapped layer computes in and its gradients are summed in.

        Args:
            reduce_dtype: of the sum over processes.
            is_fp32: this layer computes in fp32, between layers that may not.
        """
        if self.precision == "32-true":
            return MixedPrecisionPolicy()
        if is_fp32:
            return MixedPrecisionPolicy(torch.float32, torch.float32, output_dtype=self.compute_dtype)
        return MixedPrecisionPolicy(self.compute_dtype, reduce_dtype)

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module

    def convert_input(self, data: Any) -> Any:
        return data

    def convert_output(self, data: Any) -> Any:
        return data

    def forward_context(self) -> AbstractContextManager:
        return nullcontext()

    def tensor_init_context(self) -> AbstractContextManager:
        return nullcontext()

    def module_init_context(self) -> AbstractContextManager:
        return nullcontext()

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Optimizer, model: LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """A step, or none on any process where one has found a gradient that is not finite."""
        if self.scaler is None:
            return super().optimizer_step(optimizer, model=model, closure=closure, **kwargs)
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError(
                f"{type(optimizer).__name__}(fused=True) unscales gradients by itself, which skips steps on one "
                "process only; use fused=False"
            )
        closure_result = closure()
        self.scaler.unscale_(optimizer)
        self._after_closure(model, optimizer)
        before = self.scaler.get_scale()
        result = self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        if self.scaler.get_scale() < before:
            self.num_skipped += 1
            self.num_skipped_in_a_row += 1
            log.log(
                logging.WARNING if getattr(rank_zero_only, "rank", 0) == 0 else logging.DEBUG,
                "overflow: step skipped (%d in a row), loss scale %g -> %g",
                self.num_skipped_in_a_row, before, self.scaler.get_scale(),
            )  # fmt: skip
        else:
            self.num_skipped_in_a_row = 0
        return closure_result if result is None else result

    def clip_grad_by_norm(self, optimizer: Optimizer, clip_val: float) -> None:
        """Scale all gradients so that their common norm over all processes is at most `clip_val`."""
        grads = [parameter.grad for parameter in self.main_params(optimizer) if parameter.grad is not None]
        factor = (clip_val / (total_norm(grads) + 1e-6)).clamp(max=1.0)
        for grad in grads:
            local_part(grad).mul_(factor.to(local_part(grad).device))

    def clip_grad_by_value(self, optimizer: Optimizer, clip_val: float) -> None:
        for parameter in self.main_params(optimizer):
            if parameter.grad is not None:
                local_part(parameter.grad).clamp_(-clip_val, clip_val)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else {**self.scaler.state_dict(), "num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.scaler is not None:
            self.num_skipped = state_dict.get("num_skipped", 0)
            # The settings of this run stay; only what the run has found out is taken over.
            settings = {**self.scaler.state_dict(), "scale": state_dict["scale"]}
            self.scaler.load_state_dict({**settings, "_growth_tracker": state_dict["_growth_tracker"]})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the loss scale of a run of one process, too."""
        name = type(self).__qualname__
        if "MixedPrecision" in checkpoint and name not in checkpoint:
            checkpoint[name] = checkpoint["MixedPrecision"]
