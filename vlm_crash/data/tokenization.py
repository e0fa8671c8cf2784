"""Conversation -> input_ids and labels.

Enters: the question with its frames, the answer (training only), a fast tokenizer. Leaves: token ids in which every
`<image>` has become `<img>`, the frame's image tokens and `</img>`, and labels that supervise the answer alone.
The prompt and the answer are tokenized apart, so that training and prediction see the same prompt ids.
"""

# Suffixes: S sequence.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vlm_crash.data.conversation import IMAGE_PLACEHOLDER, ChatTemplate, frame_lines

#: Positions with this label carry no loss (torch's default for cross entropy).
IGNORE_INDEX = -100
IMAGE_START, IMAGE_CONTEXT, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"


@dataclass(frozen=True)
class TokenizedSample:
    """Ids of one conversation. labels_S is None where there is no answer to learn."""

    input_ids_S: Tensor
    labels_S: Tensor | None


@dataclass(frozen=True)
class ConversationTokenizer:
    """Turns a question about a clip, and its answer, into ids.

    Args:
        tokenizer: a fast tokenizer that knows `<img>`, `<IMG_CONTEXT>` and `</img>`.
        tokens_per_frame: image tokens of one frame, as the model makes them.
        template: the chat around the turns.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens_per_frame: int
    template: ChatTemplate

    def __post_init__(self) -> None:
        vocabulary = self.tokenizer.get_vocab()
        absent = [token for token in (IMAGE_START, IMAGE_CONTEXT, IMAGE_END) if token not in vocabulary]
        if absent:
            raise ValueError(f"the tokenizer has no token {absent}; --model.path must name an InternVL folder")

    def __call__(
        self,
        question: str,
        num_frames: int,
        duration_s: float | None,
        answer: str | None = None,
        unsupervised: Sequence[tuple[int, int]] = (),
    ) -> TokenizedSample:
        """Tokenize one conversation.

        Args:
            question: the user's words, without image placeholders.
            num_frames: frames of the clip; each becomes `tokens_per_frame` image tokens.
            duration_s: length of the clip in seconds, told to the model where known.
            answer: the text to learn; None for prediction.
            unsupervised: (start, end) spans of characters of the answer that carry no loss: values nobody knows.
        """
        prompt = self.template.prompt(frame_lines(num_frames, duration_s) + question)
        image = IMAGE_START + IMAGE_CONTEXT * self.tokens_per_frame + IMAGE_END
        prompt_ids = self._ids(prompt.replace(IMAGE_PLACEHOLDER, image))
        if answer is None:
            return TokenizedSample(torch.tensor(prompt_ids), None)
        encoded = self.tokenizer(
            answer + self.template.end_of_answer, add_special_tokens=False, return_offsets_mapping=True
        )
        labels = [
            IGNORE_INDEX if any(start < high and end > low for low, high in unsupervised) else token
            for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]
        return TokenizedSample(
            torch.tensor(prompt_ids + encoded["input_ids"]),
            torch.tensor([IGNORE_INDEX] * len(prompt_ids) + labels),
        )

    def answer_ids(self, text: str) -> list[int]:
        """Ids of a piece of answer, as training would see it."""
        return self._ids(text)

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer."""
        return self._ids(self.template.end_of_answer)[0]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]
