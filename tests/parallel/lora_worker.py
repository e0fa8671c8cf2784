"""One process of a sharded run with adapters: `python -m tests.parallel.lora_worker MODEL OUT`."""

import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.parallel.micro import Micro, precision_plugin, train
from vlm_crash.callbacks.model_folder import WholeCheckpoints
from vlm_crash.models.lora import LoraSettings
from vlm_crash.parallel import FSDPStrategy

SETTINGS = LoraSettings(towers=["vision", "language"], rank=4)
STEPS = 6


def module_of(model: Path, **lora: Any) -> Micro:
    """The same adapters on every process."""
    torch.manual_seed(0)
    return Micro(model, lora=replace(SETTINGS, **lora), activation_checkpointing=["language"])


def run(model: Path, out: Path) -> dict[str, Any]:
    """Losses and gradient norms of runs; the first leaves a checkpoint of shards, the second one of a file."""
    world = int(os.environ["WORLD_SIZE"])
    found: dict[str, Any] = {}
    for name, strategy, precision in (
        ("sharded", FSDPStrategy(), "32-true"),
        ("full", FSDPStrategy("zero2", state_dict_type="full"), "32-true"),
        ("fp16", FSDPStrategy(), "16-mixed"),
    ):
        plugin = precision_plugin(precision, init_scale=2.0**10)
        module = module_of(model)
        record, module, trainer = train(
            model, strategy, None, world, steps=STEPS, plugins=[plugin, WholeCheckpoints()], module=module
        )
        trainer.save_checkpoint(out / f"{name}.ckpt")
        found[name] = {"losses": record.losses, "norms": record.norms}
    try:
        train(model, FSDPStrategy(), "16-mixed", world, steps=1, module=module_of(model, base_dtype="float16"))
    except ValueError as error:
        found["refused"] = str(error)
    return found


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    folder, place = map(Path, sys.argv[1:])
    torch.save(run(folder, place), place / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
