"""Embedded prompts -> answers in words, whichever way they are decoded.

Enters: left-padded prompt embeddings, a schema. Leaves: an Answer per row. Invariant: an answer of a form is read back
as its fields say; a row whose numbers are not finite has an error in place of an answer.
"""

# Suffixes: B batch, S prompt length, D hidden.

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import InternVLForConditionalGeneration

from vlm_crash.models.answer_form import AnswerForm, Tokens
from vlm_crash.models.context import Context
from vlm_crash.models.decoding import Decoder, event_probabilities, fill_forms, greedy_answers
from vlm_crash.models.text_tokens import TextTokens
from vlm_crash.schema.fields import Schema
from vlm_crash.schema.records import Prediction, VideoSample
from vlm_crash.schema.response import parse
from vlm_crash.video.clip_files import readable_name

log = logging.getLogger(__name__)

DECODING = ("best_term", "greedy", "free")
#: Tokens where nobody asks for more or fewer: of a free answer, and of a text in a form.
MOST_FREE, MOST_TEXT = 1024, 128
NOT_FINITE = "the model gave logits that are not finite"


@dataclass(frozen=True)
class Answer:
    """What a clip was answered.

    Attributes:
        text: the response.
        event_probabilities: by event; none where there is no answer.
        field_probabilities: by choice and count field, by term; none of a free answer.
        text_log_probabilities: by text field the mean log-probability of its tokens; none of a free answer.
        error: why there is no answer.
        cut: what had no room to end by itself: names of text fields, or "the answer".
        room: tokens that it had.
    """

    text: str = ""
    event_probabilities: Mapping[str, float] = field(default_factory=dict)
    field_probabilities: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    text_log_probabilities: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    cut: tuple[str, ...] = ()
    room: int = 0

    @property
    def is_not_finite(self) -> bool:
        """Whether there is no answer because of numbers that are not finite."""
        return self.error == NOT_FINITE

    @property
    def cut_remark(self) -> str:
        """What was cut, and the remedy."""
        return (
            f"cut at {self.room} tokens: {', '.join(self.cut)}; raise --model.max_new_tokens, or lower "
            "--data.num_frames where the model has no more places"
        )

    def prediction(self, schema: Schema, sample: VideoSample, provenance: str, seconds: float = 0.0) -> Prediction:
        """The line of predictions.jsonl that says it.

        Args:
            schema: what the text is read with.
            provenance: run id.
            seconds: time spent on the clip.
        """
        parsed = parse(schema, self.text)
        return Prediction(
            video=sample.video,
            event=parsed.event,
            event_probability=self.event_probabilities.get(schema.event_names[0]),
            fields={name: found.value for name, found in parsed.answers.items() if found.value is not None},
            field_probabilities=self.field_probabilities,
            response=self.text,
            status="ok" if self.error is None else "failed",
            error=self.error,
            seconds=seconds,
            provenance=provenance,
            path=readable_name(sample.path),
            source_event=sample.event,
            event_probabilities=self.event_probabilities,
            text_log_probabilities=self.text_log_probabilities,
        )


@dataclass(frozen=True)
class Answering:
    """How answers are decoded.

    Args:
        schema: what they say; open fields that a dataset has filled are choices, others are texts.
        tokenizer: of transformers.
        tokens: text of an answer -> tokens and their ends, as training sees them.
        end_token_id: ends an answer.
        context: places of the model.
        decoding: best_term (a form: of each choice the most probable term), greedy (a form: token by token the most
            probable one that leads to a term) or free (no form).
        max_new_tokens: most tokens of a free answer, or of each text in a form; None: MOST_FREE, MOST_TEXT.
    """

    schema: Schema
    tokenizer: Any
    tokens: Tokens
    end_token_id: int
    context: Context
    decoding: str = "best_term"
    max_new_tokens: int | None = None

    @property
    def most(self) -> int:
        """Most tokens of what is written freely."""
        return self.max_new_tokens or (MOST_FREE if self.decoding == "free" else MOST_TEXT)

    @cached_property
    def form(self) -> AnswerForm:
        """The schema in this tokenizer's tokens."""
        return AnswerForm(self.schema, self.tokens, self._decode, self.end_token_id)

    def _decode(self, token_ids: Any) -> str:
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True))

    @cached_property
    def _text_tokens(self) -> dict[int, TextTokens]:
        return {}

    def text_tokens(self, num_ids: int) -> TextTokens:
        """Which of so many token ids may stand in a text."""
        if num_ids not in self._text_tokens:
            self._text_tokens[num_ids] = TextTokens.of(self.tokenizer, num_ids, self.end_token_id)
        return self._text_tokens[num_ids]

    def foretell(self, num_prompt_tokens: int) -> None:
        """Check the longest prompt of a run, and say where answers would end early.

        Raises:
            ValueError: the model has no places for it and an answer.
        """
        if self.decoding == "free":
            self.context.foretell(num_prompt_tokens, self.most)
        elif (room := self._room(num_prompt_tokens)) < self.most:
            log.warning(
                "prompt tokens %d leave each text field %d tokens of max_position_embeddings %d; lower "
                "--data.num_frames if texts are cut", num_prompt_tokens, room, self.context.num_places,
            )  # fmt: skip

    def _room(self, num_prompt_tokens: int) -> int:
        """Tokens that an answer, or each text of a form, may take after such a prompt."""
        if self.decoding == "free":
            self.context.check(num_prompt_tokens + 1, "a prompt, with a first word of an answer,")
            return self.context.room(num_prompt_tokens, self.most)
        self.context.check(num_prompt_tokens + self.form.least, "a prompt and the form of an answer")
        return self.form.text_room(self.context.room(num_prompt_tokens, self.form.most(self.most)), self.most)

    def answer(
        self,
        model: InternVLForConditionalGeneration,
        inputs_embeds_BSD: Tensor,
        attention_mask_BS: Tensor,
        any_process: Callable[[bool], bool] = bool,
        most_of_processes: Callable[[int], int] = int,
    ) -> list[Answer]:
        """Answer a batch.

        Args:
            any_process: whether one process has something left, given whether this one has.
            most_of_processes: the largest of all processes' numbers, given this one's.

        Raises:
            ValueError: the model has no places for the prompt and an answer.
        """
        rooms = [self._room(size) for size in attention_mask_BS.sum(dim=1).tolist()]
        decoder = Decoder(model, inputs_embeds_BSD, attention_mask_BS)
        if self.decoding == "free":
            return self._free(decoder, rooms, any_process, most_of_processes)
        num_ids = model.config.get_text_config().vocab_size
        is_greedy = self.decoding == "greedy"
        filled = fill_forms(decoder, self.form, rooms, self.text_tokens(num_ids), is_greedy, any_process)
        return [
            Answer(error=NOT_FINITE)
            if form is None
            else Answer(
                form.response, form.event_probabilities, form.field_probabilities, form.text_log_probabilities,
                cut=form.cut, room=room,
            )
            for form, room in zip(filled, rooms, strict=True)
        ]  # fmt: skip

    def _free(
        self,
        decoder: Decoder,
        rooms: list[int],
        any_process: Callable[[bool], bool],
        most_of_processes: Callable[[int], int],
    ) -> list[Answer]:
        longest = most_of_processes(max(rooms))
        free = greedy_answers(decoder, self.form.events.tree, longest, self.end_token_id, any_process, rooms)
        answers = []
        for row, room in enumerate(rooms):
            if not free.is_finite[row]:
                answers.append(Answer(error=NOT_FINITE))
                continue
            token_ids = free.token_ids[row]
            is_cut = not free.is_ended[row] or len(token_ids) >= room
            text = self._decode(token_ids)
            told = free.event_probabilities[row]
            answers.append(Answer(text, told, cut=("the answer",) if is_cut else (), room=room))
        return answers

    def event_probabilities(
        self, model: InternVLForConditionalGeneration, inputs_embeds_BSD: Tensor, attention_mask_BS: Tensor
    ) -> list[dict[str, float] | None]:
        """Per row the probability of each event, without an answer; None where a logit was not finite.

        Raises:
            ValueError: the model has no places for the prompt and an answer.
        """
        for size in attention_mask_BS.sum(dim=1).tolist():
            self._room(size)
        return event_probabilities(Decoder(model, inputs_embeds_BSD, attention_mask_BS), self.form.events.tree)


def check_decoding(decoding: str) -> None:
    """ValueError for a word that is no way of decoding."""
    if decoding not in DECODING:
        raise ValueError(f"decoding={decoding!r} is not one of {list(DECODING)}; set --model.decoding to one of them")


def with_terms(schema: Schema, terms: Mapping[str, list[str]] | None) -> Schema:
    """The schema with the terms that a model was trained with in its open fields; fields that it does not have, or
    that are not open, are passed over."""
    is_open = {field.name for field in schema.fields if field.kind == "categorical" and not field.closed}
    return schema.with_vocabularies({name: known for name, known in (terms or {}).items() if name in is_open})
