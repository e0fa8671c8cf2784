"""Training over many processes: sharded weights, loss scaling on which all agree, exact resume."""

from vlm_crash.parallel.fsdp import FSDPStrategy
from vlm_crash.parallel.precision import AgreedGradScaler, FSDPPrecision

__all__ = ["AgreedGradScaler", "FSDPPrecision", "FSDPStrategy"]
