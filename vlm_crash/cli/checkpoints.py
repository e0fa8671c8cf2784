"""--ckpt_path is looked at before anything is computed.

Enters: a path, or `last` or `auto`, and the model that it is to be loaded into. Leaves: the path of a checkpoint, or
one ValueError that says what is wrong.
"""

import pickle
from pathlib import Path

from torch import nn

from vlm_crash.parallel.checkpoint import Stored, check_model
from vlm_crash.parallel.whole_files import standing

REMEDY = "set --ckpt_path to a .ckpt that fit wrote"


def find_checkpoint(given: str | Path, folder: Path) -> Path | None:
    """The checkpoint that is meant; None where `auto` finds none, so that the run begins.

    Args:
        given: a path; `last`: the newest `last*.ckpt` of the folder; `auto`: the same, if there is one.
        folder: where the run keeps its checkpoints.

    Raises:
        ValueError: there is none.
    """
    if str(given) in ("last", "auto"):
        names = {path.name.removeprefix(".").removesuffix(".old") for path in folder.glob("*last*.ckpt*")}
        found = [folder / name for name in names if name.startswith("last") and name.endswith(".ckpt")]
        standings = [path for path in found if standing(path).exists()]
        if standings:
            return max(standings, key=lambda path: standing(path).stat().st_mtime)
        if given == "auto":
            return None
        raise ValueError(
            f"there is no checkpoint {folder / 'last.ckpt'}; {REMEDY}, or to auto to begin where there is none"
        )
    if not standing(Path(given)).exists():
        raise ValueError(f"there is no checkpoint {given}; {REMEDY}")
    return Path(given)


def read_checkpoint(path: Path, remedy: str = REMEDY) -> Stored:
    """Names and shapes of a checkpoint's tensors; nothing is loaded, no code of the file is run.

    Args:
        path: file or folder; one that was set aside is found, too.
        remedy: what the user is told to do where it is none.

    Raises:
        ValueError: it is no checkpoint.
    """
    try:
        stored = Stored(path)
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]}; {remedy}") from error
    except (RuntimeError, EOFError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no checkpoint that can be read ({reason}); {remedy}") from error
    return stored


def check_fits(stored: Stored, model: nn.Module, folder: Path) -> None:
    """Refuse another model's checkpoint by the names and shapes of its tensors.

    Raises:
        ValueError: names the first tensor of each kind of difference.
    """
    check_model(stored, model, folder)
