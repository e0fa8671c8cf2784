"""A config of fit -> the numbers that memory depends on.

Enters: the config as a nested dict. Leaves: a PlannedRun. Invariant: what fit would refuse is refused here with the
option's name, as far as it concerns memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_crash.parallel.memory_shapes import Setting, Shape

DEFAULT_GPUS = 8
DEFAULT_FRAMES = 32
TOWERS = ("vision", "projector", "language")
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}
PRECISIONS = {"16-mixed": 2, "bf16-mixed": 2, "32-true": 4, "32": 4, "None": 4}
#: Lightning's names (parallel/sharding.py has them beside torch, which is not loaded here; a test compares).
WORDS = {"FULL_SHARD": "zero3", "SHARD_GRAD_OP": "zero2", "NO_SHARD": "none", "HYBRID_SHARD": "hybrid"}
#: As models/lora.py names them.
KINDS = {
    "attention": ("q_proj", "k_proj", "v_proj", "projection_layer", "o_proj"),
    "mlp": ("fc1", "fc2", "gate_proj", "up_proj", "down_proj"),
}


@dataclass(frozen=True)
class PlannedRun:
    """A run that is planned.

    Args:
        model: its name, or its folder.
        shape: of the model.
        setting: of the run.
        world_size: processes.
        num_nodes: machines that they are on.
        precision: as it is given.
        notes: what was assumed.
    """

    model: str
    shape: Shape
    setting: Setting
    world_size: int
    num_nodes: int
    precision: str
    notes: Sequence[str]


def read_setting(
    config: Mapping[str, Any], gpus: int | None, text_tokens: int | None, label_tokens: int | None
) -> PlannedRun:
    """What a config says of memory.

    Raises:
        ValueError: a value that cannot be, by its option.
    """
    from vlm_crash.parallel.memory_shapes import LABEL_TOKENS, TEXT_TOKENS, Setting

    model, data, trainer = (dict(config.get(name) or {}) for name in ("model", "data", "trainer"))
    notes: list[str] = []
    world = _world_size(trainer, gpus, notes)
    name, shape, own_frames = _model(model.get("path"), notes)
    labels = _least("label_tokens", label_tokens if label_tokens is not None else LABEL_TOKENS, 1)
    text = _least("text_tokens", text_tokens if text_tokens is not None else max(TEXT_TOKENS, labels), labels)
    given = data.get("num_frames")
    frames = (own_frames or DEFAULT_FRAMES) if given is None else given
    precision, width = _precision(trainer)
    chunk = model.get("vision_chunk")
    is_packed = data.get("batching") == "packed"
    sharding = _strategy(trainer, world)
    setting = Setting(
        num_frames=_least("data.num_frames", frames, 1),
        compute_width=width,
        checkpointed=_checkpointed(model.get("activation_checkpointing", False)),
        vision_chunk=None if chunk is None else _least("model.vision_chunk", chunk, 1),
        batch_size=_least("data.batch_size", data.get("batch_size", 1), 1),
        freeze=_towers("model.freeze", model.get("freeze") or []),
        accumulate=_least("trainer.accumulate_grad_batches", trainer.get("accumulate_grad_batches", 1), 1),
        text_tokens=text,
        label_tokens=labels,
        kernel=_kernel(model.get("attention", "math"), notes),
        is_cpu=trainer.get("accelerator") == "cpu",
        **sharding,
        **_lora(model.get("lora"), width if sharding["word"] in ("plain", "ddp") else 4),
    )
    setting = replace(
        setting,
        batch_size=_clips(data, setting.batch_size, setting.num_tokens(shape), notes),
        is_padded=setting.batch_size > 1 and not is_packed,
        is_packed=is_packed,
    )
    if not any(setting.trains(tower) for tower in TOWERS) and not setting.lora_rank:
        raise ValueError(f"freeze={list(TOWERS)} leaves nothing to train; leave one of them out of --model.freeze")
    return PlannedRun(name, shape, setting, world, trainer.get("num_nodes", 1), precision, notes)


def _clips(data: Mapping[str, Any], batch_size: int, num_tokens: int, notes: list[str]) -> int:
    """Clips of a batch; of a pack, as many of the longest as its tokens hold."""
    batching, tokens = data.get("batching", "padded"), data.get("pack_tokens")
    if batching not in ("padded", "grouped", "packed"):
        kinds = ["padded", "grouped", "packed"]
        raise ValueError(f"batching={batching!r} is not one of {kinds}; set --data.batching to one of them")
    if batching != "packed":
        if tokens is not None:
            raise ValueError(f"pack_tokens={tokens} has no effect with batching={batching!r}; leave it out")
        return batch_size
    most = _least("data.pack_tokens", tokens, num_tokens) if tokens is not None else batch_size * num_tokens
    clips = -(-most // num_tokens)
    notes.append(
        f"packs of {most:,} tokens are planned as {clips} whole clips at once, {num_tokens:,} tokens each: the most "
        "that they can need, as a pack's attention is computed clip by clip"
    )
    return clips


def _least(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value} is below {least} or no whole number; set --{name} to {least} or more")
    return value


def _world_size(trainer: Mapping[str, Any], gpus: int | None, notes: list[str]) -> int:
    nodes = _least("trainer.num_nodes", trainer.get("num_nodes", 1), 1)
    devices = trainer.get("devices", "auto")
    if gpus is None and isinstance(devices, list):
        gpus = len(devices) * nodes
    elif gpus is None and str(devices).isdigit():
        gpus = int(devices) * nodes
    elif gpus is None:
        gpus = DEFAULT_GPUS
        notes.append(f"trainer.devices is {devices}: planned for {gpus} GPUs; --gpus says another number")
    if gpus < 1 or gpus % nodes:
        raise ValueError(
            f"gpus={gpus} cannot be shared by {nodes} machine(s); set --gpus to 1 or more, a multiple of "
            "trainer.num_nodes"
        )
    return gpus


def _model(path: Any, notes: list[str]) -> tuple[str, Shape, int | None]:
    from vlm_crash.parallel.memory_shapes import NAMED, read_shape

    if path is None:
        notes.append("no --model.path: planned for 8B, which merges the tokens of frames to 16 each")
        path = "8B"
    folder = Path(str(path))
    if str(path) in NAMED and not folder.exists():
        return str(path), NAMED[str(path)], None
    file = folder / "config.json"
    if not file.is_file():
        raise ValueError(
            f"model.path={str(path)!r} is no model folder: {file} does not exist; give a folder with config.json, or "
            f"a size: {', '.join(NAMED)}"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not JSON ({error}); copy the model folder again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object; copy the model folder again")
    return str(path), read_shape(content), (content.get("vlm_crash") or {}).get("num_frames")


def _precision(trainer: Mapping[str, Any]) -> tuple[str, int]:
    plugins = trainer.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        if isinstance(plugin, dict) and "FSDPPrecision" in str(plugin.get("class_path")):
            given = str((plugin.get("init_args") or {}).get("precision"))
            break
    else:
        given = str(trainer.get("precision"))
    if given not in PRECISIONS:
        raise ValueError(
            f"precision={given!r} cannot be planned; set --trainer.precision to one of "
            f"{[name for name in PRECISIONS if name != 'None']}"
        )
    return ("32-true" if given in ("None", "32") else given), PRECISIONS[given]


def _towers(name: str, given: Any) -> frozenset[str]:
    unknown = sorted(set(given) - set(TOWERS)) if isinstance(given, list) else [given]
    if unknown:
        raise ValueError(f"{name}={unknown} are no towers; set --{name} to some of {list(TOWERS)}")
    return frozenset(given)


def _checkpointed(given: Any) -> frozenset[str]:
    if isinstance(given, bool):
        return frozenset({"vision", "language"} if given else ())
    towers = _towers("model.activation_checkpointing", given or [])
    if "projector" in towers:
        raise ValueError("activation_checkpointing=['projector'] is no tower with layers; name vision or language")
    return towers


def _kernel(given: Any, notes: list[str]) -> str:
    if given not in ("math", "efficient", "flash", "auto"):
        raise ValueError(
            f"attention={given!r} is not one of math, efficient, flash, auto; set --model.attention to one"
        )
    if given == "auto":
        notes.append("attention auto is planned as math, which any card can run and which needs most")
        return "math"
    return str(given)


def _strategy(trainer: Mapping[str, Any], world: int) -> dict[str, Any]:
    given = trainer.get("strategy", "auto")
    path = given.get("class_path") if isinstance(given, dict) else given
    if str(path).rsplit(".", 1)[-1] != "FSDPStrategy":
        if path not in ("auto", "ddp", None):
            raise ValueError(
                f"trainer.strategy={path!r} cannot be planned; set --trainer.strategy to "
                "vlm_crash.parallel.FSDPStrategy, ddp or auto"
            )
        return {"word": "plain" if world == 1 else "ddp", "sharers": world}
    init = dict(given.get("init_args") or {}) if isinstance(given, dict) else {}
    word = str(init.get("sharding_strategy", "zero3"))
    word = WORDS.get(word, word)
    if word not in WORDS.values():
        raise ValueError(
            f"sharding_strategy={word!r} is not one of {sorted([*WORDS, *WORDS.values()])}; "
            "set --trainer.strategy.sharding_strategy to one of them"
        )
    reduce_dtype = str(init.get("reduce_dtype", "float32"))
    if reduce_dtype not in WIDTHS:
        raise ValueError(
            f"reduce_dtype={reduce_dtype!r} is not one of {list(WIDTHS)}; set --trainer.strategy.reduce_dtype to one"
        )
    offload = init.get("cpu_offload", False)
    if not isinstance(offload, bool):
        raise ValueError(f"cpu_offload={offload!r} is not true or false; set --trainer.strategy.cpu_offload so")
    is_mixed = PRECISIONS[str(_precision(trainer)[0])] == 2
    return {
        "word": word,
        "sharers": _sharers(word, init.get("device_mesh"), trainer.get("num_nodes", 1), world),
        "reduce_width": WIDTHS[reduce_dtype] if is_mixed else 4,
        "cpu_offload": offload,
    }


def _sharers(word: str, mesh: Any, nodes: int, world: int) -> int:
    if word == "none":
        return 1
    if word != "hybrid":
        return world
    if mesh is None and nodes == 1:
        raise ValueError(
            "sharding_strategy='hybrid' keeps a copy on each machine, and this run has one machine; set "
            "--trainer.strategy.sharding_strategy zero3, --trainer.num_nodes, or --trainer.strategy.device_mesh"
        )
    copies, sharers = mesh or (nodes, world // nodes)
    if copies * sharers != world:
        raise ValueError(
            f"device_mesh=({copies}, {sharers}) is for {copies * sharers} processes, and this run has {world}; "
            "set --trainer.strategy.device_mesh so that the product fits"
        )
    return int(sharers)


def _lora(given: Any, width: int) -> dict[str, Any]:
    """models/lora.py's settings, where there are any; `width`: bytes of a weight that the base is held in by itself."""
    if not given:
        return {}
    names = frozenset(
        layer for target in given.get("targets", ["attention", "mlp"]) for layer in KINDS.get(target, (target,))
    )
    unknown = sorted(names - {layer for layers in KINDS.values() for layer in layers})
    if unknown:
        raise ValueError(
            f"lora.targets={unknown} are no layers; set --model.lora.targets to some of "
            f"{[*KINDS, *(layer for layers in KINDS.values() for layer in layers)]}"
        )
    towers = _towers("model.lora.towers", given.get("towers", ["language"]))
    if "projector" in towers or not towers:
        raise ValueError("lora.towers must be some of ['vision', 'language']; set --model.lora.towers so")
    base = str(given.get("base_dtype", "auto"))
    if base not in (*WIDTHS, "auto"):
        raise ValueError(
            f"lora.base_dtype={base!r} is not one of {['auto', *WIDTHS]}; set --model.lora.base_dtype to one"
        )
    return {
        "lora_rank": _least("model.lora.rank", given.get("rank", 16), 1),
        "lora_targets": names,
        "lora_towers": towers,
        "lora_projector": bool(given.get("projector", True)),
        "base_width": width if base == "auto" else WIDTHS[base],
    }
