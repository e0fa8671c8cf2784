"""What one process of a multi-process test does: `python -m tests.parallel.worker CHECK OUT ARGUMENT...`."""

import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.parallel import on_gpu, scoring, stock, travels
from tests.parallel.left_out import left_out  # noqa: F401 - a check
from tests.parallel.micro import Plant, Profiled, precision_plugin, steps_of, train
from tests.parallel.place import RANK, WORLD
from tests.parallel.quarantine import clips_found  # noqa: F401 - a check
from tests.parallel.sentinel import sentinel  # noqa: F401 - a check
from vlm_crash.cli import main as main_of_the_program
from vlm_crash.data.collate import PackCollator
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.internvl import tower_of, weights_later
from vlm_crash.parallel import AgreedGradScaler, FSDPPrecision, FSDPStrategy
from vlm_crash.parallel.sharding import make_mesh
from vlm_crash.parallel.shards import local_part

#: name -> (settings of the strategy, precision, options of the run)
RUNS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "zero3": ({"sharding_strategy": "zero3"}, "32-true", {}),
    "zero2": ({"sharding_strategy": "zero2"}, "32-true", {}),
    "none": ({"sharding_strategy": "none"}, "32-true", {}),
    "hybrid": ({"sharding_strategy": "hybrid", "device_mesh": (2, WORLD // 2)}, "32-true", {}),
    "offload": ({"cpu_offload": True}, "32-true", {}),
    "later": ({}, "32-true", {}),
    "later, offload": ({"cpu_offload": True}, "32-true", {}),
    "checkpointed": ({}, "32-true", {"activation_checkpointing": True, "vision_chunk": 1}),
    "one tower checkpointed": ({}, "32-true", {"activation_checkpointing": ["language"]}),
    "frozen": ({}, "32-true", {"freeze": ["vision"]}),
    "packed": ({}, "32-true", {"collate": PackCollator(10**6), "activation_checkpointing": True}),
    "fp16 zero3": ({}, "16-mixed", {}),
    "fp16 zero2": ({"sharding_strategy": "zero2"}, "16-mixed", {}),
    "fp16 reduced in fp16": ({"reduce_dtype": "float16"}, "16-mixed", {}),
    "fp16 checkpointed": ({}, "16-mixed", {"activation_checkpointing": True, "vision_chunk": 1}),
    "fp16 none": ({"sharding_strategy": "none"}, "16-mixed", {}),
    "fp16 hybrid": ({"sharding_strategy": "hybrid", "device_mesh": (2, WORLD // 2)}, "16-mixed", {}),
    "fp16 offload": ({"cpu_offload": True}, "16-mixed", {}),
    "fp16 packed": ({}, "16-mixed", {"collate": PackCollator(10**6)}),
}
if WORLD == 2:
    RUNS["accumulated"] = ({}, "32-true", {"accumulate": 2})


def numbers(folder: str, *names: str) -> dict[str, dict[str, list[float]]]:
    """Runs, by name."""
    found = {}
    for name in names:
        settings, precision, options = RUNS[name]
        plugin = precision_plugin(precision, init_scale=2.0**10)
        with weights_later() if name.startswith("later") else nullcontext():
            options = {"steps": steps_of(name, WORLD), **options}
            record, _, _ = train(Path(folder), FSDPStrategy(**settings), None, WORLD, plugins=plugin, **options)
        found[name] = {"losses": record.losses, "norms": record.norms}
    return found


def meshes() -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape of each kind's mesh over two machines, and how many processes share a copy."""
    dist.init_process_group("gloo")
    found = {}
    for word in ("zero3", "zero2", "none", "hybrid"):
        mesh = make_mesh(word, "cpu", WORLD, num_nodes=2)
        found[word] = (tuple(mesh.shape), mesh["shard"].size())
    return found


def overflow(folder: str) -> dict[str, Any]:
    """A planted overflow, with our scaler, and with one that does not ask the others; overflows of too high a start."""
    plant = Plant(at=2)
    plugin = FSDPPrecision("16-mixed", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))
    record, module, trainer = train(
        Path(folder), FSDPStrategy(), None, WORLD, callbacks=(plant,), steps=5, plugins=plugin
    )
    high = Plant(at=-1)
    start = FSDPPrecision("16-mixed", scaler=AgreedGradScaler(init_scale=2.0**28))
    train(Path(folder), FSDPStrategy(), None, WORLD, callbacks=(high,), steps=16, plugins=start)
    return {
        "scales": plant.scales, "moved": plant.moved, "rates": record.rates, "skipped": plugin.num_skipped,
        "steps": trainer.global_step, "plain": plain_scaler(folder),
        "buffers": {buffer.dtype for buffer in module.buffers() if buffer.is_floating_point()},
        "kinds": {name: planted(folder, settings) for name, settings in KINDS.items()},
        "high": {"scales": high.scales, "moved": high.moved, "skipped": start.num_skipped},
    }  # fmt: skip


#: Of sharding, beside zero3.
KINDS: dict[str, dict[str, Any]] = {
    "zero2": {"sharding_strategy": "zero2"}, "none": {"sharding_strategy": "none"},
    "hybrid": {"sharding_strategy": "hybrid", "device_mesh": (2, WORLD // 2)}, "offload": {"cpu_offload": True},
}  # fmt: skip


def planted(folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A planted overflow under another kind of sharding."""
    plant, plugin = Plant(at=1), FSDPPrecision("16-mixed", init_scale=2.0**10)
    train(Path(folder), FSDPStrategy(**settings), None, WORLD, callbacks=(plant,), steps=4, plugins=plugin)
    return {"scales": plant.scales, "moved": plant.moved, "skipped": plugin.num_skipped}


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


def kernels(folder: str) -> dict[str, dict[str, int]]:
    """What one step runs, by kind of sharding and attention."""
    found = {}
    for name, settings, options in (
        ("zero3", {}, {"attention": "math"}),
        ("zero2", {"sharding_strategy": "zero2"}, {"attention": "math"}),
        ("math checkpointed", {}, {"attention": "math", "activation_checkpointing": True}),
        ("language checkpointed", {}, {"attention": "math", "activation_checkpointing": ["language"]}),
        ("auto checkpointed", {}, {"attention": "auto", "activation_checkpointing": True}),
        ("math in chunks", {}, {"attention": "math", "vision_chunk": 1}),
    ):
        profiled = Profiled()
        train(Path(folder), FSDPStrategy(**settings), "16-mixed", WORLD, callbacks=(profiled,), steps=2, **options)
        found[name] = profiled.counts
    return found


RATES = {"vision": 1e-3, "projector": 2e-3, "language": 3e-3}


def towers(folder: str) -> dict[str, dict[str, float]]:
    """How far the weights of each tower go at most in AdamW's first step, by what is frozen; on the first process."""
    found = {}
    rates = {f"lr_{tower}": rate for tower, rate in RATES.items()}
    for freeze in ([], ["vision"], ["projector"], ["vision", "language"]):
        module = CrashVLM(
            Path(folder), embedder=None, num_validation_answers=0, warmup_ratio=0.0, freeze=freeze, **rates
        )
        before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        plugin = FSDPPrecision("16-mixed", init_scale=2.0**10)
        _, _, trainer = train(
            Path(folder), FSDPStrategy(), None, WORLD, steps=1, clip=0.0, plugins=plugin, module=module
        )
        farthest = dict.fromkeys(RATES, 0.0)
        for name, weight in trainer.strategy.gather_model().items():
            if name in before:
                went = float((weight - before[name]).abs().max())
                farthest[tower_of(name)] = max(farthest[tower_of(name)], went)
        found[" ".join(freeze)] = farthest
    return found


def command_line(*arguments: str) -> int:
    """The program's exit code, started on each process as torchrun does."""
    return main_of_the_program(list(arguments))


def traps() -> dict[str, Any]:
    """What ours and the stock classes do at the traps."""
    return {
        "ours": stock.ours(), "fsdp1": stock.fsdp1(), "lightning": stock.lightnings(),
        "our moments": stock.our_optimizer(), "fsdp1 moments": stock.fsdp1_optimizer(),
        "late": stock.late(), "barriers": stock.barriers(), "mixed": stock.mixed(),
    }  # fmt: skip


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    check, out, *arguments = sys.argv[1:]
    places = (globals(), vars(scoring), vars(travels), vars(on_gpu))
    result = next(place[check] for place in places if check in place)(*arguments)
    torch.save(result, Path(out) / f"{RANK}.pt")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
