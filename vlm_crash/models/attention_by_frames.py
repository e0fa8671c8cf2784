"""Attention of the vision tower over a few frames at a time.

Enters: queries, keys and values of all frames. Leaves: what attention over all of them at once would give. Math
attention holds three matrices of tokens by tokens per frame and head; here only those of one group of frames live at
once, in the forward pass and in the backward pass, which computes each group again. The layers around it run once: cut
into passes of the whole tower, every pass would gather the sharded weights anew.
"""

# Suffixes: N frames, G frames of a group, A heads, P tokens of a frame, H head size.

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, InternVLForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "sdpa_by_frames"


def set_frame_chunk(model: InternVLForConditionalGeneration, frames: int | None) -> None:
    """Compute the vision tower's attention for so many frames at once; None: for all."""
    tower = model.model.vision_tower
    for module in tower.modules():
        module.frame_chunk = frames
    tower.config._attn_implementation = NAME if frames else "sdpa"


def sdpa_by_frames(
    module: nn.Module,
    query_NAPH: Tensor,
    key_NAPH: Tensor,
    value_NAPH: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' SDPA attention, in groups of `module.frame_chunk` frames."""
    size: int = module.frame_chunk  # type: ignore[assignment]
    assert attention_mask is None, "frames have no padding"

    def attend(query_GAPH: Tensor, key_GAPH: Tensor, value_GAPH: Tensor) -> Tensor:
        return sdpa_attention_forward(module, query_GAPH, key_GAPH, value_GAPH, None, **options)[0]

    groups = zip(*(tensor.split(size) for tensor in (query_NAPH, key_NAPH, value_NAPH)), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([attend(*group) for group in groups]), None
    return torch.cat([checkpoint(attend, *group, use_reentrant=False) for group in groups]), None


AttentionInterface.register(NAME, sdpa_by_frames)
