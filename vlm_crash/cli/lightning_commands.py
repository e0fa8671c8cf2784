"""fit, validate, test and predict: LightningCLI around CrashVLM and CrashDataModule."""

import importlib
import logging
import os
import sys
import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from pydoc import locate
from typing import Any, ClassVar

import transformers
from jsonargparse import ArgumentError, Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vlm_crash.callbacks import (
    ConfusionMatrices,
    LeftOutClips,
    ModelFolder,
    OverflowSentinel,
    PredictionWriter,
    TrainingMonitor,
    ValidationSamples,
    WholeCheckpoints,
)
from vlm_crash.callbacks.scan import ScanWriter
from vlm_crash.callbacks.scan_events import ScanSettings
from vlm_crash.cli import COMMANDS, effects, lora, option_values, scan
from vlm_crash.cli.arguments import HelpFormatter, explain, known_keys, own_words
from vlm_crash.cli.checkpoints import HELP, check_fits, find_checkpoint, inputs_of, read_checkpoint, tell_changes
from vlm_crash.cli.config_files import SECTIONS, resolve_configs
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.internvl import weights_later
from vlm_crash.parallel.checkpoint import Stored
from vlm_crash.parallel.fsdp import FSDPStrategy

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"


class RunConfig(SaveConfigCallback):
    """Saves the config that ran: config.yaml for fit, <command>_config.yaml for the others, in the output folder."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            super().setup(trainer, pl_module, stage)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Later: the folder may hold predictions of another run, which is refused first."""
        super().setup(trainer, pl_module, "predict")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, str(folder / self.config_filename), skip_unset=False, overwrite=True)


class Progress(TQDMProgressBar):
    """The progress bar without the logger's version, which says nothing here."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class CrashCLI(LightningCLI):
    """LightningCLI with our options and one output folder for everything a run writes.

    Only the command that runs gets a parser: to make one takes a good part of a refusal's time.
    """

    def __init__(self, *args: Any, command: str, **options: Any) -> None:
        self._command = command
        super().__init__(*args, **options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--output_dir", type=Path, default=Path("runs/latest"), help="Folder for all of a run's files."
        )
        parser.add_argument(
            "--overwrite", type=bool, default=False, help="Replace what an earlier run left in output_dir."
        )
        parser.add_argument(
            "--overflow_sentinel", type=int | None, default=None,
            help="Name the module in which numbers stop being finite (log, TensorBoard, overflow.jsonl), and stop "
            "after so many optimizer steps in a row that are not finite; unset: off.",
        )  # fmt: skip
        parser.add_argument(
            "--retry_failed",
            type=bool,
            default=False,
            help="Do the clips again whose line in output_dir says failed (--scan: and windows without a probability).",
        )
        parser.add_argument(
            "--predictions_format", type=str, default="jsonl",
            help="jsonl, or parquet: predictions-00000.parquet ... beside predictions.jsonl (needs pyarrow).",
        )  # fmt: skip
        parser.add_argument(
            "--scan", type=bool | ScanSettings, default=False,
            help="Clips are long recordings: say when something happens in them, and cut it out.",
        )  # fmt: skip
        parser.link_arguments("data.schema", "model.schema")

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Lightning's, with our descriptions, usage lines as one types them, and options that act alone in the help."""
        super()._add_subcommands(parser, **kwargs)
        for command, child in self._subcommand_parsers.items():
            child.prog = f"{parser.prog} {command}"
            child.description = COMMANDS[command][1]
            child.formatter_class = HelpFormatter
            effects.hide(child, command)
            if command != "fit":  # nothing is computed again in a backward pass: the fastest kernel that works will do
                child.set_defaults({"model.attention": "auto"})
            next(action for action in child._actions if action.dest == "ckpt_path").help = HELP[command]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        command = self.config["subcommand"]
        effects.check(command, args, self.config[command], self._subcommand_parsers[command])
        self._args = args
        option_values.check(self.config[command])

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's knows no instance
        """The command of Lightning's; answers go to disk batch by batch and are never gathered in memory.

        No checkpoint is read in a way that could run its code, so there is nothing to choose for `weights_only`.
        """
        fixed = {"weights_only", "return_predictions"}
        return {self._command: LightningCLI.subcommands()[self._command] | fixed}

    def before_instantiate_classes(self) -> None:
        config: Namespace = self.config[self.subcommand]
        output_dir = Path(config["output_dir"])
        may_write = config["overwrite"] or config.get("ckpt_path") or not (output_dir / "config.yaml").exists()
        self.checkpoint = self._find_checkpoint(config)
        lora.settle(str(self.subcommand), self._args, config["model"], self.checkpoint)
        if self.subcommand == "fit" and not may_write:
            raise ValueError(
                f"{output_dir} holds a run already; set --output_dir to another folder, --ckpt_path to resume it, "
                "or --overwrite true to write over it"
            )
        strategy = config["trainer"].get("strategy")
        if isinstance(strategy, str) and "." in strategy:  # a class without options; Lightning knows words only
            _check_class("--trainer.strategy", strategy)
            config["trainer"]["strategy"] = Namespace(class_path=strategy, init_args=Namespace())
        if config["trainer"]["default_root_dir"] is not None:
            raise ValueError("--trainer.default_root_dir has no effect here; set --output_dir")
        self.save_config_kwargs = {
            "save_to_log_dir": False,
            "config_filename": "config.yaml" if self.subcommand == "fit" else f"{self.subcommand}_config.yaml",
        }

    def instantiate_classes(self) -> None:
        """Lightning's; processes that share a model read their own part of its weights, once it is shared out."""
        config = self.config[self.subcommand]
        name = getattr(config["trainer"].get("strategy"), "class_path", None)
        found = locate(name) if name else None
        # Adapters are put beside weights that are there.
        shares = isinstance(found, type) and issubclass(found, FSDPStrategy) and config["model"].get("lora") is None
        with weights_later() if shares else nullcontext():
            try:
                super().instantiate_classes()
            except ValueError as error:
                said = own_words(str(error))
                if said is None:
                    raise
                raise ValueError(said) from error

    def _find_checkpoint(self, config: Namespace) -> Stored | None:
        given = config.get("ckpt_path")
        if given is None:
            return None
        found = find_checkpoint(given, Path(config["output_dir"]) / CHECKPOINTS, str(self.subcommand))
        config["ckpt_path"] = None if found is None else str(found)
        return None if found is None else read_checkpoint(found)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would put the checkpoint's settings over those that the user gave."""

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
            extra += [TrainingMonitor(), ModelFolder()]
            if config["overflow_sentinel"] is not None:
                extra.append(OverflowSentinel(config["overflow_sentinel"]))
            extra.append(LeftOutClips())  # after those that look at gradients
        if self.subcommand in ("fit", "validate"):
            extra += [ValidationSamples(), ConfusionMatrices()]
        if self.subcommand == "predict":
            settings = scan.settings_of(self._get(self.config_init, "scan"))
            options = [config[name] for name in ("overwrite", "retry_failed", "predictions_format")]
            self.scan = None if settings is None else ScanWriter(output_dir, settings, *options[:2])
            extra += [self.scan or PredictionWriter(output_dir, *options)]
        kwargs["default_root_dir"] = str(output_dir)
        if self.subcommand == "predict" and config["trainer"].get("logger") is None:
            kwargs["logger"] = False  # there is no curve to draw
        if self.subcommand != "predict" and config["trainer"].get("logger") in (None, True):
            kwargs["logger"] = TensorBoardLogger(output_dir, name="", version="tensorboard")
        given = _as_list(config["trainer"].get("callbacks"))
        saves = self.subcommand == "fit" and config["trainer"].get("enable_checkpointing") is not False
        if saves and not any("Checkpoint" in str(callback.class_path) for callback in given):
            extra.append(ModelCheckpoint(filename="{epoch}-{step}", save_last=True, save_on_exception=True))
        self.trainer_defaults["callbacks"] = extra
        kwargs["plugins"] = [*_as_list(self._get(self.config_init, "trainer")["plugins"]), WholeCheckpoints()]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
            raise ValueError(f"these --trainer settings cannot be: {' '.join(str(error).split())}") from error
        _check_precision(str(config["trainer"].get("precision")), trainer.strategy)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(output_dir / CHECKPOINTS)
        return trainer

    def after_instantiate_classes(self) -> None:
        if self.subcommand == "fit":
            self.model.check_trainable()  # before anything is written
        if self.checkpoint is not None:
            lora.check(self.checkpoint, self.model.adapters)
            check_fits(self.checkpoint, self.model, self.model.path)
        self.datamodule.connect(inputs_of(self.checkpoint, self.model.inputs))
        self.model.conversation = self.datamodule.recipe.tokenizer
        self.trainer.predict = partial(self.trainer.predict, return_predictions=False)  # type: ignore[method-assign]
        if self.subcommand == "predict" and self.scan is not None:
            scan.check(self.model.schema, self.trainer, self.datamodule, self.config[self.subcommand])
            self.trainer.predict = scan.predictor(self.trainer, self.scan)  # type: ignore[method-assign]
        if self.subcommand == "fit" and self.checkpoint is not None:
            tell_changes(self.checkpoint, self.datamodule.recipe.remembered)
        self.checkpoint = None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _check_class(option: str, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        found = hasattr(importlib.import_module(module), attribute)
    except ImportError:
        found = False
    if not found:
        raise ValueError(f"{option}={name!r} is no class that can be imported; vlm_crash.parallel.FSDPStrategy is one")


def _check_precision(precision: str, strategy: Strategy) -> None:
    """Half precision needs a GPU, or our FSDPStrategy; on a CPU Lightning would quietly take another."""
    is_half = precision.startswith(("16", "fp16", "half", "transformer-engine"))
    if is_half and strategy.root_device.type == "cpu" and not isinstance(strategy, FSDPStrategy):
        raise ValueError(
            f"precision {precision} needs a GPU, and this run is on the CPU; "
            "set --trainer.precision 32-true --trainer.accelerator cpu, or --trainer.strategy "
            "vlm_crash.parallel.FSDPStrategy, which has it on CPUs, too"
        )


class _RememberingParser(LightningArgumentParser):
    """Keeps the last parsers made, so that an unknown key can be answered with the nearest known one."""

    made: ClassVar[list["_RememberingParser"]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(*args, **kwargs)
        self.made.append(self)


def _quieten() -> None:
    """One handler for all log lines, and no remarks that a user of ours can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).handlers.clear()
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.addFilter(lambda record: "Tip:" not in record.getMessage() and "TPU" not in record.getMessage())
    transformers.utils.logging.disable_progress_bar()
    if any(os.environ.get(name, "0") != "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID")):
        logging.getLogger().setLevel(logging.WARNING)  # the first process says it
    # Lightning makes a scaler for "cuda" before FSDPStrategy can say that it has its own.
    remarks = (
        ".*cuda.amp.GradScaler is enabled.*",
        # True, and nothing in the model works in place on what the projector gives.
        ".*returned a view tensor.*",
        ".*LeafSpec.*",
        ".*args parameter is intended to run from within Python.*",
        ".*not have many workers.*",
        # A run that goes on does so exactly (parallel/resume.py), and its folder is not empty.
        ".*your dataloader is not resumable.*",
        # Prediction of a finished folder; the callback says it.
        ".*across ranks is zero.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        # Of checkpoints that are only read.
        ".*callbacks used to create the checkpoint need to be provided.*",
    )
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
            command=command,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            parser_class=_RememberingParser,
            parser_kwargs={"prog": "vlm_crash"},
            auto_configure_optimizers=False,
            args=[command, *resolve_configs(scan.spelt_out(args), SECTIONS)],
        )
    except ArgumentError as error:
        keys = {key for parser in _RememberingParser.made for key in known_keys(parser)}
        raise explain(error, sorted(keys), command) from error
    return 0
