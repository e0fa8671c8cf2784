"""How a clip looks, as bits: copies that were encoded anew, made smaller or cut still have nearly the same ones.

Enters: a clip. Leaves: a Fingerprint, two hashes for every quarter of a second of its first MAX_S.
Must hold: the same frames give the same bits; a frame without structure (black, one colour) has none, for it would be
like every other one. Suffixes: F frames, W words of 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.guarded import CLIP_TIMEOUT_S, read_fitted

#: Frames: four a second, however long the clip is, so that one whose beginning was cut off has its frames within an
#: eighth of a second of those of the original; and seconds of a clip that are looked at: a bound for memory and time.
FRAMES_PER_S, MAX_S = 4.0, 600.0
#: Where frames come unevenly, the last one may be on show beyond MAX_S: the frames are never spread over fewer places.
SAMPLING = FrameSampling(int(MAX_S * FRAMES_PER_S) + 8, "fps", fps=FRAMES_PER_S, end_s=MAX_S)
#: Bits of a frame: the lowest HASH_SIDE x HASH_SIDE frequencies of a picture of SIDE x SIDE grey pixels (imagehash's
#: `phash`). The usual 8 x 8 do not tell one dashcam's road from another's.
HASH_SIDE, SIDE = 16, 64
NUM_BITS = HASH_SIDE**2
NUM_WORDS = NUM_BITS // 64
#: Standard deviation of the grey levels, of 256, below which a frame says nothing.
LEAST_STRUCTURE = 6.0

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of a clip's frames.

    Attributes:
        times_s: [F] when each frame is shown, in seconds from the first one on.
        hashes_FW: its NUM_BITS bits.
        mirrored_FW: those of its mirror image.
        num_blank: frames left out because they have no structure.
        is_whole: False where the clip goes on behind MAX_S.
    """

    times_s: tuple[float, ...]
    hashes_FW: Words
    mirrored_FW: Words
    num_blank: int
    is_whole: bool = True

    def __len__(self) -> int:
        return len(self.times_s)


def fingerprint(path: str | Path, timeout_s: float | None = CLIP_TIMEOUT_S) -> Fingerprint:
    """The fingerprint of a clip, read in a process that may die of it.

    Args:
        timeout_s: most seconds for the clip; None or 0: no limit.

    Raises:
        UnreadableClipError: nothing of it can be decoded, it took too long, or the decoder died of it.
    """
    frames = read_fitted(path, SAMPLING, _greys, timeout_s=timeout_s)
    seen = [n for n, grey in enumerate(frames.frames_FHWC) if grey.std() >= LEAST_STRUCTURE]
    return Fingerprint(
        times_s=tuple(float(frames.times_s[n]) for n in seen),
        hashes_FW=_packed([_bits(frames.frames_FHWC[n]) for n in seen]),
        mirrored_FW=_packed([_bits(frames.frames_FHWC[n][:, ::-1]) for n in seen]),
        num_blank=len(frames.frames_FHWC) - len(seen),
        is_whole=frames.info.duration_s <= MAX_S,
    )


def _greys(frames_FHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([_grey(frame_HWC) for frame_HWC in frames_FHWC])


def _grey(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    small = Image.fromarray(frame_HWC).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _bits(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[NUM_BITS], as imagehash has them; the picture has the size already at which it takes the frequencies."""
    import imagehash
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(grey))
    bits: NDArray[np.bool_] = imagehash.phash(image, HASH_SIDE, highfreq_factor=SIDE // HASH_SIDE).hash.ravel()
    return bits


def _packed(bits: list[NDArray[np.bool_]]) -> Words:
    """[F, W]: 64 bits a word, for one XOR and one count."""
    if not bits:
        return np.zeros((0, NUM_WORDS), np.uint64)
    return np.packbits(np.stack(bits), axis=1).view(np.uint64)
