"""Trained adapters on disk, alone and merged into their base.

Enters: adapters by their names in the model, the folder of their base. Leaves: a folder in peft's format; the weights
of a model without adapters that computes the same. Invariants: adapters meet no other base than the one that they were
trained beside; a merged weight is W + alpha / rank B A, summed in fp32; memory is that of one tensor.
"""

import errno
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import InternVLConfig

from vlm_crash.models.folder import is_original, read_config, read_json
from vlm_crash.models.lora import ADAPTER, PROJECTOR, LoraSettings
from vlm_crash.models.lora_layers import trained_shapes
from vlm_crash.models.lora_record import check_base, check_settings, settings_of
from vlm_crash.models.saving import AS_STORED, DTYPES, cast
from vlm_crash.models.weights import EMBEDDING, HEAD, Weights, folder_weights

log = logging.getLogger(__name__)

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_BEFORE = "base_model.model."  # what peft puts before a module's name


def fingerprint(folder: Path) -> str:
    """Of a folder's weights: equal in either layout and after a move, another after any training.

    From names, shapes and a middle row of every tensor; a few MiB are read.
    """
    config = read_config(folder)
    found = hashlib.sha256()
    with folder_weights(folder, config, is_original(folder)) as weights:
        for name in sorted(set(weights.shapes) - ({HEAD} if config.tie_word_embeddings else set())):
            found.update(f"{name} {weights.shapes[name]}".encode())
            row = weights.row(name, weights.shapes[name][0] // 2)
            found.update(row.float().contiguous().numpy().tobytes())
    return found.hexdigest()


class Merged:
    """Weights of a base with adapters added, read as they are asked for.

    Args:
        base: the weights without.
        trained: adapters and whole tensors, by their names in the model.
        settings: of the adapters.
        dtype: float16, bfloat16, float32, or as_stored: that of each tensor of the base.
    """

    def __init__(self, base: Weights, trained: Weights, settings: LoraSettings, dtype: str = AS_STORED) -> None:
        self.base, self.trained, self.settings, self.dtype = base, trained, settings, dtype
        self.shapes = base.shapes
        self.dtypes = base.dtypes if dtype == AS_STORED else dict.fromkeys(base.shapes, DTYPES[dtype])

    def read(self, name: str) -> Tensor:
        stem = name.removesuffix(".weight")
        a, b = (f"{stem}.lora_{letter}.{ADAPTER}.weight" for letter in "AB")
        if name in self.trained.shapes:
            before, value = self.base.read(name), self.trained.read(name).cpu().float()
        elif a in self.trained.shapes:
            before = self.base.read(name)
            low_RI, high_OR = (self.trained.read(part).cpu().float() for part in (a, b))
            value = before.float() + high_OR @ low_RI * self.settings.scale
        else:
            return cast(name, self.base.read(name), self.dtype)
        kept = str(before.dtype).removeprefix("torch.") if self.dtype == AS_STORED else self.dtype
        return cast(name, value, kept)


@contextmanager
def merged(
    folder: Path, config: InternVLConfig, trained: Weights, settings: LoraSettings, dtype: str = AS_STORED
) -> Iterator[Merged]:
    """The weights of a base folder with adapters added."""
    with folder_weights(folder, config, is_original(folder)) as base:
        if (dtype if dtype != AS_STORED else str(base.dtypes[EMBEDDING])).endswith("bfloat16"):
            log.warning(
                "merged weights are rounded to bfloat16, which has 8 bits for a number: what the adapters have learnt "
                "can be lost in that; export --dtype float16 (or float32) keeps more"
            )
        yield Merged(base, trained, settings, dtype)


def write_adapter(
    folder: Path, trained: Weights, record: Mapping[str, Any], base: Path, dtype: str = AS_STORED
) -> None:
    """Write adapters into an existing folder, in peft's format; vlm_crash's own record goes along in the file's head.

    Args:
        base: folder that peft is to load them beside.
    """
    settings = settings_of(record)
    whole = [PROJECTOR] if settings.projector else None
    config = settings.peft_config(base_model_name_or_path=str(base), modules_to_save=whole, inference_mode=True)
    config.save_pretrained(str(folder))
    tensors = {
        _BEFORE + name.replace(f".{ADAPTER}.", "."): cast(name, trained.read(name).cpu(), dtype).contiguous()
        for name in trained.shapes
    }
    path = folder / ADAPTER_FILES[1]
    try:
        save_file(tensors, path, metadata={"format": "pt", "vlm_crash": json.dumps(record)})
    except SafetensorError as error:
        raise _as_os_error(error, path) from error


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """safetensors tells the system's error as text.

    >>> error = _as_os_error(SafetensorError("I/O error: No space left on device (os error 28)"), Path("m"))
    >>> error.errno == errno.ENOSPC
    True
    """
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]) if number else errno.EIO, str(error), str(path))


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any] | None]:
    """Tensors by their names in the model, peft's settings, and our record where we wrote it.

    Raises:
        ValueError: it is no folder of an adapter.
    """
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"lora.adapter={str(folder)!r} has no {' and no '.join(missing)}; set --model.lora.adapter to a folder in "
            "peft's format (fit writes one; `export --layout adapter` makes one of a checkpoint)"
        )
    try:
        with safe_open(folder / ADAPTER_FILES[1], framework="pt") as file:
            names = {key: key.removeprefix(_BEFORE) for key in file.keys()}  # noqa: SIM118 - no mapping
            tensors = {_as_module(name): file.get_tensor(key) for key, name in names.items()}
            record = json.loads((file.metadata() or {}).get("vlm_crash", "null"))
    except SafetensorError as error:
        raise ValueError(f"{folder / ADAPTER_FILES[1]} cannot be read ({error}); copy the folder again") from error
    return tensors, read_json(folder / ADAPTER_FILES[0]), record


def _as_module(name: str) -> str:
    """peft's name of an adapter's tensor -> its name in the model."""
    for part in ("lora_A", "lora_B"):
        name = name.replace(f".{part}.weight", f".{part}.{ADAPTER}.weight")
    return name


@torch.no_grad()
def load_adapter(model: nn.Module, settings: LoraSettings, folder: Path, base: Path, weights: str) -> dict[str, Any]:
    """Fill a model's adapters from a folder in peft's format.

    Args:
        model: with adapters by these settings.
        base: folder of the model, of this fingerprint.

    Returns:
        the form that they were trained with: its `schema` and `terms`, as far as the folder says.

    Raises:
        ValueError: another rank, scale, base or set of layers.
    """
    tensors, said, record = read_adapter(folder)
    if record is not None:
        check_settings(record, settings, folder)
        check_base(record, base, weights, folder)
    for key, name, asked in (("r", "rank", settings.rank), ("lora_alpha", "alpha", settings.scale * settings.rank)):
        if said.get(key) != asked:
            raise ValueError(f"{folder} has {name} {said.get(key)}, not {asked}; set --model.lora.{name} to that")
    mine = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    other = sorted(
        name
        for name in mine.keys() | tensors.keys()
        if name not in mine or name not in tensors or mine[name].shape != tensors[name].shape
    )
    if other:
        raise ValueError(
            f"{folder} has adapters of {len(tensors)} tensors and this run of {len(mine)}, {len(other)} of them differ "
            f"(first: {other[0]}); set --model.lora.towers, targets and projector as they were"
        )
    for name, parameter in mine.items():
        parameter.copy_(tensors[name])
    return (record or {}).get("form") or {}


def check_trained(config: InternVLConfig, settings: LoraSettings, trained: Weights, path: Path, base: Path) -> None:
    """Refuse a checkpoint whose tensors are not those that its record says.

    Raises:
        ValueError: names the first.
    """
    wanted = trained_shapes(config, settings)
    other = sorted(
        name for name in wanted.keys() | trained.shapes.keys() if wanted.get(name) != trained.shapes.get(name)
    )
    if other:
        raise ValueError(
            f"{path} is a checkpoint of another model than {base}: {len(other)} tensors differ (first: {other[0]}); "
            "set --model to the folder that it was trained beside"
        )
