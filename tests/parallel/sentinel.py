"""What processes of one run do where numbers stop being finite on some of them; worker.py runs it."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from torch import Tensor, nn

from tests.parallel.micro import Micro, train
from vlm_crash.callbacks import OverflowSentinel
from vlm_crash.callbacks.monitoring import of_all_processes
from vlm_crash.callbacks.overflow_sentinel import FILE
from vlm_crash.metrics.confusion import FieldConfusion
from vlm_crash.parallel import FSDPPrecision, FSDPStrategy
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation
from vlm_crash.schema.response import parse, render

WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


class Endless(torch.autograd.Function):
    """As it is; its gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * torch.inf


class EndlessBackward(nn.Module):
    def forward(self, tensor: Tensor) -> Tensor:
        return Endless.apply(nn.functional.silu(tensor))  # type: ignore[no-any-return, no-untyped-call]


def large_weight(module: Micro) -> None:
    """The outputs of fc1 of one layer are too large for fp16; fc2 would bring them back to where they were."""
    mlp = module.model.model.vision_tower.encoder.layer[1].mlp
    with torch.no_grad():
        mlp.fc1.weight.mul_(2e5)
        mlp.fc2.weight.mul_(5e-6)


def endless_backward(module: Micro) -> None:
    module.model.model.language_model.layers[1].mlp.act_fn = EndlessBackward()


def large_patches(module: Micro) -> None:
    with torch.no_grad():
        module.model.model.vision_tower.embeddings.patch_embeddings.projection.weight.mul_(10)


class Brighter(Callback):
    """Pixels of the second batch of a step, on the last process, that come to too much in the first convolution."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if RANK == WORLD - 1 and batch_idx == 3:
            batch.pixel_values_N3HW.mul_(1e4)


class Sum(Callback):
    """A gradient that is infinite once all are summed, on the last process, in one step."""

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step == 1 and RANK == WORLD - 1:
            pl_module.model.lm_head.weight.grad.to_local().view(-1)[0] = torch.inf


def num_hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def run(
    folder: str,
    plant: Callable[[Micro], None] | None = None,
    callbacks: tuple[Callback, ...] = (),
    watch: bool = True,
    scale: float = 2.0**10,
    most: int = 20,
    steps: int = 3,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """A run in fp16 in a folder of its own; its losses, its end, and the lines that the first process has written."""
    with tempfile.TemporaryDirectory() as name:
        before = Path.cwd()
        os.chdir(name)
        try:
            accumulate = options.pop("accumulate", 1)
            module = Micro(Path(folder), **options)
            if plant:
                plant(module)
            plugin = FSDPPrecision("16-mixed", init_scale=scale)
            record: Any = None
            error = ""
            sentinel = (OverflowSentinel(most),) if watch else ()
            try:
                record, _, _ = train(
                    Path(folder), FSDPStrategy(**settings or {}), None, WORLD, plugins=plugin, module=module,
                    callbacks=(*callbacks, *sentinel), steps=steps, accumulate=accumulate,
                )  # fmt: skip
            except (ValueError, SystemExit) as stop:
                error = f"{type(stop).__name__} {stop}"
            lines = [json.loads(line) for line in Path(FILE).read_text().splitlines()] if Path(FILE).exists() else []
        finally:
            os.chdir(before)
    losses = record.losses if record else []
    return {
        "losses": losses,
        "error": error,
        "events": lines,
        "skipped": plugin.num_skipped,
        "hooks": num_hooks(module),
    }


def together() -> dict[str, Any]:
    """What each process has after all have added up: numbers of a log, and a confusion matrix."""
    schema = load_schema()
    terms = schema.event("crash").field("Weather").vocabulary
    truth = Annotation.of(schema, "crash", {"Weather": terms[0]})
    said = Annotation.of(schema, "crash", {"Weather": terms[RANK]})
    confusion = FieldConfusion(schema)
    confusion.update([parse(schema, render(schema, said))], [truth])
    rows = of_all_processes([10.0 * (RANK + 1), 1.0, 2.0, 1.0 * RANK, 1.0], torch.device("cpu"))
    return {"rows": rows.tolist(), "confusion": confusion.compute()["crash/Weather"][0, :2].tolist()}


def sentinel(folder: str) -> dict[str, dict[str, Any]]:
    """Runs by name."""
    mlp = "model.model.vision_tower.encoder.layer.1.mlp"
    high = {"scale": 2.0**26, "steps": 6, "activation_checkpointing": True, "vision_chunk": 1}
    zero2 = {"sharding_strategy": "zero2"}
    # So small that the planted weights stay what they are.
    still: dict[str, Any] = {"plant": large_weight, "lr": 1e-9}
    return {
        "one process": run(folder, large_patches, (Brighter(),), accumulate=2),
        "all": run(folder, **still, most=3, steps=9, activation_checkpointing=True, vision_chunk=1),
        "backward": run(folder, endless_backward, most=2, settings=zero2),
        "sum": run(folder, callbacks=(Sum(),)),
        "watched": run(folder, **high, settings=zero2),
        "not watched": run(folder, **high, settings=zero2, watch=False),
        "island": run(folder, **still, fp32_modules=[mlp]),
        "island, checkpointed": run(folder, **still, fp32_modules=[mlp], activation_checkpointing=True),
        "tower": run(folder, **still, fp32_modules=["vision_tower"], settings=zero2),
        "no plant": run(folder, lr=1e-9),
        "together": together(),
    }
