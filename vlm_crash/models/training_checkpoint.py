"""What fit leaves behind while it trains -> tensors by their names in the model.

Enters: an open checkpoint (parallel/checkpoint.py reads both kinds; the command line hands it over). Leaves: the
model's weights, read as they are asked for, and the settings that were saved with them.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from vlm_crash.models.lora import LORA
from vlm_crash.models.saving import DTYPES
from vlm_crash.models.weights import HEAD

#: Key of a checkpoint under which the settings of the model folder lie (see models/folder.py).
SETTINGS = "vlm_crash"
#: What wrappers put into names: activation checkpointing, torch.compile, FSDP, DDP.
WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.")
#: A tensor that every model has: it shows what stands before the names.
_KNOWN = "model.multi_modal_projector.linear_1.weight"
#: So much is read of a mapped file before its pages are given back.
MAPPED_BYTES = 256 * 2**20


class OpenCheckpoint(Protocol):
    """A checkpoint on disk whose tensors are read as they are asked for."""

    @property
    def path(self) -> Path: ...

    @property
    def rest(self) -> Mapping[str, Any]: ...

    @property
    def sizes(self) -> Mapping[str, tuple[torch.Size, torch.dtype]]: ...

    def read(self, targets: Mapping[str, Tensor]) -> None:
        """Fill tensors by their names in `sizes`."""


class TrainedWeights:
    """The model's tensors in a checkpoint of fit; of LoRA the trained ones, with their record as `lora`.

    Args:
        open_checkpoint: opens it; again and again, as the pages of a mapped file stay in memory while it is open.
        tied: the output embedding is the input embedding, and is left out.

    Raises:
        ValueError: the checkpoint cannot be opened, or holds no weights of an InternVL model.
    """

    def __init__(self, open_checkpoint: Callable[[], OpenCheckpoint], tied: bool) -> None:
        self._opener = open_checkpoint
        self._checkpoint: OpenCheckpoint | None = None
        self._mapped = 0
        checkpoint = self._opened()
        self.path = checkpoint.path
        self.settings: dict[str, Any] = dict(checkpoint.rest.get(SETTINGS) or {})
        self.lora: Mapping[str, Any] | None = checkpoint.rest.get(LORA)
        # A tensor that must be there; a checkpoint of LoRA has no others than the trained ones.
        known = _KNOWN if self.lora is None else str(self.lora["tensor"])
        self._keys = _model_keys(self.path, checkpoint.sizes, tied, known)
        self.shapes = {name: tuple(checkpoint.sizes[key][0]) for name, key in self._keys.items()}
        self.dtypes = {name: checkpoint.sizes[key][1] for name, key in self._keys.items()}
        strange = sorted(name for name, dtype in self.dtypes.items() if dtype not in DTYPES.values())
        if strange:
            raise ValueError(
                f"{self.path} has numbers that are neither float16, bfloat16 nor float32: {', '.join(strange)}; "
                "give a checkpoint of a model in one of them"
            )

    def read(self, name: str) -> Tensor:
        """A tensor, copied.

        Raises:
            ValueError: its file is gone or damaged.
        """
        tensor = torch.empty(self.shapes[name], dtype=self.dtypes[name])
        try:
            self._opened().read({self._keys[name]: tensor})
        except CheckpointException as error:
            reason = next((str(fault) or type(fault).__name__ for fault, _ in error.failures.values()), str(error))
            raise ValueError(
                f"{name} in {self.path} cannot be read ({reason.splitlines()[0]}); copy the whole checkpoint again"
            ) from error
        self._mapped += tensor.nbytes
        return tensor

    def _opened(self) -> OpenCheckpoint:
        if self._checkpoint is None or self._mapped > MAPPED_BYTES:
            self._checkpoint, self._mapped = None, 0
            self._checkpoint = self._opener()
        return self._checkpoint


def _model_keys(path: Path, keys: Collection[str], tied: bool, known: str) -> dict[str, str]:
    """Name in the model -> key in the checkpoint, whatever stands before or between."""
    plain = {key: _unwrapped(key) for key in keys}
    before = sorted(name.removesuffix(known) for name in plain.values() if name.endswith(known))
    prefix = min((found for found in before if not found or found.endswith(".")), key=len, default=None)
    if prefix is None:
        raise ValueError(f"{path} holds no weights of an InternVL model; give a .ckpt that fit wrote")
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
            "set --model to the folder that the checkpoint was trained from"
        )


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a module."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
