"""The process in which clips are looked at for `check` (see reader_process.py and preflight.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_crash.video import preflight
from vlm_crash.video.clip_files import content_hash
from vlm_crash.video.comparison import decord_disagreements
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.memory_limit import memory_limit
from vlm_crash.video.preflight import ClipFacts
from vlm_crash.video.reader_process import serve
from vlm_crash.video.witnesses import Witnesses

#: decord is asked for 32 frames, as the old scripts did, and of a clip with open GOPs once more for 16: which ones it
#: gets wrong depends on where it seeks.
SAMPLINGS = (FrameSampling(32), FrameSampling(16))


class Looker:
    """Looks at one clip after another; of the last one it may keep what decord is held against."""

    def __init__(self) -> None:
        self._witnesses: Witnesses | None = None

    def examine(self, path: Path, memory_gib: float | None, for_decord: bool) -> ClipFacts:
        """What is in a clip, decoded as a whole; errors as Preflight's."""
        self._witnesses = None
        if not for_decord:
            return preflight.examine(path, memory_gib)
        with memory_limit(memory_gib):
            witnesses = Witnesses(path, SAMPLINGS)
        facts = preflight.examine(path, memory_gib, witnesses.see)
        if facts.damage is None:
            self._witnesses = witnesses
        return facts

    def compare(self, path: Path, memory_gib: float | None) -> str | None:
        """What decord would get wrong of frames chosen so."""
        witnesses, self._witnesses = self._witnesses, None
        with memory_limit(memory_gib):
            if witnesses is not None and witnesses.path == path:
                is_settled, wrong = witnesses.judge()
                if is_settled:
                    return wrong
            del witnesses  # before all of them are read
            found = (decord_disagreements(path, sampling) for sampling in SAMPLINGS)
            return next((wrong for wrong in found if wrong is not None), None)


_looker = Looker()

#: What it can be asked.
TASKS: dict[str, Callable[..., Any]] = {
    "content_hash": content_hash,
    "examine": _looker.examine,
    "compare": _looker.compare,
}

if __name__ == "__main__":
    serve(TASKS)
