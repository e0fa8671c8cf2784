"""What one process of a multi-process test does: `python -m tests.parallel.worker CHECK OUT ARGUMENT...`."""

import os
import sys
import time
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy

from tests.parallel import stock
from tests.parallel.journey import travel
from tests.parallel.micro import Micro, precision_plugin, train, validate
from vlm_crash.models.decoding import greedy_answers
from vlm_crash.models.vision import embed_prompt
from vlm_crash.parallel import FSDPPrecision, FSDPStrategy
from vlm_crash.parallel.gathering import CPUGroup
from vlm_crash.parallel.shards import local_part
from vlm_crash.parallel.whole_files import standing

WORLD = int(os.environ["WORLD_SIZE"])
RANK = int(os.environ["RANK"])

STEPS = 17  # of four clips, three an epoch: ten after step 7

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
        plugin = precision_plugin(precision, init_scale=2.0**10)
        record, _, _ = train(Path(folder), FSDPStrategy(**settings), None, WORLD, plugins=plugin, **options)
        found[name] = {"losses": record.losses, "norms": record.norms}
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
        def __init__(self) -> None:
            super().__init__("16-mixed")
            self.scaler = Plain("cpu", init_scale=2.0**10)  # type: ignore[assignment]

    plant = Plant(at=2)
    train(
        Path(folder),
        FSDPStrategy(),
        None,
        WORLD,
        callbacks=(plant,),
        steps=4,
        plugins=PlainPrecision(),
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
        "late": stock.late(),
    }  # fmt: skip


class Uneven(Micro):
    """Answers that end at once on the first process and never on the others."""

    lengths: tuple[int, ...] = ()

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        prompt = (self.model, embed_prompt(self.model, batch.input_ids_BS, batch.pixel_values_N3HW))
        openings = [[6, 7], [8, 9]]
        first = greedy_answers(*prompt, batch.attention_mask_BS, openings, 1, -1).token_ids[0][0]
        end = first if RANK == 0 else -1
        answers = greedy_answers(*prompt, batch.attention_mask_BS, openings, 6, end, self._any_process)
        self.lengths += (len(answers.token_ids[0]),)
        return super().validation_step(batch, batch_idx)


def validation(folder: str) -> dict[str, Any]:
    """Five clips on two processes; how long each answer was, and the loss."""
    module = Uneven(Path(folder))
    loss = validate(module, FSDPStrategy(), WORLD)
    group = CPUGroup(timedelta(seconds=2))
    start = time.monotonic()
    try:
        if RANK == 0:
            group.gather_dict({"a.weight": module.model.lm_head.weight})
        else:
            time.sleep(6)
        error = ""
    except RuntimeError as failure:
        error = str(failure)
    return {"loss": loss, "lengths": module.lengths, "error": error, "seconds": time.monotonic() - start}


class Named(ModelCheckpoint):
    """So that a run may have several."""

    @property
    def state_key(self) -> str:
        return f"{super().state_key} {self.filename}"


def every(folder: Path, name: str, **options: Any) -> ModelCheckpoint:
    return Named(dirpath=folder, filename=name + "{step}", auto_insert_metric_name=False, **options)


def resume(model: str, prepared: str, out: str) -> dict[str, Any]:
    """A run with checkpoints at every kind of place, and runs that go on from each."""
    folder, found = Path(out), {}
    for kind in ("sharded", "full"):
        run = partial(travel, Path(model), Path(prepared), world=WORLD, steps=STEPS, kind=kind)
        saved = folder / kind
        saves = (
            every(saved, "step", every_n_train_steps=1, save_top_k=-1),
            every(saved, "validation", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=False),
            every(saved, "epoch", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True),
        )
        found[f"{kind} whole"] = run(out=folder / f"{kind} whole", saves=saves)
        places = ("step7", "step8", "step6", "validation6", "epoch6") if kind == "sharded" else ("step7",)
        for place in places:
            at = folder / f"{kind} {place}"
            found[f"{kind} {place}"] = run(out=at, ckpt_path=saved / f"{place}.ckpt")
    try:
        saves = (every(folder, "weights", every_n_train_steps=1, save_weights_only=True),)
        travel(Path(model), Path(prepared), folder / "weights run", WORLD, steps=1, saves=saves)
        travel(Path(model), Path(prepared), folder / "w", WORLD, steps=2, ckpt_path=folder / "weights1.ckpt")
    except ValueError as error:
        found["weights only"] = str(error)
    at = folder / "workers"
    found["workers"] = run(out=at, ckpt_path=folder / "sharded/step7.ckpt", kind="sharded", num_workers=2)
    for precision in ("32-true", "16-mixed"):
        saves = (every(folder / precision, "step", every_n_train_steps=7, save_top_k=-1),)
        at = folder / f"{precision} whole"
        found[precision] = run(out=at, kind="sharded", precision=precision, saves=saves)
    return found


def keep_going(model: str, prepared: str, out: str) -> None:
    """A run that saves after every step, always under the same name, and goes on from what is there."""
    last = Path(out) / "last.ckpt"
    found = last if standing(last).exists() else None
    saves = (every(Path(out), "last", every_n_train_steps=1, enable_version_counter=False),)
    saves[0].filename = "last"
    travel(Path(model), Path(prepared), Path(out), world=WORLD, steps=STEPS, ckpt_path=found, saves=saves)


def resume_elsewhere(model: str, prepared: str, out: str, saved: str) -> dict[str, Any]:
    """Runs on another number of processes that go on from step 7."""
    found: dict[str, Any] = {}
    run = partial(travel, Path(model), Path(prepared), world=WORLD, steps=STEPS)
    for precision in ("32-true", "16-mixed"):
        path = Path(saved) / precision / "step7.ckpt"
        at = Path(out) / f"{WORLD} {precision}"
        found[precision] = run(out=at, precision=precision, ckpt_path=path)
    if WORLD == 1:
        path = Path(saved) / "32-true/step7.ckpt"
        found["plain"] = run(out=Path(out) / "plain", strategy=SingleDeviceStrategy("cpu"), ckpt_path=path)
    return found


def on_gpus(folder: str) -> dict[str, Any]:
    """Twenty steps in fp16 on GPUs, what one of them ran, and the weights, gathered over the CPU group."""
    profiled = Profiled()
    plugin = FSDPPrecision("16-mixed", init_scale=2.0**10)
    options = {"attention": "math", "activation_checkpointing": True, "vision_chunk": 1}
    record, module, trainer = train(
        Path(folder), FSDPStrategy(), None, WORLD, callbacks=(profiled,), plugins=plugin, accelerator="gpu", **options
    )
    strategy: Any = trainer.strategy
    return {
        "losses": record.losses, "counts": profiled.counts, "weights": strategy.gather_model(),
        "local": {name: value.to_local().cpu() for name, value in module.state_dict().items()},
    }  # fmt: skip


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    check, out, *arguments = sys.argv[1:]
    result = globals()[check](*arguments)
    torch.save(result, Path(out) / f"{RANK}.pt")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
