"""Which options act in which of Lightning's commands.

Every command knows every option of the sections, so that one config serves them all (fit's config.yaml is taken by
predict). Enters: what a command was given. Leaves: a ValueError for an option of the command line that cannot act, a
warning for such keys of a config; and help texts without them.
"""

import argparse
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


def _options(section: str, names: str) -> list[str]:
    return [f"{section}.{name}" for name in names.split()]


#: Options that some command cannot use -> the commands in which they act.
ACTS_IN: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        [
            *_options("model", "lr_vision lr_projector lr_language weight_decay warmup_ratio freeze"),
            *_options("model", "activation_checkpointing"),
            *_options("data", "seed batching pack_tokens on_bad_clip"),
            *_options("data.augment", "brightness contrast saturation crop jpeg flip"),
            "overflow_sentinel",
            *_options("trainer", "max_epochs min_epochs max_steps min_steps max_time limit_train_batches"),
            *_options("trainer", "val_check_interval check_val_every_n_epoch num_sanity_val_steps"),
            *_options("trainer", "accumulate_grad_batches gradient_clip_val gradient_clip_algorithm"),
            *_options("trainer", "overfit_batches log_every_n_steps enable_checkpointing detect_anomaly"),
            "trainer.reload_dataloaders_every_n_epochs",
        ],
        ("fit",),
    ),
    **dict.fromkeys(_options("data", "split clips crash_dir nearmiss_dir event_dirs num_videos"), ("predict",)),
    **dict.fromkeys(["retry_failed", "predictions_format"], ("predict",)),
    "scan": ("predict",),
    "model.num_validation_answers": ("fit", "validate"),
    "model.load_in": ("predict",),
    "model.fp32_modules": ("fit", "validate", "test"),
    "model.embedder": ("fit", "validate", "test"),
    "trainer.limit_val_batches": ("fit", "validate"),
    "trainer.limit_test_batches": ("test",),
    "trainer.limit_predict_batches": ("predict",),
    # The data module has samplers of its own, which share the clips among the processes; no layer of the model is a
    # batch norm; checkpoints are files.
    **dict.fromkeys(_options("trainer", "use_distributed_sampler sync_batchnorm model_registry"), ()),
}
#: Refused where it is given, with what stands in its place (lightning_commands.py).
REPLACED = ("trainer.default_root_dir",)


def idle_in(command: str) -> list[str]:
    """Options that do nothing in a command."""
    return [option for option, commands in ACTS_IN.items() if command not in commands]


def hide(parser: ArgumentParser, command: str) -> None:
    """Leave what does nothing out of a command's help."""
    idle = {*idle_in(command), *REPLACED}
    for action in parser._actions:
        if action.dest in idle:
            action.help = argparse.SUPPRESS


def check(command: str, args: Iterable[str], config: Namespace, parser: ArgumentParser) -> None:
    """Refuse options of the command line that cannot act; name the keys of configs that do not.

    Off (null, false, 0) is what an option without effect is anyway, and so is its default: both may be given.

    Raises:
        ValueError: an option on the command line asks for what the command does not do.
    """
    given = {arg[2:].split("=", 1)[0].rstrip("+") for arg in args if arg.startswith("--")}
    refused, idle = [], []
    for option in idle_in(command):
        value: Any = config.get(option)
        is_given = any(key == option or key.startswith(f"{option}.") for key in given)
        asks = value != parser.get_default(option) and bool(value)
        if is_given and (asks or not ACTS_IN[option]):
            refused.append(option)
        elif asks:
            idle.append(option)
    if refused:
        them = "it" if len(refused) == 1 else "them"
        raise ValueError(f"{command} does nothing with {_named(refused)}; leave {them} out")
    if idle:
        _warn(f"without effect in {command}, and set by the config: {', '.join(idle)}")


@rank_zero_only
def _warn(text: str) -> None:
    log.warning("%s", text)


def _named(options: list[str]) -> str:
    """Options by the commands in which they act."""
    by_commands: dict[tuple[str, ...], list[str]] = {}
    for option in options:
        by_commands.setdefault(ACTS_IN[option], []).append(f"--{option}")
    return "; nor with ".join(
        f"{', '.join(names)} (acts in {' and '.join(commands) or 'no command'})"
        for commands, names in by_commands.items()
    )
