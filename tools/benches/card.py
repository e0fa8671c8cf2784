"""plan's peak memory beside what a real GPU's allocator gives, in steps that train.

Enters: nothing but options; needs a CUDA device. Leaves: a Result. Model, wrapping, precision and loss are those of
`fit`, with random weights, on one process; what a card of another kind allocates is the same but for its libraries'
workspaces.
"""

# Suffixes: B batch, S sequence, N frames.

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import OffloadPolicy
from transformers import InternVLForConditionalGeneration

from benches.common import Result, Row, Table
from benches.plan import BOTH, UNITS, config_of
from vlm_crash.models.activation_checkpointing import checkpoint_towers
from vlm_crash.models.attention import set_attention
from vlm_crash.models.attention_by_frames import set_frame_chunk
from vlm_crash.models.internvl import label_loss, tower_of
from vlm_crash.models.lora import LoraSettings
from vlm_crash.models.lora_layers import inject, set_base_dtype
from vlm_crash.models.optimization import parameter_groups
from vlm_crash.models.vision import embed_prompt
from vlm_crash.parallel.memory_plan import GIB, LORA_TARGETS, Card, Plan
from vlm_crash.parallel.memory_shapes import NAMED, Setting, Shape
from vlm_crash.parallel.precision import FSDPPrecision
from vlm_crash.parallel.sharding import make_mesh, shard_module

RATES = dict.fromkeys(("vision", "projector", "language"), 1e-5)
SHARDED = Setting(num_frames=32, sharers=1, compute_width=2, checkpointed=BOTH, vision_chunk=8)
ADAPTERS = Setting(
    num_frames=32, word="plain", compute_width=2, base_width=2, checkpointed=frozenset({"language"}), vision_chunk=8,
    lora_rank=16, lora_targets=LORA_TARGETS, lora_towers=frozenset({"language"}),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A run to plan and to take."""

    name: str
    shape: Shape
    setting: Setting


def cases(names: list[str]) -> Iterator[Case]:
    for name in names:
        if name == "1B":
            yield Case("1B, 32 frames, 8 at a time", NAMED[name], SHARDED)
            yield Case("1B, 32 frames, all at once", NAMED[name], replace(SHARDED, vision_chunk=None))
            yield Case("1B, vision frozen", NAMED[name], replace(SHARDED, freeze=frozenset({"vision"})))
            yield Case("1B, two clips of 16 frames", NAMED[name], replace(SHARDED, batch_size=2, num_frames=16))
            yield Case("1B, 16 frames of 256 tokens", NAMED["1B-plain"], replace(SHARDED, num_frames=16))
        yield Case(f"{name}, LoRA, 32 frames", NAMED[name], ADAPTERS)
        yield Case(f"{name}, LoRA, 6 frames of 256 tokens", NAMED[f"{name}-plain"], replace(ADAPTERS, num_frames=6))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shapes", nargs="+", default=["1B", "8B"], choices=("1B", "2B", "4B", "8B"))


def run(options: argparse.Namespace) -> list[Result]:
    if not torch.cuda.is_available():
        raise SystemExit("bench card needs a CUDA device, and there is none here")
    rows: list[Row] = []
    for case in cases(options.shapes):
        plan = Plan(case.shape, case.setting, Card(reserve_gib=0))
        # A process each: what a case leaves behind would stand beside the next one.
        with get_context("spawn").Pool(1) as pool:
            found = pool.apply(card_peak, (case.shape, case.setting)) / GIB
        rows.append([case.name, found, plan.peak_gib, plan.peak_gib / found, plan.peak_moment])
        print(rows[-1], flush=True)
    table = Table(
        "plan beside a GPU's allocator",
        f"Peak of torch.cuda.max_memory_allocated in the third step of AdamW on {torch.cuda.get_device_name()}, one "
        "process: FSDPStrategy's wrapping at 16-mixed with both towers computed again, or LoRA of rank 16 on the "
        "language model under autocast; math attention, random weights. The context is in neither figure.",
        ["case", "allocated (GiB)", "plan (GiB)", "plan / allocated", "peak in"],
        rows,
    )
    return [Result("card", [table], {}, ["cards of other kinds", "several GPUs"])]


class Loss(nn.Module):
    """CrashVLM's loss."""

    def __init__(self, model: InternVLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids_BS: Tensor, labels_BS: Tensor, pixel_values_N3HW: Tensor) -> Tensor:
        embeds_BSD = embed_prompt(self.model, input_ids_BS, pixel_values_N3HW)
        loss, num_labels = label_loss(self.model, embeds_BSD, torch.ones_like(input_ids_BS), labels_BS)
        return loss / num_labels


def card_peak(shape: Shape, setting: Setting) -> int:
    """Bytes that the allocator gave at the peak of a third step; to be called once in a process."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531", "RANK": "0", "WORLD_SIZE": "1"}
    dist.init_process_group("nccl")
    set_attention("math")
    with torch.device("cuda"):
        root, optimizer, context = (_adapted if setting.lora_rank else _sharded)(shape, setting)
        ids_BS = torch.randint(6, shape.vocab_size, (setting.batch_size, setting.num_tokens(shape)))
        ids_BS[:, 2 : 2 + setting.num_frames * shape.frame_tokens] = 5
        labels_BS = ids_BS.clone()
        labels_BS[:, : -setting.label_tokens] = -100
        pixels = torch.randn(setting.batch_size * setting.num_frames, 3, shape.image_size, shape.image_size)
    for _ in range(3):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        with context():
            loss = root(ids_BS, labels_BS, pixels)
        optimizer.zero_grad()
        loss.backward()
        del loss
        optimizer.step()
    torch.cuda.synchronize()
    dist.destroy_process_group()
    return torch.cuda.max_memory_allocated()


def _model(shape: Shape, setting: Setting) -> InternVLForConditionalGeneration:
    model = InternVLForConditionalGeneration(config_of(shape)).train()
    checkpoint_towers(model, sorted(setting.checkpointed))
    set_frame_chunk(model, setting.vision_chunk)
    return model


def _sharded(shape: Shape, setting: Setting) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], Any]]:
    model = _model(shape, setting)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(tower_of(name) not in setting.freeze)
    root = Loss(model)
    precision = FSDPPrecision("16-mixed")
    mesh = make_mesh(setting.word, "cuda", 1, 1)
    shard_module(
        root, UNITS, mesh, True, OffloadPolicy(), lambda is_fp32: precision.policy(torch.float32, is_fp32)
    )  # fmt: skip
    return root, torch.optim.AdamW(parameter_groups(root, RATES, 0.0)), torch.enable_grad


def _adapted(shape: Shape, setting: Setting) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], Any]]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        model = _model(shape, setting)
    finally:
        torch.set_default_dtype(before)
    inject(model, LoraSettings(towers=sorted(setting.lora_towers), rank=setting.lora_rank))
    set_base_dtype(model, torch.float16)
    root = Loss(model)
    optimizer = torch.optim.AdamW(parameter_groups(root, RATES, 0.0))
    return root, optimizer, lambda: torch.autocast("cuda", torch.float16)
