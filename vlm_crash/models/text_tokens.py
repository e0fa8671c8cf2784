"""Which tokens may stand in a line of text.

Enters: a tokenizer. Leaves: by token id, whether it ends a line, and whether it never stands in one. Invariant: nothing
is taken from a token's name: what counts is the text that it is decoded to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlm_crash.models.answer_form import LINE_BREAK


@dataclass(frozen=True)
class TextTokens:
    """By token id.

    Attributes:
        ends_V: holds a line break, or ends the answer.
        is_barred_V: special (frames, turns), or no token at all: rows of an embedding that is larger than needed.
    """

    ends_V: Tensor
    is_barred_V: Tensor

    @classmethod
    def of(cls, tokenizer: Any, num_ids: int, end_token_id: int) -> TextTokens:
        """Of a tokenizer of transformers, for a vocabulary of so many ids.

        Args:
            end_token_id: ends an answer.
        """
        known = min(len(tokenizer), num_ids)
        texts = tokenizer.batch_decode([[index] for index in range(known)])
        ends_V, is_barred_V = torch.zeros(num_ids, dtype=torch.bool), torch.ones(num_ids, dtype=torch.bool)
        ends_V[:known] = torch.tensor([LINE_BREAK.search(text) is not None for text in texts])
        is_barred_V[:known] = False
        special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= set(tokenizer.all_special_ids)
        is_barred_V[[index for index in special if index < num_ids]] = True
        ends_V[end_token_id], is_barred_V[end_token_id] = True, False
        return cls(ends_V & ~is_barred_V, is_barred_V)
