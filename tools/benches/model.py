"""Token merging against a plain port; tokens, prefill, cache, vision and memory with and without it.

Enters: nothing but options; weights are random. Leaves: a Result a part. Everything runs in this process, without
gradients.
"""

# Suffixes: G groups, P tokens of a group, C channels, B batch, S sequence, D hidden.

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache, InternVLConfig, InternVLForConditionalGeneration

from benches.common import Result, Row, Table, side_by_side
from benches.memory import counted_peak, measured_peak
from vlm_crash.models.checkpoints import materialise, meta_model
from vlm_crash.models.folder import HicoSettings, image_size, merge_heads, read_config, tokens_per_frame
from vlm_crash.models.token_merging import merge_schedule, merge_tokens
from vlm_crash.models.vision import image_features

TINY = Path(__file__).parents[2] / "vlm_crash" / "demo" / "base"
# Tokens of text that a prompt has beside its images: of each frame's line, and of the question.
LINE_TOKENS, QUESTION_TOKENS = 8, 64
PARTS = ("merging", "prefill", "vision", "memory")
CHUNKS = (4, 8, 32, None)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256], help="frames of a clip")
    parser.add_argument("--groups", type=int, default=8, help="groups of 1024 tokens of 4096 channels to merge")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison")
    parser.add_argument(
        "--limit_s", type=float, default=60.0, help="a prefill is left out where the one before took longer"
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="what to measure")
    parser.add_argument("--shapes", nargs="+", default=["tiny", "1B"], choices=["tiny", "1B"], help="models to measure")


def run(options: argparse.Namespace) -> list[Result]:
    torch.manual_seed(0)
    results = []
    with torch.no_grad():
        for part in options.parts:
            notes: list[str] = []
            tables: list[Table] = []
            ratios: dict[str, float] = {}
            if part == "merging":
                merging, ratio = _merging(options.groups, options.rounds)
                tables, ratios = [merging], {"merge_vs_port": ratio}
            for shape in options.shapes if part != "merging" else ():
                if part == "prefill":
                    tables.append(_prefill(shape, options.frames, options.rounds, options.limit_s, notes))
                elif part == "vision":
                    tables.append(_vision(shape, options.rounds))
                else:
                    tables += [_prefill_memory(shape, options.frames), _chunk_memory(shape, options.frames)]
            results.append(Result(f"model {part}", tables, ratios, notes))
    return results


# ---------------------------------------------------------------------------------------------------- token merging


def plain_port(x_GPC: Tensor, target: int, heads: int) -> Tensor:
    """Token merging as its formulas read: group by group, tokens gathered, scattered and divided at each step."""
    return torch.cat([_plain_group(x_1PC, target, heads) for x_1PC in x_GPC.split(1)])


def _plain_group(x_1PC: Tensor, target: int, heads: int) -> Tensor:
    size_1P1 = torch.ones_like(x_1PC[..., :1])
    for num_merged in merge_schedule(x_1PC.shape[1], target):
        metric = x_1PC.unflatten(2, (heads, -1)).mean(dim=2)
        metric = metric / metric.norm(dim=-1, keepdim=True)
        best, mate = (metric[:, ::2] @ metric[:, 1::2].mT).max(dim=-1)
        order = best.argsort(dim=-1, descending=True)
        src, kept = order[:, :num_merged, None], order[:, num_merged:, None]
        dst = mate[..., None].gather(1, src)
        merge = partial(_merge_step, src=src, kept=kept, dst=dst)
        total, size_1P1 = merge(x_1PC * size_1P1), merge(size_1P1)
        x_1PC = total / size_1P1
    return x_1PC


def _merge_step(x_1PC: Tensor, src: Tensor, kept: Tensor, dst: Tensor) -> Tensor:
    even, odd, width = x_1PC[:, ::2], x_1PC[:, 1::2], x_1PC.shape[2]
    moved = even.gather(1, src.expand(-1, -1, width))
    odd = odd.scatter_add(1, dst.expand(-1, -1, width), moved)
    return torch.cat([even.gather(1, kept.expand(-1, -1, width)), odd], dim=1)


def _merging(groups: int, rounds: int) -> tuple[Table, float]:
    rows: list[Row] = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x_GPC = torch.randn(groups, 1024, 4096).to(dtype)
        ways: list[Callable[[], Tensor]] = [partial(way, x_GPC, 64, 32) for way in (merge_tokens, plain_port)]
        if dtype == torch.float32:
            torch.testing.assert_close(ways[0](), ways[1](), rtol=1e-4, atol=1e-4)
        (ours, port), counted = side_by_side(ways, rounds, limit_s=120)
        rows.append([str(dtype).removeprefix("torch."), 1000 * ours, 1000 * port, port / ours, counted])
    table = Table(
        "Token merging",
        f"{groups} groups of 1024 tokens with 4096 channels to 64 tokens each, 32 heads, beside a plain port of the "
        "formulas (one group at a time, tokens gathered and scattered at every step); medians of rounds in turns.",
        ["dtype", "vlm_crash (ms)", "plain port (ms)", "port / vlm_crash", "rounds"],
        rows,
    )
    ratio = rows[0][3]
    assert isinstance(ratio, float)
    return table, ratio


# ----------------------------------------------------------------------------------------------------------- models


def shape_config(shape: str, is_merged: bool) -> InternVLConfig:
    """Config of the demo's model, or of InternVL2.5-1B: InternViT-300M and Qwen2.5-0.5B."""
    if shape == "tiny":
        config = read_config(TINY)
    else:
        config = InternVLConfig(
            vision_config={"image_size": 448, "patch_size": 14, "attention_bias": True},  # the others: InternViT-300M's
            text_config={
                "model_type": "qwen2",
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "vocab_size": 151674,
                "max_position_embeddings": 32768,
                "tie_word_embeddings": True,
            },
        )
    if is_merged:
        patches = tokens_per_frame(config)
        vision: Any = config.vision_config
        text: Any = config.text_config
        heads = merge_heads(text.num_attention_heads, vision.hidden_size * round(1 / config.downsample_ratio) ** 2)
        hico = HicoSettings(4, 64 if shape == "1B" else patches, heads)
        config.vlm_crash = {**(getattr(config, "vlm_crash", None) or {}), "hico": asdict(hico)}
    return config


def random_model(config: InternVLConfig, num_vision_layers: int | None = None) -> InternVLForConditionalGeneration:
    """A model with random weights; its tower cut to some layers where a number is given."""
    model = meta_model(config)
    if num_vision_layers is not None:
        model.model.vision_tower.encoder.layer = model.model.vision_tower.encoder.layer[:num_vision_layers]
    materialise(model)
    for parameter in model.parameters():
        parameter.normal_(std=0.02)
    return model.eval()


def prompt_tokens(config: InternVLConfig, num_frames: int) -> int:
    """Tokens of a prompt: images, the lines that they stand in, and a question."""
    return num_frames * (tokens_per_frame(config) + LINE_TOKENS) + QUESTION_TOKENS


def prefill(model: InternVLForConditionalGeneration, embeds_BSD: Tensor) -> DynamicCache:
    """The prompt through the language model into a new cache, with the logits of the next token."""
    cache = DynamicCache(config=model.config.get_text_config())
    output = model.model.language_model(inputs_embeds=embeds_BSD, past_key_values=cache, use_cache=True)
    model.lm_head(output.last_hidden_state[:, -1])
    return cache


def cache_bytes(config: InternVLConfig, num_tokens: int) -> int:
    """Bytes of a prompt's keys and values in fp16: of the tensors that a prefill makes, on the meta device."""
    model = meta_model(config, torch.float16)
    width = model.lm_head.in_features
    cache = prefill(model, torch.empty(1, num_tokens, width, device="meta", dtype=torch.float16))
    layers: list[Any] = list(cache.layers)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


def _prefill(shape: str, frames: Sequence[int], rounds: int, limit_s: float, notes: list[str]) -> Table:
    configs = [shape_config(shape, is_merged) for is_merged in (False, True)]
    model = random_model(configs[0], num_vision_layers=0)  # both have the same language model
    width = model.lm_head.in_features
    rows: list[Row] = []
    took = [0.0, 0.0]
    left_out: list[list[str]] = [[], []]
    for num_frames in sorted(frames):
        sizes = [prompt_tokens(config, num_frames) for config in configs]
        wanted = [place for place in range(2) if took[place] <= limit_s]
        ways = [partial(prefill, model, torch.randn(1, sizes[place], width)) for place in wanted]
        seconds, counted = side_by_side(ways, rounds, limit_s=30)
        found = dict(zip(wanted, seconds, strict=True))
        for place in {0, 1} - set(wanted):
            left_out[place].append(str(num_frames))
        took = [found.get(place, took[place]) for place in range(2)]
        rows.append(
            [
                num_frames,
                *(num_frames * tokens_per_frame(config) for config in configs),
                *(found.get(place) for place in range(2)),
                found[0] / found[1] if len(found) == 2 else None,
                *(cache_bytes(config, size) for config, size in zip(configs, sizes, strict=True)),
                counted if found else None,
            ]
        )
    for way, numbers, longest in zip(("without", "with"), left_out, took, strict=True):
        if numbers:
            what = f"prefill of the {shape} model {way} merging, {', '.join(numbers)} frames"
            notes.append(f"{what}: the one before took {longest:.0f} s")
    before, after = (tokens_per_frame(config) for config in configs)
    return Table(
        f"A prompt of the {shape} model",
        f"Without merging ({before} tokens a frame) and with it ({after}). The language model alone in fp32, from "
        f"random embeddings of images and text ({LINE_TOKENS} tokens of text a frame, {QUESTION_TOKENS} of the "
        "question) to the first token's logits; torch chooses the attention kernel. The vision tower is not in these "
        "seconds. Cache: keys and values of the prompt in fp16, from the shapes that a prefill makes.",
        [
            "frames",
            "visual tokens",
            "merged",
            "prefill (s)",
            "merged (s)",
            "ratio",
            "cache (bytes)",
            "merged (bytes)",
            "rounds",
        ],
        rows,
    )


# ----------------------------------------------------------------------------------------------------------- vision


def _vision(shape: str, rounds: int) -> Table:
    models = [random_model(shape_config(shape, is_merged)) for is_merged in (False, True)]
    side = image_size(models[0].config)[0]
    pixels = torch.randn(4, 3, side, side)
    ways = [partial(image_features, model, pixels, [4]) for model in models]
    (plain, merged), counted = side_by_side(ways, rounds, limit_s=60)
    return Table(
        f"Four frames through the {shape} model's vision",
        f"The whole tower, pixel shuffle, merging and projector, {side} pixels, fp32.",
        ["without merging (s)", "with it (s)", "rounds"],
        [[plain, merged, counted]],
    )


# ----------------------------------------------------------------------------------------------------------- memory


def prefill_peak(config: InternVLConfig, num_tokens: int) -> int:
    """Peak bytes of a prefill in fp32 beside weights and embeddings, counted without computing."""
    model = meta_model(config)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        materialise(model)
        embeds_BSD = torch.empty(1, num_tokens, model.lm_head.in_features)
        return counted_peak(partial(prefill, model.eval(), embeds_BSD), [*_tensors(model), embeds_BSD])


def vision_peak(config: InternVLConfig, num_frames: int, chunk: int | None) -> int:
    """Peak bytes of a clip's way to visual tokens in fp32, beside weights and pixels, counted without computing."""
    model = meta_model(config)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        materialise(model)
        pixels = torch.empty(num_frames, 3, *image_size(config))
        function = partial(image_features, model.eval(), pixels, [num_frames], chunk)
        return counted_peak(function, [*_tensors(model), pixels])


def _tensors(model: InternVLForConditionalGeneration) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _prefill_memory(shape: str, frames: Sequence[int]) -> Table:
    configs = [shape_config(shape, is_merged) for is_merged in (False, True)]
    weights = sum(parameter.nbytes for parameter in meta_model(configs[0]).parameters())
    rows: list[Row] = []
    for num_frames in sorted(frames):
        sizes = [prompt_tokens(config, num_frames) for config in configs]
        plain, merged = (prefill_peak(config, size) for config, size in zip(configs, sizes, strict=True))
        rows.append([num_frames, *sizes, plain / 2**20, merged / 2**20, plain / merged])
    columns = ["frames", "tokens", "merged", "peak (MiB)", "merged (MiB)", "ratio"]
    return Table(
        f"Memory of a prefill of the {shape} model",
        "The most that tensors take at once in a prefill in fp32, cache included, beside "
        f"{weights / 2**20:,.0f} MiB of weights and the prompt's embeddings. Counted, not run: the tensors of every "
        "operator with torch's CPU kernels; a test holds the count against torch's allocator.",
        columns,
        rows,
    )


def _chunk_memory(shape: str, frames: Sequence[int]) -> Table:
    config = shape_config(shape, is_merged=True)
    columns = ["--model.vision_chunk", *(f"{number} frames (MiB)" for number in sorted(frames))]
    rows: list[Row] = [
        [chunk or "all", *(vision_peak(config, number, chunk) / 2**20 for number in sorted(frames))] for chunk in CHUNKS
    ]
    what = (
        f"The most that tensors take at once on the way of a clip's frames of {image_size(config)[0]} pixels to merged "
        "visual tokens, fp32, without gradients, beside weights and pixels; counted as above."
    )
    if shape == "tiny":
        model = random_model(config)
        pixels = torch.randn(max(frames), 3, *image_size(config))
        ways = [partial(image_features, model, pixels, [len(pixels)], chunk) for chunk in CHUNKS]
        columns.append(f"{len(pixels)} frames, run (MiB)")
        rows = [[*row, measured_peak(way) / 2**20] for row, way in zip(rows, ways, strict=True)]
        what += " The last column was run, and taken from torch's allocator."
    return Table(f"Frames at once through the {shape} model's tower", what, columns, rows)
