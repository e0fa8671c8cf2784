"""Which kernels are left on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_crash.models.attention import repeats_keys, set_attention
from vlm_crash.models.attention_kernels import REFUSED, Heads, heads_of, kernel_fault, this_device
from vlm_crash.models.attention_of_towers import set_tower_attention
from vlm_crash.models.folder import read_config
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


LARGE = (Heads("vision", 64, 16, 16), Heads("language", 128, 32, 8))


def test_auto_says_what_each_tower_gets(caplog, monkeypatch) -> None:
    """And it is what runs: by the profiler."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level("INFO"):
        set_attention("auto", LARGE)
    assert "torch chooses among math" in caplog.text
    assert "attention auto: vision, 16 heads of 64 in float32: flash" in caplog.text
    assert "attention auto: language, 32 heads of 128 in float32: flash" in caplog.text
    query, key = torch.randn(1, 32, 33, 128), torch.randn(1, 8, 33, 128)
    with torch.profiler.profile() as found:
        torch.nn.functional.scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True)
    assert any("flash_attention" in event.key for event in found.key_averages())


def test_heads_are_the_models(tiny_model: Path) -> None:
    config = read_config(tiny_model)
    vision, language = heads_of(config)
    attention = load_model(tiny_model).model.language_model.layers[0].self_attn
    assert language.size == attention.head_dim
    assert language.queries == language.keys * attention.num_key_value_groups
    assert vision.size * vision.queries == config.vision_config.hidden_size and vision.keys == vision.queries


REFUSAL = f"{REFUSED}: the mask is not aligned"


@pytest.mark.parametrize(
    ("faults", "on"),
    [
        ({64: None, 128: None}, True),
        ({64: None, 128: REFUSAL}, True),  # torch takes math for these itself
        ({64: None, 128: "its numbers are not finite"}, False),
        ({64: REFUSAL, 128: REFUSAL}, False),
    ],
)
def test_auto_on_an_old_card_takes_what_was_tried_with_the_models_heads(monkeypatch, caplog, faults, on) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr("vlm_crash.models.attention.this_device", lambda: torch.device("cpu"))
    tried = []

    def fault(kernel: str, dtype: torch.dtype, device: torch.device, size: int) -> str | None:
        tried.append((kernel, dtype, size))
        return faults[size]

    monkeypatch.setattr("vlm_crash.models.attention.kernel_fault", fault)
    with caplog.at_level("INFO"):
        set_attention("auto", LARGE)
    assert tried == [("efficient", torch.float16, 64), ("efficient", torch.float16, 128)]
    assert ("among math, efficient" if on else "math kernel only") in caplog.text
    assert torch.backends.cuda.mem_efficient_sdp_enabled() == on == repeats_keys()
    assert not torch.backends.cuda.flash_sdp_enabled()
    for size, why in faults.items():
        assert (f"with heads of {size}: {why}" in caplog.text) == (why is not None)
    assert caplog.text.count("attention auto: ") == 2
    with pytest.raises(ValueError, match=r"this GPU has 7\.5"):
        set_attention("flash")


def test_a_fault_says_whether_torch_refused() -> None:
    """A CPU has no memory-efficient kernel; math it has, for any size of heads."""
    cpu = torch.device("cpu")
    assert str(kernel_fault("efficient", torch.float32, cpu, 128, [33])).startswith(REFUSED)
    assert kernel_fault("math", torch.float32, cpu, 128, [33]) is None


def test_efficient_alone_gets_repeated_keys_under_auto_too(tiny_model: Path) -> None:
    set_attention("auto")
    model = load_model(tiny_model)
    config = model.model.language_model.config
    set_tower_attention(model, "auto", None)
    assert config._attn_implementation == "sdpa", "flash can share keys"
    torch.backends.cuda.enable_flash_sdp(False)  # as auto leaves it on a card older than 8.0
    set_tower_attention(model, "auto", None)
    assert config._attn_implementation == "sdpa_repeated"


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
    faults = {
        (kernel, size): kernel_fault(kernel, torch.float16, this_device(), size)
        for kernel in ("math", "flash") for size in (64, 128)
    }  # fmt: skip
    working = {(kernel, size) for (kernel, size), fault in faults.items() if fault is None}
    kernels = ("math", "flash") if torch.cuda.get_device_capability() >= (8, 0) else ("math",)
    assert working == {(kernel, size) for kernel in kernels for size in (64, 128)}, faults


@pytest.mark.gpu
def test_auto_says_what_each_tower_gets_on_a_gpu(caplog) -> None:
    """The kernel that the log names for the language model is the one that runs, with and without a mask."""
    with caplog.at_level("INFO"):
        set_attention("auto", LARGE)
    line = next(record.getMessage() for record in caplog.records if "language, 32 heads" in record.getMessage())
    query = torch.randn(1, 32, 33, 128, device="cuda", dtype=torch.float16, requires_grad=True)
    key = query if repeats_keys() else query[:, :8]
    with torch.profiler.profile() as found:
        torch.nn.functional.scaled_dot_product_attention(
            query, key, key, is_causal=True, enable_gqa=key.shape[1] < 32
        ).float().sum().backward()
    kernel = line.split("float16: ")[1].split(",")[0]
    names = " ".join(event.key for event in found.key_averages())
    assert f"_scaled_dot_product_{kernel}_attention" in names or kernel == "math"
