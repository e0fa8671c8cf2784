"""Which SDPA kernels a device runs for the heads that a model has: tried, not looked up.

Enters: numbers and sizes of heads, a device. Leaves: what does not work and why; which kernel torch takes. What a
kernel can do depends on the card, its driver, the build of torch, and the size of a head.
"""

# Suffixes: A query heads, K heads of keys and values, S sequence, H head size.

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
#: Tokens of the tries: an odd number, which kernels pad; and those of a frame of 448 pixels.
LENGTHS = (33, 1025)
#: What torch says where it has no kernel among those allowed; it takes another one where that is allowed.
REFUSED = "refused by torch"
_REFUSALS = ("No available kernel", "No viable backend")


@dataclass(frozen=True)
class Heads:
    """Attention's heads in one tower.

    Args:
        tower: vision or language.
        size: of a head.
        queries: heads of queries.
        keys: heads of keys and values.
    """

    tower: str
    size: int
    queries: int
    keys: int


#: Of InternVL2.5-1B and 8B.
COMMON = (Heads("vision", 64, 16, 16), Heads("language", 64, 14, 2), Heads("language", 128, 32, 8))


def heads_of(config: Any) -> tuple[Heads, Heads]:
    """Of both towers of an InternVLConfig."""
    found = []
    for tower, part in (("vision", config.vision_config), ("language", config.text_config)):
        queries = part.num_attention_heads
        size = getattr(part, "head_dim", None) or part.hidden_size // queries
        found.append(Heads(tower, size, queries, getattr(part, "num_key_value_heads", None) or queries))
    return found[0], found[1]


def this_device() -> torch.device:
    """This process' own card: memory taken on another one stays taken. The CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    return torch.device("cuda", local % torch.cuda.device_count())


def kernel_fault(
    kernel: str, dtype: torch.dtype, device: torch.device, size: int = 64, lengths: Sequence[int] = LENGTHS
) -> str | None:
    """Why a device does not run a kernel forward and backward with heads of this size; None: it does.

    With a mask (flash on a GPU: without, as it takes none).
    """
    masked = kernel != "flash" or device.type == "cpu"
    for length in lengths:
        fault = _fault(kernel, dtype, device, (1, 2, length, size), masked)
        if fault is not None:
            return fault
    return None


def _fault(kernel: str, dtype: torch.dtype, device: torch.device, shape: tuple[int, ...], masked: bool) -> str | None:
    query, key, value = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.ones(shape[2], shape[2], device=device, dtype=torch.bool).tril() if masked else None
    try:
        # The reason is a warning beside the error.
        with sdpa_kernel(KERNELS[kernel]), warnings.catch_warnings(record=True) as reasons:
            warnings.simplefilter("always")
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            out.float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except RuntimeError as error:
        said = [str(reason.message).split(" (Triggered")[0].strip() for reason in reasons]
        why = next((text for text in said[1:] if kernel in text.lower()), None)
        first = str(error).splitlines()[0]
        return f"{REFUSED}: {why or first}" if first.startswith(_REFUSALS) else why or first
    if query.grad is None or not bool(torch.isfinite(out).all() and torch.isfinite(query.grad).all()):
        return "its numbers are not finite"
    return None


def kernel_taken(heads: Heads, dtype: torch.dtype, device: torch.device, is_masked: bool, repeats: bool) -> str:
    """The kernel that torch takes now, forward and backward, by its own choice among those that are allowed.

    Args:
        is_masked: with a mask of tokens, as padding needs; keys are repeated then, as transformers does.
        repeats: keys are repeated without a mask, too (attention_heads.py).
    """
    keys = heads.queries if is_masked or repeats else heads.keys

    def made(number: int) -> Tensor:
        return torch.zeros(1, number, LENGTHS[0], heads.size, device=device, dtype=dtype, requires_grad=True)

    mask = torch.ones(1, 1, LENGTHS[0], LENGTHS[0], device=device, dtype=torch.bool) if is_masked else None
    is_causal = heads.tower == "language" and not is_masked
    choice = torch._fused_sdp_choice(
        made(heads.queries), made(keys), made(keys), mask, 0.0, is_causal, enable_gqa=keys != heads.queries
    )  # fmt: skip
    return next((name for name, kernel in KERNELS.items() if kernel.value == choice), f"none ({choice})")
