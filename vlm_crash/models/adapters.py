"""The adapters of a module that is trained, from its making to its checkpoints.

Enters: a Lightning module with its model. Leaves: the same with adapters, whose checkpoints hold what is trained alone.
"""

import logging
from pathlib import Path
from typing import Any

import torch

from vlm_crash.models.lora import LoraSettings
from vlm_crash.models.lora_files import fingerprint, load_adapter
from vlm_crash.models.lora_layers import base_dtype, described, dtype_on_disk, inject, keep_trained_only, set_base_dtype
from vlm_crash.models.lora_record import make_record

log = logging.getLogger(__name__)


def held_dtype(settings: LoraSettings | None, folder: Path, init: str, freeze: list[str]) -> torch.dtype:
    """In what a base is to be loaded: as it is stored (it is not trained), until the precision is known.

    Raises:
        ValueError: other settings of the model contradict.
    """
    if settings is None:
        return torch.float32
    settings.check(freeze, init)
    return dtype_on_disk(folder)


class Adapters:
    """What a module with adapters knows of them.

    Args:
        module: with an InternVL as `model`; gets its adapters here, with the values of `settings.adapter` where given.
        settings: of the adapters.
        folder: of the model.

    Raises:
        ValueError: layers, or an adapter, that do not fit the model.
    """

    def __init__(self, module: Any, settings: LoraSettings, folder: Path) -> None:
        self.settings = settings
        self.model = module.model
        inject(self.model, settings)
        #: Of the adapters that these begin from: `schema` and `terms`, where they are said.
        self.form: dict[str, Any] = {}
        weights = fingerprint(folder)
        if settings.adapter is not None:
            self.form = load_adapter(self.model, settings, settings.adapter, folder, weights)
        tensor = next(name for name, parameter in self.model.named_parameters() if parameter.requires_grad)
        #: What checkpoints say (models/lora_record.py).
        self.record = make_record(settings, folder, weights, tensor)
        self.base_dtype = dtype_on_disk(folder)
        keep_trained_only(module)

    def settle(self, precision: str, is_sharded: bool) -> None:
        """Give the base the dtype that the run computes in.

        Args:
            precision: of Lightning's plugin.
            is_sharded: FSDPStrategy trains.

        Raises:
            ValueError: see base_dtype and set_base_dtype.
        """
        self.base_dtype = base_dtype(self.settings, precision, is_sharded)
        set_base_dtype(self.model, self.base_dtype)
        log.info("%s", described(self.model, self.settings, self.base_dtype))
