"""Numbers that Lightning takes and cannot work with, and folders that are none.

Enters: what a command was given. Leaves: a ValueError, before anything is made or written. A negative gradient_clip_val
would turn the gradients round, an accumulate_grad_batches of 0 end in a division by it.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from jsonargparse import Namespace

#: option -> the least that it can be.
LEASTS: Mapping[str, float] = {
    **dict.fromkeys(
        [
            *(f"trainer.{name}" for name in ("accumulate_grad_batches", "log_every_n_steps", "num_nodes")),
            "trainer.check_val_every_n_epoch",
        ],
        1,
    ),
    **dict.fromkeys(
        [
            *(f"model.{name}" for name in ("lr_vision", "lr_projector", "lr_language", "weight_decay")),
            "trainer.gradient_clip_val",
        ],
        0,
    ),
}


def check(config: Namespace) -> None:
    """Raises ValueError for a number that is below its least, or none (nan, inf)."""
    for option, least in LEASTS.items():
        value = config.get(option)
        if value is not None and not least <= value < math.inf:
            name = option.split(".")[1]
            raise ValueError(f"{name}={value} is not a number from {least} on; set --{option} to one")
    interval = config.get("trainer.val_check_interval")
    if isinstance(interval, int | float) and not 0 < interval < math.inf:
        raise ValueError(
            f"val_check_interval={interval} is not above 0; set --trainer.val_check_interval to a share of an epoch "
            "(1.0: at its end) or a number of batches"
        )


def check_out_folder(out: Path | None) -> None:
    """Raises ValueError where --out, a folder to write into, is a file or lies below one."""
    file = next((path for path in (out, *out.parents) if path.is_file()), None) if out is not None else None
    if file is not None:
        raise ValueError(f"--out {out}: {file} is a file; give a folder, which is made when missing")
