"""Grammar libraries behind one face: which tokens may come next in a form, and which must.

Enters: a form, a tokenizer. Leaves: a Constraint an answer. Each library is loaded where it is asked for.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from vlm_crash.models.answer_form import AnswerForm
from vlm_crash.schema.fields import Event

#: Longest run of forced tokens that is looked for one by one.
_MOST_FORCED = 64


class Constraint(Protocol):
    """The state of one answer."""

    def forced(self) -> list[int]:
        """Tokens that must come next; none where there is a choice."""

    def bar(self, logits_1V: Tensor) -> None:
        """Put minus infinity where a token may not come next."""

    def take(self, token_ids: Sequence[int]) -> None:
        """Go on by tokens that may come."""

    @property
    def is_done(self) -> bool:
        """Whether the answer is complete."""


def maker(library: str, form: AnswerForm, tokenizer: Any, size: int, end: int, text_tokens: int) -> Callable[[], Any]:
    """Makes a Constraint for each answer; what can be made once is made here.

    Args:
        library: one of LIBRARIES.
        size: of the model's vocabulary.
        end: token that ends an answer.
        text_tokens: most tokens of a text, for the library that counts them.

    Raises:
        ImportError: it is not installed.
    """
    return LIBRARIES[library](form, tokenizer, size, end, text_tokens)


# ----------------------------------------------------------------------------------------------------------- llguidance


def lark(form: AnswerForm, text_tokens: int) -> str:
    """The form as a grammar of llguidance (Lark's notation)."""
    lines = ["start: " + " | ".join(f"event_{number}" for number in range(len(form.schema.events)))]
    lines += [f"event_{number}: {_line(form, event)}" for number, event in enumerate(form.schema.events)]
    return "\n".join([*lines, f"text[max_tokens={text_tokens}]: /[^\\n\\s][^\\n]*/", ""])


def _line(form: AnswerForm, event: Event) -> str:
    parts = [json.dumps(event.opening)]
    for slot in form.slots[event.name]:
        parts.append(json.dumps(slot.ahead))
        parts.append("(" + " | ".join(map(json.dumps, slot.terms)) + ")" if slot.terms else "text")
    return " ".join(parts)


def _llguidance(form: AnswerForm, tokenizer: Any, size: int, end: int, text_tokens: int) -> Callable[[], Any]:
    library, tensors = importlib.import_module("llguidance"), importlib.import_module("llguidance.torch")
    known = importlib.import_module("llguidance.hf").from_tokenizer(tokenizer, n_vocab=size, eos_token=end)
    text = lark(form, text_tokens)

    class Llguidance:
        def __init__(self) -> None:
            self.matcher = library.LLMatcher(known, text)
            self.mask = tensors.allocate_token_bitmask(1, size)

        def forced(self) -> list[int]:
            return list(self.matcher.compute_ff_tokens())

        def bar(self, logits_1V: Tensor) -> None:
            tensors.fill_next_token_bitmask(self.matcher, self.mask, 0)
            tensors.apply_token_bitmask_inplace(logits_1V, self.mask)

        def take(self, token_ids: Sequence[int]) -> None:
            if not self.matcher.consume_tokens(list(token_ids)):
                raise RuntimeError(self.matcher.get_error())

        @property
        def is_done(self) -> bool:
            return bool(self.matcher.is_stopped())

    return Llguidance


# ------------------------------------------------------------------------------------------------------------- xgrammar


def _xgrammar(form: AnswerForm, tokenizer: Any, size: int, end: int, text_tokens: int) -> Callable[[], Any]:
    library = importlib.import_module("xgrammar")
    known = library.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size, stop_token_ids=[end])
    events = [_line(form, event) for event in form.schema.events]
    rules = [f"root ::= {' | '.join(f'event{number}' for number in range(len(events)))}"]
    rules += [f"event{number} ::= {line}" for number, line in enumerate(events)]
    compiled = library.GrammarCompiler(known).compile_grammar("\n".join([*rules, r"text ::= [^\n ] [^\n]*"]))

    class Xgrammar:
        def __init__(self) -> None:
            self.matcher = library.GrammarMatcher(compiled)
            self.mask = library.allocate_token_bitmask(1, size)

        def forced(self) -> list[int]:
            text = self.matcher.find_jump_forward_string()
            return list(tokenizer(text).input_ids) if text else []

        def bar(self, logits_1V: Tensor) -> None:
            self.matcher.fill_next_token_bitmask(self.mask)
            library.apply_token_bitmask_inplace(logits_1V, self.mask)

        def take(self, token_ids: Sequence[int]) -> None:
            for token_id in token_ids:
                if not self.matcher.accept_token(token_id):
                    raise RuntimeError(f"xgrammar refuses the token {token_id}")

        @property
        def is_done(self) -> bool:
            return bool(self.matcher.is_terminated())

    return Xgrammar


# -------------------------------------------------------------------------------------------------------- outlines_core


def regex(form: AnswerForm) -> str:
    """The form as a regular expression."""

    def plain(text: str) -> str:
        return re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", text)

    events = []
    for event in form.schema.events:
        parts = [plain(event.opening)]
        for slot in form.slots[event.name]:
            terms = "|".join(map(plain, slot.terms))
            parts += [plain(slot.ahead), f"({terms})" if terms else r"[^\n ][^\n]*"]
        events.append("".join(parts))
    return f"({'|'.join(events)})"


def _outlines(form: AnswerForm, tokenizer: Any, size: int, end: int, text_tokens: int) -> Callable[[], Any]:
    library = importlib.import_module("outlines_core")
    index = library.Index(regex(form), library.Vocabulary(end, _bytes_of(tokenizer, end)))

    class Outlines:
        def __init__(self) -> None:
            self.guide, self.is_done = library.Guide(index), False

        def forced(self) -> list[int]:
            """It has no such thing itself: states in which one token may come follow each other."""
            state, found = self.guide.get_state(), list[int]()
            while len(found) < _MOST_FORCED and len(allowed := index.get_allowed_tokens(state)) == 1:
                found += allowed
                if allowed == [end]:
                    break
                state = index.get_next_state(state, allowed[0])
            return found

        def bar(self, logits_1V: Tensor) -> None:
            is_barred_V = torch.ones_like(logits_1V[0], dtype=torch.bool)
            is_barred_V[self.guide.get_tokens()] = False
            logits_1V[0, is_barred_V] = -torch.inf

        def take(self, token_ids: Sequence[int]) -> None:
            for token_id in token_ids:
                self.is_done = token_id == end
                if not self.is_done:
                    self.guide.advance(token_id, return_tokens=False)

    return Outlines


def _bytes_of(tokenizer: Any, end: int) -> dict[bytes, list[int]]:
    """Bytes -> tokens, of a byte-level tokenizer."""
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, end}
    found: dict[bytes, list[int]] = {}
    for token, token_id in tokenizer.get_vocab().items():
        if token_id not in special:
            found.setdefault(bytes(byte_of[letter] for letter in token), []).append(token_id)
    return found


#: By the name to install.
LIBRARIES: dict[str, Callable[[AnswerForm, Any, int, int, int], Callable[[], Any]]] = {
    "llguidance": _llguidance,
    "xgrammar": _xgrammar,
    "outlines_core": _outlines,
}
