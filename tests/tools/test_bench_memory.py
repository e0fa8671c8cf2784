"""tools/benches/memory.py counts what tensors hold, at the peak."""

import torch
from benches.memory import TensorBytes

MIB = 2**20


def test_bytes_of_a_training_step() -> None:
    weight = torch.randn(512, 512, requires_grad=True)  # 1 MiB, there before
    optimizer = torch.optim.AdamW([weight])
    with TensorBytes() as counted:
        loss = (torch.randn(4, 512) @ weight).square().sum()
        before = counted.held
        loss.backward()
        assert MIB <= counted.held < before + MIB + 4096
        optimizer.step()
        assert 3 * MIB <= counted.held < 3.1 * MIB
        optimizer.zero_grad(set_to_none=True)
        assert 2 * MIB <= counted.held < 2.1 * MIB
    assert 3 * MIB <= counted.peak < 7 * MIB


def test_views_count_once_and_hold_the_whole() -> None:
    given = torch.zeros(MIB)
    with TensorBytes() as counted:
        assert given[3:].add_(1).sum() > 0
        made = torch.zeros(MIB)
        corner = made.view(1024, 1024)[:2, :2]
        del made
        assert 4 * MIB <= counted.held < 4 * MIB + 100
        del corner
        assert counted.held < 100
    assert counted.peak < 4 * MIB + 200


def test_what_checkpointing_saves() -> None:
    """Eight layers of 1 MiB each: all are kept, or two at a time."""
    from torch.utils.checkpoint import checkpoint

    peaks = []
    for saves in (False, True):
        with TensorBytes() as counted:
            x = torch.randn(MIB // 4, requires_grad=True)
            for _ in range(8):
                step = lambda y: y.sin().cos()  # noqa: E731
                x = checkpoint(step, x, use_reentrant=False) if saves else step(x)
            x.sum().backward()
        peaks.append(counted.peak / MIB)
    assert peaks[0] > 18 and peaks[1] < 14
