"""Which parameters learn how fast.

Enters: a model, learning rates of its towers. Leaves: parameter groups for an optimizer, a factor for each step.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from vlm_crash.models.internvl import TOWERS, tower_of


def check_settings(freeze: list[str], warmup_ratio: float, leasts: Mapping[str, tuple[int | None, int]]) -> None:
    """ValueError for settings of the model that cannot be.

    Args:
        leasts: by setting, its value and the least that it may be.
    """
    unknown = sorted(set(freeze) - set(TOWERS))
    if unknown:
        raise ValueError(f"freeze={unknown} are no towers; set --model.freeze to some of {list(TOWERS)}")
    if not 0 <= warmup_ratio <= 1:
        raise ValueError(f"warmup_ratio={warmup_ratio} is not in [0, 1]; set --model.warmup_ratio to a share")
    for name, (value, least) in leasts.items():
        if value is not None and value < least:
            raise ValueError(f"{name}={value} is below {least}; set --model.{name} to {least} or more")


def parameter_groups(model: nn.Module, rates: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """What is trained, in two groups per tower: matrices, and vectors, which do not decay."""
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((tower_of(name), parameter.ndim >= 2), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rates[tower],
            "weight_decay": weight_decay if decayed else 0.0,
            "name": f"{tower}{'' if decayed else '_vectors'}",
        }
        for (tower, decayed), parameters in groups.items()
    ]


def parameter_counts(model: nn.Module) -> str:
    """Parameters of each tower, and what of them is trained where that is not all."""
    counts = {tower: [0, 0] for tower in TOWERS}
    for name, parameter in model.named_parameters():
        counts[tower_of(name)][0] += parameter.numel()
        counts[tower_of(name)][1] += parameter.numel() * parameter.requires_grad
    # Layers of fewer bits have theirs packed, or as no parameters at all (quantized.py).
    counts |= {tower: [size, size] for tower, size in getattr(model, "whole_sizes", {}).items()}
    return ", ".join(
        f"{tower} {total:,}{'' if trained == total else f' ({trained:,} trained)'}"
        for tower, (total, trained) in counts.items()
    )


def warmup_then_cosine(warmup_ratio: float, total: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step: it rises for a share of all steps, then falls as a cosine to 0."""
    warmup = math.ceil(warmup_ratio * total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

    return factor
