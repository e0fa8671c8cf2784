"""Copies are found by how their frames look, and different clips are not."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from vlm_crash.data.near_copies import ENOUGH_FRAMES, MAX_BITS, differing_bits, near_copies
from vlm_crash.video.fingerprint import NUM_WORDS, Fingerprint

RNG = np.random.default_rng(0)


def random_print(num_frames: int = 8) -> Fingerprint:
    words = RNG.integers(0, 2**64, size=(2, num_frames, NUM_WORDS), dtype=np.uint64)
    return Fingerprint(tuple(range(num_frames)), words[0], words[1], 0)


def flipped(one: Fingerprint, bits: int) -> Fingerprint:
    """The same with so many bits of each frame turned over."""
    plain = np.unpackbits(one.hashes_FW.view(np.uint8), axis=1)
    for row in plain:
        row[RNG.choice(plain.shape[1], bits, replace=False)] ^= 1
    return replace(one, hashes_FW=np.packbits(plain, axis=1).view(np.uint64))


def part(one: Fingerprint, begin: int, end: int) -> Fingerprint:
    return Fingerprint(one.times_s[begin:end], one.hashes_FW[begin:end], one.mirrored_FW[begin:end], 0)


def test_bits_that_differ_are_counted():
    one = random_print(3)
    assert differing_bits(one.hashes_FW, flipped(one, 17).hashes_FW).diagonal().tolist() == [17, 17, 17]
    all_other = differing_bits(one.hashes_FW, ~one.hashes_FW).diagonal()
    assert all_other.tolist() == [256, 256, 256]  # more than a byte holds


def test_copies_parts_and_mirror_images_are_found_and_others_are_not():
    whole = random_print()
    mirrored = Fingerprint(whole.times_s, whole.mirrored_FW, whole.hashes_FW, 0)
    prints = [whole, random_print(5), flipped(whole, 30), part(whole, 4, 8), mirrored, random_print()]
    found = {(pair.first, pair.second): pair for pair in near_copies(prints)}
    # 2 is a copy of 0, 3 a part of it, 4 its mirror image, which is also that of the copy's and the part's frames.
    assert set(found) == {(0, 2), (0, 3), (0, 4), (2, 3), (2, 4), (3, 4)}
    assert (found[0, 2].share, found[0, 2].bits, found[0, 2].mirrored) == (1.0, 30.0, False)
    assert (found[0, 3].share, found[0, 3].bits) == (1.0, 0.0)
    assert found[0, 4].mirrored


def test_bits_and_share_decide_and_the_order_does_not():
    whole = random_print()
    worse = flipped(whole, MAX_BITS + 1)
    half = Fingerprint(whole.times_s, np.concatenate([whole.hashes_FW[:2], worse.hashes_FW[2:]]), whole.mirrored_FW, 0)
    assert near_copies([whole, worse]) == []
    assert near_copies([whole, half]) == []  # one of the four frames that are looked for
    assert [pair.share for pair in near_copies([whole, half], least_share=0.25)] == [0.25]
    assert (
        len(near_copies([worse, whole], max_bits=MAX_BITS + 1))
        == len(near_copies([whole, worse], max_bits=MAX_BITS + 1))
        == 1
    )


@pytest.mark.parametrize("num_others", [0, 1, 2])
def test_a_clip_without_frames_is_like_none(num_others):
    blank = part(random_print(), 0, 0)
    assert near_copies([blank, blank, *(random_print() for _ in range(num_others))]) == []


def eighths(seconds: float, bits: int) -> Fingerprint:
    """A picture that changes: eight frames a second, each that many bits away from the one before."""
    plain = RNG.integers(0, 2, (int(seconds * 8), NUM_WORDS * 64), dtype=np.uint8)
    for before, row in pairwise(plain):
        row[:] = before
        row[RNG.choice(len(row), bits, replace=False)] ^= 1
    words = np.packbits(plain, axis=1).view(np.uint64)
    return Fingerprint(tuple(np.arange(len(words)) / 8), words, ~words, 0)


def every_fourth_of_a_second(one: Fingerprint, begin: int, end: int | None = None) -> Fingerprint:
    return Fingerprint(one.times_s[begin:end:2], one.hashes_FW[begin:end:2], one.mirrored_FW[begin:end:2], 0)


def test_long_clips_and_their_parts_are_found_by_frames_that_are_an_eighth_of_a_second_off():
    recording, other = eighths(84, bits=35), eighths(84, bits=35)
    whole = every_fourth_of_a_second(recording, 0)
    parts = [every_fourth_of_a_second(recording, begin, begin + 80) for begin in range(1, 592, 74)]
    later = every_fourth_of_a_second(recording, 3)
    prints = [whole, every_fourth_of_a_second(other, 0), later, *parts]
    found = {(pair.first, pair.second) for pair in near_copies(prints)}
    assert len(parts) == 8
    assert found >= {(0, 2), *((0, n) for n in range(3, 11)), *((2, n) for n in range(3, 11))}
    assert not any(1 in pair for pair in found)


def test_few_frames_with_a_structure_make_no_copy():
    card = random_print(ENOUGH_FRAMES)
    for frames, num_blank, is_copy in [
        (1, 0, False),  # a logo that flashes up
        (3, 0, False),
        (4, 4, True),
        (4, 5, False),
        (ENOUGH_FRAMES - 1, 400, False),  # a title card, and black
        (ENOUGH_FRAMES, 400, True),  # a night drive
    ]:
        one = replace(part(card, 0, frames), num_blank=num_blank)
        assert bool(near_copies([one, one])) is is_copy, (frames, num_blank)
    assert near_copies([replace(part(card, 0, 10), num_blank=400), part(card, 0, 5)])  # the shorter one decides
