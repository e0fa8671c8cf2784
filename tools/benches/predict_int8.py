"""Whether dynamic int8 pays on a CPU: the language model's matrices in int8 beside fp32 and bf16.

Enters: nothing but options; random weights of 1B's shape for time and memory, the demo's base for answers. Leaves: a
Result. Tried by torch.ao.quantization.quantize_dynamic, which takes linear layers alone.
"""

import copy
import io
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import DynamicCache, InternVLForConditionalGeneration

from benches.common import Result, Row, Table, side_by_side
from benches.model import TINY, random_model, shape_config
from benches.predict_ways import System, Way, answer, system_for
from vlm_crash.schema.response import parse

KINDS = ("fp32", "bf16", "int8")


def in_kind(model: InternVLForConditionalGeneration, kind: str) -> InternVLForConditionalGeneration:
    """A copy whose language model computes so."""
    found = copy.deepcopy(model)
    language = found.model.language_model
    if kind == "bf16":
        found.bfloat16()
    elif kind == "int8":
        found.model.language_model = torch.ao.quantization.quantize_dynamic(language, {nn.Linear}, torch.qint8)
    return found.eval()


def run_int8(prompt_tokens: int, rounds: int) -> Result:
    """Seconds of a prompt's pass and of a token, bytes of weights, and answers."""
    torch.manual_seed(0)
    rows: list[Row] = []
    with torch.inference_mode():
        base = random_model(shape_config("1B", is_merged=True), num_vision_layers=0)
        width = base.lm_head.in_features
        models = {kind: in_kind(base, kind) for kind in KINDS}
        del base
        prefills, tokens = [], []
        for model in models.values():
            embeds = torch.randn(1, prompt_tokens, width, dtype=model.lm_head.weight.dtype)
            prefills.append(partial(_pass, model, embeds, DynamicCache))
            cache = _pass(model, embeds, DynamicCache)
            tokens.append(partial(_pass, model, embeds[:, :1], partial(_shortened, cache, prompt_tokens)))
        prefill_s, _ = side_by_side(prefills, rounds, limit_s=90)
        token_s, counted = side_by_side(tokens, 4 * rounds, limit_s=60)
        for place, (kind, model) in enumerate(models.items()):
            size = _stored(model.model.language_model) / 2**20
            rows.append([kind, prefill_s[place], token_s[place], size])
            print(rows[-1], file=sys.stderr)
        agreement = _agreement()
    ratios = {"prefill_fp32_over_int8": prefill_s[0] / prefill_s[2], "token_fp32_over_int8": token_s[0] / token_s[2]}
    ratios |= {"prefill_fp32_over_bf16": prefill_s[0] / prefill_s[1], "token_fp32_over_bf16": token_s[0] / token_s[1]}
    what = (
        f"The 1B model's language model with random weights: a prompt of {prompt_tokens} tokens, then token by token; "
        f"medians of {counted} rounds in turns. int8: torch.ao.quantization.quantize_dynamic of its linear layers, "
        "activations quantised as they come. Weights: as they are stored."
    )
    table = Table("int8 on a CPU", what, ["kind", "prompt (s)", "token (s)", "weights (MiB)"], rows)
    return Result("predict int8", [table, agreement], ratios)


def _pass(model: InternVLForConditionalGeneration, embeds: torch.Tensor, cache: type | partial) -> DynamicCache:
    past: DynamicCache = cache()
    output = model.model.language_model(inputs_embeds=embeds, past_key_values=past, use_cache=True)
    model.lm_head(output.last_hidden_state[:, -1])
    return past


def _shortened(cache: DynamicCache, size: int) -> DynamicCache:
    if (added := cache.get_seq_length() - size) > 0:
        cache.crop(-added)
    return cache


def _stored(module: nn.Module) -> int:
    """Bytes of a state dict; packed int8 weights are no parameters."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return file.tell()


def _agreement() -> Table:
    """The demo's base on drawn clips: fields that int8 answers as fp32 does."""
    from benches.predict import drawn_clips

    with tempfile.TemporaryDirectory() as name:
        clips = drawn_clips(Path(name), 8)
        texts = {}
        for kind in KINDS:
            system: System = system_for(TINY, "weights", 8, 400, 24)
            module = system.modules["best_term"]
            module.model = in_kind(module.model, kind)
            texts[kind] = answer(system, clips, Way("d", "", "best_term", True)).texts
    schema = module.schema
    rows: list[Row] = []
    for kind in KINDS[1:]:
        pairs = [
            (parse(schema, a).values, parse(schema, b).values) for a, b in zip(texts["fp32"], texts[kind], strict=True)
        ]
        fields = sum(len(whole) for whole, _ in pairs)
        same = sum(few.get(field) == value for whole, few in pairs for field, value in whole.items())
        rows.append([kind, len(pairs), fields, same, same / fields])
    return Table(
        "Answers in int8", "The demo's base, schema-constrained, eight drawn clips: fields answered as in fp32.",
        ["kind", "clips", "fields", "the same", "share"], rows,
    )  # fmt: skip
