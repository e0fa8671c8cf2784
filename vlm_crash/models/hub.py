"""A model's name -> a folder on this machine.

Enters: a path, or a name on the Hugging Face hub with a revision. Leaves: a local folder. Invariant: what lies on this
machine is never asked for elsewhere, and no Python file is fetched.
"""

import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)

WANTED = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja"]


def local_folder(path: str | Path, revision: str | None = None) -> Path:
    """The folder itself, or where the hub's files were put.

    Args:
        path: a folder, or OWNER/NAME on the hub.
        revision: branch, tag or commit on the hub.

    Raises:
        ValueError: the name cannot be fetched, or a revision is given with a folder.
    """
    folder = Path(path)
    # OWNER is no folder here: otherwise a mistyped path would be looked for in the network.
    is_name = re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(path)) is not None and not folder.parent.exists()
    if not is_name:
        if revision is not None:
            raise ValueError(
                f"revision={revision!r} is for names on the Hugging Face hub (OWNER/NAME), and {path} is none; "
                "leave it out"
            )
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        fetched = snapshot_download(str(path), revision=revision, allow_patterns=WANTED, ignore_patterns=["*.py"])
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is no folder here, and fetching it from the Hugging Face hub failed ({reason}); "
            "give a local folder, or see to the network, the name and the revision"
        ) from error
    log.info("%s (%s): %s", path, revision or "main", fetched)
    return Path(fetched)
