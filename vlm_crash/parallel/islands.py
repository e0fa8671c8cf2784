"""fp32 islands: modules that compute in fp32 where the rest of the model computes in half precision.

Enters: a LightningModule, names of its modules. Leaves: the same module, whose islands take their inputs in fp32 and
compute in it, forward, backward and in recomputation. FSDPStrategy makes islands itself, of the same names
(sharding.py), and what leaves one is half precision again; under Lightning's autocast it stays fp32 until the next
operation that autocast knows. Invariant: a name without effect is refused.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any

import torch
from lightning import LightningModule
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from vlm_crash.parallel.fsdp import FSDPStrategy
from vlm_crash.parallel.sharding import named_units
from vlm_crash.schema.wording import closest


def check_islands(module: nn.Module, names: Collection[str]) -> tuple[str, ...]:
    """The names, each of which is that of a module that can be an island.

    Raises:
        ValueError: no module has the name, or it has no weights of its own.
    """
    units = named_units(module, names)
    names_of = {name: _names(name, child) for name, child in module.named_modules() if name}
    for name in names:
        found = [whole for whole, known in names_of.items() if name in known]
        if not found:
            known = sorted(set().union(*names_of.values()))
            near = closest(name, known)
            classes = ", ".join(sorted({type(child).__name__ for child in module.modules()}))
            hint = f"nearest: {near!r}" if near else f"its classes: {classes}"
            raise ValueError(
                f"fp32_modules has {name!r}, and the model has no module of that name or class; {hint}; set "
                "--model.fp32_modules to whole names, last parts of names, or classes"
            )
        if not units.keys() & set(found):
            raise ValueError(
                f"fp32_modules has {name!r}, which has no weights, or shares them with another module (tied "
                "embeddings), and cannot compute in fp32 alone; name the module around it"
            )
    return tuple(names)


def _names(name: str, module: nn.Module) -> set[str]:
    """What a module is called by (see `named_units`)."""
    return {name, name.rsplit(".", 1)[-1], type(module).__name__}


def place_islands(module: LightningModule, stage: str) -> None:
    """Make the islands (`fp32_modules`) of a run, once its precision is known; FSDPStrategy makes its own.

    Raises:
        ValueError: the precision has no half to keep them out of.
    """
    names: tuple[str, ...] = module.fp32_modules  # type: ignore[assignment]
    if not names or stage == "predict":  # all weights are fp16 there, or fp32
        return
    precision = str(module.trainer.precision)
    if "mixed" not in precision:
        raise ValueError(
            f"fp32_modules={list(names)} has no effect in precision {precision}; leave --model.fp32_modules out, or "
            "set --trainer.precision 16-mixed or bf16-mixed"
        )
    if not isinstance(module.trainer.strategy, FSDPStrategy):
        compute_in_fp32(module, names)


def compute_in_fp32(module: nn.Module, names: Collection[str]) -> None:
    """Turn autocast off inside modules of these names, and cast what enters them; in place. Twice is as once."""
    for unit in named_units(module, names).values():
        unit.forward = _without_autocast(unit.forward, next(unit.parameters()))


def _without_autocast(forward: Callable[..., Any], parameter: nn.Parameter) -> Callable[..., Any]:
    @functools.wraps(forward)
    def in_fp32(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = apply_to_collection((args, kwargs), Tensor, _to_fp32)
        with torch.autocast(parameter.device.type, enabled=False):
            return forward(*args, **kwargs)

    return in_fp32


def _to_fp32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
