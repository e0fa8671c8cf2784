"""What only GPUs show: the same numbers, the kernels that ran, and a gather that NCCL takes no part in."""

import pytest
import torch

from tests.parallel.micro import train

MATH = "aten::_scaled_dot_product_attention_math"
OTHERS = ("aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_flash_attention",
          "aten::_scaled_dot_product_cudnn_attention")  # fmt: skip


@pytest.fixture(scope="module")
def found(launch, micro_model):
    return launch("on_gpus", min(2, torch.cuda.device_count()), micro_model)


@pytest.mark.gpu
def test_losses_are_those_of_one_cpu_in_fp32(found, micro_model, one_thread):
    want = train(micro_model)[0].losses
    for of_rank in found:
        assert of_rank["losses"] == pytest.approx(want, rel=2e-3)


@pytest.mark.gpu
def test_math_alone_also_in_recomputation(found):
    counts = found[0]["counts"]
    assert counts[MATH] > 0
    assert not set(OTHERS) & set(counts)


@pytest.mark.gpu
def test_the_gathered_weights_are_the_shards(found):
    for name, whole in found[0]["weights"].items():
        assert whole.device.type == "cpu"
        assert torch.equal(torch.cat([of_rank["local"][name] for of_rank in found]), whole), name
