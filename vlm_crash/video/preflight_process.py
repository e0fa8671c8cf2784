"""The process in which clips are looked at for `check` (see reader_process.py and preflight.py)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_crash.video.clip_files import content_hash
from vlm_crash.video.comparison import decord_disagreements
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.preflight import examine, memory_limit
from vlm_crash.video.reader_process import serve


def compare(path: Path, memory_gib: float | None) -> str | None:
    """What decord would get wrong of 32 frames."""
    with memory_limit(memory_gib):
        return decord_disagreements(path, FrameSampling())


#: What it can be asked.
TASKS: dict[str, Callable[..., Any]] = {"content_hash": content_hash, "examine": examine, "compare": compare}

if __name__ == "__main__":
    serve(TASKS)
