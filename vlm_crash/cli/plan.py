"""plan: whether a config fits, said before it is run.

Enters: the config of fit, a number of GPUs and their memory; of the model its config.json alone. Leaves: a table of
peak memory per GPU by part, and what to change where it does not fit. Exit code 0: it fits, 1: it does not.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from vlm_crash.cli.arguments import HelpFormatter, explain, known_keys
from vlm_crash.cli.config_files import find_config, resolve_configs
from vlm_crash.cli.plan_configs import merge, put, read_config
from vlm_crash.cli.plan_settings import DEFAULT_GPUS, read_setting

DOES_NOT_FIT = 1
#: Options of fit that memory depends on, with their types; the config may have all others, too.
OPTIONS: dict[str, tuple[Any, str]] = {
    "model.path": (
        str,
        "A folder (config.json is read), or a size: 1B, 2B, 4B, 8B (16 tokens a frame), 1B-plain .. (256); unset: 8B",
    ),
    "model.attention": (str, "SDPA kernel: math, efficient, flash or auto (planned as math, which needs most)."),
    "model.freeze": (list[str], "Towers that are not trained."),
    "model.activation_checkpointing": (bool | list[str], "Towers that compute activations again."),
    "model.vision_chunk": (int | None, "Frames that go through an attention of the vision tower at once."),
    "model.lora.rank": (int | None, "Rank of LoRA's adapters."),
    "model.lora.targets": (list[str], "Linear layers that get them: attention, mlp, or their names."),
    "model.lora.towers": (list[str], "Towers that get them."),
    "model.lora.projector": (bool, "Whether the projector is trained beside them."),
    "model.lora.base_dtype": (str, "Numbers of the weights beside them: auto, float32, float16 or bfloat16."),
    "data.num_frames": (int | None, "Frames of a clip."),
    "data.batch_size": (int, "Clips of a batch."),
    "data.batching": (str, "padded, grouped or packed."),
    "data.pack_tokens": (int | None, "Tokens that a pack holds; unset: batch_size times the longest clip."),
    "trainer.strategy": (str, "FSDPStrategy's class path, ddp or auto; its options as --trainer.strategy.NAME."),
    "trainer.strategy.sharding_strategy": (str, "zero3, zero2, none or hybrid."),
    "trainer.strategy.reduce_dtype": (str, "In what gradients are summed: float32, float16 or bfloat16."),
    "trainer.strategy.cpu_offload": (bool, "Whether shards and AdamW lie in the machine's memory."),
    "trainer.strategy.device_mesh": (list[int] | None, "[copies, processes that share one] of hybrid."),
    "trainer.precision": (str, "16-mixed, bf16-mixed or 32-true."),
    "trainer.num_nodes": (int, "Machines."),
    "trainer.accumulate_grad_batches": (int, "Batches of an optimizer step."),
}


def build_parser() -> ArgumentParser:
    from vlm_crash.cli import COMMANDS

    parser = ArgumentParser(
        prog="vlm_crash plan",
        description=COMMANDS["plan"][1] + "; `plan predict --help`: the same for answering",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("-c", "--config", type=str, action="append", help="Config of fit; a later one goes over an earlier one.")
    add(
        "--gpus",
        type=int | None,
        help=f"GPUs of all machines; unset: trainer.devices, or {DEFAULT_GPUS} where it says auto.",
    )
    add("--gpu_memory", type=float, default=23.6, help="GiB of one GPU; 24 GB of a TITAN RTX are 23.6.")
    add("--reserve", type=float, default=1.2, help="GiB of it for the CUDA context, NCCL and gaps between blocks.")
    add("--text_tokens", type=int | None, help="Tokens of a clip's question and answer; unset: 900.")
    add("--label_tokens", type=int | None, help="Of these, the answer's; unset: 300.")
    add("--json", type=Path | None, help="File for every figure.")
    for name, (kind, text) in OPTIONS.items():
        # No defaults: what is not given here is the config's.
        metavar = name.rsplit(".", 1)[-1].upper()
        add(f"--{name}", dest=name.replace(".", "__"), metavar=metavar, type=kind | None, help=text)
    return parser


def _config(options: Namespace) -> dict[str, Any]:
    """The sections of fit's configs, one over the other, and the flags over them."""
    merged: dict[str, Any] = {}
    for name in options.config or ():
        merge(merged, read_config(find_config(name)))
    for name in OPTIONS:
        value = options.get(name.replace(".", "__"))
        if value is not None:
            put(merged, name, value)
    return merged


def run(command: str, args: Sequence[str]) -> int:
    """Print the plan."""
    if args and args[0] == "predict":
        from vlm_crash.cli import plan_predict

        return plan_predict.run(command, args[1:])
    parser = build_parser()
    try:
        options = parser.parse_args(resolve_configs(args))
    except ArgumentError as error:
        raise ValueError(str(explain(error, known_keys(parser), command))) from error
    config = _config(options)
    from vlm_crash.cli import plan_text
    from vlm_crash.doctor.machine import memory
    from vlm_crash.parallel.memory_alternatives import alternatives, smallest
    from vlm_crash.parallel.memory_plan import Card, Plan

    for name in ("gpu_memory", "reserve"):
        if not options[name] >= 0 or (name == "gpu_memory" and options[name] == 0):
            raise ValueError(f"{name}={options[name]} is no memory in GiB; set --{name} to a number above 0")
    run_of = read_setting(config, options.gpus, options.text_tokens, options.label_tokens)
    plan = Plan(run_of.shape, run_of.setting, Card(options.gpu_memory, options.reserve))
    found = [] if plan.fits else alternatives(plan, run_of.world_size)
    least = None if plan.fits or found else smallest(plan, run_of.world_size)
    here = memory()
    print(plan_text.page(plan, run_of, found, least, here[0] if here else None))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(plan_text.figures(plan, run_of, found), indent=1) + "\n", encoding="utf-8")
    return 0 if plan.fits else DOES_NOT_FIT
