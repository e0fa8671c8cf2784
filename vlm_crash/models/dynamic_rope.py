"""Dynamic NTK scaling of rotary embeddings, for each clip of a batch by its own length.

Enters: positions of a batch. Leaves: cosines and sines. Invariant: a clip's numbers depend on nothing but the clip: not
on longer ones beside it or before it in its row, nor on what the model saw before.
"""

# Suffixes: B batch, S sequence, C clips of a row, H half of a head.

from typing import Any

import torch
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration


class RowDynamicRope(nn.Module):
    """Cosines and sines of rotary embeddings whose base grows with the length of each clip.

    base' = base * (factor * length / max_position_embeddings - (factor - 1)) ** (dim / (dim - 2)) where a clip is
    longer than max_position_embeddings (InternVL 2410d1db internlm2/modeling_internlm2.py:169, as transformers has
    it). A clip begins where a position is 0.

    Args:
        rope: transformers' own; its `config` says the rest.
    """

    def __init__(self, rope: Any) -> None:
        super().__init__()
        config = rope.config
        self.config = config
        self.base: float = config.rope_parameters["rope_theta"]
        self.factor: float = config.rope_parameters["factor"]
        self.max_length: int = config.max_position_embeddings
        self.dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.register_buffer("inv_freq", rope.original_inv_freq.float(), persistent=False)
        self.inv_freq: Tensor

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, S, 2 * H] in the dtype of `x`, from position_ids [B, S] (a name of transformers')."""
        inv_freq_H = self.inv_freq.float()
        length_BS = _clip_lengths(position_ids)
        angle_BSH = position_ids[..., None].float() * inv_freq_H
        is_long_BS1 = (length_BS > self.max_length)[..., None]
        if bool(is_long_BS1.any()):
            exponents_H = torch.arange(0, self.dim, 2, device=x.device).float() / self.dim
            growth_BS1 = self.factor * length_BS[..., None] / self.max_length - (self.factor - 1)
            base_BS1 = self.base * growth_BS1.clamp(min=1) ** (self.dim / (self.dim - 2))
            inv_freq_BSH = torch.where(is_long_BS1, base_BS1**-exponents_H, inv_freq_H)
            angle_BSH = position_ids[..., None].float() * inv_freq_BSH
        angle = torch.cat([angle_BSH, angle_BSH], dim=-1)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


def _clip_lengths(position_ids_BS: Tensor) -> Tensor:
    """For each place, the length of the clip that it stands in, by its last position; [B, S].

    >>> _clip_lengths(torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 3]])).tolist()
    [[3, 3, 3, 2, 2], [4, 4, 4, 4, 4]]
    """
    clip_BS = (position_ids_BS == 0).cumsum(dim=1)
    last_BC = position_ids_BS.new_zeros(len(clip_BS), clip_BS.shape[1] + 1).scatter_reduce(
        1, clip_BS, position_ids_BS, "amax"
    )
    return last_BC.gather(1, clip_BS) + 1


def scale_rope_by_row(model: InternVLForConditionalGeneration) -> None:
    """Put RowDynamicRope in the place of transformers' dynamic rope, which keeps the largest length it has seen.

    A patch of transformers (modeling_rope_utils.py, dynamic_frequency_update): there the answer to a clip depends on
    the clips before it, and on how events are compared. It can go when that function depends on position_ids alone.
    """
    language = model.model.language_model
    rope: Any = language.rotary_emb
    if getattr(rope, "rope_type", None) == "dynamic":
        language.rotary_emb = RowDynamicRope(rope)
