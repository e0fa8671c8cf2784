"""The readers of clips, tried on a clip that is rendered here.

Enters: nothing. Leaves: findings, said as they are made.
"""

import importlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vlm_crash.doctor.lines import UNTRIED, WARNING, Line
from vlm_crash.doctor.saying import FAULTS, attempt, first_line, say

NUM_FRAMES, SIDE = 12, 64


def try_decoders() -> None:
    """A clip that is rendered here is read by each reader."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        if not attempt("PyAV, writing", partial(_render, clip), "a clip of its own (H.264)", "pip install av"):
            say(Line("readers", UNTRIED, "there is no clip to read"))
            return
        attempt("PyAV", partial(_read_pyav, clip), f"reads the {NUM_FRAMES} frames", "pip install av")
        say({"trying": "decord"})
        try:
            importlib.import_module("decord")
        except FAULTS as error:
            say(
                Line(
                    "decord", WARNING, f"cannot be imported: {first_line(error)}", "only --data.reader decord needs it"
                )
            )
            return
        attempt("decord", partial(_read_decord, clip), f"reads the {NUM_FRAMES} frames", "leave --data.reader at auto")


def _render(clip: Path) -> str | None:
    """Frames whose brightness counts them."""
    import av
    import numpy as np

    with av.open(str(clip), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for index in range(NUM_FRAMES):
            pixels = np.full((SIDE, SIDE, 3), 20 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return None


def _check(means: Iterator[float]) -> None:
    for index, mean in enumerate(means):
        if abs(mean - 20 * index) > 6:
            raise RuntimeError(f"frame {index} has the brightness {mean:.0f}, and {20 * index} was written")


def _read_pyav(clip: Path) -> str | None:
    import av

    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if len(frames) != NUM_FRAMES:
        raise RuntimeError(f"{len(frames)} frames of {NUM_FRAMES} were decoded")
    _check(float(frame.mean()) for frame in frames)
    return None


def _read_decord(clip: Path) -> str | None:
    import decord

    reader = decord.VideoReader(str(clip), num_threads=1)
    if len(reader) != NUM_FRAMES:
        raise RuntimeError(f"it counts {len(reader)} frames of {NUM_FRAMES}")
    _check(float(reader[index].asnumpy().mean()) for index in range(NUM_FRAMES))
    return None
