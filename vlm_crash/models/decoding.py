"""Prompt embeddings -> answers, with probabilities.

Enters: left-padded prompt embeddings. Leaves: per row a filled form (its terms chosen among the schema's) or free text,
and the probability of each event. Invariants: free ids equal transformers' `generate`, id for id; a row's answer does
not depend on the rows beside it; numbers that are not finite never become a term.

A form is filled in with few forward passes: what is given (labels, headings, line breaks) goes in together with the
value before it, and the terms of a choice are judged in one pass, as a tree in which each token sees its own way alone.
"""

# Suffixes: B batch, S prompt length, K keys in the cache, Q new places, V vocabulary, D hidden, N wanted places.

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, InternVLForConditionalGeneration

from vlm_crash.models.answer_form import AnswerForm, Ask, FilledForm, Seen
from vlm_crash.models.term_tree import ROOT, TermTree
from vlm_crash.models.text_tokens import TextTokens


@dataclass(frozen=True)
class FreeAnswers:
    """What a batch was answered without a form.

    Args:
        token_ids: per row the new ids, without the end token.
        event_probabilities: per row, by event; not meaningful where the row is not finite.
        is_finite: per row, whether all its logits were finite; the ids of a row where not mean nothing.
        is_ended: per row, whether the model ended its answer by itself.
    """

    token_ids: list[list[int]]
    event_probabilities: list[dict[str, float]]
    is_finite: list[bool]
    is_ended: list[bool]


@torch.no_grad()
def fill_forms(
    decoder: "Decoder",
    form: AnswerForm,
    rooms: Sequence[int],
    text_tokens: TextTokens,
    greedy: bool = False,
    any_process: Callable[[bool], bool] = bool,
) -> list[FilledForm | None]:
    """Fill in a form for each row; None where a logit was not finite.

    Args:
        rooms: per row the most tokens of a text.
        greedy: follow the best token of each choice, instead of taking the most probable term.
        any_process: whether one process has something left, given whether this one has; the others go on with it.
    """
    ends = text_tokens.ends_V.tolist()
    writers: list[Generator[Ask, Seen, FilledForm]] = [form.fill(room, ends, greedy) for room in rooms]
    filled: list[FilledForm | None] = [None] * len(writers)
    asks: list[Ask | None] = [next(writer) for writer in writers]
    while any_process(any(ask is not None for ask in asks)):
        for row, seen in enumerate(decoder.ask(asks, text_tokens)):
            if asks[row] is None:
                continue
            asks[row] = None
            try:
                asks[row] = None if seen is None else writers[row].send(seen)
            except StopIteration as done:
                filled[row] = done.value
    return filled


@torch.no_grad()
def greedy_answers(
    decoder: "Decoder",
    events: TermTree,
    max_new_tokens: int,
    end_token_id: int,
    any_process: Callable[[bool], bool] = bool,
    rooms: Sequence[int] | None = None,
) -> FreeAnswers:
    """Decode a batch greedily.

    Args:
        events: their openings.
        max_new_tokens: most tokens of an answer.
        end_token_id: ends an answer.
        any_process: whether one process has something left, given whether this one has; the others go on with it.
        rooms: per row the most tokens of its own answer; None: max_new_tokens of each.
    """
    told = event_probabilities(decoder, events)
    logits_BV = decoder.logits
    finite_B = torch.isfinite(logits_BV).all(dim=1)
    finite_B = finite_B & torch.tensor([row is not None for row in told], device=finite_B.device)
    ended_B = torch.zeros_like(finite_B)
    room_B = torch.tensor(rooms or [max_new_tokens] * len(ended_B), device=ended_B.device)
    steps: list[Tensor] = []
    for step in range(max_new_tokens):
        next_B = logits_BV.argmax(dim=1).masked_fill(ended_B | (room_B <= step), end_token_id)
        ended_B = ended_B | (next_B == end_token_id)
        steps.append(next_B)
        if not any_process(not bool((ended_B | ~finite_B).all())):
            break
        decoder.append(next_B)
        logits_BV = decoder.logits
        finite_B = finite_B & (torch.isfinite(logits_BV).all(dim=1) | ended_B)
    rows = torch.stack(steps, dim=1).tolist()
    token_ids = [row[: row.index(end_token_id)] if end_token_id in row else row for row in rows]
    return FreeAnswers(token_ids, [row or {} for row in told], finite_B.tolist(), ended_B.tolist())


@torch.no_grad()
def event_probabilities(decoder: "Decoder", events: TermTree) -> list[dict[str, float] | None]:
    """Per row the probability of each event; None where a logit was not finite. The texts stay as they are.

    Of its opening, as of all choices: normalised over the tokens in which the openings differ.
    """
    if not events.choices:
        return [dict.fromkeys(events.terms, 1.0)] * len(decoder.last_hidden_BD)
    before = decoder.mark()
    seen = decoder.ask([Ask(events.head, events)] * len(decoder.last_hidden_BD), None)
    decoder.back_to(before)
    return [None if scores is None else events.probabilities(scores) for scores in seen]  # type: ignore[arg-type]


class Decoder:
    """The texts of a batch in the cache, each row going on at its own pace.

    Args:
        inputs_embeds_BSD: prompts, padded on the left.
        attention_mask_BS: 1 where a prompt has a token.

    Raises:
        ValueError: layers that see a window of the text, which the places of a tree do not follow.
    """

    @torch.no_grad()
    def __init__(
        self, model: InternVLForConditionalGeneration, inputs_embeds_BSD: Tensor, attention_mask_BS: Tensor
    ) -> None:
        config: Any = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise ValueError(f"the language model has layers of {sorted(kinds)}; only full attention is supported")
        self.model = model
        self.cache = DynamicCache(config=config)
        self.is_visible_BK = attention_mask_BS.bool()
        position_ids_BS = (attention_mask_BS.cumsum(dim=1) - 1).clamp(min=0)
        self.next_position_B = position_ids_BS[:, -1] + 1
        hidden_BSD = self._forward(inputs_embeds_BSD, attention_mask_BS, position_ids_BS)
        self.last_hidden_BD = hidden_BSD[:, -1]
        #: Places in the cache where the tree of the last pass begins.
        self._tree_starts = [0] * len(attention_mask_BS)

    def _forward(self, embeds_BQD: Tensor, mask: Tensor, position_ids_BQ: Tensor) -> Tensor:
        output = self.model.model.language_model(
            inputs_embeds=embeds_BQD,
            attention_mask=mask,
            position_ids=position_ids_BQ,
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.last_hidden_state

    @property
    def logits(self) -> Tensor:
        """[B, V] of each row's next token, in fp32."""
        return self.model.lm_head(self.last_hidden_BD).float()

    def append(self, token_ids_B: Tensor) -> None:
        """Add one token to each row."""
        self.is_visible_BK = torch.cat([self.is_visible_BK, torch.ones_like(self.is_visible_BK[:, :1])], dim=1)
        embeds_B1D = self.model.get_input_embeddings()(token_ids_B[:, None])
        mask_BK = self.is_visible_BK.to(torch.long)
        self.last_hidden_BD = self._forward(embeds_B1D, mask_BK, self.next_position_B[:, None])[:, -1]
        self.next_position_B = self.next_position_B + 1

    def mark(self) -> tuple[int, Tensor, Tensor, Tensor]:
        """Where the texts are now, for `back_to`."""
        return self.cache.get_seq_length(), self.is_visible_BK, self.next_position_B, self.last_hidden_BD

    def back_to(self, mark: tuple[int, Tensor, Tensor, Tensor]) -> None:
        """Forget what came after a mark."""
        self.cache.crop(mark[0] - self.cache.get_seq_length())
        _, self.is_visible_BK, self.next_position_B, self.last_hidden_BD = mark

    def ask(self, asks: Sequence[Ask | None], text_tokens: TextTokens | None) -> list[Seen | None]:
        """Add to each row what it asks to, and give what it asks for; None where a logit is not finite, or no ask.

        Args:
            text_tokens: which tokens may stand in a text; None where only trees are asked about.
        """
        step = _Step(asks)
        self._keep(asks)
        device = self.last_hidden_BD.device
        start = self.cache.get_seq_length()
        is_seen_BQK = torch.cat(
            [
                self.is_visible_BK[:, None].expand(-1, step.size, -1) & step.is_real_BQ.to(device)[..., None],
                step.is_seen_BQQ.to(device),
            ],
            dim=2,
        )
        embeds_BQD = self.model.get_input_embeddings()(step.ids_BQ.to(device))
        position_ids_BQ = self.next_position_B[:, None] + step.offsets_BQ.to(device)
        hidden_BQD = self._forward(embeds_BQD, is_seen_BQK[:, None], position_ids_BQ)
        self.is_visible_BK = torch.cat([self.is_visible_BK, step.is_text_BQ.to(device)], dim=1)
        lengths_B = step.lengths_B.to(device)
        self.next_position_B = self.next_position_B + lengths_B
        rows_B = torch.arange(len(asks), device=device)
        last_BD = hidden_BQD[rows_B, (lengths_B - 1).clamp(min=0)]
        self.last_hidden_BD = torch.where((lengths_B > 0)[:, None], last_BD, self.last_hidden_BD)
        self._tree_starts = [start + length for length in step.lengths_B.tolist()]
        return self._seen(asks, hidden_BQD, step, text_tokens)

    def _keep(self, asks: Sequence[Ask | None]) -> None:
        """Let nodes that have become part of a text be seen by what follows."""
        kept = [(row, self._tree_starts[row] + node) for row, ask in enumerate(asks) if ask for node in ask.keep]
        if kept:
            rows, places = zip(*kept, strict=True)
            self.is_visible_BK[list(rows), list(places)] = True
            sizes = [len(ask.keep) if ask else 0 for ask in asks]
            self.next_position_B = self.next_position_B + torch.tensor(sizes, device=self.next_position_B.device)

    def _seen(
        self, asks: Sequence[Ask | None], hidden_BQD: Tensor, step: "_Step", text_tokens: TextTokens | None
    ) -> list[Seen | None]:
        rows_N, places_N = zip(*step.wanted, strict=True) if step.wanted else ((0,), (ROOT,))
        rows, places = torch.tensor(rows_N).to(hidden_BQD.device), torch.tensor(places_N).to(hidden_BQD.device)
        found_ND = hidden_BQD[rows, places.clamp(min=0)]
        hidden_ND = torch.where((places == ROOT)[:, None], self.last_hidden_BD[rows], found_ND)
        logits_NV = self.model.lm_head(hidden_ND).float()
        is_finite = logits_NV.isfinite().all(dim=1).tolist()
        scores = self._scores(asks, logits_NV)
        tokens = self._tokens(asks, logits_NV, step, text_tokens)
        seen: list[Seen | None] = []
        place = 0
        for ask in asks:
            size = 0 if ask is None else len(ask.tree.choices) if ask.tree else 1
            mine = slice(place, place + size)
            place += size
            if ask is None or not all(is_finite[mine]):
                seen.append(None)
            else:
                seen.append(scores[mine] if ask.tree else tokens[mine.start])
        return seen

    def _scores(self, asks: Sequence[Ask | None], logits_NV: Tensor) -> list[list[float]]:
        """Per wanted place the logits of the choice that is made there; none where a token is wanted."""
        children = [
            children
            for ask in asks
            if ask
            for children in ([choice.children for choice in ask.tree.choices] if ask.tree else [()])
        ]
        most = max(map(len, children), default=0)
        if not most:
            return [[] for _ in children]
        ids = torch.tensor([[*row, *[0] * (most - len(row))] for row in children], device=logits_NV.device)
        found = logits_NV.gather(1, ids).tolist()
        return [row[: len(ids)] for row, ids in zip(found, children, strict=True)]

    def _tokens(
        self, asks: Sequence[Ask | None], logits_NV: Tensor, step: "_Step", text_tokens: TextTokens | None
    ) -> dict[int, tuple[int, float]]:
        """By wanted place the most likely token of a text there, with its log-probability among all tokens."""
        if not step.texts:
            return {}
        assert text_tokens is not None
        device = logits_NV.device
        places, may_end = zip(*step.texts, strict=True)
        logits_TV = logits_NV[list(places)]
        is_barred_TV = text_tokens.is_barred_V.to(device) | (
            text_tokens.ends_V.to(device) & ~torch.tensor(may_end, device=device)[:, None]
        )
        token_T = logits_TV.masked_fill(is_barred_TV, -torch.inf).argmax(dim=1)
        log_prob_T = logits_TV.log_softmax(dim=1).gather(1, token_T[:, None])[:, 0]
        return dict(zip(places, zip(token_T.tolist(), log_prob_T.tolist(), strict=True), strict=True))


class _Step:
    """The asks of a batch as tensors: each row its text, then the nodes of its tree, then nothing.

    Attributes:
        size: places of each row, at least one.
        is_real_BQ: places of a row's own; the others see themselves alone, and are seen by nobody.
        is_seen_BQQ: [row, place, place that it sees].
        wanted: (row, place) whose logits are wanted; ROOT: before the first place.
        texts: (index in wanted, whether the line may end there).
    """

    def __init__(self, asks: Sequence[Ask | None]) -> None:
        nodes = [len(ask.tree.node_ids) if ask and ask.tree else 0 for ask in asks]
        lengths = [len(ask.ids) if ask else 0 for ask in asks]
        self.size = max(1, *(length + count for length, count in zip(lengths, nodes, strict=True)))
        shape = (len(asks), self.size)
        self.ids_BQ, self.offsets_BQ = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        self.is_real_BQ, self.is_text_BQ = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
        self.is_seen_BQQ = torch.eye(self.size, dtype=torch.bool).repeat(len(asks), 1, 1)
        self.lengths_B = torch.tensor(lengths)
        self.wanted: list[tuple[int, int]] = []
        self.texts: list[tuple[int, bool]] = []
        for row, ask in enumerate(asks):
            if ask is None:
                continue
            length, tree = lengths[row], ask.tree
            self.ids_BQ[row, :length] = torch.tensor(ask.ids, dtype=torch.long)
            self.offsets_BQ[row, :length] = torch.arange(length)
            self.is_text_BQ[row, :length] = True
            self.is_real_BQ[row, : length + nodes[row]] = True
            self.is_seen_BQQ[row, :length, :length] = torch.ones(length, length).tril().bool()
            if tree is None:
                self.texts.append((len(self.wanted), ask.may_end))
                self.wanted.append((row, length - 1))
            else:
                self._plant(row, length, tree)

    def _plant(self, row: int, length: int, tree: TermTree) -> None:
        """Put a tree behind a row's text."""
        for node, (token, parent, depth) in enumerate(zip(tree.node_ids, tree.parents, tree.depths, strict=True)):
            place = length + node
            self.ids_BQ[row, place] = token
            self.offsets_BQ[row, place] = length + depth
            seen = self.is_seen_BQQ[row, length + parent] if parent != ROOT else None
            if seen is None:
                self.is_seen_BQQ[row, place, :length] = True
            else:
                self.is_seen_BQQ[row, place] |= seen
        self.wanted += [(row, length + choice.node if choice.node != ROOT else length - 1) for choice in tree.choices]
