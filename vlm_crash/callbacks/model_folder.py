"""What a training run leaves behind: whole checkpoints, and a model folder.

Enters: the trained model. Leaves: files in the run's folder. Invariant: a file of a final name is whole.
"""

import errno
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError
from torch import Tensor

from vlm_crash.callbacks.predictions import cannot_write
from vlm_crash.parallel.checkpoint import is_sharded, load_file, save_file, whole_content
from vlm_crash.parallel.fsdp import FSDPStrategy
from vlm_crash.parallel.whole_files import part_of, put_in_place, remove, standing

log = logging.getLogger(__name__)


class ModelFolder(Callback):
    """Writes the trained model as a folder that `predict --model.path` takes, when fit ends.

    Args:
        dirname: name of the folder, below the run's own.
    """

    def __init__(self, dirname: str = "model") -> None:
        self.dirname = dirname

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Of sharded weights every process sends its part.
        strategy = trainer.strategy
        whole = strategy.gather_model() if isinstance(strategy, FSDPStrategy) else None
        if trainer.is_global_zero:
            self._write(trainer, pl_module, whole)

    def _write(self, trainer: Trainer, pl_module: LightningModule, whole: Mapping[str, Tensor] | None) -> None:
        folder = Path(trainer.default_root_dir) / self.dirname
        recipe: Any = trainer.datamodule.recipe  # type: ignore[attr-defined]
        model: Any = pl_module.model
        settings: Mapping[str, Any] = getattr(model.config, "vlm_crash", None) or {}
        model.config.vlm_crash = {**settings, "num_frames": recipe.num_frames, "prompt": recipe.prompt}
        part = part_of(folder)
        try:
            weights = None if whole is None else {name.removeprefix("model."): value for name, value in whole.items()}
            model.save_pretrained(part, state_dict=weights)
            pl_module.tokenizer.save_pretrained(part)  # type: ignore[operator, union-attr]
            put_in_place(part, folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(part, ignore_errors=True)
            raise cannot_write(folder, _as_os_error(error)) from error
        log.info("model folder: %s", folder)


def _as_os_error(error: OSError | SafetensorError) -> OSError:
    """safetensors tells the system's error as text.

    >>> _as_os_error(SafetensorError("I/O error: No space left on device (os error 28)")).errno == errno.ENOSPC
    True
    """
    if isinstance(error, OSError):
        return error
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]) if number else errno.EIO, str(error))


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints by torch.save, whole or not at all; a full disk is named with the path and what to do."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        try:
            save_file(checkpoint, Path(path))
        except OSError as error:
            raise cannot_write(Path(path), error) from error
        log.info("checkpoint: %s", path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Of either kind: a run on one process goes on where one on many has stopped."""
        found = standing(Path(path))
        return whole_content(found) if is_sharded(found) else load_file(found)

    def remove_checkpoint(self, path: Any) -> None:
        remove(Path(path))
