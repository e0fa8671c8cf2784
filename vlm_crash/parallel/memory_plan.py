"""Peak memory of a training run per GPU, and what to change where it does not fit.

Enters: a Shape and a Setting (memory_shapes.py), a Card. Leaves: a Plan. Plain arithmetic on shapes: no weight is read,
no tensor is made, and neither torch nor a model class is loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from vlm_crash.parallel.memory_model import MOMENTS, walk
from vlm_crash.parallel.memory_shapes import Setting, Shape
from vlm_crash.parallel.memory_tape import PARTS

GIB = 2**30
RESERVE = "context and NCCL"
#: LoRA as the shipped config has it: attention and MLP of the language model.
LORA_TARGETS = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})


@dataclass(frozen=True)
class Card:
    """A GPU.

    Args:
        memory_gib: that it has for programs; 24 GB of a TITAN RTX are 23.6.
        reserve_gib: of it, what the CUDA context, NCCL's buffers and the gaps between blocks take.
    """

    memory_gib: float = 23.6
    reserve_gib: float = 1.2


@dataclass(frozen=True)
class Plan:
    """What a run needs on each of its GPUs.

    Args:
        shape: of the model.
        setting: of the run.
        card: it is to run on.
    """

    shape: Shape
    setting: Setting
    card: Card

    @cached_property
    def worst(self) -> Mapping[str, Mapping[str, int]]:
        """Bytes by part at the worst instant of each moment of a step, without the card's reserve."""
        found = walk(self.shape, self.setting).worst
        return {moment: found[moment] for moment in MOMENTS if moment in found}

    @property
    def moments(self) -> dict[str, float]:
        """GiB at the worst instant of each moment, with the reserve."""
        return {moment: sum(parts.values()) / GIB + self.card.reserve_gib for moment, parts in self.worst.items()}

    @property
    def peak_moment(self) -> str:
        return max(self.moments, key=self.moments.__getitem__)

    @property
    def parts(self) -> dict[str, float]:
        """GiB by part at the peak; they sum to it."""
        found = self.worst[self.peak_moment]
        return {**{part: found[part] / GIB for part in PARTS}, RESERVE: self.card.reserve_gib}

    @property
    def peak_gib(self) -> float:
        return sum(self.parts.values())

    @property
    def left_gib(self) -> float:
        return self.card.memory_gib - self.peak_gib

    @property
    def fits(self) -> bool:
        return self.left_gib >= 0

    @property
    def host_gib(self) -> float:
        """What one process keeps in the machine's memory with cpu_offload: shards, gradients, AdamW's state."""
        if not self.setting.cpu_offload:
            return 0.0
        trained = sum(n for tower, n in self.shape.parameters.items() if self.setting.trains(tower))
        whole = sum(self.shape.parameters.values())
        return (4 * whole + 12 * trained) / self.setting.sharers / GIB


@dataclass(frozen=True)
class Proposal:
    """One change more.

    Args:
        what: in words, with the option.
        plan: with this change and all before it.
        alone: with this change alone.
    """

    what: str
    plan: Plan
    alone: Plan


def proposals(plan: Plan, world_size: int) -> list[Proposal]:
    """Changes in order of their cost, each on top of those before, until it fits; none that does not lower the peak.

    The first cost time alone, then come those that change what is learnt from.
    """
    found: list[Proposal] = []
    for what, changes in _changes(plan.setting, world_size):
        before = found[-1].plan if found else plan
        if before.fits:
            break
        after = replace(before, setting=replace(before.setting, **changes))
        if after.peak_gib < before.peak_gib - 0.005:
            found.append(Proposal(what, after, replace(plan, setting=replace(plan.setting, **changes))))
    return found


def _changes(setting: Setting, world_size: int) -> Iterator[tuple[str, dict[str, Any]]]:
    is_math = setting.kernel == "math"
    for chunk in (8, 2):
        if is_math and (setting.vision_chunk is None or setting.vision_chunk > chunk):
            yield (
                f"vision attention for {chunk} frames at a time (--model.vision_chunk {chunk})",
                {"vision_chunk": chunk},
            )
    if setting.checkpointed < {"vision", "language"}:
        towers = frozenset({"vision", "language"})
        yield "activations computed again (--model.activation_checkpointing true)", {"checkpointed": towers}
    if setting.batch_size > 1:
        changes: dict[str, Any] = {
            "batch_size": 1,
            "is_padded": False,
            "accumulate": setting.accumulate * setting.batch_size,
        }
        options = f"--data.batch_size 1, --trainer.accumulate_grad_batches {changes['accumulate']}"
        if setting.is_packed:
            options = f"--data.batching padded, no --data.pack_tokens, {options}"
        yield f"one clip a batch ({options})", changes
    if world_size > 1 and setting.word != "zero3":
        option = "--trainer.strategy vlm_crash.parallel.FSDPStrategy, its sharding_strategy zero3"
        yield f"weights shared out over all GPUs ({option})", {"word": "zero3", "sharers": world_size}
    is_sharded = setting.word not in ("plain", "ddp")
    if setting.compute_width == 4 and (is_sharded or world_size > 1):
        yield "fp16 computation (--trainer.precision 16-mixed)", {"compute_width": 2}
    if setting.reduce_width == 4 and setting.compute_width == 2 and (is_sharded or world_size > 1):
        yield "gradients summed in fp16 (--trainer.strategy.reduce_dtype float16)", {"reduce_width": 2}
    if not setting.cpu_offload and (is_sharded or world_size > 1):
        yield "AdamW on the CPU (--trainer.strategy.cpu_offload true)", {"cpu_offload": True}
    for frames in (32, 16, 8):
        if frames < setting.num_frames:
            yield f"{frames} frames a clip (--data.num_frames {frames})", {"num_frames": frames}
    if "vision" not in setting.freeze and setting.trains("vision"):
        yield "the vision tower as it is (--model.freeze [vision])", {"freeze": setting.freeze | {"vision"}}
    if not setting.lora_rank:
        adapters: dict[str, Any] = {
            "lora_rank": 16, "lora_targets": LORA_TARGETS, "lora_towers": frozenset({"language"}),
            "base_width": setting.compute_width, "cpu_offload": False,
        }  # fmt: skip
        yield "adapters of rank 16 in place of the weights (--model.lora.rank 16)", adapters
