"""Frames that are handed over are those that were decoded, however late their owner looks at them."""

from collections import deque

import numpy as np
import pytest

from vlm_crash.video.handing_over import LEAST_SLOTS, MOST_AT_ONCE, ROOM, Giver, Handed, Taken, Taker, shared_file

#: Many small frames, as many that are larger than the room, and others of as many bytes as these.
SIZES = [(30, 40), (1200, 1600), (1600, 1200), (480, 640)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_the_owner_may_be_late(size):
    """It looks at nothing before the giver waits for it: by then no frame may have been written over."""
    file = shared_file()
    taker, told, numbers = Taker(file), deque[Handed](), list[int]()
    shape = (*size, 3)
    taken = Taken(100)
    at_once = set()

    def wait() -> None:
        handed = told.popleft()
        taken.take(taker.frames(handed), handed.places)
        at_once.add(len(handed.places))

    giver = Giver(file, told.append, wait)
    giver.keep([0], np.full((size[1], size[0], 3), 255, np.uint8))  # a clip that is read again, turned, or another one
    slots = max(LEAST_SLOTS, ROOM // int(np.prod(shape)))
    for number in range(min(2 * slots + 3, 50)):
        giver.keep([2 * number, 2 * number + 1], np.full(shape, number, np.uint8))
        numbers += [number, number]
    giver.finish()
    assert not told
    assert max(at_once) == min(MOST_AT_ONCE, slots // 2)
    frames_FHWC = taken.first(len(numbers))
    assert frames_FHWC.shape[1:] == shape
    assert [set(frame.flat) for frame in frames_FHWC[:, ::7, ::7, :]] == [{number} for number in numbers]
    taker.close()
