"""What is asked of LoRA: small matrices that are trained beside frozen weights (y = W x + alpha / rank B A x).

Enters: options of the command line. Leaves: LoraSettings, and the same in peft's words. Invariant: what cannot act is
refused here, before a model is loaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

#: Key of a checkpoint under which lies what LoRA it is, and beside which base (models/lora_files.py).
LORA = "lora"
ADAPTER = "default"  # peft's name of a model's first adapter, in the names of its tensors
PROJECTOR = "multi_modal_projector"
#: tower -> where its layers are, and the linear ones by kind; InternLM2's are called so when they are loaded, too.
PLACES = {"vision": r"model\.vision_tower\.encoder\.layer", "language": r"model\.language_model\.layers"}
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "attention": {
        "vision": ("q_proj", "k_proj", "v_proj", "projection_layer"),
        "language": ("q_proj", "k_proj", "v_proj", "o_proj"),
    },
    "mlp": {"vision": ("fc1", "fc2"), "language": ("gate_proj", "up_proj", "down_proj")},
}
BASE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
#: Settings that must be those of a checkpoint: its tensors mean nothing else.
FIXED = ("towers", "rank", "alpha", "targets", "projector")


@dataclass(frozen=True)
class LoraSettings:
    """Adapters of low rank that are trained in place of the weights.

    Args:
        towers: towers that get adapters: any of vision, language; the other is frozen.
        rank: of the adapters.
        alpha: their output counts alpha / rank times; unset: 2 x rank.
        dropout: share of their inputs that is left out in training.
        targets: linear layers that get adapters: attention, mlp, or such layers by name (q_proj, down_proj ...).
        projector: train the projector, wholly (else it is frozen).
        base_dtype: of the frozen weights: auto (what the precision computes in: float16 at 16-mixed), float32, float16
            or bfloat16.
        adapter: folder in peft's format to go on from (fit writes one, and export --layout adapter).
    """

    towers: list[str] = field(default_factory=lambda: ["language"])
    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["attention", "mlp"])
    projector: bool = True
    base_dtype: str = "auto"
    adapter: Path | None = None

    def __post_init__(self) -> None:
        if not self.towers or set(self.towers) - set(PLACES):
            raise ValueError(f"lora.towers={self.towers} must be some of {list(PLACES)}; set --model.lora.towers so")
        if self.base_dtype not in ("auto", *BASE_DTYPES):
            raise ValueError(
                f"lora.base_dtype={self.base_dtype!r} is not one of {['auto', *BASE_DTYPES]}; "
                "set --model.lora.base_dtype to one of them"
            )
        if self.rank < 1:
            raise ValueError(f"lora.rank={self.rank} is below 1; set --model.lora.rank to 1 or more, 16 is usual")
        if self.alpha is not None and not self.alpha > 0:
            raise ValueError(f"lora.alpha={self.alpha} is not above 0; leave --model.lora.alpha out for 2 x rank")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout} is not in [0, 1); set --model.lora.dropout to a share")
        known = {name for tower in self.towers for name in _names(tower)} | set(KINDS)
        unknown = sorted(set(self.targets) - known)
        if unknown:
            raise ValueError(
                f"lora.targets={unknown} are no layers of {self.towers}; set --model.lora.targets to some of "
                f"{[*KINDS, *sorted(known - set(KINDS))]}"
            )
        for tower in self.towers:
            if not self.layers(tower):
                raise ValueError(
                    f"lora.targets={self.targets} names no layer of the {tower} tower; add some of "
                    f"{list(_names(tower))} to --model.lora.targets, or leave it out of --model.lora.towers"
                )

    @property
    def scale(self) -> float:
        """How often the adapters' output counts."""
        return (2 * self.rank if self.alpha is None else self.alpha) / self.rank

    def layers(self, tower: str) -> list[str]:
        """Names of the tower's linear layers that get adapters."""
        kinds = {name: kind for kind, towers in KINDS.items() for name in towers[tower]}
        return [name for name, kind in kinds.items() if name in self.targets or kind in self.targets]

    @property
    def pattern(self) -> str:
        """Regular expression of the modules that get adapters, by whole names."""
        places = (rf"{PLACES[tower]}\.\d+\..*\.(?:{'|'.join(self.layers(tower))})" for tower in self.towers)
        return "|".join(f"(?:{place})" for place in places)

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings that a checkpoint must have been trained with."""
        given = {name: getattr(self, name) for name in FIXED}
        return {
            **given,
            "alpha": self.scale * self.rank,
            "towers": sorted(self.towers),
            "targets": sorted({name for tower in self.towers for name in self.layers(tower)}),
        }

    def peft_config(self, **more: Any) -> LoraConfig:
        """The same in peft's words."""
        alpha: Any = self.scale * self.rank
        return LoraConfig(
            r=self.rank, lora_alpha=alpha, lora_dropout=self.dropout, target_modules=self.pattern, bias="none", **more
        )

    def check(self, freeze: list[str], init: str) -> None:
        """ValueError beside other settings of the model that contradict."""
        if init != "weights":
            raise ValueError(
                f"init={init!r} leaves LoRA nothing to adapt; leave out --model.lora, or set --model.init weights"
            )
        if self.projector and "projector" in freeze:
            raise ValueError(
                "the projector is in --model.freeze, and --model.lora.projector trains it; set that to false, or take "
                "it out of --model.freeze"
            )
        both = sorted(set(freeze) & set(self.towers))
        if both:
            raise ValueError(
                f"{both} are in --model.freeze and in --model.lora.towers; take them out of one of the two "
                "(beside adapters the weights are frozen anyway)"
            )


def _names(tower: str) -> Iterator[str]:
    return (name for towers in KINDS.values() for name in towers[tower])
