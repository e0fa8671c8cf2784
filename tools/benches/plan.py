"""plan's peak memory beside torch's FSDPMemTracker, for 8 processes without 8; that of answers beside a count.

Enters: nothing but options; no tensor has memory (FakeTensorMode), no process communicates (torch's fake group).
Leaves: a Result. The model, its wrapping and precision are those of `fit`; only what looks at values is left out.
"""

# Suffixes: B batch, S sequence, V visual tokens, N frames, L labels, D hidden.

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.fsdp import OffloadPolicy
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import InternVLConfig, InternVLForConditionalGeneration

from benches.common import Bar, Result, Row, Table
from vlm_crash.models.activation_checkpointing import checkpoint_towers
from vlm_crash.models.attention import set_attention
from vlm_crash.models.attention_by_frames import set_frame_chunk
from vlm_crash.models.internvl import tower_of
from vlm_crash.models.optimization import parameter_groups
from vlm_crash.models.vision import image_features
from vlm_crash.parallel.fsdp import REDUCE_DTYPES
from vlm_crash.parallel.memory_plan import GIB, Card, Plan
from vlm_crash.parallel.memory_shapes import NAMED, Setting, Shape, Tower
from vlm_crash.parallel.precision import FSDPPrecision
from vlm_crash.parallel.sharding import make_mesh, shard_module

WORLD = 8
#: --shapes names the parts of the result.
PARTS_OPTION = "shapes"
ANSWERS = "answers"
TOLERANCE = 0.1
UNITS = {
    "InternVLVisionLayer", "Qwen2DecoderLayer", "LlamaDecoderLayer", "multi_modal_projector", "embed_tokens", "lm_head",
}  # fmt: skip
BOTH = frozenset({"vision", "language"})


@dataclass(frozen=True)
class Case:
    """A run to plan and to track: of 64 frames with 1,200 tokens, 300 of them labels, unless it says otherwise."""

    name: str
    shape: Shape
    setting: Setting = field(
        default_factory=lambda: Setting(
            num_frames=64, sharers=WORLD, compute_width=2, checkpointed=BOTH, vision_chunk=8, line_tokens=0,
            text_tokens=176, label_tokens=300,
        )
    )  # fmt: skip

    def but(self, name: str, **changes: Any) -> "Case":
        return replace(self, name=f"{self.name}, {name}", setting=replace(self.setting, **changes))


def cases(names: list[str]) -> Iterator[Case]:
    for name in names:
        base = Case(f"{name} zero3", NAMED[name])
        yield base.but("math over 8 frames at a time")
        yield base.but("over all frames at once", vision_chunk=None)
        yield base.but("vision frozen", freeze=frozenset({"vision"}))
        yield base.but("summed in fp16", reduce_width=2)
        yield base.but("four batches a step", accumulate=4)
        yield Case(f"{name} zero2", NAMED[name]).but("math over 8 frames at a time", word="zero2")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shapes", nargs="+", default=["1B", "8B", ANSWERS], choices=[*sorted(NAMED), ANSWERS],
        help="models to track in training; answers: the plan of answering",
    )  # fmt: skip


def run(options: argparse.Namespace) -> list[Result]:
    return [_answers() if name == ANSWERS else _compared(name) for name in options.shapes]


def _answers() -> Result:
    from benches.answer_memory import comparison  # which takes its models from here

    return Result(f"plan {ANSWERS}", [comparison()], {}, [], [], PARTS_OPTION)


def _compared(name: str) -> Result:
    rows: list[Row] = []
    for case in cases([name]):
        plan = Plan(case.shape, case.setting, Card(reserve_gib=0))
        tracked = tracked_peak(case.shape, case.setting) / GIB
        rows.append([case.name, tracked, plan.peak_gib, plan.peak_gib / tracked, plan.peak_moment])
        print(rows[-1], file=sys.stderr, flush=True)
    table = Table(
        f"plan beside torch's FSDPMemTracker, {name}",
        "Peak of one of 8 processes, context and NCCL not in it; 64 frames of 448 pixels and 16 tokens, a sequence of "
        "1,200, 300 labels, 16-mixed, activations of both towers computed again, the second step of AdamW.",
        ["case", "tracker (GiB)", "plan (GiB)", "plan / tracker", "peak in"],
        rows,
    )
    worst = max(rows, key=lambda row: abs(math.log(float(row[3] or 0))))
    bar = Bar(
        f"plan within {TOLERANCE:.0%} of the tracker; the farthest is {worst[0]} with {worst[3]:.3f} of it",
        all(abs(float(row[3] or 0) - 1) <= TOLERANCE for row in rows),
    )
    return Result(f"plan {name}", [table], {}, [], [bar], PARTS_OPTION)


def config_of(shape: Shape) -> InternVLConfig:
    """An InternVLConfig of this shape."""

    def sizes(tower: Tower) -> dict[str, int]:
        return {
            "hidden_size": tower.width,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
            "intermediate_size": tower.inner,
        }

    vision, text = shape.vision, shape.language
    config = InternVLConfig(
        vision_config={
            **sizes(vision), "image_size": shape.image_size, "patch_size": shape.patch_size,
            "attention_bias": vision.qkv_bias, "use_qk_norm": vision.qk_norm,
            "norm_type": "rms_norm" if vision.rms else "layer_norm",
        },
        text_config={
            **sizes(text), "model_type": "qwen2" if text.qkv_bias else "llama", "num_key_value_heads": text.kv_heads,
            "vocab_size": shape.vocab_size, "max_position_embeddings": 32768, "tie_word_embeddings": shape.tied,
        },
        image_token_id=5,
        downsample_ratio=1 / shape.fold,
        tie_word_embeddings=shape.tied,
    )  # fmt: skip
    if shape.merged_tokens:
        config.vlm_crash = {"hico": {"local_num_frames": 4, "num_tome_tokens": 4 * shape.merged_tokens}}
    config._attn_implementation = "sdpa"
    return config


class Loss(nn.Module):
    """CrashVLM's loss of one clip, without what looks at values: which ids are images, which labels count."""

    def __init__(self, model: InternVLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids_1S: Tensor, pixel_values_N3HW: Tensor, places_L: Tensor) -> Tensor:
        model = self.model
        vision_VD = image_features(model, pixel_values_N3HW, [len(pixel_values_N3HW)])
        text_1SD = model.get_input_embeddings()(input_ids_1S)
        is_image_1S1 = (input_ids_1S == model.config.image_token_id).unsqueeze(-1)
        x_1SD = text_1SD.masked_scatter(is_image_1S1, vision_VD.to(text_1SD.dtype))
        del vision_VD, text_1SD
        hidden_1SD = model.model.language_model(
            inputs_embeds=x_1SD,
            position_ids=torch.arange(x_1SD.shape[1])[None],
            use_cache=False,
        ).last_hidden_state
        del x_1SD
        logits_LV = model.lm_head(hidden_1SD[0][places_L]).float()
        return nn.functional.cross_entropy(logits_LV, torch.zeros_like(places_L), reduction="sum")


@contextmanager
def fake_group(world_size: int) -> Iterator[None]:
    """Processes that are not there."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def tracked_peak(shape: Shape, setting: Setting) -> int:
    """Bytes at the peak of a step on one of 8 processes, by FSDPMemTracker."""
    copies = {"none": WORLD, "hybrid": WORLD // setting.sharers}.get(setting.word, 1)
    set_attention("math")
    with fake_group(WORLD):
        mesh = make_mesh(setting.word, "cpu", WORLD, 1, (copies, WORLD // copies) if setting.word == "hybrid" else None)
        with FakeTensorMode(allow_non_fake_inputs=True):
            root, optimizer = _sharded(shape, setting, mesh)
            inputs = (
                torch.zeros(1, setting.num_tokens(shape), dtype=torch.long),
                torch.randn(setting.num_frames, 3, shape.image_size, shape.image_size),
                torch.zeros(setting.label_tokens, dtype=torch.long),
            )

            def step() -> None:
                loss = root(*inputs)
                if setting.accumulate == 1:  # as Lightning: between forward and backward
                    optimizer.zero_grad()
                loss.backward()
                del loss
                optimizer.step()

            # Not tracked: DTensor finds out shapes with tensors of the whole model's, once.
            step()
            tracker = FSDPMemTracker(root, optimizer)
            tracker.track_inputs(inputs)
            with tracker:
                step()
            snapshot = tracker.get_tracker_snapshot("peak")
    return int(snapshot[torch.device("cpu")]["Total"])


def _sharded(shape: Shape, setting: Setting, mesh: Any) -> tuple[Loss, torch.optim.Optimizer]:
    model = InternVLForConditionalGeneration(config_of(shape)).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(tower_of(name) not in setting.freeze)
    checkpoint_towers(model, sorted(setting.checkpointed))
    set_frame_chunk(model, setting.vision_chunk)
    root = Loss(model)
    precision = FSDPPrecision("32-true" if setting.compute_width == 4 else "16-mixed")
    reduce_dtype = REDUCE_DTYPES["float32" if setting.reduce_width == 4 else "float16"]
    shard_module(
        root,
        UNITS,
        mesh,
        setting.word in ("zero3", "hybrid"),
        OffloadPolicy(),
        lambda is_fp32: precision.policy(reduce_dtype, is_fp32),
    )
    rates = dict.fromkeys(("vision", "projector", "language"), 1e-5)
    return root, torch.optim.AdamW(parameter_groups(root, rates, 0.0), foreach=True)  # as on GPUs
