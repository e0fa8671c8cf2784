"""How many tokens a model has places for.

Enters: a config. Leaves: a check of lengths. Invariant: nothing is computed at places that the model was not made for,
where its answers would be words without sense.
"""

import logging
from dataclasses import dataclass
from typing import Any

from transformers import InternVLConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """Places of a model.

    Args:
        num_places: max_position_embeddings of the language model.
        is_extended: its config scales the rotary embeddings (dynamic NTK, say), so that longer inputs are possible.
    """

    num_places: int
    is_extended: bool

    @classmethod
    def of(cls, config: InternVLConfig) -> "Context":
        """The places that config.json gives."""
        text: Any = config.get_text_config()
        factor = (getattr(text, "rope_parameters", None) or {}).get("factor") or 1.0
        return cls(text.max_position_embeddings, factor > 1)

    def room(self, num_tokens: int, most: int) -> int:
        """New tokens that may follow so many, `most` at most."""
        return most if self.is_extended else min(most, self.num_places - num_tokens)

    def check(self, num_tokens: int, what: str) -> None:
        """ValueError where so many tokens have no place; `what` they are."""
        if num_tokens > self.num_places and not self.is_extended:
            raise ValueError(
                f"{what} takes {num_tokens} tokens, and the model has places for {self.num_places} "
                "(max_position_embeddings in its config.json); lower --data.num_frames, or set --data.prompt short"
            )

    def foretell(self, num_prompt_tokens: int, max_new_tokens: int) -> None:
        """Check the longest prompt of a run, and say where its answers end early or go on into scaled places."""
        self.check(num_prompt_tokens + 1, "a prompt, with a first word of an answer,")
        total = num_prompt_tokens + max_new_tokens
        if total <= self.num_places:
            return
        sizes = (num_prompt_tokens, max_new_tokens, self.num_places)
        if self.is_extended:
            log.warning(
                "prompt tokens %d + max_new_tokens %d is more than max_position_embeddings %d; the model's rope "
                "scaling goes on from there", *sizes,
            )  # fmt: skip
        else:
            log.warning(
                "prompt tokens %d + max_new_tokens %d is more than max_position_embeddings %d: answers end at %d "
                "tokens; lower --data.num_frames if they are cut", *sizes, self.num_places - num_prompt_tokens,
            )  # fmt: skip
