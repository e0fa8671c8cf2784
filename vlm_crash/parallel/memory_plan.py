"""Peak memory of a training run per GPU.

Enters: a Shape and a Setting (memory_shapes.py), a Card. Leaves: a Plan. Plain arithmetic on shapes: no weight is read,
no tensor is made, and neither torch nor a model class is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

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


class Peaks:
    """What follows from the worst instants: of each moment by part, of all of them, and beside what a card has."""

    card: Card
    part_names: ClassVar[tuple[str, ...]]
    reserve_name: ClassVar[str]

    @cached_property
    def worst(self) -> Mapping[str, Mapping[str, int]]:
        """Bytes by part at the worst instant of each moment, without the card's reserve."""
        raise NotImplementedError

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
        return {
            **{part: found.get(part, 0) / GIB for part in self.part_names},
            self.reserve_name: self.card.reserve_gib,
        }

    @property
    def peak_gib(self) -> float:
        return sum(self.parts.values())

    @property
    def left_gib(self) -> float:
        return self.card.memory_gib - self.peak_gib

    @property
    def fits(self) -> bool:
        return self.left_gib >= 0


@dataclass(frozen=True)
class Plan(Peaks):
    """What a run needs on each of its GPUs.

    Args:
        shape: of the model.
        setting: of the run.
        card: it is to run on.
    """

    shape: Shape
    setting: Setting
    card: Card

    part_names = tuple(PARTS)
    reserve_name = RESERVE

    @cached_property
    def worst(self) -> Mapping[str, Mapping[str, int]]:
        """Bytes by part at the worst instant of each moment of a step, without the card's reserve."""
        found = walk(self.shape, self.setting).worst
        return {moment: found[moment] for moment in MOMENTS if moment in found}

    @property
    def host_gib(self) -> float:
        """What one process keeps in the machine's memory with cpu_offload: shards, gradients, AdamW's state."""
        if not self.setting.cpu_offload:
            return 0.0
        trained = sum(n for tower, n in self.shape.parameters.items() if self.setting.trains(tower))
        whole = sum(self.shape.parameters.values())
        return (4 * whole + 12 * trained) / self.setting.sharers / GIB

    @property
    def folder_gib(self) -> float:
        """What the first process gathers in the machine's memory when a run ends: all weights in fp32."""
        return 4 * sum(self.shape.parameters.values()) / GIB
