"""Which clips show the same, though their files differ: by the bits of their frames, all clips against all.

Enters: fingerprints. Leaves: pairs, each with the share of its frames that were found again and how far off they were.
Must hold: the order of the clips changes no pair; a clip without frames that say anything is in none.
Suffixes: F frames of a clip, A frames of all clips, N clips, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm_crash.video.fingerprint import Fingerprint, Words

#: Bits, of NUM_BITS, by which a frame and its copy may differ, and the share of a clip's frames that must have one.
#: Measured on copies of rendered and of real clips (docs/audit.md): copies need up to 40 bits, and the first pairs
#: of different rendered clips, which look more alike than real ones, come at 70; the more pairs, the earlier.
MAX_BITS = 40
LEAST_SHARE = 0.5
#: Every so many frames of the shorter clip are looked for among all frames of the longer one.
STEP = 2


@dataclass(frozen=True)
class NearCopy:
    """Two clips that show the same.

    Attributes:
        first, second: their places in the list, the smaller one first.
        share: of the frames of the shorter one that were found in the other.
        bits: mean number of bits, of NUM_BITS, by which these differ.
        mirrored: whether they were found in its mirror image.
    """

    first: int
    second: int
    share: float
    bits: float
    mirrored: bool


def near_copies(
    prints: Sequence[Fingerprint], max_bits: int = MAX_BITS, least_share: float = LEAST_SHARE
) -> list[NearCopy]:
    """Pairs of which the shorter one has that share of its frames in the other, or in its mirror image.

    Args:
        prints: one a clip.
        max_bits: by which two frames that are called the same may differ.
        least_share: of the frames, from 0 to 1.
    """
    # A part of a clip is found in the whole, not the other way round; equally long ones in an order of their own.
    kept = sorted((n for n, one in enumerate(prints) if len(one)), key=lambda n: _rank(prints[n]))
    found: dict[tuple[int, int], NearCopy] = {}
    for mirrored in (False, True):
        hashes_AW = np.concatenate([_of(prints[n], mirrored) for n in kept]) if kept else np.zeros((0, 1), np.uint64)
        hashes_AW = np.asfortranarray(hashes_AW)  # each word's column in one piece
        starts = np.cumsum([0, *(len(prints[n]) for n in kept)])
        for place, n in enumerate(kept[:-1]):
            longer_AW, offsets_N = hashes_AW[starts[place + 1] :], starts[place + 1 : -1] - starts[place + 1]
            for at, share, bits in _like(prints[n].hashes_FW[::STEP], longer_AW, offsets_N, max_bits, least_share):
                first, second = sorted((n, kept[place + 1 + at]))
                pair = NearCopy(first, second, share, bits, mirrored)
                other = found.get((first, second))
                if other is None or (share, -bits) > (other.share, -other.bits):
                    found[first, second] = pair
    return [found[key] for key in sorted(found)]


def _rank(one: Fingerprint) -> tuple[int, bytes]:
    return len(one), one.hashes_FW.tobytes()


def _of(one: Fingerprint, mirrored: bool) -> Words:
    return one.mirrored_FW if mirrored else one.hashes_FW


def _like(
    hashes_FW: Words, others_AW: Words, offsets_N: NDArray[np.int64], max_bits: int, least_share: float
) -> list[tuple[int, float, float]]:
    """(place, share, bits) of the other clips, which begin at these offsets, in which a clip's frames are found."""
    nearest_FN = np.minimum.reduceat(differing_bits(hashes_FW, others_AW), offsets_N, axis=1)
    share_N = (nearest_FN <= max_bits).mean(axis=0)
    like = []
    for at in np.flatnonzero((share_N >= least_share) & (share_N > 0)).tolist():
        near_F = nearest_FN[:, at]
        like.append((at, float(share_N[at]), float(near_F[near_F <= max_bits].mean())))
    return like


def differing_bits(left_FW: Words, right_AW: Words) -> NDArray[np.uint16]:
    """[F, A]: by how many bits each frame of the left differs from each of the right.

    >>> differing_bits(np.array([[0b1011]], np.uint64), np.array([[0b1000], [0b1011]], np.uint64)).tolist()
    [[2, 0]]
    """
    bits_FA = np.zeros((len(left_FW), len(right_AW)), np.uint16)  # 256 bits are one too many for 8
    # Frame by frame, word by word, into the same small arrays: they stay in the processor's cache.
    differ_A, count_A = np.empty(len(right_AW), np.uint64), np.empty(len(right_AW), np.uint8)
    for bits_A, words_W in zip(bits_FA, left_FW, strict=True):
        for word, column_A in zip(words_W, right_AW.T, strict=True):
            np.bitwise_xor(column_A, word, out=differ_A)
            np.bitwise_count(differ_A, out=count_A)
            bits_A += count_A
    return bits_FA
