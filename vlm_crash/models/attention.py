"""Which SDPA kernel runs.

The choice is process-wide, on purpose: a `sdpa_kernel` context around the forward pass alone is left again before
activation checkpointing recomputes, which then fails or runs another kernel.
"""

import logging

import torch

log = logging.getLogger(__name__)

ATTENTION = ("math", "efficient", "flash", "auto")


def set_attention(attention: str) -> None:
    """Let only one kernel of scaled_dot_product_attention run in this process, forward and backward.

    Args:
        attention: "math" (any device; the only kernel sure to work on Turing with masks in fp16), "efficient",
            "flash" (compute capability 8.0 or newer), or "auto" (torch chooses among all that work).

    Raises:
        ValueError: another word, or a kernel that the GPU present cannot run.
    """
    if attention not in ATTENTION:
        raise ValueError(f"attention={attention!r} is not one of {list(ATTENTION)}; set --model.attention to one")
    if attention == "flash" and torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0):
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        raise ValueError(
            f"attention='flash' needs compute capability 8.0, this GPU has {capability}; "
            "set --model.attention to math, efficient or auto"
        )
    everything = attention == "auto"
    torch.backends.cuda.enable_math_sdp(everything or attention == "math")
    torch.backends.cuda.enable_mem_efficient_sdp(everything or attention == "efficient")
    torch.backends.cuda.enable_flash_sdp(everything or attention == "flash")
    torch.backends.cuda.enable_cudnn_sdp(everything)
    if attention != "auto":
        log.info("scaled dot product attention: %s kernel only", attention)
