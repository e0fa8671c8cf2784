"""fit, validate, test and predict: LightningCLI around CrashVLM and CrashDataModule."""

import logging
import os
import pickle
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from jsonargparse import ArgumentError, Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from vlm_crash.callbacks import ModelFolder, PredictionWriter, TrainingMonitor, ValidationSample
from vlm_crash.cli.arguments import explain, known_keys, resolve_configs
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.lightning_module import CrashVLM

log = logging.getLogger(__name__)


class RunConfig(SaveConfigCallback):
    """Saves the config that ran: config.yaml for fit, <command>_config.yaml for the others, in the output folder."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, str(folder / self.config_filename), skip_none=False, overwrite=True)


class Progress(TQDMProgressBar):
    """The progress bar without the logger's version, which says nothing here."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class CrashCLI(LightningCLI):
    """LightningCLI with our options and one output folder for everything a run writes."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--output_dir", type=Path, default=Path("runs/latest"), help="Folder for all of a run's files."
        )
        parser.add_argument(
            "--overwrite", type=bool, default=False, help="Replace what an earlier run left in output_dir."
        )
        parser.link_arguments("data.schema", "model.schema")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's commands; answers go to disk batch by batch and are never gathered in memory."""
        skipped = LightningCLI.subcommands()
        return {**skipped, "predict": skipped["predict"] | {"return_predictions"}}

    def before_instantiate_classes(self) -> None:
        config: Namespace = self.config[self.subcommand]
        output_dir = Path(config["output_dir"])
        may_write = config["overwrite"] or config.get("ckpt_path") or not (output_dir / "config.yaml").exists()
        if self.subcommand == "fit" and not may_write:
            raise ValueError(
                f"{output_dir} holds a run already; set --output_dir to another folder, --ckpt_path to resume it, "
                "or --overwrite true to write over it"
            )
        self._check_checkpoint(config.get("ckpt_path"))
        config["trainer"]["default_root_dir"] = str(output_dir)
        if self.subcommand == "predict" and config["trainer"]["logger"] is None:
            config["trainer"]["logger"] = False  # there is no curve to draw
        self.save_config_kwargs = {
            "save_to_log_dir": False,
            "config_filename": "config.yaml" if self.subcommand == "fit" else f"{self.subcommand}_config.yaml",
        }

    def _check_checkpoint(self, path: str | None) -> None:
        if path in (None, "last", "best", "hpc"):
            return
        if not Path(path).exists():
            raise ValueError(f"there is no checkpoint {path}; set --ckpt_path to a .ckpt file that fit wrote")
        if Path(path).is_file():
            try:
                keys = torch.load(path, map_location="meta", weights_only=True, mmap=True)
            except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
                raise ValueError(
                    f"{path} is no checkpoint that can be read ({str(error).splitlines()[0]}); "
                    "set --ckpt_path to a .ckpt file that fit wrote"
                ) from error
            if "state_dict" not in keys:
                raise ValueError(f"{path} has no state_dict; set --ckpt_path to a .ckpt file that fit wrote")

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        config = self.config[self.subcommand]
        output_dir = Path(config["output_dir"])
        extra: list[Any] = []
        if config["trainer"].get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
        if kwargs.get("enable_progress_bar"):
            extra.append(Progress())
        if config["trainer"].get("enable_model_summary") is None:
            kwargs["enable_model_summary"] = False  # the module logs the parameters of each tower
        if self.subcommand == "fit":
            extra += [TrainingMonitor(), ValidationSample(), ModelFolder()]
        if self.subcommand == "predict":
            extra += [PredictionWriter(output_dir, config["overwrite"])]
        if self.subcommand != "predict" and config["trainer"].get("logger") in (None, True):
            kwargs["logger"] = TensorBoardLogger(output_dir, name="", version="tensorboard")
        self.trainer_defaults["callbacks"] = extra
        trainer = super().instantiate_trainer(**kwargs)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(output_dir / "checkpoints")
        return trainer

    def after_instantiate_classes(self) -> None:
        self.datamodule.connect(self.model.inputs)
        self.trainer.predict = partial(self.trainer.predict, return_predictions=False)  # type: ignore[method-assign]
        self._check_model_fits(self.config[self.subcommand].get("ckpt_path"))

    def _check_model_fits(self, path: str | None) -> None:
        """Another model's checkpoint is refused by name, before anything is computed."""
        if path is None or not Path(path).is_file():
            return
        given = torch.load(path, map_location="meta", weights_only=True, mmap=True)["state_dict"]
        wanted = self.model.state_dict()
        missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
        shapes = [
            f"{key}: {tuple(given[key].shape)} in the checkpoint, {tuple(wanted[key].shape)} in the model"
            for key in sorted(set(given) & set(wanted))
            if given[key].shape != wanted[key].shape
        ]
        if missing or extra or shapes:
            raise ValueError(
                f"{path} is a checkpoint of another model than {self.model.path}: {len(missing)} tensors missing"
                f"{_first(missing)}, {len(extra)} unknown{_first(extra)}, {len(shapes)} of another shape{_first(shapes)}; "
                "set --model.path to the folder that the checkpoint was trained from"
            )


def _first(names: list[str]) -> str:
    return f" (first: {names[0]})" if names else ""


class _RememberingParser(LightningArgumentParser):
    """Keeps the last parsers made, so that an unknown key can be answered with the nearest known one."""

    made: ClassVar[list["_RememberingParser"]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["exit_on_error"] = False
        super().__init__(*args, **kwargs)
        self.made.append(self)


def _quieten() -> None:
    """One handler for all log lines, and no remarks that a user of ours can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).handlers.clear()
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.addFilter(lambda record: "Tip:" not in record.getMessage() and "TPU" not in record.getMessage())
    transformers.utils.logging.disable_progress_bar()
    remarks = (".*LeafSpec.*", ".*args parameter is intended to run from within Python.*", ".*not have many workers.*")
    for message in remarks:
        warnings.filterwarnings("ignore", message=message)


def run(command: str, args: list[str]) -> int:
    """Run one of Lightning's commands."""
    # Lightning asks Slurm and friends by itself; tokenizers' threads and forked workers do not go together.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _quieten()
    _RememberingParser.made.clear()
    try:
        CrashCLI(
            CrashVLM,
            CrashDataModule,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            parser_class=_RememberingParser,
            auto_configure_optimizers=False,
            args=[command, *resolve_configs(args)],
        )
    except ArgumentError as error:
        keys = [key for parser in _RememberingParser.made for key in known_keys(parser)]
        raise explain(error, keys) from error
    return 0
