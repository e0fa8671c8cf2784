"""Training over many processes: sharded weights, loss scaling on which all agree, exact resume; memory beforehand."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_crash.parallel.fsdp import FSDPStrategy
    from vlm_crash.parallel.precision import AgreedGradScaler, FSDPPrecision

__all__ = ["AgreedGradScaler", "FSDPPrecision", "FSDPStrategy"]

_HOMES = {"AgreedGradScaler": "precision", "FSDPStrategy": "fsdp", "FSDPPrecision": "precision"}


def __getattr__(name: str) -> Any:
    """Loaded where they are used: `plan` computes in this room without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
