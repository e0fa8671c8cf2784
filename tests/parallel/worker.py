"""What one process of a multi-process test does: `python -m tests.parallel.worker CHECK OUT ARGUMENT...`."""

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback

from tests.parallel import stock
from tests.parallel.micro import train
from vlm_crash.parallel import FSDPPrecision, FSDPStrategy
from vlm_crash.parallel.shards import local_part

WORLD = int(__import__("os").environ["WORLD_SIZE"])
RANK = int(__import__("os").environ["RANK"])

#: name -> (settings of the strategy, precision, options of the run)
RUNS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "zero3": ({"sharding_strategy": "zero3"}, "32-true", {}),
    "zero2": ({"sharding_strategy": "zero2"}, "32-true", {}),
    "none": ({"sharding_strategy": "none"}, "32-true", {}),
    "hybrid": ({"sharding_strategy": "hybrid", "device_mesh": (2, WORLD // 2)}, "32-true", {}),
    "offload": ({"cpu_offload": True}, "32-true", {}),
    "checkpointed": ({}, "32-true", {"activation_checkpointing": True, "vision_chunk": 1}),
    "one tower checkpointed": ({}, "32-true", {"activation_checkpointing": ["language"]}),
    "frozen": ({}, "32-true", {"freeze": ["vision"]}),
    "fp16 zero3": ({}, "16-mixed", {}),
    "fp16 zero2": ({"sharding_strategy": "zero2"}, "16-mixed", {}),
    "fp16 reduced in fp16": ({"reduce_dtype": "float16"}, "16-mixed", {}),
    "fp16 checkpointed": ({}, "16-mixed", {"activation_checkpointing": True, "vision_chunk": 1}),
}
if WORLD == 2:
    RUNS["accumulated"] = ({}, "32-true", {"accumulate": 2})


def numbers(folder: str, *names: str) -> dict[str, dict[str, list[float]]]:
    """Runs of twenty steps, by name."""
    found = {}
    for name in names:
        settings, precision, options = RUNS[name]
        start = time.perf_counter()
        plugin = FSDPPrecision(precision, init_scale=2.0**10)
        record, _, _ = train(Path(folder), FSDPStrategy(**settings), None, WORLD, plugins=plugin, **options)
        found[name] = {"losses": record.losses, "norms": record.norms}
        print(name, f"{time.perf_counter() - start:.1f} s, {plugin.num_skipped} skipped", flush=True)
    return found


class Plant(Callback):
    """One gradient on one process is infinite after the backward pass of a step; what happens then."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.scales: list[float] = []
        self.moved: list[bool] = []
        self._before: list[torch.Tensor] = []

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step == self.at and RANK == WORLD - 1:
            grads = [local_part(p.grad) for p in pl_module.parameters()]
            next(grad for grad in grads if grad.numel()).view(-1)[0] = torch.inf

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._before = [local_part(p).detach().clone() for p in pl_module.parameters()]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.scales.append(trainer.precision_plugin.scaler.get_scale())
        after = [local_part(p) for p in pl_module.parameters()]
        self.moved.append(any(not torch.equal(x, y) for x, y in zip(self._before, after, strict=True)))


def overflow(folder: str) -> dict[str, Any]:
    """A planted overflow, with our scaler, and with one that does not ask the others."""
    plant = Plant(at=2)
    plugin = FSDPPrecision("16-mixed", init_scale=2.0**10)
    record, _, trainer = train(Path(folder), FSDPStrategy(), None, WORLD, callbacks=(plant,), steps=5, plugins=plugin)
    return {
        "scales": plant.scales, "moved": plant.moved, "rates": record.rates, "skipped": plugin.num_skipped,
        "steps": trainer.global_step, "plain": plain_scaler(folder),
    }  # fmt: skip


def plain_scaler(folder: str) -> dict[str, Any]:
    """The same with torch's GradScaler on the shards of each process."""

    class Plain(torch.amp.GradScaler):
        def _unscale_grads_(self, optimizer: Any, inv_scale: Any, found_inf: Any, allow_fp16: bool) -> Any:
            shards = [local_part(p.grad) for group in optimizer.param_groups for p in group["params"]]
            torch._amp_foreach_non_finite_check_and_unscale_([s for s in shards if s.numel()], found_inf, inv_scale)
            return {found_inf.device: found_inf}

    class PlainPrecision(FSDPPrecision):
        def connect_device(self, device: torch.device) -> None:
            self.scaler = Plain(device.type)  # type: ignore[assignment]

    plant = Plant(at=2)
    train(
        Path(folder),
        FSDPStrategy(),
        None,
        WORLD,
        callbacks=(plant,),
        steps=4,
        plugins=PlainPrecision("16-mixed", 2.0**10),
    )
    return {"scales": plant.scales, "moved": plant.moved}


class Profiled(Callback):
    """Names of what ran in the second step, counted."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._profiler: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
            self._profiler.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            self.counts = {event.key: event.count for event in self._profiler.key_averages()}
            self._profiler = None


def kernels(folder: str) -> dict[str, dict[str, int]]:
    """What one step runs, by kind of sharding and attention."""
    found = {}
    for name, settings, options in (
        ("zero3", {}, {"attention": "math"}),
        ("zero2", {"sharding_strategy": "zero2"}, {"attention": "math"}),
        ("math checkpointed", {}, {"attention": "math", "activation_checkpointing": True}),
        ("auto checkpointed", {}, {"attention": "auto", "activation_checkpointing": True}),
        ("math in chunks", {}, {"attention": "math", "vision_chunk": 1}),
    ):
        profiled = Profiled()
        train(Path(folder), FSDPStrategy(**settings), "16-mixed", WORLD, callbacks=(profiled,), steps=2, **options)
        found[name] = profiled.counts
    return found


def traps() -> dict[str, Any]:
    """What ours and the stock classes do at the traps."""
    return {
        "ours": stock.ours(), "fsdp1": stock.fsdp1(), "lightning": stock.lightnings(),
        "our moments": stock.our_optimizer(), "fsdp1 moments": stock.fsdp1_optimizer(),
    }  # fmt: skip


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    check, out, *arguments = sys.argv[1:]
    result = globals()[check](*arguments)
    torch.save(result, Path(out) / f"{RANK}.pt")
    if dist.is_initialized():
        dist.barrier()


if __name__ == "__main__":
    main()
