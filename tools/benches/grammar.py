"""The form beside grammar libraries: they allow tokens, ours gives what is given and judges terms as trees.

Enters: the demo's model and drawn clips, one at a time. Leaves: a Result with seconds and forward passes of the
language model per clip, and how many fields the ways agree on. `pip install xgrammar outlines_core` first (llguidance
comes with the package's own lock); a library that is absent is named as not measured.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache

from benches.common import Result, Row, Table, side_by_side
from benches.grammar_libraries import LIBRARIES, Constraint, maker
from benches.model import TINY
from vlm_crash.data.datamodule import CrashDataModule
from vlm_crash.demo.clips import write_dataset
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.decoding import Decoder, fill_forms
from vlm_crash.models.vision import embed_prompt
from vlm_crash.schema.response import parse

OURS = "vlm_crash, best_term"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=8, help="clips, each answered alone")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are counted")
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=list(LIBRARIES), help="beside which")
    parser.add_argument("--text_tokens", type=int, default=24, help="most tokens of each text field")


class _ByGrammar:
    """Greedy decoding under a grammar: tokens that it forces go in together, others one by one under its mask."""

    def __init__(self, module: CrashVLM, make: Callable[[], Constraint]) -> None:
        self.model, self.tokenizer, self.make = module.model, module.tokenizer, make

    @torch.no_grad()
    def __call__(self, embeds_BSD: Tensor) -> str:
        cache, state, ids = DynamicCache(), self.make(), list[int]()
        logits_1V = self._logits(embeds_BSD, cache)
        while not state.is_done:
            token_ids = state.forced()
            if not token_ids:
                state.bar(logits_1V)
                token_ids = [int(logits_1V.argmax())]
            state.take(token_ids)
            ids += token_ids
            if not state.is_done:
                logits_1V = self._logits(self.model.get_input_embeddings()(torch.tensor([token_ids])), cache)
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _logits(self, embeds_1SD: Tensor, cache: DynamicCache) -> Tensor:
        output = self.model.model.language_model(inputs_embeds=embeds_1SD, past_key_values=cache, use_cache=True)
        return self.model.lm_head(output.last_hidden_state[:, -1]).float()


def run(options: argparse.Namespace) -> list[Result]:
    module = CrashVLM(TINY, embedder=None, attention="auto", max_new_tokens=options.text_tokens).eval()
    prompts = _prompts(module, options.clips)
    form, passes = module.answering.form, [0]
    size = module.model.config.get_text_config().vocab_size
    kinds = module.answering.text_tokens(size)
    module.model.model.language_model.register_forward_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))

    def ours() -> list[str]:
        filled = [fill_forms(Decoder(module.model, e, m), form, [options.text_tokens], kinds)[0] for e, m in prompts]
        return [found.response for found in filled if found]

    def theirs(way: _ByGrammar) -> list[str]:
        return [way(embeds_1SD) for embeds_1SD, _ in prompts]

    ways: dict[str, Callable[[], list[str]]] = {OURS: ours}
    missing, preparation = [], {OURS: 0.0}
    for library in options.libraries:
        start = time.perf_counter()
        try:
            make = maker(library, form, module.tokenizer, size, module.conversation.end_token_id, options.text_tokens)
        except ImportError as error:
            missing.append(f"{library}: {error}")
            continue
        preparation[library] = time.perf_counter() - start
        ways[library] = partial(theirs, _ByGrammar(module, make))
    answers, counts = {}, {}
    for name, way in ways.items():
        passes[0] = 0
        answers[name] = way()
        counts[name] = passes[0] / len(prompts)
    seconds, rounds = side_by_side(list(ways.values()), options.rounds, limit_s=240)
    same = {name: _agreement(module, answers[OURS], found) for name, found in answers.items()}
    rows: list[Row] = [
        [name, each / len(prompts), counts[name], same[name], preparation[name], rounds]
        for name, each in zip(ways, seconds, strict=True)
    ]
    table = Table(
        "The form beside grammar libraries",
        f"The demo's model, {len(prompts)} clips one by one, their prompts' passes included. Under a grammar, tokens "
        f"that it forces go in together. Texts have at most {options.text_tokens} tokens by ours and by llguidance; "
        "the others do not count tokens. xgrammar names forced text, not tokens: tokenized by itself, it is not what "
        "training saw. All give a form that is read back; probabilities of terms only ours. Once: seconds to make "
        "the grammar, or what the library derives from it. Same fields: share of ours.",
        ["way", "seconds a clip", "passes a clip", "same fields", "once (s)", "rounds"],
        rows,
    )
    ratios: dict[str, float] = {}
    for name, each in zip(ways, seconds, strict=True):
        if name != OURS:
            ratios |= {
                f"seconds_{name}_over_ours": each / seconds[0],
                f"passes_{name}_over_ours": counts[name] / counts[OURS],
            }
    return [Result("grammar", [table], ratios, ["batches", "a GPU", *missing])]


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
