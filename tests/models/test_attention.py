"""Which kernels are left on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_crash.models.attention import kernel_works, set_attention
from vlm_crash.models.attention_of_towers import set_tower_attention
from vlm_crash.models.internvl import load_model


@pytest.fixture(autouse=True)
def _back_to_all():
    yield
    set_attention("auto")


@pytest.mark.parametrize(
    ("attention", "left"),
    [("math", ["math"]), ("efficient", ["efficient"]), ("flash", ["efficient", "flash"])],
)
def test_no_other_kernel_is_left(attention: str, left: list[str]) -> None:
    """flash takes no mask: what needs one runs efficient, and never math."""
    set_attention(attention)
    on = {
        "math": torch.backends.cuda.math_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
    }
    assert [name for name, enabled in on.items() if enabled] == left
    assert not torch.backends.cuda.cudnn_sdp_enabled()


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


def test_repeated_keys_change_nothing(tiny_model: Path) -> None:
    """With and without padding; "efficient" cannot share keys among queries where there is no mask."""
    torch.manual_seed(0)
    model = load_model(tiny_model)
    groups = model.config.text_config.num_attention_heads // model.config.text_config.num_key_value_heads
    assert groups > 1
    embeds_BSD = torch.randn(2, 9, model.config.text_config.hidden_size)
    for mask_BS in (torch.ones(2, 9, dtype=torch.long), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])):
        found = []
        for attention in ("math", "efficient"):
            set_tower_attention(model, attention, None)
            with torch.no_grad(), watched_heads() as heads:
                hidden_BSD = model.model.language_model(inputs_embeds=embeds_BSD, attention_mask=mask_BS)[0]
            found.append(hidden_BSD[mask_BS.bool()])
        assert heads and all(query == key for query, key in heads)
        torch.testing.assert_close(*found)
        model.model.language_model.config._attn_implementation = "sdpa"


@contextmanager
def watched_heads() -> Iterator[list[tuple[int, int]]]:
    """(heads of queries, heads of keys) of each call of the kernels."""
    heads, plain = [], torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        heads.append((query.shape[1], key.shape[1]))
        assert not options.get("enable_gqa") or query.shape[1] != key.shape[1]
        return plain(query, key, *arguments, **options)

    torch.nn.functional.scaled_dot_product_attention = watched  # type: ignore[assignment]
    try:
        yield heads
    finally:
        torch.nn.functional.scaled_dot_product_attention = plain


@pytest.mark.gpu
def test_kernels_are_tried() -> None:
    assert kernel_works("math")
    assert kernel_works("flash") == (torch.cuda.get_device_capability() >= (8, 0))
