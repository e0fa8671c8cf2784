"""--ckpt_path is looked at before anything is computed.

Enters: a path, and the model that it is to be loaded into. Leaves: nothing, or one ValueError that says what is wrong.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

REMEDY = "set --ckpt_path to a .ckpt file that fit wrote"


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Names and shapes of a checkpoint's tensors; nothing is loaded, no code of the file is run.

    Raises:
        ValueError: there is no such file, or it is no checkpoint.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no checkpoint {path}; {REMEDY}")
    try:
        content: Any = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no checkpoint that can be read ({reason}); {REMEDY}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"{path} has no state_dict; {REMEDY}")
    state_dict: dict[str, Tensor] = content["state_dict"]
    return state_dict


def check_fits(path: str | Path, given: dict[str, Tensor], model: nn.Module, folder: Path) -> None:
    """Refuse another model's checkpoint by the names and shapes of its tensors.

    Raises:
        ValueError: names the first tensor of each kind of difference.
    """
    wanted = model.state_dict()
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    shapes = [
        f"{key}: {tuple(given[key].shape)} in the checkpoint, {tuple(wanted[key].shape)} in the model"
        for key in sorted(set(given) & set(wanted))
        if given[key].shape != wanted[key].shape
    ]
    kinds = {"missing": missing, "unknown": extra, "of another shape": shapes}
    differences = [f"{len(found)} tensors {kind} (first: {found[0]})" for kind, found in kinds.items() if found]
    if differences:
        raise ValueError(
            f"{path} is a checkpoint of another model than {folder}: {', '.join(differences)}; "
            "set --model.path to the folder that the checkpoint was trained from"
        )
