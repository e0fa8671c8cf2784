"""Conversation -> input_ids and labels.

Enters: the question with its frames, the answer (training only), a fast tokenizer. Leaves: token ids in which every
`<image>` has become `<img>`, the frame's image tokens and `</img>`, and labels that supervise the answer and its end.
Prompt and answer are tokenized apart, as VideoChat-Flash's preprocess_phi3_fast does: training and prediction see the
same prompt ids, whatever the answer begins with.
"""

# Suffixes: S sequence.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vlm_crash.data.conversation import IMAGE_PLACEHOLDER, PRESETS, SAMPLINGS, ChatTemplate, user_turn

#: Positions with this label carry no loss: torch's own constant, which the loss takes from there, too.
IGNORE_INDEX: int = nn.CrossEntropyLoss().ignore_index
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
        preset: how the frames stand in the user's turn, a key of PRESETS.
        sampled: how the model is told that they were chosen, a key of SAMPLINGS.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens_per_frame: int
    template: ChatTemplate
    preset: str = "training"
    sampled: str = "uniform"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset={self.preset!r} is not one of {list(PRESETS)}; set --data.preset to one of them")
        if self.sampled not in SAMPLINGS:
            raise ValueError(
                f"told_sampling={self.sampled!r} is not one of {list(SAMPLINGS)}; correct it in the model's config.json"
            )
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
        """Tokenize one conversation about a clip.

        Args:
            question: the user's words; the frames go where `<image>` or `<video>` stands in them, else in front.
            num_frames: frames of the clip; each becomes `tokens_per_frame` image tokens.
            duration_s: length of the clip in seconds, told to the model where known and the preset tells it.
            answer: the text to learn; None for prediction.
            unsupervised: (start, end) spans of characters of the answer that carry no loss: values nobody knows.
        """
        asked = user_turn(question, num_frames, duration_s, self.preset, self.sampled)
        image = IMAGE_START + IMAGE_CONTEXT * self.tokens_per_frame + IMAGE_END
        asked = asked.replace(IMAGE_PLACEHOLDER, image)
        return self.encode([asked] if answer is None else [asked, answer], unsupervised)

    def encode(self, turns: Sequence[str], unsupervised: Sequence[tuple[int, int]] = ()) -> TokenizedSample:
        """Tokenize turns, the user's and the model's alternating; an odd number of them is a prompt.

        Args:
            turns: the words of each, images as their tokens.
            unsupervised: (start, end) spans of characters of the last answer that carry no loss.
        """
        ids: list[int] = []
        labels: list[int] = []
        for place, text in enumerate(turns):
            if place % 2 == 0:
                # Only the very beginning gets what the tokenizer puts in front of a text (InternLM2: a BOS).
                opening = self.template.system if place == 0 else ""
                prompt = self._ids(opening + self.template.question(text), add_special_tokens=place == 0)
                ids += prompt
                labels += [IGNORE_INDEX] * len(prompt)
                continue
            encoded = self.tokenizer(
                text + self.template.end_of_answer, add_special_tokens=False, return_offsets_mapping=True
            )
            unknown = unsupervised if place == len(turns) - 1 else ()
            ids += encoded["input_ids"]
            labels += [
                IGNORE_INDEX if any(start < high and end > low for low, high in unknown) else token
                for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            ]
        return TokenizedSample(torch.tensor(ids), torch.tensor(labels) if len(turns) % 2 == 0 else None)

    def answer_tokens(self, text: str) -> list[tuple[int, int]]:
        """Tokens of the beginning of an answer, as training would see them: (id, where in the text it ends)."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        ends = [end for _, end in offsets]
        if [start for start, _ in offsets] != [0, *ends][: len(ids)] or ends[-1:] not in ([len(text)], []):
            # Blanks that the tokenizer leaves out of its offsets belong to a token all the same.
            ends = [len(self.tokenizer.decode(ids[:size])) for size in range(1, len(ids) + 1)]
        return list(zip(ids, ends, strict=True))

    def num_answer_tokens(self, text: str) -> int:
        """Tokens of a whole answer with its end; with those of the prompt, the length of a sample."""
        return len(self._ids(text + self.template.end_of_answer))

    @property
    def end_token_id(self) -> int:
        """The token that ends an answer."""
        return self._ids(self.template.end_of_answer)[0]

    def _ids(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
