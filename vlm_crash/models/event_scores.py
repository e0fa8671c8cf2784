"""Prompt embeddings -> the probability of each event, without a word of an answer.

Enters: left-padded prompt embeddings, the openings of the events. Leaves: log-probabilities, normalised over the
events: those that an answer comes with (decoding.py), at the price of the prompt alone.
"""

# Suffixes: B batch, S prompt length, D hidden, E events.

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from vlm_crash.models.decoding import _Decoder


@torch.no_grad()
def event_log_probs(
    model: InternVLForConditionalGeneration,
    inputs_embeds_BSD: Tensor,
    attention_mask_BS: Tensor,
    openings: Sequence[Sequence[int]],
) -> Tensor:
    """Log-probability [B, E] of each event's opening, normalised over the events; a row may not be finite.

    Args:
        openings: token ids of the opening sentence of each event.
    """
    decoder = _Decoder(model, inputs_embeds_BSD, attention_mask_BS)
    return torch.stack([decoder.log_prob(opening) for opening in openings], dim=1).log_softmax(dim=1)
