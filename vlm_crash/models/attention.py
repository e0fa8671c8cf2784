"""Which SDPA kernel runs.

The choice is process-wide, on purpose: a `sdpa_kernel` context around the forward pass alone is left again before
activation checkpointing recomputes, which then fails or runs another kernel.
"""

import logging
import os
import warnings

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

log = logging.getLogger(__name__)

ATTENTION = ("math", "efficient", "flash", "auto")
KERNELS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def set_attention(attention: str) -> None:
    """Say which kernels of scaled_dot_product_attention may run in this process, forward and backward.

    Args:
        attention: "math" (any device; the only kernel sure to work on Turing with masks in fp16), "efficient",
            "flash" (compute capability 8.0 or newer; it takes no mask, so that padded batches run "efficient" where
            they need one), or "auto" (torch chooses among all that work; on GPUs older than 8.0 among those that were
            tried here and found to work).

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
        chosen = ["math", *(name for name in ("efficient",) if kernel_works(name))] if is_old else list(KERNELS)
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


def kernel_works(kernel: str, dtype: torch.dtype = torch.float16) -> bool:
    """Whether the present GPU runs a kernel forward and backward, with a mask (flash: without) and heads of 64.

    Tried, not looked up: what a kernel can do depends on the card, its driver and the build of torch.
    """
    # This process' own card: memory taken on another one stays taken.
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    fault = kernel_fault(kernel, dtype, torch.device("cuda", local % torch.cuda.device_count()))
    if fault is not None:
        log.info("attention kernel %s does not work here: %s", kernel, fault)
    return fault is None


def kernel_fault(kernel: str, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why a device does not run a kernel, tried as by `kernel_works` (flash on a CPU: with a mask); None: it does."""
    query, key, value = (torch.randn(1, 2, 33, 64, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.ones(33, 33, device=device, dtype=torch.bool).tril()
    masked = kernel != "flash" or device.type == "cpu"
    try:
        # The reason is a warning beside the error.
        with sdpa_kernel(KERNELS[kernel]), warnings.catch_warnings(record=True) as reasons:
            warnings.simplefilter("always")
            out = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask if masked else None
            )
            out.float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except RuntimeError as error:
        said = [str(reason.message).split(" (Triggered")[0].strip() for reason in reasons]
        return next((text for text in said[1:] if kernel in text.lower()), str(error).splitlines()[0])
    if query.grad is None or not bool(torch.isfinite(out).all() and torch.isfinite(query.grad).all()):
        return "its numbers are not finite"
    return None
