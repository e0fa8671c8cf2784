"""Attention of the language model for a kernel that wants as many heads of keys as of queries.

Enters: queries, and keys and values of fewer heads. Leaves: what attention over repeated keys gives. Where no mask is
needed, transformers leaves the keys unrepeated and asks torch to share them; the memory-efficient kernel cannot, and
where it is the only one that is allowed there would be none.
"""

# Suffixes: B batch, A heads of queries, K heads of keys, S sequence, H head size.

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, InternVLForConditionalGeneration
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_repeated"


def repeat_heads(model: InternVLForConditionalGeneration) -> None:
    """Give the language model's attention as many heads of keys as of queries."""
    model.model.language_model.config._attn_implementation = NAME


def sdpa_repeated(
    module: nn.Module,
    query_BASH: Tensor,
    key_BKSH: Tensor,
    value_BKSH: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' SDPA attention after `repeat_kv`."""
    groups = int(getattr(module, "num_key_value_groups", 1))
    # Without the number of groups, so that it repeats nothing more.
    plain: Any = SimpleNamespace(is_causal=getattr(module, "is_causal", True))
    key_BASH, value_BASH = repeat_kv(key_BKSH, groups), repeat_kv(value_BKSH, groups)
    return sdpa_attention_forward(plain, query_BASH, key_BASH, value_BASH, attention_mask, **options)


AttentionInterface.register(NAME, sdpa_repeated)
AttentionMaskInterface.register(NAME, sdpa_mask)
