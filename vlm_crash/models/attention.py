"""Which SDPA kernel runs.

The choice is process-wide, on purpose: a `sdpa_kernel` context around the forward pass alone is left again before
activation checkpointing recomputes, which then fails or runs another kernel.
"""

import logging
from collections.abc import Sequence

import torch

from vlm_crash.models.attention_kernels import (
    COMMON,
    KERNELS,
    REFUSED,
    Heads,
    kernel_fault,
    kernel_taken,
    this_device,
)

log = logging.getLogger(__name__)

ATTENTION = ("math", "efficient", "flash", "auto")


def set_attention(attention: str, heads: Sequence[Heads] = COMMON) -> None:
    """Say which kernels of scaled_dot_product_attention may run in this process, forward and backward.

    Args:
        attention: "math" (any device; the only kernel sure to work on Turing with masks in fp16), "efficient",
            "flash" (compute capability 8.0 or newer; it takes no mask, so that padded batches run "efficient" where
            they need one), or "auto" (torch chooses among all that work; on GPUs older than 8.0 among those that were
            tried here with the model's own heads and found to work; the log says which kernel each tower gets).
        heads: of the model's towers.

    Raises:
        ValueError: another word, or a kernel that the GPU present cannot run.
    """
    if attention not in ATTENTION:
        raise ValueError(f"attention={attention!r} is not one of {list(ATTENTION)}; set --model.attention to one")
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    is_old = capability is not None and capability < (8, 0)
    if attention == "flash" and capability is not None and is_old:
        raise ValueError(
            f"attention='flash' needs compute capability 8.0, this GPU has {'.'.join(map(str, capability))}; "
            "set --model.attention to math, efficient or auto"
        )
    if attention == "auto":
        chosen = ["math", *(["efficient"] if efficient_works(heads) else [])] if is_old else list(KERNELS)
    else:
        chosen = ["flash", "efficient"] if attention == "flash" else [attention]
    torch.backends.cuda.enable_math_sdp("math" in chosen)
    torch.backends.cuda.enable_mem_efficient_sdp("efficient" in chosen)
    torch.backends.cuda.enable_flash_sdp("flash" in chosen)
    torch.backends.cuda.enable_cudnn_sdp("cudnn" in chosen)
    if attention == "flash":
        log.info("scaled dot product attention: flash kernel, and efficient where there is a mask")
    elif len(chosen) == 1:
        log.info("scaled dot product attention: %s kernel only", *chosen)
    else:
        log.info("scaled dot product attention: torch chooses among %s", ", ".join(chosen))
    for line in taken(heads) if attention == "auto" else ():
        log.info("attention auto: %s", line)


def repeats_keys() -> bool:
    """Whether the language model's keys are to be repeated: efficient may run and cannot share them, flash may not."""
    return torch.backends.cuda.mem_efficient_sdp_enabled() and not torch.backends.cuda.flash_sdp_enabled()


def taken(heads: Sequence[Heads]) -> list[str]:
    """Tower by tower, the kernel that torch takes on this process' device as things are set."""
    device = this_device()
    dtype, lines = (torch.float16 if device.type == "cuda" else torch.float32), []
    for each in heads:
        kernel = kernel_taken(each, dtype, device, False, repeats_keys())
        text = f"{each.tower}, {each.queries} heads of {each.size} in {str(dtype).removeprefix('torch.')}: {kernel}"
        if each.tower == "language" and (masked := kernel_taken(each, dtype, device, True, False)) != kernel:
            text += f", with a mask for padding {masked}"
        lines.append(text)
    return lines


def efficient_works(heads: Sequence[Heads]) -> bool:
    """Whether this card's memory-efficient kernel may be left on: it works with heads of one of these sizes, and with
    the others it works or torch refuses it, and takes math for them."""
    faults = {size: kernel_fault("efficient", torch.float16, this_device(), size) for size in sizes_of(heads)}
    for size, fault in faults.items():
        if fault is not None:
            log.info("attention kernel efficient does not work here with heads of %d: %s", size, fault)
    return None in faults.values() and all(fault is None or REFUSED in fault for fault in faults.values())


def sizes_of(heads: Sequence[Heads]) -> list[int]:
    """Different sizes of heads, the smallest first."""
    return sorted({each.size for each in heads})
