"""What a training config asks of a machine.

Enters: a YAML of fit (or predict). Leaves: Needs. Only what the doctor asks for is read; `fit --print_config` checks
the whole.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_crash.parallel.memory_shapes import read_shape

FSDP = "FSDPStrategy"
#: Of the heads of attention: the vision tower and the language model of 1B; language models of 2B to 8B.
HEAD_SIZES = (64, 128)
#: Name, beside the towers', of the number of parameters that LoRA trains.
TRAINED = "trained"
#: trainer.precision -> kind of numbers.
DTYPES = {"32": "float32", "16": "float16", "bf16": "bfloat16"}
#: Bytes of a trained parameter in a checkpoint that a run goes on from: float32 weights and AdamW's two moments; in
#: training a gradient beside them.
STATE_BYTES, TRAINING_BYTES, WEIGHT_BYTES, IMAGE_BYTES = 12, 16, 4, 4


@dataclass(frozen=True)
class Saves:
    """One ModelCheckpoint: how many it keeps, one more that is being written, and whether of the weights alone."""

    copies: int
    weights_only: bool = False


@dataclass(frozen=True)
class Needs:
    """What is needed; the defaults are those of a run without a config.

    Args:
        source: the config, as it was named; None: there is none.
        accelerator: cpu, gpu, or auto.
        devices: processes on this machine; None: as many as there are GPUs, at least one.
        dtype: of the computation.
        attention: SDPA kernel, or auto.
        offloads: optimizer state lies in the machine's memory.
        shards: each process has a part of the model alone.
        trains: whether checkpoints are written.
        is_distributed: whether there is a strategy for several processes.
        model: folder; None: not said.
        frozen: towers that are not trained.
        lora: settings of adapters that are trained in place of the weights; None: there are none.
        output_dir: where everything is written.
        num_workers, batch_size, num_frames: of the data.
        saves: the checkpoint callbacks.
    """

    source: str | None = None
    accelerator: str = "auto"
    devices: int | None = None
    num_nodes: int = 1
    dtype: str = "float32"
    attention: str = "math"
    offloads: bool = False
    shards: bool = False
    trains: bool = True
    is_distributed: bool = False
    model: str | None = None
    frozen: tuple[str, ...] = ()
    lora: Mapping[str, Any] | None = None
    output_dir: Path = Path("runs/latest")
    num_workers: int = 0
    batch_size: int = 1
    num_frames: int | None = None
    saves: tuple[Saves, ...] = field(default=(Saves(copies=3),))

    def checkpoint_bytes(self, parameters: Mapping[str, int]) -> int:
        """Disk that the checkpoints and the final model folder take at most, with one of each kind being written.

        Args:
            parameters: by tower; of LoRA also those that are trained, as `trained`, which checkpoints hold alone.

        >>> Needs(saves=(Saves(2), Saves(1, weights_only=True))).checkpoint_bytes({"language": 1000})
        32000
        """
        whole, trained = self._counts(parameters)
        held = whole if self.lora is None else trained
        state = WEIGHT_BYTES * held + (STATE_BYTES - WEIGHT_BYTES) * trained
        kept = sum(save.copies * (WEIGHT_BYTES * held if save.weights_only else state) for save in self.saves)
        folders = whole + (0 if self.lora is None else trained)  # the merged model, and the adapters alone
        return kept + WEIGHT_BYTES * folders if self.trains else 0

    def _counts(self, parameters: Mapping[str, int]) -> tuple[int, int]:
        """All parameters of the model, and those that are trained."""
        towers = {name: count for name, count in parameters.items() if name != TRAINED}
        if self.lora is not None:
            return sum(towers.values()), parameters.get(TRAINED, 0)
        return sum(towers.values()), sum(count for name, count in towers.items() if name not in self.frozen)

    def host_bytes(self, parameters: Mapping[str, int], processes: int, on_gpu: bool) -> int:
        """Memory of this machine that weights, gradients and optimizer state take; activations and clips come on top.

        >>> Needs().host_bytes({"language": 1000}, processes=2, on_gpu=True)  # read there, then sent to the cards
        8000
        >>> Needs(shards=True, num_nodes=2).host_bytes({"language": 1000}, processes=8, on_gpu=False)
        12000
        """
        whole, trained = self._counts(parameters)
        trained = trained if self.trains else 0
        resident = WEIGHT_BYTES * whole + (TRAINING_BYTES - WEIGHT_BYTES) * trained
        if self.shards:
            # Each process reads its part where it stays; the first one gathers the model folder when the run ends.
            here = resident // self.num_nodes if self.offloads or not on_gpu else 0
            return here + (WEIGHT_BYTES * whole if self.trains else 0)
        return (WEIGHT_BYTES * whole if on_gpu else resident) * processes

    def batch_bytes(self, side: int, processes: int) -> int:
        """Shared memory for the batches that lie ready: two of each worker (prefetch_factor), of float32 pixels."""
        frames = self.num_frames or 0
        one = IMAGE_BYTES * 3 * side * side * frames * self.batch_size
        return 2 * one * self.num_workers * processes


def read_needs(path: Path, model: str | None = None, output_dir: Path | None = None) -> Needs:
    """The needs of a config; model and output_dir, where given, are those of the command line to come.

    Raises:
        ValueError: it cannot be read, or is no config of fit, validate, test or predict.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(content, dict) or not content.keys() & {"trainer", "model", "data"}:
        raise ValueError(f"{path} has no section trainer, model or data; give a config of fit or predict")
    trainer, settings, data = (_section(content, name, path) for name in ("trainer", "model", "data"))
    strategy = trainer.get("strategy") or "auto"
    word = str(strategy.get("class_path") if isinstance(strategy, dict) else strategy)
    arguments = (strategy.get("init_args") or {}) if isinstance(strategy, dict) else {}
    precision = _precision(trainer).split("-")[0]
    given = settings.get("path") if model is None else model
    return Needs(
        source=path.name,
        accelerator={"cuda": "gpu"}.get(
            str(trainer.get("accelerator", "auto")), str(trainer.get("accelerator", "auto"))
        ),
        devices=_number(trainer.get("devices")),
        num_nodes=_number(trainer.get("num_nodes")) or 1,
        dtype=DTYPES.get(precision, "float32"),
        attention=str(settings.get("attention", "math")),
        offloads=bool(arguments.get("cpu_offload")),
        shards=word.endswith(FSDP),
        trains="max_epochs" in trainer or "max_steps" in trainer or "callbacks" in trainer,
        is_distributed=word.endswith(FSDP) or word.startswith(("ddp", "fsdp")),
        model=None if given is None else str(given),
        frozen=tuple(settings.get("freeze") or ()),
        lora=_section(settings, "lora", path) if settings.get("lora") else None,
        output_dir=output_dir or Path(content.get("output_dir") or Needs.output_dir),
        num_workers=_number(data.get("num_workers")) or 0,
        batch_size=_number(data.get("batch_size")) or 1,
        num_frames=_number(data.get("num_frames")),
        saves=_saves(trainer),
    )


def head_sizes(needs: Needs) -> list[int]:
    """Sizes of attention's heads in the model, by its config.json; without a model that can be read, InternVL2.5's."""
    sizes = set(HEAD_SIZES)
    try:
        content = json.loads((Path(needs.model or "") / "config.json").read_text(encoding="utf-8"))
        shape = read_shape(content)
        sizes = {shape.vision.head_size, shape.language.head_size}
    except (OSError, ValueError, AttributeError, TypeError):
        pass  # what is wrong with the folder is said where its parameters are counted
    return sorted(sizes)


def _section(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise ValueError(f"{path}: {name} is {section!r}, no section with keys; correct it")
    return section


def _precision(trainer: Mapping[str, Any]) -> str:
    """Of the Trainer, or of the precision plugin that stands in its place."""
    plugins = trainer.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        if isinstance(plugin, dict) and "precision" in (plugin.get("init_args") or {}):
            return str(plugin["init_args"]["precision"])
    return str(trainer.get("precision") or "32-true")


def _number(value: Any) -> int | None:
    if isinstance(value, list):
        return len(value)
    return int(value) if str(value).isdigit() else None


def _saves(trainer: Mapping[str, Any]) -> tuple[Saves, ...]:
    """Of the callbacks, or the one that `fit` adds where there is none: the best, the last, and one being written."""
    callbacks = trainer.get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    found = []
    for callback in callbacks:
        if isinstance(callback, dict) and str(callback.get("class_path", "")).endswith("ModelCheckpoint"):
            options = callback.get("init_args") or {}
            copies = _number(options.get("save_top_k", 1)) or 0
            copies += int(bool(options.get("save_last"))) + 1
            found.append(Saves(copies, bool(options.get("save_weights_only"))))
    return tuple(found) or Needs.saves
