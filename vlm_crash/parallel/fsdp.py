"""Lightning's FSDPStrategy on torch's `fully_shard` (FSDP2), on GPUs and, for tests, on CPUs.

Enters: a LightningModule that names its layers (`shard_units`). Leaves: the same module, trained by many processes that
each hold a part of weights, gradients and optimizer state. Invariants: parameters keep their names and shapes; a
setting that has no effect is refused.
"""

import atexit
import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.fabric.strategies.fsdp import _move_torchmetrics_to_device
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.plugins.precision.fsdp import FSDPPrecision as LightningFSDPPrecision
from lightning.pytorch.strategies import FSDPStrategy as LightningFSDPStrategy
from lightning.pytorch.strategies.strategy import Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    ShardingStrategy,
    register_fsdp_forward_method,
)
from torch.optim import Optimizer

from vlm_crash.parallel import checkpoint as checkpoints
from vlm_crash.parallel.gathering import CPUGroup
from vlm_crash.parallel.hosts import check_shared_folder, set_interface
from vlm_crash.parallel.precision import FSDPPrecision
from vlm_crash.parallel.sharding import SHARDING, make_mesh, shard_module, sharding_word
from vlm_crash.parallel.whole_files import remove

log = logging.getLogger(__name__)

REDUCE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
STEPS = ("training_step", "validation_step", "test_step")
#: Settings of Lightning's FSDPStrategy that have no meaning here, and what has.
ELSEWHERE = {
    "auto_wrap_policy": "the LightningModule's shard_units names the layers",
    "mixed_precision": "set --trainer.precision 16-mixed, and reduce_dtype here",
    "activation_checkpointing": "set --model.activation_checkpointing",
    "activation_checkpointing_policy": "set --model.activation_checkpointing",
    "use_orig_params": "parameters always keep their names and shapes",
}


class FSDPStrategy(LightningFSDPStrategy):
    """Spreads weights, gradients and optimizer state over the processes.

    Args:
        sharding_strategy: zero3 (weights, gradients and optimizer state), zero2 (weights stay gathered from forward to
            backward: faster, and the whole model in fp16 must fit), none (every process holds everything), hybrid
            (a copy on each machine), or Lightning's names of these: FULL_SHARD, SHARD_GRAD_OP, NO_SHARD, HYBRID_SHARD.
        reduce_dtype: dtype in which gradients are summed over processes: float32, or float16 for half the traffic.
            Acts where the precision is mixed.
        cpu_offload: shards and optimizer state lie in the machine's memory; the optimizer runs on the CPU.
        device_mesh: [copies, processes that share one] of hybrid; unset: a copy for each machine.
        state_dict_type: checkpoints as a folder to which each process adds its shards (sharded), or as one file (full).
        timeout: longest wait for another process in a step; then the run ends.
        checkpoint_timeout: longest wait for another process while a checkpoint is written.
        process_group_backend: nccl or gloo; unset: what fits the device.
        unsupported: any other setting of Lightning's strategy is refused.
    """

    # More than ten parameters: this constructor is the command line's --trainer.strategy section.
    def __init__(
        self,
        sharding_strategy: str = "zero3",
        reduce_dtype: str = "float32",
        cpu_offload: bool = False,
        device_mesh: tuple[int, int] | None = None,
        state_dict_type: Literal["sharded", "full"] = "sharded",
        timeout: timedelta = timedelta(minutes=10),
        checkpoint_timeout: timedelta = timedelta(minutes=30),
        process_group_backend: str | None = None,
        **unsupported: Any,
    ) -> None:
        for name in unsupported:
            remedy = ELSEWHERE.get(name, "leave it out")
            raise ValueError(f"--trainer.strategy.init_args.{name} is no setting of this FSDPStrategy; {remedy}")
        if reduce_dtype not in REDUCE_DTYPES:
            raise ValueError(
                f"reduce_dtype={reduce_dtype!r} is not one of {list(REDUCE_DTYPES)}; "
                "set --trainer.strategy.init_args.reduce_dtype to one of them"
            )
        if state_dict_type not in ("sharded", "full"):
            raise ValueError(
                f"state_dict_type={state_dict_type!r} is not one of ['sharded', 'full']; "
                "set --trainer.strategy.init_args.state_dict_type to one of them"
            )
        if not isinstance(cpu_offload, bool):
            raise ValueError(
                f"cpu_offload={cpu_offload!r} is not true or false; set --trainer.strategy.init_args.cpu_offload so"
            )
        self.word = sharding_word(sharding_strategy)
        super().__init__(timeout=timeout, process_group_backend=process_group_backend, state_dict_type=state_dict_type)
        self.sharding_strategy = ShardingStrategy[SHARDING[self.word]]
        self.reduce_dtype = REDUCE_DTYPES[reduce_dtype]
        self.offloads = cpu_offload
        self.mesh_shape = device_mesh
        self.checkpoint_timeout = checkpoint_timeout
        self.mesh: DeviceMesh | None = None
        # Two, as a checkpoint may take longer than a step: each waits for its own time.
        self._cpu_group: CPUGroup | None = None
        self._step_group: CPUGroup | None = None

    # ------------------------------------------------------------------- set-up

    @property
    def precision_plugin(self) -> FSDPPrecision:
        plugin = self._precision_plugin
        return plugin if isinstance(plugin, FSDPPrecision) else FSDPPrecision("32-true")

    @precision_plugin.setter
    def precision_plugin(self, precision_plugin: Precision | None) -> None:
        if precision_plugin is not None and not isinstance(precision_plugin, LightningFSDPPrecision):
            raise ValueError(
                f"{type(precision_plugin).__name__} is no precision plugin of FSDPStrategy, which would drop its "
                "settings; set --trainer.precision, or --trainer.plugins vlm_crash.parallel.FSDPPrecision"
            )
        if precision_plugin is not None and not isinstance(precision_plugin, FSDPPrecision):
            # What the Trainer makes of --trainer.precision.
            precision_plugin = FSDPPrecision(precision_plugin.precision)
        self._precision_plugin = precision_plugin

    @property
    def cpu_group(self) -> CPUGroup:
        """The processes, connected through their CPUs; for checkpoints."""
        assert self._cpu_group is not None, "setup_environment() comes first"
        return self._cpu_group

    def setup_environment(self) -> None:
        started = dist.is_initialized()
        if self.num_nodes > 1:
            assert self.cluster_environment is not None
            set_interface(self.cluster_environment.main_address)
        super().setup_environment()
        if not started:
            # Lightning ends NCCL groups only; a gloo group left alive can abort the interpreter as it exits.
            atexit.register(_end_groups)
        self.mesh = make_mesh(self.word, self.root_device.type, self.world_size, self.num_nodes, self.mesh_shape)
        assert self._timeout is not None
        self._cpu_group = CPUGroup(self.checkpoint_timeout)
        self._step_group = CPUGroup(self._timeout)

    def setup(self, trainer: Trainer) -> None:
        assert self.accelerator is not None
        module = self.lightning_module
        assert module is not None and self.mesh is not None
        if trainer.state.fn == TrainerFn.PREDICTING:
            raise ValueError(
                "FSDPStrategy trains and scores, it does not predict; set --trainer.strategy auto: a model of 8 "
                "billion parameters predicts on one card of 24 GB (fp16)"
            )
        if self._layer_sync is not None:
            raise ValueError("--trainer.sync_batchnorm has no effect under FSDPStrategy; leave it out")
        if trainer.state.fn == TrainerFn.FITTING and self.num_nodes > 1:
            check_shared_folder(Path(trainer.default_root_dir), self.cpu_group)
        self.accelerator.setup(trainer)
        if not isinstance(module, FSDPModule):
            self._shard(module, self.mesh)
        _move_torchmetrics_to_device(module, self.root_device)
        self.model = module
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _shard(self, module: LightningModule, mesh: DeviceMesh) -> None:
        precision = self.precision_plugin
        is_cuda = self.root_device.type == "cuda"
        shard_module(
            module,
            unit_names=getattr(module, "shard_units", ()),
            mesh=mesh,
            reshard_after_forward=self.word in ("zero3", "hybrid"),
            offload_policy=CPUOffloadPolicy(pin_memory=is_cuda) if self.offloads else OffloadPolicy(),
            policy=lambda is_fp32: precision.policy(self.reduce_dtype, is_fp32),
            fp32_names=getattr(module, "fp32_modules", ()),
        )
        for step in STEPS:
            register_fsdp_forward_method(module, step)
        if any(parameter.is_meta for parameter in module.parameters()):
            self._fill(module)

    def _fill(self, module: LightningModule) -> None:
        """Memory for the shards of a module that was made without, and its own values."""
        fill_weights = getattr(module, "fill_weights", None)
        if fill_weights is None:
            raise ValueError(
                f"{type(module).__name__} was made on the meta device and has no fill_weights(device): give its "
                "parameters values before the Trainer takes it, or write that method to read each process' part"
            )
        fill_weights(torch.device("cpu") if self.offloads else self.root_device)
        for buffer in module.buffers():  # they are not offloaded
            buffer.data = buffer.data.to(self.root_device)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Over a CPU group: no GPU waits for it."""
        assert self._step_group is not None, "setup_environment() comes first"
        return not self._step_group.any(not decision) if all else self._step_group.any(decision)

    def barrier(self, name: str | None = None) -> None:
        """Over the CPU group: needs no index of a GPU, and may take as long as a checkpoint of one file does."""
        if self._cpu_group is not None:
            self._cpu_group.barrier()

    # -------------------------------------------------------------- checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Shards (sharded), or on the first process whole tensors on the CPU (full)."""
        assert self.model is not None
        if self._state_dict_type == "sharded":
            return checkpoints.model_tensors(self.model)
        return self.gather_model()

    def gather_model(self) -> dict[str, Tensor]:
        """The module's whole tensors on the CPU of the first process; nothing on the others. All must call."""
        assert self.model is not None
        return self.cpu_group.gather_dict(self.model.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer._optimizer
        assert self.model is not None
        tensors = checkpoints.optimizer_tensors(self.model, optimizer)
        rest = checkpoints.optimizer_rest(self.model, optimizer)
        if self._state_dict_type == "sharded":
            return {"tensors": tensors, "rest": rest}
        whole = self.cpu_group.gather_dict(tensors)
        return checkpoints.numbered(rest, whole) if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise ValueError("storage_options have no effect here: checkpoints are local files; leave them out")
        path = Path(self.broadcast(str(filepath)))
        if self._state_dict_type == "full":
            if self.is_global_zero:
                self.checkpoint_io.save_checkpoint(checkpoint, path)
            self.cpu_group.barrier()  # the others would wait for the first one's disk with the time-out of a step
            return
        tensors = {f"model.{name}": value for name, value in checkpoint.pop("state_dict").items()}
        rests = []
        for number, state in enumerate(checkpoint.pop("optimizer_states", ())):
            tensors |= {f"optimizer_{number}.state.{name}": value for name, value in state["tensors"].items()}
            rests.append(state["rest"])
        if rests:
            checkpoint[checkpoints.OTHERS] = rests
        checkpoints.save_shards(tensors, checkpoint, path, self.cpu_group, self.is_global_zero)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        module = self.lightning_module
        assert module is not None
        stored = checkpoints.Stored(Path(self.broadcast(str(checkpoint_path))), self.cpu_group)
        checkpoints.load_model(stored, module, strict=module.strict_loading)
        if module.trainer.state.fn == TrainerFn.FITTING and self.optimizers:
            checkpoints.load_optimizers(stored, module, self.optimizers)
        return stored.rest

    def remove_checkpoint(self, filepath: Any) -> None:
        if self.is_global_zero:
            remove(Path(filepath))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Nothing: load_checkpoint did it."""

    def setup_optimizers(self, trainer: Trainer) -> None:
        self._reset_optimizers_and_schedulers()
        Strategy.setup_optimizers(self, trainer)


def _end_groups() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
