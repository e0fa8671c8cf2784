"""What fit leaves behind while it trains -> tensors by their names in the model.

Enters: a .ckpt file, or the folder that sharded training writes (torch.distributed.checkpoint). Leaves: the model's
weights, read as they are asked for, and the settings that were saved with them. A file is read without running code of
it; a sharded folder's own list of tensors is a pickle, which torch's reader trusts: give it folders of your own only.
"""

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from vlm_crash.models.lora import LORA
from vlm_crash.models.weights import HEAD, StateDict, Weights

#: Key of a checkpoint under which the settings of the model folder lie (see models/folder.py).
SETTINGS = "vlm_crash"
# What wrappers put into names: activation checkpointing, torch.compile, FSDP, DDP.
WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.")
META = "meta.pt"  # what Lightning writes beside a sharded checkpoint's tensors
REMEDY = "give a .ckpt file that fit wrote"
#: A tensor that every model has: it shows what stands before the names.
_KNOWN = "model.multi_modal_projector.linear_1.weight"


def read_file(path: Path, device: str = "cpu", remedy: str = REMEDY) -> dict[str, Any]:
    """A checkpoint's content; its tensors are mapped, not copied.

    Args:
        device: "cpu", or "meta" for names and shapes alone.

    Raises:
        ValueError: there is no such file, or it is no checkpoint.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; {remedy}")
    try:
        content: Any = torch.load(path, map_location=device, weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no checkpoint that can be read ({reason}); {remedy}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"{path} has no state_dict; {remedy}")
    return content


class _Sharded:
    """Weights in a folder of torch.distributed.checkpoint, by the keys of its list of tensors."""

    def __init__(self, path: Path, keys: Mapping[str, str], stored: Mapping[str, TensorStorageMetadata]) -> None:
        self.path, self.keys = path, keys
        self.dtypes = {name: stored[key].properties.dtype for name, key in keys.items()}
        self.shapes = {name: tuple(stored[key].size) for name, key in keys.items()}

    def read(self, name: str) -> Tensor:
        tensor = torch.empty(self.shapes[name], dtype=self.dtypes[name])
        dcp.load({self.keys[name]: tensor}, storage_reader=dcp.FileSystemReader(self.path), no_dist=True)
        return tensor


def read_training_checkpoint(path: Path, tied: bool) -> tuple[Weights, dict[str, Any]]:
    """The model's weights (of LoRA: the trained ones) and the settings that were saved with them; of LoRA its record,
    too, under `lora`.

    Args:
        tied: the output embedding is the input embedding, and is left out.

    Raises:
        ValueError: no such checkpoint, or none of a CrashVLM.
    """
    if not path.is_dir():
        content = read_file(path)
        tensors = content["state_dict"]
        keys = _model_keys(path, tensors, tied, _known(content))
        return StateDict({name: tensors[key] for name, key in keys.items()}), _settings(content)
    if not (path / ".metadata").is_file():
        raise ValueError(
            f"{path} is no sharded checkpoint (it has no file .metadata); {REMEDY}, or a sharded one's folder"
        )
    entries = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    stored = {key: entry for key, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
    content = {}
    if (path / META).is_file():
        try:
            content = torch.load(path / META, map_location="meta", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path / META} holds more than numbers and words; {REMEDY}") from error
    return _Sharded(path, _model_keys(path, stored, tied, _known(content)), stored), _settings(content)


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    return {**(content.get(SETTINGS) or {}), **{key: content[key] for key in (LORA,) if key in content}}


def _known(content: Mapping[str, Any]) -> str:
    """A tensor that must be there; a checkpoint of LoRA has no others than the trained ones."""
    return str(content[LORA]["tensor"]) if LORA in content else _KNOWN


def _model_keys(path: Path, keys: Collection[str], tied: bool, known: str = _KNOWN) -> dict[str, str]:
    """Name in the model -> key in the checkpoint, whatever stands before or between."""
    plain = {key: _unwrapped(key) for key in keys}
    before = sorted(name.removesuffix(known) for name in plain.values() if name.endswith(known))
    prefix = min((found for found in before if not found or found.endswith(".")), key=len, default=None)
    if prefix is None:
        raise ValueError(f"{path} holds no weights of an InternVL model; {REMEDY}")
    found = {name.removeprefix(prefix): key for key, name in plain.items() if name.startswith(prefix)}
    if tied:
        found.pop(HEAD, None)
    return found


def _unwrapped(key: str) -> str:
    for wrapper in WRAPPERS:
        key = key.replace(wrapper, "")
    return key


def check_fits(
    path: Path, given: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], folder: Path
) -> None:
    """Refuse another model's checkpoint by the names and shapes of its tensors.

    Raises:
        ValueError: names the first tensor of each kind of difference.
    """
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    shapes = [
        f"{key}: {given[key]} in the checkpoint, {wanted[key]} in the model"
        for key in sorted(set(given) & set(wanted))
        if given[key] != wanted[key]
    ]
    kinds = {"missing": missing, "unknown": extra, "of another shape": shapes}
    differences = [f"{len(found)} tensors {kind} (first: {found[0]})" for kind, found in kinds.items() if found]
    if differences:
        raise ValueError(
            f"{path} is a checkpoint of another model than {folder}: {', '.join(differences)}; "
            "set --model.path to the folder that the checkpoint was trained from"
        )


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a module."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
