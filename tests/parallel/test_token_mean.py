"""Every token weighs the same, in whichever batch of an optimizer step it is."""

import pytest
import torch

from tests.parallel.micro import train
from vlm_crash.parallel.token_mean import TokenMean


def gradient(batches):
    weight = torch.nn.Parameter(torch.tensor(2.0))
    mean = TokenMean()
    for number, tokens in enumerate(batches):
        loss_sum = (weight * torch.tensor(tokens)).sum()
        loss = mean.loss(loss_sum, torch.tensor(len(tokens)), is_first=number == 0)
        (loss / len(batches)).backward()
    mean.correct([weight], len(batches))
    return float(weight.grad), float(mean.value)


@pytest.mark.parametrize(
    "batches", [[[1.0, 2.0, 6.0]], [[1.0], [2.0, 6.0]], [[1.0, 2.0], [], [6.0]], [[], [1.0, 2.0, 6.0]]]
)
def test_the_mean_over_all_tokens(batches):
    assert gradient(batches) == pytest.approx((3.0, 6.0))


def test_no_token_at_all():
    assert gradient([[], []]) == (0.0, 0.0)


def test_accumulation_is_the_big_batch(micro_model, one_thread):
    """One process: 1 batch of 4 clips, 4 of 1; the clips have 1 to 12 labels."""
    big = train(micro_model, steps=6)[0]
    small = train(micro_model, steps=6, accumulate=4)[0]
    assert small.losses == pytest.approx(big.losses, rel=1e-5)
    assert small.norms == pytest.approx(big.norms, rel=1e-4)
