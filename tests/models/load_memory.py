"""How far memory grows above a model that is loaded: `load_memory SMALL BIG DTYPE`, in a process of its own.

Enters: two model folders; the small one is loaded first, so that whatever is imported and kept is there. Leaves, on
stdout: bytes above the big model at the most, and the bytes of its largest file.
"""

import sys
from pathlib import Path

import torch

from vlm_crash.models.internvl import load_model


def _bytes(name: str) -> int:
    return 1024 * int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)).split()[1]
    )


def main() -> None:
    torch.set_num_threads(1)
    small, big = map(Path, sys.argv[1:3])
    dtype = getattr(torch, sys.argv[3])
    load_model(small, dtype=dtype)
    before = _bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    model = load_model(big, dtype=dtype)
    held = sum(parameter.nbytes for parameter in model.parameters())
    largest = max(path.stat().st_size for path in big.glob("*-of-*"))
    sys.stdout.write(f"{_bytes('VmHWM') - before - held} {largest}\n")
