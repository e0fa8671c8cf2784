"""Prompt embeddings -> answer tokens, with the probability of each event.

Enters: left-padded prompt embeddings. Leaves: greedy token ids per row, and per event the log-probability of its
opening sentence, read from the same cache. Invariant: greedy ids equal transformers' `generate`, id for id (tested).
"""

# Suffixes: B batch, S prompt length, T new tokens, V vocabulary, D hidden, E events, O tokens of an opening.

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, InternVLForConditionalGeneration


@dataclass(frozen=True)
class Answers:
    """Result of a batch.

    Args:
        token_ids: per row the new ids, without the end token.
        event_log_probs_BE: log-probability of each event's opening, normalised over the events.
        is_finite: per row, whether all its logits were finite; the ids of a row where not mean nothing.
        is_ended: per row, whether the model ended its answer by itself.
    """

    token_ids: list[list[int]]
    event_log_probs_BE: Tensor
    is_finite: list[bool]
    is_ended: list[bool]


@dataclass(frozen=True)
class Answer:
    """One row of a batch, in words.

    Args:
        text: of the answer.
        event_probability: of the first event.
        error: why there is no answer.
        is_cut: the answer had no room to end by itself.
    """

    text: str = ""
    event_probability: float | None = None
    error: str | None = None
    is_cut: bool = False


def read_answers(answers: Answers, rooms: Sequence[int], tokenizer: Any) -> list[Answer]:
    """Token ids -> words, row by row.

    Args:
        rooms: most tokens of each row's answer; beside a shorter prompt, one may have gone on beyond its own.
        tokenizer: of transformers.
    """
    found = []
    for row, room in enumerate(rooms):
        if not answers.is_finite[row]:
            found.append(Answer(error="the model gave non-finite logits"))
            continue
        token_ids = answers.token_ids[row]
        found.append(
            Answer(
                text=str(tokenizer.decode(token_ids[:room], skip_special_tokens=True)),
                event_probability=float(answers.event_log_probs_BE[row, 0].exp()),
                is_cut=not answers.is_ended[row] or len(token_ids) >= room,
            )
        )
    return found


@torch.no_grad()
def greedy_answers(
    model: InternVLForConditionalGeneration,
    inputs_embeds_BSD: Tensor,
    attention_mask_BS: Tensor,
    openings: Sequence[Sequence[int]],
    max_new_tokens: int,
    end_token_id: int,
    any_process: Callable[[bool], bool] = bool,
) -> Answers:
    """Decode a batch greedily.

    Args:
        openings: token ids of the opening sentence of each event.
        max_new_tokens: most tokens of an answer.
        end_token_id: ends an answer.
        any_process: whether one process has something left, given whether this one has; the others go on with it.
    """
    decoder = _Decoder(model, inputs_embeds_BSD, attention_mask_BS)
    event_log_probs_BE = torch.stack([decoder.log_prob(opening) for opening in openings], dim=1).log_softmax(dim=1)
    finite_B = torch.isfinite(decoder.logits_BV).all(dim=1) & torch.isfinite(event_log_probs_BE).all(dim=1)
    ended_B = torch.zeros_like(finite_B)
    steps: list[Tensor] = []
    for _ in range(max_new_tokens):
        next_B = decoder.logits_BV.argmax(dim=1).masked_fill(ended_B, end_token_id)
        ended_B = ended_B | (next_B == end_token_id)
        steps.append(next_B)
        if not any_process(not bool((ended_B | ~finite_B).all())):
            break
        decoder.append(next_B)
        finite_B = finite_B & (torch.isfinite(decoder.logits_BV).all(dim=1) | ended_B)
    rows = torch.stack(steps, dim=1).tolist()
    token_ids = [row[: row.index(end_token_id)] if end_token_id in row else row for row in rows]
    return Answers(token_ids, event_log_probs_BE, finite_B.tolist(), ended_B.tolist())


class _Decoder:
    """A prompt in the cache, and the logits [B, V] of the next token, in fp32."""

    def __init__(
        self, model: InternVLForConditionalGeneration, inputs_embeds_BSD: Tensor, attention_mask_BS: Tensor
    ) -> None:
        self.model = model
        self.mask_BS = attention_mask_BS
        self.cache = DynamicCache(config=model.config.get_text_config())
        position_ids_BS = (attention_mask_BS.cumsum(dim=1) - 1).clamp(min=0)
        self.next_position_B = position_ids_BS[:, -1] + 1
        hidden_BSD = self._forward(inputs_embeds_BSD, attention_mask_BS, position_ids_BS, self.cache)
        self.logits_BV = model.lm_head(hidden_BSD[:, -1]).float()

    def _forward(self, embeds_BSD: Tensor, mask_BS: Tensor, position_ids_BS: Tensor, cache: DynamicCache) -> Tensor:
        output = self.model.model.language_model(
            inputs_embeds=embeds_BSD,
            attention_mask=mask_BS,
            position_ids=position_ids_BS,
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state

    def append(self, token_ids_B: Tensor) -> None:
        """Add one token to each row."""
        self.mask_BS = torch.cat([self.mask_BS, torch.ones_like(self.mask_BS[:, :1])], dim=1)
        embeds_B1D = self.model.get_input_embeddings()(token_ids_B[:, None])
        hidden_B1D = self._forward(embeds_B1D, self.mask_BS, self.next_position_B[:, None], self.cache)
        self.next_position_B = self.next_position_B + 1
        self.logits_BV = self.model.lm_head(hidden_B1D[:, -1]).float()

    def log_prob(self, token_ids: Sequence[int]) -> Tensor:
        """Log-probability [B] that each row goes on with these tokens; the cache stays as it is."""
        first_B = self.logits_BV.log_softmax(dim=1)[:, token_ids[0]]
        if len(token_ids) == 1:
            return first_B
        ids_O = torch.tensor(token_ids, device=self.logits_BV.device)
        size = len(token_ids) - 1
        rows = self.mask_BS.shape[0]
        mask_BS = torch.cat([self.mask_BS, self.mask_BS.new_ones(rows, size)], dim=1)
        position_ids_BO = self.next_position_B[:, None] + torch.arange(size, device=ids_O.device)
        embeds_BOD = self.model.get_input_embeddings()(ids_O[None, :-1].expand(rows, -1))
        hidden_BOD = self._forward(embeds_BOD, mask_BS, position_ids_BO, copy.deepcopy(self.cache))
        log_probs_BOV = self.model.lm_head(hidden_BOD).float().log_softmax(dim=2)
        return first_B + log_probs_BOV.gather(2, ids_O[1:].expand(rows, -1)[..., None]).sum(dim=(1, 2))
