"""Token merging against what upstream's code computes (tests/parity/tome), and where it differs on purpose."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vlm_crash.models.token_merging import match_tokens, merge_tokens

TOME = Path(__file__).parents[1] / "parity" / "tome"
CASES = json.loads((TOME / "tome.json").read_text())["cases"]
TENSORS = load_file(TOME / "tome.safetensors")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Rounding to the dtype once, where upstream rounds sums too.
TOLERANCE = {"fp32": 1e-6, "fp16": 2**-10, "bf16": 2**-7}


def tokens(name: str, dtype: str) -> torch.Tensor:
    return TENSORS[f"{name}.x"].expand(*CASES[name]["shape"]).to(DTYPES[dtype])


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", list(CASES))
def test_equal_to_upstream(name: str, dtype: str) -> None:
    case = CASES[name]
    merged = merge_tokens(tokens(name, dtype), case["target"], case["heads"])
    want = TENSORS[f"{name}.out_{dtype}"]
    if (name, dtype) == ("fp16_overflow", "fp16"):
        assert want.isinf().any()  # upstream sums in fp16
        want = TENSORS[f"{name}.out_fp32"]
    torch.testing.assert_close(merged.float(), want.float(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", [name for name in CASES if f"{name}.step0_src" in TENSORS])
def test_same_tokens_meet_in_the_same_order(name: str) -> None:
    case = CASES[name]
    matching = match_tokens(tokens(name, "fp32"), case["target"], case["heads"])
    assert [src_GR.shape[1] for src_GR, _ in matching.steps] == case["r_merge_list"]
    for step, (src_GR, dst_GR) in enumerate(matching.steps):
        assert torch.equal(src_GR, TENSORS[f"{name}.step{step}_src"].long())
        assert torch.equal(dst_GR, TENSORS[f"{name}.step{step}_dst"].long())


@pytest.mark.parametrize("name", list(CASES))
def test_sizes(name: str) -> None:
    case = CASES[name]
    slot_GP = match_tokens(tokens(name, "fp32"), case["target"], case["heads"]).slot_GP
    sizes = [slots.bincount(minlength=case["target"]).tolist() for slots in slot_GP]
    assert sizes == TENSORS[f"{name}.final_size"][..., 0].tolist()


def test_every_merged_token_is_the_mean_of_its_own() -> None:
    x_GPC = torch.randn(3, 40, 12, generator=torch.Generator().manual_seed(0))
    slot_GP = match_tokens(x_GPC, 7, 3).slot_GP
    for tokens_PC, slots, merged_TC in zip(x_GPC, slot_GP, merge_tokens(x_GPC, 7, 3), strict=True):
        for slot in range(7):
            torch.testing.assert_close(merged_TC[slot], tokens_PC[slots == slot].mean(dim=0))


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_groups_do_not_touch_each_other(dtype: str) -> None:
    x_GPC = tokens("even_2step", dtype)
    apart = torch.cat([merge_tokens(group, 16, 4) for group in x_GPC.split(1)])
    assert torch.equal(merge_tokens(x_GPC, 16, 4), apart)
    broken = x_GPC.clone()
    broken[0, 3] = torch.nan
    merged = merge_tokens(broken, 16, 4)
    assert merged[0].isnan().any() and torch.equal(merged[1], apart[1])


def test_norms_do_not_overflow_in_fp16() -> None:
    x_GPC = torch.randn(1, 64, 512, generator=torch.Generator().manual_seed(1)).half()
    assert (x_GPC * 2**13).isfinite().all() and (x_GPC * 2**13).norm(dim=2).isinf().all()
    assert torch.equal(match_tokens(x_GPC * 2**13, 9, 1).slot_GP, match_tokens(x_GPC, 9, 1).slot_GP)


def test_gradient_is_each_tokens_share_of_its_mean() -> None:
    x_GPC = torch.randn(2, 24, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    slot_GP = match_tokens(x_GPC, 5, 2).slot_GP
    merge_tokens(x_GPC, 5, 2).sum().backward()
    sizes_GP = torch.stack([slots.bincount(minlength=5)[slots] for slots in slot_GP])
    assert x_GPC.grad is not None
    torch.testing.assert_close(x_GPC.grad, (1 / sizes_GP.double())[..., None].expand_as(x_GPC))


def test_gradient_is_finite_where_a_token_is_zero() -> None:
    x_GPC = tokens("zero_token_odd_pos", "fp32").clone().requires_grad_()
    merge_tokens(x_GPC, 8, 4).square().sum().backward()
    assert x_GPC.grad is not None and x_GPC.grad.isfinite().all()


def test_autocast_changes_nothing() -> None:
    x_GPC = tokens("hico_1024_to_64", "fp32")
    with torch.autocast("cpu", torch.bfloat16):
        merged = merge_tokens(x_GPC, 64, 4)
    assert torch.equal(merged, merge_tokens(x_GPC, 64, 4))


def test_as_many_tokens_as_there_are_stay_themselves() -> None:
    x_GPC = tokens("odd_counts", "fp32")
    assert torch.equal(merge_tokens(x_GPC, 36, 6), x_GPC)


@pytest.mark.parametrize(
    ("target", "heads", "message"),
    [
        (37, 6, "asks for 37 tokens from 36"),
        (0, 6, "asks for 0 tokens"),
        (8, 7, "merge_heads=7 does not divide"),
    ],
)
def test_what_cannot_be_merged_is_said(target: int, heads: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge_tokens(tokens("odd_counts", "fp32"), target, heads)
