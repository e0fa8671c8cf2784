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
#: Measured on copies of rendered and of real clips (docs/audit.md).
MAX_BITS = 60
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class NearCopy:
    """Two clips that show the same.

    Attributes:
        first, second: their places in the list, the smaller one first.
        share: of the frames of one of them that were found in the other, the larger of the two shares.
        bits: mean number of bits, of NUM_BITS, by which these differ.
        mirrored: whether the second one was found in its mirror image.
    """

    first: int
    second: int
    share: float
    bits: float
    mirrored: bool


def near_copies(
    prints: Sequence[Fingerprint], max_bits: int = MAX_BITS, least_share: float = LEAST_SHARE
) -> list[NearCopy]:
    """Pairs of which one has that share of its frames in the other, or in its mirror image.

    Args:
        prints: one a clip.
        max_bits: by which two frames that are called the same may differ.
        least_share: of the frames, from 0 to 1.
    """
    kept = [n for n, one in enumerate(prints) if len(one)]
    found: dict[tuple[int, int], NearCopy] = {}
    for mirrored in (False, True):
        hashes_AW = np.concatenate([_of(prints[n], mirrored) for n in kept]) if kept else np.zeros((0, 1), np.uint64)
        starts = np.cumsum([0, *(len(prints[n]) for n in kept)])
        for place, n in enumerate(kept[:-1]):
            later_AW, offsets_N = hashes_AW[starts[place + 1] :], starts[place + 1 : -1] - starts[place + 1]
            for at, share, bits in _like(prints[n].hashes_FW, later_AW, offsets_N, max_bits, least_share):
                pair = NearCopy(n, kept[place + 1 + at], share, bits, mirrored)
                key = (pair.first, pair.second)
                if key not in found or (pair.share, -pair.bits) > (found[key].share, -found[key].bits):
                    found[key] = pair
    return [found[key] for key in sorted(found)]


def _of(one: Fingerprint, mirrored: bool) -> Words:
    return one.mirrored_FW if mirrored else one.hashes_FW


def _like(
    hashes_FW: Words, others_AW: Words, offsets_N: NDArray[np.int64], max_bits: int, least_share: float
) -> list[tuple[int, float, float]]:
    """(place, share, bits) of the other clips, which begin at these offsets, that show the same as one clip."""
    bits_FA = differing_bits(hashes_FW, others_AW)
    nearest_FN = np.minimum.reduceat(bits_FA, offsets_N, axis=1)
    found_A = bits_FA.min(axis=0) <= max_bits
    sizes_N = np.diff([*offsets_N.tolist(), len(others_AW)])
    back_N = np.add.reduceat(found_A, offsets_N, dtype=np.int64) / sizes_N
    share_N = np.maximum((nearest_FN <= max_bits).mean(axis=0), back_N)
    like = []
    for at in np.flatnonzero(share_N >= least_share).tolist():
        near_F = nearest_FN[:, at]
        like.append((at, float(share_N[at]), float(near_F[near_F <= max_bits].mean())))
    return like


def differing_bits(left_FW: Words, right_AW: Words) -> NDArray[np.uint16]:
    """[F, A]: by how many bits each frame of the left differs from each of the right.

    >>> differing_bits(np.array([[0b1011]], np.uint64), np.array([[0b1000], [0b1011]], np.uint64)).tolist()
    [[2, 0]]
    """
    bits_FA = np.zeros((len(left_FW), len(right_AW)), np.uint16)  # 256 bits are one too many for 8
    for word in range(left_FW.shape[1]):
        bits_FA += np.bitwise_count(left_FW[:, None, word] ^ right_AW[None, :, word])
    return bits_FA
