"""What Lightning's own classes and FSDP1 do where ours do otherwise; run by worker.py's `traps`."""

import math
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.plugins.precision.fsdp import FSDPPrecision as StockPrecision
from lightning.pytorch.strategies import FSDPStrategy as StockStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType
from torch.utils.data import DataLoader, TensorDataset

from vlm_crash.parallel import FSDPStrategy
from vlm_crash.parallel.gathering import fill

THIRD, TIME = 1 / 3, 1234.57


class Layer(nn.Module):
    """Turns by an angle that a buffer holds, as RoPE does, and adds a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("frequency", torch.tensor([THIRD]), persistent=False)
        self.seen: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = (x.dtype, self.linear.weight.dtype)
        return x * torch.cos(1024 * self.frequency).to(x.dtype) + self.linear(x)


class Small(LightningModule):
    """Two layers; keeps what a step has seen."""

    shard_units = ("Layer",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(Layer(), Layer())
        self.seen: dict[str, Any] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(*batch)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        layer: Any = self.layers[0]
        cosine = float(torch.cos(1024 * layer.frequency.double()))
        self.seen = {"time": float(time[0]), "error": abs(cosine - math.cos(1024 * torch.tensor(THIRD).item()))}
        return self.layers(x.to(layer.linear.weight.dtype)).float().square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class OnCPU(StockStrategy):
    """A subclass passes where Lightning refuses its own class on CPUs by its exact type."""


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 8, generator=torch.Generator().manual_seed(dist.get_rank() + 1)), torch.full((8,), TIME)


def one_step(module: Small) -> Trainer:
    """A step of two processes in fp16 under our strategy."""
    dataset = TensorDataset(torch.randn(8, 8), torch.full((8,), TIME))
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=FSDPStrategy(), precision="16-mixed", max_steps=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(module, DataLoader(dataset, batch_size=4))
    return trainer


def ours() -> dict[str, Any]:
    """What a step under our strategy sees; the second of three layers computes in fp32."""
    module = Small()
    module.layers.append(Layer())
    module.fp32_modules = {"layers.1"}
    trainer = one_step(module)
    moments = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    kept = {tensor.dtype for tensor in (*module.parameters(), *moments)}
    return {**module.seen, "dtypes": [layer.seen for layer in module.layers], "kept": kept}


def barriers() -> dict[str, str]:
    """What a barrier says on a device without an index, where the gradients' group is NCCL's (as it is told here)."""
    found = {}
    for name, strategy in (("ours", FSDPStrategy()), ("stock", OnCPU())):
        trainer = Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False)
        trainer.strategy.setup_environment()
        with patch("torch.distributed.get_backend", return_value="nccl"):
            try:
                trainer.strategy.barrier()
                found[name] = ""
            except (RuntimeError, TypeError, ValueError) as error:
                found[name] = str(error)
    return found


class Frozen(Small):
    """Half of each layer is frozen and lies in fp16, as a tower that is not trained may."""

    def __init__(self) -> None:
        super().__init__()
        for layer in self.layers:
            layer.linear.weight = nn.Parameter(layer.linear.weight.detach().half(), requires_grad=False)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.1)


def mixed() -> tuple[str, set[str]]:
    """FSDP1's error at a layer of two dtypes, and what a step under ours has moved."""
    error = ""
    try:
        FullyShardedDataParallel(Frozen(), device_id=torch.device("cpu"), use_orig_params=True)
    except ValueError as refused:
        error = str(refused)
    module = Frozen()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trainer = one_step(module)
    after = trainer.strategy.gather_model()
    return error, {name for name, weight in after.items() if name in before and not torch.equal(weight, before[name])}


def lightnings() -> str:
    """Lightning's strategy, as it is, on CPUs: its error."""
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=OnCPU(auto_wrap_policy={Layer}), max_steps=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    try:
        trainer.fit(Small(), DataLoader(TensorDataset(torch.randn(8, 8), torch.full((8,), TIME)), batch_size=4))
    except RuntimeError as error:
        return str(error)
    return ""


def fsdp1() -> dict[str, Any]:
    """What a step sees under FSDP1 with the dtypes of Lightning's plugin."""
    module = Small()
    wrapped = FullyShardedDataParallel(
        module, device_id=torch.device("cpu"), mixed_precision=StockPrecision("16-mixed").mixed_precision_config
    )
    wrapped(*inputs()).backward()
    return module.seen


def fsdp1_optimizer() -> tuple[Tensor, Tensor]:
    """Adam's two moments of a parameter in FSDP1's full optimizer state, offloaded to the CPU."""
    module = FullyShardedDataParallel(Small(), device_id=torch.device("cpu"), use_orig_params=True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module(*inputs()).backward()
    optimizer.step()
    config = FullStateDictConfig(offload_to_cpu=True, rank0_only=False)
    with FullyShardedDataParallel.state_dict_type(module, StateDictType.FULL_STATE_DICT, config):
        state = FullyShardedDataParallel.optim_state_dict(module, optimizer)["state"]
    moments = state["layers.0.linear.weight"]
    return moments["exp_avg"], moments["exp_avg_sq"]


def our_optimizer() -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The same in ours, whole and local, beside what the formula gives."""
    module = Small()
    dataset = TensorDataset(torch.randn(8, 8), torch.full((8,), TIME))
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=FSDPStrategy(state_dict_type="full", cpu_offload=True), max_steps=1,
        logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(dataset, batch_size=4))
    state = trainer.strategy.optimizer_state(trainer.optimizers[0])
    if dist.get_rank():
        return {}
    return {str(index): (moments["exp_avg"], moments["exp_avg_sq"]) for index, moments in state["state"].items()}


class Late(Small):
    """Made without memory; each process fills its own shards."""

    def fill_weights(self, device: torch.device) -> None:
        self.to_empty(device=device)
        for name, parameter in self.named_parameters():
            fill(parameter.data, Small().state_dict()[name])
        for layer in self.layers:
            layer.frequency.fill_(THIRD)


def weights_after_a_step(module: Small) -> dict[str, Tensor]:
    """On the first process."""
    dataset = TensorDataset(torch.ones(8, 8), torch.full((8,), TIME))
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=FSDPStrategy(), max_steps=1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(dataset, batch_size=4))
    return trainer.strategy.gather_model()


def late() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A step from weights that were there, and from weights that came after the sharding."""
    with torch.device("meta"):
        module = Late()
    return weights_after_a_step(Small()), weights_after_a_step(module)
