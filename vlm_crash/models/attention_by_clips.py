"""Attention of the language model where several clips stand in one row, one after the other.

Enters: queries, keys and values of the row, and how many tokens each clip has. Leaves: what causal attention over each
clip alone would give. Invariant: no token sees a token of another clip. Cut at the clips there is no mask of tokens by
tokens of the whole row, and math attention holds its matrices for one clip's length, not for the row's.
"""

# Suffixes: A query heads, K heads of keys and values, S sequence of the row, H head size, T tokens.

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, InternVLForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vlm_crash.models import attention_heads

NAME = "sdpa_by_clips"
#: The same for a kernel that wants repeated keys (attention_heads.py).
NAME_REPEATED = "sdpa_by_clips_repeated"


def attend_by_clips(model: InternVLForConditionalGeneration) -> None:
    """Let the language model take rows of several clips; other rows are computed as before.

    For good, as activation checkpointing asks for the attention again when the forward pass is long over.

    Raises:
        ValueError: a model with attention over a sliding window, which needs the mask that is left out here.
    """
    config: Any = model.model.language_model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ValueError(
            f"the language model has layers of {sorted(kinds)}, and packed batches need full attention in all of them; "
            "set --data.batching to padded or grouped"
        )
    repeats = config._attn_implementation in (attention_heads.NAME, NAME_REPEATED)
    config._attn_implementation = NAME_REPEATED if repeats else NAME


def restarted_positions(clip_lengths: Sequence[int], device: torch.device) -> Tensor:
    """Positions [1, S] that begin at 0 with each clip of a row.

    >>> restarted_positions([3, 2], torch.device("cpu")).tolist()
    [[0, 1, 2, 0, 1]]
    """
    return torch.cat([torch.arange(length, device=device) for length in clip_lengths])[None]


def sdpa_by_clips(
    module: nn.Module,
    query_1ASH: Tensor,
    key_1KSH: Tensor,
    value_1KSH: Tensor,
    attention_mask: Tensor | None,
    clip_lengths: Sequence[int] | None = None,
    attend: Callable[..., tuple[Tensor, None]] = sdpa_attention_forward,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' SDPA attention, clip by clip where the lengths of clips are given: [1, S, A, H]."""
    if clip_lengths is None:
        return attend(module, query_1ASH, key_1KSH, value_1KSH, attention_mask, **options)
    assert attention_mask is None and query_1ASH.shape[0] == 1, "clips of one row, without padding"
    parts = (tensor.split(list(clip_lengths), dim=2) for tensor in (query_1ASH, key_1KSH, value_1KSH))
    clips = zip(*parts, strict=True)
    outputs = [attend(module, query, key, value, None, **options)[0] for query, key, value in clips]
    return torch.cat(outputs, dim=1), None


def _mask(q_length: int, kv_length: int, attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """No mask where nothing is padded and no cache precedes: each clip's attention is causal by itself."""
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **options)


AttentionInterface.register(NAME, sdpa_by_clips)
AttentionInterface.register(NAME_REPEATED, partial(sdpa_by_clips, attend=attention_heads.sdpa_repeated))
AttentionMaskInterface.register(NAME, _mask)
AttentionMaskInterface.register(NAME_REPEATED, _mask)
