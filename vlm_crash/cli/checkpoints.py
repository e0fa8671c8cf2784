"""--ckpt_path is looked at before anything is computed.

Enters: a path. Leaves: names and shapes of its tensors, or one ValueError that says what is wrong.
"""

from pathlib import Path

from vlm_crash.models.training_checkpoint import read_file

REMEDY = "set --ckpt_path to a .ckpt file that fit wrote"


def checkpoint_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a checkpoint; nothing is loaded, no code of the file is run.

    Raises:
        ValueError: there is no such file, or it is no checkpoint.
    """
    tensors = read_file(Path(path), device="meta", remedy=REMEDY)["state_dict"]
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
