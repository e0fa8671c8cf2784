"""How well `audit` tells copies from other clips: copies are made, and looked for at several thresholds.

    python tools/measure_copies.py FOLDER... [--num_copied 20] [--seed 0]

Enters: folders of clips that are all different. Leaves: a table on stdout: of each kind of copy how many are found, and
how many pairs of different clips are called the same; and how long it takes to compare 1,642 clips.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vlm_crash.data.near_copies import MAX_BITS, near_copies
from vlm_crash.video.clip_files import list_clips
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.fingerprint import NUM_WORDS, Fingerprint, fingerprint

#: Bits of 256 at which is looked.
THRESHOLDS = (20, 30, 40, MAX_BITS, 60, 70, 80)
#: Seconds of a clip that are copied.
MOST_S = 6
#: Clips of the largest dataset that this program was made for, and frames of each (10 s).
NUM_CLIPS, NUM_FRAMES = 1642, 40

Frame = np.ndarray


def _scaled(frame: Frame, share: float) -> Frame:
    size = [max(2, int(side * share)) for side in (frame.shape[1], frame.shape[0])]
    return np.asarray(Image.fromarray(frame).resize((size[0], size[1])))


def _cropped(frame: Frame) -> Frame:
    height, width = (side * 3 // 100 for side in frame.shape[:2])
    return frame[height : frame.shape[0] - height, width : frame.shape[1] - width]


def _stamped(frame: Frame) -> Frame:
    """With a white box where cameras write the time."""
    frame = frame.copy()
    height, width = frame.shape[:2]
    frame[height * 88 // 100 : height * 96 // 100, width * 5 // 100 : width * 35 // 100] = 255
    return frame


#: Kind -> (what is done with each frame, H.264 quality, seconds cut off at the beginning and at the end).
COPIES: Mapping[str, tuple[Callable[[Frame], Frame], int, float, float]] = {
    "encoded again": (lambda frame: frame, 18, 0, 0),
    "encoded badly (CRF 38)": (lambda frame: frame, 38, 0, 0),
    "half the size": (lambda frame: _scaled(frame, 0.5), 28, 0, 0),
    "brighter by a quarter": (lambda frame: np.clip(frame * 1.25 + 20, 0, 255).astype(np.uint8), 23, 0, 0),
    "darker by two fifths": (lambda frame: (frame * 0.6).astype(np.uint8), 23, 0, 0),
    "0.77 s and 0.5 s cut off": (lambda frame: frame, 23, 0.77, 0.5),
    # Four of the demo's frames: what is looked at lies between what was, unlike 0.77 s, which are nine.
    "0.34 s cut off": (lambda frame: frame, 23, 0.34, 0),
    "mirrored": (lambda frame: frame[:, ::-1], 23, 0, 0),
    "3 % of each side cut off": (_cropped, 23, 0, 0),
    "a box written over it": (_stamped, 23, 0, 0),
}


def copy(source: Path, target: Path, kind: str) -> bool:
    """Write a copy of that kind; False where nothing is left of so short a clip."""
    change, quality, begin_s, end_s = COPIES[kind]
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        frames: list[Frame] = []
        for frame in container.decode(stream):
            if len(frames) >= fps * MOST_S:
                break
            frames.append(frame.to_ndarray(format="rgb24"))
    frames = frames[int(begin_s * fps) : len(frames) - int(end_s * fps)]
    if len(frames) < fps:
        return False
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        height, width = (side // 2 * 2 for side in change(frames[0]).shape[:2])
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"crf": str(quality), "preset": "veryfast", "threads": "1"}
        for frame_HWC in frames:
            changed = np.ascontiguousarray(change(frame_HWC)[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(changed, format="rgb24")))
        container.mux(stream.encode())
    return True


def prints_of(clips: Sequence[Path]) -> dict[Path, Fingerprint]:
    """Fingerprints of those that can be read and have frames that say something."""

    def look(clip: Path) -> Fingerprint | None:
        try:
            return fingerprint(clip)
        except UnreadableClipError as error:
            print(f"left out: {error}", file=sys.stderr)
            return None

    with ThreadPoolExecutor(2) as pool:
        return {
            clip: one for clip, one in zip(clips, pool.map(look, clips), strict=True) if one is not None and len(one)
        }


def found(original: Fingerprint, copies: Sequence[Fingerprint], bits: int) -> int:
    """How many of the copies are found."""
    return sum(bool(near_copies([original, one], max_bits=bits)) for one in copies)


def table(folders: Sequence[Path], num_copied: int, seed: int) -> list[str]:
    """The lines of the table."""
    clips = [clip for folder in folders for clip in list_clips(folder)]
    originals = prints_of(clips)
    copied = random.Random(seed).sample(sorted(originals), min(num_copied, len(originals)))
    made: dict[str, list[tuple[Path, Fingerprint]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in COPIES:
            targets = {Path(folder) / f"{n}_{len(made)}.mp4": clip for n, clip in enumerate(copied)}
            written = [target for target, clip in targets.items() if copy(clip, target, kind)]
            made[kind] = [(targets[target], one) for target, one in prints_of(written).items()]
    lines = ["| | in all | " + " | ".join(f"{bits} bits" for bits in THRESHOLDS) + " |", "|---|" + "---|" * 8]
    for kind, copies in made.items():
        counts = [sum(found(originals[clip], [one], bits) for clip, one in copies) for bits in THRESHOLDS]
        lines.append(f"| {kind} | {len(copies)} | " + " | ".join(map(str, counts)) + " |")
    pairs = len(originals) * (len(originals) - 1) // 2
    wrong = [len(near_copies(list(originals.values()), max_bits=bits)) for bits in THRESHOLDS]
    lines.append(f"| pairs of different clips | {pairs:,} | " + " | ".join(map(str, wrong)) + " |")
    return lines


def seconds_to_compare() -> float:
    """Of so many clips, all against all and against their mirror images."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, (NUM_CLIPS, 2, NUM_FRAMES, NUM_WORDS), dtype=np.uint64)
    prints = [Fingerprint(tuple(range(NUM_FRAMES)), one[0], one[1], 0) for one in words]
    start = time.monotonic()
    assert not near_copies(prints)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="Folders of clips that are all different.")
    parser.add_argument("--num_copied", type=int, default=20, help="Clips of which copies are made.")
    parser.add_argument("--seed", type=int, default=0, help="Which ones.")
    options = parser.parse_args()
    print("\n".join(table(options.folders, options.num_copied, options.seed)))
    print(f"{NUM_CLIPS:,} clips of {NUM_FRAMES} frames are compared in {seconds_to_compare():.1f} s")


if __name__ == "__main__":
    main()
