"""The loss is torch's, and so is its gradient; nothing but the logits lives."""

import pytest
import torch
from benches.memory import TensorBytes
from torch import nn

from vlm_crash.models import cross_entropy
from vlm_crash.models.cross_entropy import summed_cross_entropy

WANTED = nn.CrossEntropyLoss(reduction="sum")


def both(dtype: torch.dtype, rows: int = 37, factor: float = 1.0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(loss, gradient of the logits) of ours and of torch's, as it would be without our function."""
    torch.manual_seed(0)
    logits = (4 * torch.randn(rows, 1000)).to(dtype)
    target = torch.randint(1000, (rows,))
    found = []
    for function in (summed_cross_entropy, lambda x, y: WANTED(x.float(), y)):
        leaf = logits.clone().requires_grad_()
        loss = function(leaf * 1, target)  # a tensor that may be written over
        (loss * factor).backward()
        found.append((loss.detach(), leaf.grad))
    return found


@pytest.mark.parametrize("at_once", [2**22, 3000, 1])
def test_torchs_own_in_fp32(monkeypatch, at_once):
    monkeypatch.setattr(cross_entropy, "MOST_AT_ONCE", at_once)
    ours, torchs = both(torch.float32, factor=0.37)
    torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_torchs_own_in_half_precision(dtype):
    """Computed in fp32 with the loss scale in it: what is small in fp16 is not lost before it is scaled."""
    ours, torchs = both(dtype, factor=1024.0)
    assert ours[0].dtype == torch.float32 and ours[1].dtype == dtype
    torch.testing.assert_close(ours, torchs, rtol=1e-3 if dtype == torch.float16 else 1e-2, atol=0)


def test_no_labels():
    """A filler: nothing to learn, and the head still takes part in the backward pass."""
    (loss, grad), _ = both(torch.float32, rows=0)
    assert float(loss) == 0 and grad.shape == (0, 1000)


def test_a_second_backward_pass_is_refused():
    logits = torch.randn(3, 10, requires_grad=True) * 1
    loss = summed_cross_entropy(logits, torch.tensor([1, 2, 3]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a second one needs a new forward pass"):
        loss.backward()


def test_one_matrix_of_logits_lives():
    peaks = []
    for function in (summed_cross_entropy, WANTED):
        hidden, head = torch.randn(64, 8, requires_grad=True), torch.randn(50_000, 8)
        target = torch.randint(50_000, (64,))
        with TensorBytes() as counted:
            function(hidden @ head.T, target).backward()
        peaks.append(counted.peak / (64 * 50_000 * 4))
    assert peaks[0] < 2.4, "logits, and what is worked on at once"
    assert peaks[1] > 2.9
