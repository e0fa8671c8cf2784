"""HiCo's token merging: the tokens of a few frames become fewer by averaging those that are most alike.

Enters: groups of tokens, as pixel shuffle makes them. Leaves: as many groups with fewer tokens, each the mean of the
tokens that it holds. Invariant: a group's result depends on that group alone, and on nothing random.

Repeated bipartite soft matching (Bolya et al., Token Merging, ICLR 2023, section 3); alike is what has the same
direction in its mean over heads (InternVideo2.5's HiCo). docs/hico.md has the maths and every difference from upstream.
"""

# Suffixes: G groups, P tokens of a group now, T tokens of a group in the end, R tokens that a step merges away,
# C channels, K channels of one head; in a step: E even tokens, O odd ones, U even ones that stay.

from dataclasses import dataclass

import torch
from torch import Tensor


def merge_schedule(num_tokens: int, target: int) -> list[int]:
    """Tokens that each step merges away: half of them, until the target is reached.

    >>> merge_schedule(1024, 64), merge_schedule(36, 8), merge_schedule(64, 64)
    ([512, 256, 128, 64], [18, 9, 1], [])

    Raises:
        ValueError: more tokens are asked for than there are.
    """
    if not 1 <= target <= num_tokens:
        raise ValueError(
            f"hico.num_tome_tokens asks for {target} tokens from {num_tokens}; give 1 to {num_tokens} per group "
            "in vlm_crash.hico of config.json, or frames of more pixels"
        )
    steps = []
    while num_tokens > target:
        steps.append(min(num_tokens // 2, num_tokens - target))
        num_tokens -= steps[-1]
    return steps


@dataclass(frozen=True)
class Matching:
    """Which tokens become one.

    Args:
        slot_GP: index of the merged token that each token goes into.
        steps: per step (src_GR, dst_GR): the index among even tokens that is merged away, the index among odd tokens
            that takes it; the most alike first.
    """

    slot_GP: Tensor
    steps: list[tuple[Tensor, Tensor]]


def merge_tokens(x_GPC: Tensor, target: int, heads: int) -> Tensor:
    """Merge each group of P tokens to `target`.

    Sums are in fp32 whatever the dtype; only the mean flows back in the backward pass, matching has no gradient.

    Raises:
        ValueError: more tokens asked for than there are, or heads do not divide the channels.
    """
    if x_GPC.shape[1] == target:
        return x_GPC
    if x_GPC.device.type == "cpu" and x_GPC.dtype != torch.float32 and len(x_GPC) > 1:
        # Their copies in fp32 stay in the processor's cache, one group's at a time: twice as fast as all together.
        return torch.cat([merge_tokens(group_1PC, target, heads) for group_1PC in x_GPC.split(1)])
    with torch.autocast(x_GPC.device.type, enabled=False):
        wide_GPC = x_GPC.to(torch.promote_types(x_GPC.dtype, torch.float32))
        slot_GP = _match(wide_GPC, x_GPC.dtype, target, heads).slot_GP
        size_GT1 = _pooled(torch.ones_like(wide_GPC[..., :1]), slot_GP, target)
        return (_pooled(wide_GPC, slot_GP, target) / size_GT1).to(x_GPC.dtype)


def match_tokens(x_GPC: Tensor, target: int, heads: int) -> Matching:
    """Find the tokens to merge: halve again and again, each even token being offered to the odd token most like it."""
    return _match(x_GPC.to(torch.promote_types(x_GPC.dtype, torch.float32)), x_GPC.dtype, target, heads)


@torch.no_grad()
def _match(x_GPC: Tensor, dtype: torch.dtype, target: int, heads: int) -> Matching:
    """As match_tokens, of tokens that are rounded to `dtype` after each step, as upstream's are."""
    if x_GPC.shape[2] % heads:
        raise ValueError(
            f"hico.merge_heads={heads} does not divide the {x_GPC.shape[2]} channels of a token; "
            "set it to a number that does in vlm_crash.hico of config.json"
        )
    if dtype == x_GPC.dtype:  # Nothing is rounded, so that means may be taken in any order: the small one first.
        x_GPC, heads = _head_mean(x_GPC, heads), 1
    # Where upstream rounds we do, so that the same tokens meet later; but fp16 would overflow (golden fp16_overflow).
    sums = torch.bfloat16 if dtype == torch.bfloat16 else x_GPC.dtype
    sum_GPC, size_GP1 = x_GPC, torch.ones_like(x_GPC[..., :1])
    slot_GP = torch.arange(x_GPC.shape[1], device=x_GPC.device).expand(x_GPC.shape[0], -1)
    mean_GPK = _head_mean(x_GPC, heads)
    steps = []
    for num_merged in merge_schedule(x_GPC.shape[1], target):
        src_GR, dst_GR, to_GP = _halve(_directions(mean_GPK.to(dtype)), num_merged)
        steps.append((src_GR, dst_GR))
        slot_GP = to_GP.gather(1, slot_GP)
        num_left = sum_GPC.shape[1] - num_merged
        if num_left == target:
            break  # nothing is matched any more
        # In place, as these are large and new.
        sum_GPC, size_GP1 = (_round(_pooled(t, to_GP, num_left), sums) for t in (sum_GPC, size_GP1))
        mean_GPK = _head_mean(_round(sum_GPC.div_(size_GP1), dtype), heads)
        _round(sum_GPC.mul_(size_GP1), sums)
    return Matching(slot_GP, steps)


def _round(x_GPC: Tensor, dtype: torch.dtype) -> Tensor:
    """To the numbers of a narrower dtype, in place."""
    return x_GPC if dtype == x_GPC.dtype else x_GPC.copy_(x_GPC.to(dtype))


def _head_mean(x_GPC: Tensor, heads: int) -> Tensor:
    """Always a tensor of its own."""
    return x_GPC.clone() if heads == 1 else x_GPC.unflatten(2, (heads, -1)).mean(2)


def _directions(x_GPK: Tensor) -> Tensor:
    """Tokens over their norms; a zero token becomes NaN."""
    # Scaled by a power of two first, which rounds nothing: in fp16 the norm of a large token would be inf.
    exponent_GP1 = torch.frexp(x_GPK.abs().amax(dim=2, keepdim=True).float()).exponent
    x_GPK = torch.ldexp(x_GPK, -exponent_GP1).to(x_GPK.dtype)
    return x_GPK / x_GPK.norm(dim=2, keepdim=True)


def _halve(direction_GPK: Tensor, num_merged: int) -> tuple[Tensor, Tensor, Tensor]:
    """One step: (src_GR, dst_GR, to_GP), to_GP being every token's place afterwards: unmatched even ones, then odd."""
    score_GEO = direction_GPK[:, ::2] @ direction_GPK[:, 1::2].mT
    # A token without direction is matched first, and by any: so do NaN in upstream's argmax and sort.
    best_GE, mate_GE = score_GEO.nan_to_num_(nan=torch.inf).max(dim=2)
    order_GE = best_GE.argsort(dim=1, descending=True)
    src_GR, kept_GU = order_GE[:, :num_merged], order_GE[:, num_merged:]
    dst_GR = mate_GE.gather(1, src_GR)
    num_kept, num_odd = kept_GU.shape[1], direction_GPK.shape[1] // 2
    place_GE = torch.cat([dst_GR + num_kept, torch.arange(num_kept, device=dst_GR.device).expand_as(kept_GU)], dim=1)
    to_GP = order_GE.new_empty(direction_GPK.shape[:2])
    to_GP[:, ::2] = torch.empty_like(order_GE).scatter_(1, order_GE, place_GE)
    to_GP[:, 1::2] = torch.arange(num_kept, num_kept + num_odd, device=dst_GR.device)
    return src_GR, dst_GR, to_GP


def _pooled(x_GPC: Tensor, to_GP: Tensor, num_places: int) -> Tensor:
    """Sums of the tokens that go to the same place."""
    num_groups, _, channels = x_GPC.shape
    first_G1 = torch.arange(0, num_groups * num_places, num_places, device=to_GP.device)[:, None]
    sums = x_GPC.new_zeros(num_groups * num_places, channels)
    sums.index_add_(0, (to_GP + first_G1).flatten(), x_GPC.flatten(0, 1))
    return sums.unflatten(0, (num_groups, num_places))
