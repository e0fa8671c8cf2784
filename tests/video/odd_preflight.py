"""A process that looks at clips as preflight_process.py does, and ends as decoders end: by a clip's name."""

import ctypes
import time
from pathlib import Path
from unittest import mock

import numpy as np

from vlm_crash.video import preflight
from vlm_crash.video.preflight import ClipFacts
from vlm_crash.video.preflight_process import TASKS
from vlm_crash.video.reader_process import serve


def examine(path: Path, memory_gib: float | None, for_decord: bool) -> ClipFacts:
    match path.stem:
        case "hangs":
            time.sleep(3600)
        case "crashes":
            ctypes.string_at(0)
        case "eats":
            with mock.patch.object(preflight, "_examine", eat):
                return preflight.examine(path, memory_gib)
    facts: ClipFacts = TASKS["examine"](path, memory_gib, for_decord)
    return facts


def compare(path: Path, memory_gib: float | None) -> str | None:
    if path.stem == "2":
        ctypes.string_at(0)
    return TASKS["compare"](path, memory_gib)


def eat(path: Path, see: object) -> ClipFacts:
    eaten = []
    while True:
        eaten.append(np.ones(2**21, np.uint8))
        time.sleep(0.001)


if __name__ == "__main__":
    serve({**TASKS, "examine": examine, "compare": compare})
