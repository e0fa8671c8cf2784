"""--ckpt_path is looked at before anything is computed.

Enters: a path, or one of the words `last`, `best`, `auto`, and the model that it is to be loaded into. Leaves: the path
of a checkpoint and what it says of how its model is asked, or one ValueError that says what is wrong.
"""

import logging
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from vlm_crash.data.dataset import REMEMBERED, ModelInputs
from vlm_crash.models.training_checkpoint import SETTINGS
from vlm_crash.parallel.checkpoint import OTHERS, Stored, check_model
from vlm_crash.parallel.whole_files import standing

log = logging.getLogger(__name__)

REMEDY = "set --ckpt_path to a .ckpt that fit wrote"
_OF_A_RUN = ("last", "best")
#: What a command takes beside a path.
WORDS = {"fit": ("last", "auto"), **dict.fromkeys(("validate", "test", "predict"), _OF_A_RUN)}
#: Lightning's own words that have no meaning here.
_LIGHTNINGS = ("hpc", "registry")

_READ = (
    "The weights to {command} with: a .ckpt that fit wrote (a file, or the folder of a sharded one); last: the newest "
    "in the checkpoints of output_dir; best: the one there with the best score that a ModelCheckpoint watches. Unset: "
    "those of model.path."
)
#: The help line of the option; Lightning's own tells of words that do nothing here.
HELP = {
    "fit": (
        "Go on from: a .ckpt that fit wrote (a file, or the folder of a sharded one); last: the newest in the "
        "checkpoints of output_dir; auto: the same, or from the beginning where there is none. Unset: from the "
        "beginning."
    ),
    **{command: _READ.format(command=command) for command in ("validate", "test", "predict")},
}


def find_checkpoint(given: str | Path, folder: Path, command: str) -> Path | None:
    """The checkpoint that is meant; None where `auto` finds none, so that the run begins.

    Args:
        given: a path, or one of the command's WORDS.
        folder: where the run of output_dir keeps its checkpoints.
        command: fit, validate, test or predict.

    Raises:
        ValueError: there is none, or the word has no meaning for the command.
    """
    word = str(given)
    if word in WORDS[command]:
        found = _best(folder) if word == "best" else _last(folder)
        if found is None and word != "auto":
            otherwise = ", or to auto to begin where there is none" if command == "fit" else ""
            raise ValueError(
                f"there is no checkpoint {folder / 'last.ckpt'}; set --output_dir to the folder of the run, "
                f"{REMEDY.removeprefix('set ')}{otherwise}"
            )
        return found
    words = {word for of_command in WORDS.values() for word in of_command}
    if word in words or word.split(":")[0] in _LIGHTNINGS:
        raise ValueError(
            f"--ckpt_path {word} has no meaning in {command}; {REMEDY}, or to {' or '.join(WORDS[command])}"
        )
    if not standing(Path(given)).exists():
        raise ValueError(f"there is no checkpoint {given}; {REMEDY}")
    return Path(given)


def _newest_first(folder: Path) -> list[Path]:
    """The whole checkpoints of a folder by their final names; of two of one moment the one that is called last."""
    names = {path.name.removeprefix(".").removesuffix(".old") for path in folder.glob("*.ckpt*")}
    paths = [folder / name for name in names if name.endswith(".ckpt")]
    found = [path for path in paths if standing(path).exists()]
    return sorted(found, key=lambda p: (standing(p).stat().st_mtime_ns, p.name.startswith("last"), p.name))[::-1]


def _last(folder: Path) -> Path | None:
    """The newest from which a run can go on: an epoch's, where the run was killed before it had saved it as the last.

    Where there are weights alone, the newest of those that are called last.
    """
    newest = _newest_first(folder)
    for path in newest:
        if {OTHERS, "optimizer_states"} & read_checkpoint(path).rest.keys():
            return path
    return next((path for path in newest if path.name.startswith("last")), None)


def _best(folder: Path) -> Path | None:
    """What the newest whole state of a run calls its best checkpoint."""
    newest = _newest_first(folder)
    for path in newest:
        rest = read_checkpoint(path).rest
        if "callbacks" not in rest:
            continue  # weights alone
        if path != newest[0]:
            raise ValueError(
                f"which checkpoint of {folder} is the best is not known: {newest[0].name} is newer than the newest "
                f"whole state, {path.name}; {REMEDY}"
            )
        return _best_of(rest["callbacks"], path)
    return None


def _best_of(callbacks: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    keepers = [state for state in callbacks.values() if state.get("monitor") and state.get("best_model_path")]
    bests = sorted({Path(state["best_model_path"]).name for state in keepers})
    if not bests:
        raise ValueError(
            f"{path} knows no best checkpoint: none was chosen by a score (a ModelCheckpoint's monitor); "
            "set --ckpt_path last"
        )
    if len(bests) > 1:
        scores = ", ".join(str(state["monitor"]) for state in keepers)
        raise ValueError(f"{path} knows {len(bests)} best checkpoints, by {scores}: {', '.join(bests)}; {REMEDY}")
    best = path.parent / bests[0]
    if not standing(best).exists():
        raise ValueError(f"{path} calls {best} the best checkpoint, and it is not there; {REMEDY}")
    return best


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


def inputs_of(stored: Stored | None, inputs: ModelInputs) -> ModelInputs:
    """What the checkpoint's model wants to be fed: what fit has saved goes before what the model's folder says."""
    settings = _saved(stored)
    return replace(inputs, **{name: settings[name] for name in REMEMBERED if name in settings})


@rank_zero_only
def tell_changes(stored: Stored, now: Mapping[str, Any]) -> None:
    """Warn of what a run that goes on does in another way than its checkpoint, as the command line asks for it.

    Args:
        now: what the run's folder will remember (SampleRecipe.remembered).
    """
    settings = dict(_saved(stored))
    if "told_sampling" in settings:  # None is what every prompt said before there were words of a rule's own
        settings["told_sampling"] = settings["told_sampling"] or "uniform"
    changes = [f"{name}: {settings[name]} -> {now[name]}" for name in now if settings.get(name, now[name]) != now[name]]
    if changes:
        log.warning(
            "%s was trained in another way, and this run goes on with what is given now (%s); leave these options out "
            "to go on as before", stored.path, "; ".join(changes),
        )  # fmt: skip


def _saved(stored: Stored | None) -> Mapping[str, Any]:
    """The settings of the model in a checkpoint; another program's has none."""
    settings = (stored.rest.get(SETTINGS) if stored is not None else None) or {}
    # Before a rule had settings and words of its own none were saved; the folder's may be another rule's.
    return {"frames": None, "told_sampling": None, **settings} if "frame_rule" in settings else settings
