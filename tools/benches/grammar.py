"""The form beside a grammar library: llguidance allows tokens, ours gives what is given and judges terms as trees.

Enters: the demo's model and drawn clips, one at a time. Leaves: a Result with seconds and forward passes of the
language model per clip, and how many fields the two ways agree on. `pip install llguidance` first; nothing else needs
it.
"""

import argparse
import importlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benches.common import Result, Table, side_by_side
from benches.model import TINY
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.demo.clips import write_dataset
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.answer_form import AnswerForm
from vlm_crash.models.decoding import Decoder, fill_forms
from vlm_crash.models.vision import embed_prompt
from vlm_crash.schema.fields import Event
from vlm_crash.schema.response import parse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=8, help="clips, each answered alone")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are counted")
    parser.add_argument("--text_tokens", type=int, default=24, help="most tokens of each text field")


def grammar(form: AnswerForm, text_tokens: int) -> str:
    """The form as a grammar of llguidance (Lark's notation)."""
    lines = ["start: " + " | ".join(f"event_{number}" for number in range(len(form.schema.events)))]
    for number, event in enumerate(form.schema.events):
        lines.append(f"event_{number}: {_line(form, event)}")
    return "\n".join([*lines, f"text[max_tokens={text_tokens}]: /[^\\n\\s][^\\n]*/", ""])


def _line(form: AnswerForm, event: Event) -> str:
    parts = [json.dumps(event.opening)]
    for slot in form.slots[event.name]:
        parts.append(json.dumps(slot.ahead))
        parts.append("(" + " | ".join(map(json.dumps, slot.terms)) + ")" if slot.terms else "text")
    return " ".join(parts)


class _ByGrammar:
    """Greedy decoding under a grammar: tokens that it forces go in together, others one by one under its mask."""

    def __init__(self, module: CrashVLM, form: AnswerForm, text_tokens: int) -> None:
        library, hf = importlib.import_module("llguidance"), importlib.import_module("llguidance.hf")
        self.torch: Any = importlib.import_module("llguidance.torch")
        self.model = module.model
        self.tokenizer = module.tokenizer
        size = module.model.config.get_text_config().vocab_size
        self.known = hf.from_tokenizer(module.tokenizer, n_vocab=size, eos_token=module.conversation.end_token_id)
        self.matcher: Callable[[], Any] = lambda: library.LLMatcher(self.known, grammar(form, text_tokens))
        self.mask = self.torch.allocate_token_bitmask(1, size)

    @torch.no_grad()
    def __call__(self, embeds_BSD: Tensor) -> str:
        cache, matcher, ids = DynamicCache(), self.matcher(), list[int]()
        logits_1V = self._logits(embeds_BSD, cache)
        while not matcher.is_stopped():
            forced = matcher.compute_ff_tokens()
            if not forced:
                self.torch.fill_next_token_bitmask(matcher, self.mask, 0)
                self.torch.apply_token_bitmask_inplace(logits_1V, self.mask)
                forced = [int(logits_1V.argmax())]
            if not matcher.consume_tokens(forced):
                raise RuntimeError(matcher.get_error())
            ids += forced
            if not matcher.is_stopped():
                logits_1V = self._logits(self.model.get_input_embeddings()(torch.tensor([forced])), cache)
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _logits(self, embeds_1SD: Tensor, cache: DynamicCache) -> Tensor:
        output = self.model.model.language_model(inputs_embeds=embeds_1SD, past_key_values=cache, use_cache=True)
        return self.model.lm_head(output.last_hidden_state[:, -1]).float()


def run(options: argparse.Namespace) -> list[Result]:
    try:
        importlib.import_module("llguidance")
    except ImportError as error:
        raise SystemExit("bench grammar: llguidance is not installed; pip install llguidance") from error
    module = CrashVLM(TINY, embedder=None, max_new_tokens=options.text_tokens).eval()
    prompts = _prompts(module, options.clips)
    form, passes = module.answering.form, [0]
    kinds = module.answering.text_tokens(module.model.config.get_text_config().vocab_size)
    by_grammar = _ByGrammar(module, form, options.text_tokens)
    module.model.model.language_model.register_forward_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))

    def ours() -> list[str]:
        filled = [fill_forms(Decoder(module.model, e, m), form, [options.text_tokens], kinds)[0] for e, m in prompts]
        return [found.response for found in filled if found]

    def theirs() -> list[str]:
        return [by_grammar(embeds_1SD) for embeds_1SD, _ in prompts]

    answers, counts = [], []
    for way in (ours, theirs):
        passes[0] = 0
        answers.append(way())
        counts.append(passes[0] / len(prompts))
    seconds, rounds = side_by_side([ours, theirs], options.rounds, limit_s=120)
    same = _agreement(module, *answers)
    table = Table(
        "The form beside llguidance",
        f"The demo's model, {len(prompts)} clips one by one, prompts in the cache included; texts of at most "
        f"{options.text_tokens} tokens. Both give a form that is read back; probabilities of terms only ours.",
        ["way", "seconds a clip", "passes a clip", "rounds"],
        [
            ["schema as trees (best_term)", seconds[0] / len(prompts), counts[0], rounds],
            ["llguidance, forced tokens together", seconds[1] / len(prompts), counts[1], rounds],
        ],
    )
    ratios = {
        "seconds_llguidance_over_ours": seconds[1] / seconds[0],
        "passes_llguidance_over_ours": counts[1] / counts[0],
        "fields_in_which_both_agree": same,
    }
    return [Result("grammar", [table], ratios, ["xgrammar, outlines", "batches", "a GPU"])]


def _prompts(module: CrashVLM, num_clips: int) -> list[tuple[Tensor, Tensor]]:
    """Embedded prompts of drawn clips, with their masks."""
    with tempfile.TemporaryDirectory() as name:
        write_dataset(Path(name), num_clips=max(4, num_clips), seed=5, workers=1)
        data = CrashDataModule(clips=sorted(Path(name).glob("*/*.mp4"))[:num_clips], num_workers=0, batch_size=1)
        data.connect(module.inputs)
        assert data.recipe is not None
        module.conversation = data.recipe.tokenizer
        data.setup("predict")
        with torch.no_grad():
            return [
                (embed_prompt(module.model, batch.input_ids_BS, batch.pixel_values_N3HW), batch.attention_mask_BS)
                for batch in data.predict_dataloader()
            ]


def _agreement(module: CrashVLM, ours: list[str], theirs: list[str]) -> float:
    """Share of ours' fields that the other way has filled in alike."""
    read = [[parse(module.schema, text).values for text in texts] for texts in (ours, theirs)]
    pairs = list(zip(*read, strict=True))
    total = sum(len(one) for one, _ in pairs)
    return sum(other.get(name) == value for one, other in pairs for name, value in one.items()) / total
