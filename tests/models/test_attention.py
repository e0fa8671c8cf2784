"""Which kernels are left on."""

import pytest
import torch

from vlm_crash.models.attention import kernel_works, set_attention


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


def test_auto_says_what_it_takes(caplog) -> None:
    with caplog.at_level("INFO"):
        set_attention("auto")
    assert "torch chooses among math" in caplog.text


def test_auto_on_an_old_card_takes_what_was_tried(monkeypatch, caplog) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    for works, said in ((True, "among math, efficient"), (False, "math kernel only")):
        monkeypatch.setattr("vlm_crash.models.attention.kernel_works", lambda _, works=works: works)
        with caplog.at_level("INFO"):
            set_attention("auto")
        assert said in caplog.text
        assert torch.backends.cuda.mem_efficient_sdp_enabled() == works
        assert not torch.backends.cuda.flash_sdp_enabled()
    with pytest.raises(ValueError, match=r"this GPU has 7\.5"):
        set_attention("flash")


@pytest.mark.gpu
def test_kernels_are_tried() -> None:
    assert kernel_works("math")
    assert kernel_works("flash") == (torch.cuda.get_device_capability() >= (8, 0))
