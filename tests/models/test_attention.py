"""Which kernels are left on."""

import pytest
import torch

from vlm_crash.models.attention import set_attention


@pytest.fixture(autouse=True)
def _back_to_all():
    yield
    set_attention("auto")


@pytest.mark.parametrize("attention", ["math", "efficient", "flash"])
def test_one_kernel_is_left(attention: str) -> None:
    set_attention(attention)
    on = {
        "math": torch.backends.cuda.math_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
    }
    assert [name for name, enabled in on.items() if enabled] == [attention]


def test_auto_leaves_all() -> None:
    set_attention("math")
    set_attention("auto")
    assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()


def test_unknown_word() -> None:
    with pytest.raises(ValueError, match="'sdpa' is not one of"):
        set_attention("sdpa")


def test_math_equals_softmax() -> None:
    set_attention("math")
    q_BNSH, k_BNSH, v_BNSH = torch.randn(3, 2, 4, 5, 8).unbind(0)
    want = torch.softmax(q_BNSH @ k_BNSH.mT / 8**0.5, dim=-1) @ v_BNSH
    got = torch.nn.functional.scaled_dot_product_attention(q_BNSH, k_BNSH, v_BNSH)
    torch.testing.assert_close(got, want)
