"""What a training run leaves behind: whole checkpoints, and a model folder.

Enters: the trained model. Leaves: files in the run's folder. Invariant: a file of a final name is whole.
"""

import copy
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from vlm_crash.callbacks.whole_lines import cannot_write
from vlm_crash.models.convert import write_folder
from vlm_crash.models.lora_files import merged, write_adapter
from vlm_crash.models.lora_record import with_form
from vlm_crash.models.training_checkpoint import SETTINGS
from vlm_crash.models.weights import EMBEDDING, HEAD, StateDict
from vlm_crash.parallel.checkpoint import is_sharded, load_file, save_file, whole_content
from vlm_crash.parallel.fsdp import FSDPStrategy
from vlm_crash.parallel.whole_files import part_of, put_in_place, remove, standing

log = logging.getLogger(__name__)


class ModelFolder(Callback):
    """Writes the trained model, of the last step, as a folder that `predict --model.path` takes, when fit ends.

    Args:
        dirname: name of the folder, below the run's own.
        adapter: name of a second one, of LoRA's adapters alone (in the first they are merged), in peft's format.
    """

    def __init__(self, dirname: str = "model", adapter: str = "adapter") -> None:
        self.dirname = dirname
        self.adapter = adapter

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Of sharded weights every process sends its part.
        strategy = trainer.strategy
        whole = strategy.gather_model() if isinstance(strategy, FSDPStrategy) else None
        if trainer.is_global_zero:
            self._write(trainer, pl_module, whole)

    def _write(self, trainer: Trainer, pl_module: LightningModule, whole: Mapping[str, Tensor] | None) -> None:
        folder = Path(trainer.default_root_dir) / self.dirname
        module: Any = pl_module
        config = copy.deepcopy(module.model.config)
        config.vlm_crash = _settings(trainer, module)
        if whole is None:
            whole = module.state_dict()
        tensors = {name.removeprefix("model."): value for name, value in whole.items() if name.startswith("model.")}
        if config.tie_word_embeddings:
            tensors.pop(HEAD, None)
        part = part_of(folder)
        try:
            if module.adapters is None:
                config.dtype = tensors[EMBEDDING].dtype
                write_folder(StateDict(tensors), config, module.path, part)
            else:
                self._write_adapters(StateDict(tensors), config, module, part, folder.with_name(self.adapter))
            put_in_place(part, folder)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise cannot_write(folder, error) from error
        log.info("model folder, of the last step: %s", folder)
        # Without a score to watch, Lightning calls the newest the best.
        chosen = [callback for callback in trainer.checkpoint_callbacks if getattr(callback, "monitor", None)]
        for best in {getattr(callback, "best_model_path", "") for callback in chosen} - {""}:
            log.info("best checkpoint: %s (`export` makes a model folder of it)", best)

    def _write_adapters(self, trained: StateDict, config: Any, module: Any, merged_part: Path, alone: Path) -> None:
        """The adapters merged, in the dtype that the base was computed with; and alone."""
        part = part_of(alone)
        part.mkdir(parents=True)
        write_adapter(part, trained, with_form(module.adapters.record, config.vlm_crash), module.path)
        put_in_place(part, alone)
        log.info("adapter folder, of the last step: %s", alone)
        dtype = str(module.adapters.base_dtype).removeprefix("torch.")
        config.dtype = module.adapters.base_dtype
        with merged(module.path, config, trained, module.adapters.settings, dtype) as weights:
            write_folder(weights, config, module.path, merged_part, dtype=dtype)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """What `export` writes into the folder that it makes of a checkpoint."""
        checkpoint[SETTINGS] = _settings(trainer, pl_module)


def _settings(trainer: Trainer, module: Any) -> dict[str, Any]:
    """How the model was trained, for its folder's config.json."""
    recipe: Any = trainer.datamodule.recipe  # type: ignore[attr-defined]
    settings: Mapping[str, Any] = getattr(module.model.config, "vlm_crash", None) or {}
    filled = trainer.datamodule.dataset_schema  # type: ignore[attr-defined]
    open_names = [field.name for field in module.schema.fields if field.kind == "categorical" and not field.closed]
    terms = {name: list(filled.field(name).vocabulary) for name in open_names}
    return {**settings, **recipe.remembered, "schema": module.schema.form, "terms": terms}


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
