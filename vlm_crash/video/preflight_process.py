"""The process in which clips are looked at for `check` (see reader_process.py and preflight.py)."""

from collections.abc import Callable
from typing import Any

from vlm_crash.video.clip_files import content_hash
from vlm_crash.video.preflight import examine
from vlm_crash.video.reader_process import serve

#: What it can be asked.
TASKS: dict[str, Callable[..., Any]] = {"content_hash": content_hash, "examine": examine}

if __name__ == "__main__":
    serve(TASKS)
