"""Which clips show the same, though their files differ: by the bits of their frames, all clips against all.

Enters: fingerprints. Leaves: pairs, each with the share of its frames that were found again and how far off they were.
Must hold: the order of the clips changes no pair; few frames that say something make no clip a copy.
Suffixes: F frames of a clip, A frames of all clips, N clips, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm_crash.video.fingerprint import FRAMES_PER_S, Fingerprint, Words

#: Bits, of NUM_BITS, by which a frame and its copy may differ, and the share of a clip's frames that must have one.
#: Measured on copies of rendered and of real clips (docs/audit.md): copies cut between frames need up to 50 bits, and
#: the first pairs of different rendered clips, which look more alike than real ones, come at 70; the more pairs, the
#: earlier.
MAX_BITS = 50
LEAST_SHARE = 0.5
#: Every so many frames of the shorter clip are looked for among all frames of the longer one.
STEP = 2
#: Frames with structure by which a clip can be called a copy of a longer one: those of a second at least, for a logo
#: may flash up in two clips that are black otherwise; and half of all its frames, for a title card may stay, unless
#: they are more than it stays for.
LEAST_FRAMES, ENOUGH_FRAMES = int(FRAMES_PER_S), int(10 * FRAMES_PER_S)
#: So many of them, spread over the clip, are looked for first; a clip in which none of these is found is no copy.
NUM_FIRST = 16


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

    A clip for which `is_enough` is False is looked for in no longer one.

    Args:
        prints: one a clip.
        max_bits: by which two frames that are called the same may differ.
        least_share: of the frames, from 0 to 1.
    """
    # A part of a clip is found in the whole, not the other way round; equally long ones in an order of their own.
    kept = sorted((n for n, one in enumerate(prints) if len(one)), key=lambda n: _rank(prints[n]))
    found: dict[tuple[int, int], NearCopy] = {}
    lengths_N = np.array([len(prints[n]) for n in kept], np.int64)
    for mirrored in (False, True):
        hashes_AW = np.concatenate([_of(prints[n], mirrored) for n in kept]) if kept else np.zeros((0, 1), np.uint64)
        hashes_AW = np.asfortranarray(hashes_AW)  # each word's column in one piece
        ends = np.cumsum(lengths_N)
        for place, n in enumerate(kept[:-1]):
            if not is_enough(prints[n]):
                continue
            longer = _Others(hashes_AW[ends[place] :], lengths_N[place + 1 :])
            for at, share, bits in _like(prints[n].hashes_FW[::STEP], longer, max_bits, least_share):
                first, second = sorted((n, kept[place + 1 + at]))
                pair = NearCopy(first, second, share, bits, mirrored)
                other = found.get((first, second))
                if other is None or (share, -bits) > (other.share, -other.bits):
                    found[first, second] = pair
    return [found[key] for key in sorted(found)]


def is_enough(one: Fingerprint) -> bool:
    """Whether a clip has frames enough with a structure to be called a copy by them.

    >>> frames = np.zeros((12, 4), np.uint64)
    >>> [is_enough(Fingerprint((0.0,) * 12, frames, frames, num_blank)) for num_blank in (0, 12, 13)]
    [True, True, False]
    """
    return len(one) >= LEAST_FRAMES and (len(one) >= one.num_blank or len(one) >= ENOUGH_FRAMES)


def _rank(one: Fingerprint) -> tuple[int, bytes]:
    return len(one), one.hashes_FW.tobytes()


def _of(one: Fingerprint, mirrored: bool) -> Words:
    return one.mirrored_FW if mirrored else one.hashes_FW


@dataclass(frozen=True)
class _Others:
    """Clips in which is looked: the frames of all, one clip after the other, and how many each has."""

    hashes_AW: Words
    lengths_N: NDArray[np.int64]

    def nearest_bits(self, hashes_FW: Words, max_bits: int) -> NDArray[np.uint16]:
        """[F, N]: by how many bits each frame differs from the nearest one of each clip; more than max_bits: any."""
        nearest_FN = np.full((len(hashes_FW), len(self.lengths_N)), max_bits + 1, np.uint16)
        clip_A, half = np.repeat(np.arange(len(self.lengths_N)), self.lengths_N), hashes_FW.shape[1] // 2
        for nearest_N, words_W in zip(nearest_FN, hashes_FW, strict=True):
            # Of nearly all frames half of the words say already that they are too far off.
            bits_A = differing_bits(words_W[None, :half], self.hashes_AW[:, :half])[0]
            close = np.flatnonzero(bits_A <= max_bits)
            bits = bits_A[close] + differing_bits(words_W[None, half:], self.hashes_AW[close, half:])[0]
            np.minimum.at(nearest_N, clip_A[close], bits)
        return nearest_FN

    def only(self, kept_N: NDArray[np.bool_]) -> _Others:
        """These alone."""
        hashes_AW = self.hashes_AW[np.repeat(kept_N, self.lengths_N)]
        return _Others(np.asfortranarray(hashes_AW), self.lengths_N[kept_N])


def _like(hashes_FW: Words, others: _Others, max_bits: int, least_share: float) -> list[tuple[int, float, float]]:
    """(place, share, bits) of the other clips in which a clip's frames are found."""
    # Where that share of them is found, one of any so many is. Of long clips fewer are tried: half of them would have
    # to be found, and all NUM_FIRST, which are spread evenly, be among those that are not.
    count = min(len(hashes_FW), NUM_FIRST, int(len(hashes_FW) * (1 - least_share)) + 1)
    first = np.linspace(0, len(hashes_FW) - 1, count).astype(int)
    maybe_N: NDArray[np.bool_] = others.nearest_bits(hashes_FW[first], max_bits).min(axis=0) <= max_bits
    if not maybe_N.any():
        return []
    nearest_FN = others.only(maybe_N).nearest_bits(hashes_FW, max_bits)
    like = []
    for at, near_F in zip(np.flatnonzero(maybe_N).tolist(), nearest_FN.T, strict=True):
        near = near_F[near_F <= max_bits]
        if len(near) >= least_share * len(near_F) and len(near):
            like.append((at, len(near) / len(near_F), float(near.mean())))
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
