"""run.json: what a run's answers come from, as facts and as one id.

Enters: a trainer and a module that are ready to predict. Leaves: the facts, their run id, and in words what differs
between two runs. Must hold: the id follows what could change an answer and nothing else (not the batch size, the
number of processes, where files lie, the order of the clips).
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from vlm_crash.parallel.whole_files import standing
from vlm_crash.video.frame_formats import FRAME_FORMATS

PACKAGES = ("vlm_crash", "torch", "lightning", "transformers", "torchvision", "decord", "av")
#: Settings of the model that can change an answer.
DECIDING = ("init", "attention", "max_new_tokens", "decoding", "load_in")
#: Files of a model folder beside its weights that can.
FOLDER_FILES = ("config.json", "tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json")


def describe_run(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Checkpoint hash, settings, versions, sampling; `run_id` is a hash of what could change an answer."""
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    recipe = datamodule.recipe
    weights = weight_files(pl_module.path, trainer.ckpt_path)  # type: ignore[arg-type]
    weights += _adapter_files(pl_module)
    beside = {path for pattern in FOLDER_FILES for path in Path(str(pl_module.path)).glob(pattern) if path.is_file()}
    facts: dict[str, Any] = {
        "checkpoint": {str(path): _sha256(path) for path in weights},
        "model_folder": {path.name: _sha256(path) for path in sorted(beside)},
        "model": {name: str(value) for name, value in pl_module.hparams.items()},
        "sampling": _sampling(recipe),
        "precision": " ".join(map(str, _precision(trainer, pl_module))),
        "schema": pl_module.schema.fingerprint,  # type: ignore[union-attr]
        "versions": {name: _version(name) for name in PACKAGES},
    }
    if facts["model"].get("init") == "random":
        facts["seed"] = os.environ.get("PL_GLOBAL_SEED")
    if recipe.reader == "torchcodec":  # nobody else's pixels depend on it
        facts["versions"]["torchcodec"] = _version("torchcodec")
    deciding = json.dumps(_deciding(facts), sort_keys=True)
    run_id = hashlib.sha256(deciding.encode()).hexdigest()[:16]
    return {"run_id": run_id, "started": now(), **facts}


def read_run(path: Path, remedy: str) -> dict[str, Any] | None:
    """What a run.json says; None: there is none.

    Args:
        remedy: what one does about one that is broken.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = json.loads(content)
    except ValueError as error:
        where = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{path}{where} is not JSON ({error}); put back a whole one, {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object; put back a whole one, {remedy}")
    return found


def _sampling(recipe: Any) -> dict[str, Any]:
    """How a clip becomes frames; of a cache its format where that changes them."""
    names = ("image_size", "tell_event", "blank_frames", "reader")
    found = {**recipe.remembered, **{name: getattr(recipe, name) for name in names}}
    if found["told_sampling"] == "uniform":  # as before it was told at all: those runs are gone on with
        del found["told_sampling"]
    kept_as = None if recipe.cache is None else recipe.cache.settings.format
    if kept_as is not None and not FRAME_FORMATS[kept_as].is_lossless:
        found["cache_format"] = kept_as
    return found


def _version(name: str) -> str | None:
    """None: not installed (decord is not built for every platform)."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _precision(trainer: Trainer, pl_module: LightningModule) -> tuple[Any, ...]:
    """Of the weights and of the sums, and on what kind of device."""
    computed = trainer.precision_plugin.precision
    return next(pl_module.parameters()).dtype, computed, trainer.strategy.root_device.type


def _adapter_files(pl_module: Any) -> list[Path]:
    """Files of the adapters that the run was given."""
    folder = pl_module.adapters.settings.adapter if getattr(pl_module, "adapters", None) else None
    return [] if folder is None else sorted(path for path in Path(folder).iterdir() if path.is_file())


def now() -> str:
    """The time, as run.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _deciding(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of the facts could change an answer. Where the files lie, and how they would be trained, does not."""
    names = ("model_folder", "sampling", "precision", "schema", "versions", "seed")
    model = facts.get("model", {})
    return {
        "checkpoint": sorted(facts.get("checkpoint", {}).values()),
        "model": {name: model[name] for name in DECIDING if name in model},
        **{name: facts[name] for name in names if name in facts},
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What could change an answer and differs, each as "name: old -> new"."""
    before, after = _flat(_deciding(old)), _flat(_deciding(new))
    return [
        f"{name}: {_short(before.get(name))} -> {_short(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _short(value: Any) -> str:
    """A hash by its first digits, a long question by its first words."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value[:3])) + (", ..." if len(value) > 3 else "") + "]"
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def weight_files(folder: Path, ckpt_path: str | Path | None) -> list[Path]:
    """The files that the weights come from: a model folder's, or a checkpoint, which may be a folder of shards."""
    if ckpt_path is None:
        found = [path for kind in ("*.safetensors", "pytorch_model*.bin") for path in folder.glob(kind)]
    else:
        checkpoint = standing(Path(ckpt_path))
        found = [checkpoint] if checkpoint.is_file() else list(checkpoint.iterdir())
    return sorted(path for path in found if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
