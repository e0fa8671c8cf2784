"""Memory is taken again when nobody has it any more, and never before."""

import threading

import torch

from vlm_crash.video.reused_memory import ReusedMemory

SHAPE = (2, 3, 4)


def test_what_is_free_is_taken_again():
    memory = ReusedMemory()
    first = memory.floats(SHAPE)
    place = first.data_ptr()
    del first
    again = memory.floats(SHAPE)
    assert again.data_ptr() == place
    assert (again.shape, again.dtype, again.is_contiguous()) == (SHAPE, torch.float32, True)
    assert memory.floats((4, 3, 2)).data_ptr() != place  # of another shape: a new one, and the old one stays whole
    assert memory.floats(SHAPE).data_ptr() != place


def test_what_somebody_has_is_left_alone():
    """A part of it, its numpy array or another thread's: each keeps the whole."""
    memory = ReusedMemory()
    held = [memory.floats(SHAPE).fill_(1)[1:], memory.floats(SHAPE).fill_(1).numpy(), memory.floats(SHAPE).fill_(1)]
    thread = threading.Thread(target=lambda: held.append(memory.floats(SHAPE).fill_(1)[0, :1]))
    thread.start()
    thread.join()
    for _ in range(3):
        memory.floats(SHAPE).fill_(2)
    assert all((torch.as_tensor(part) == 1).all() for part in held)
