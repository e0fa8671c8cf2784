"""What is tried in a process of its own: `python -m vlm_crash.doctor.tries torch|decoders|model`.

Enters: a word. Leaves: a line of JSON for each finding, written as it is made, and before each one what is tried next.
"""

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from vlm_crash.doctor.cuda_builds import named
from vlm_crash.doctor.lines import OK, PROBLEM, UNTRIED, WARNING, Line

#: What a broken installation, driver or card raises; AssertionError: torch, of a build without CUDA.
FAULTS = (RuntimeError, ImportError, OSError, AssertionError, ValueError, TypeError, AttributeError)
DTYPES = ("float32", "float16", "bfloat16")
KERNELS = ("math", "efficient", "flash")
NUM_FRAMES, SIDE = 12, 64


def say(item: Line | dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(item.as_dict() if isinstance(item, Line) else item) + "\n")
    sys.stdout.flush()


def first_line(error: BaseException) -> str:
    """What an exception says, short.

    >>> first_line(RuntimeError("out of paper\\nstack"))
    'out of paper'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def attempt(name: str, action: Callable[[], str | None], works: str, remedy: str = "") -> bool:
    """Say whether something works; what the action returns is added."""
    say({"trying": name})
    try:
        more = action()
    except FAULTS as error:
        say(Line(name, PROBLEM, f"does not work: {first_line(error)}", remedy))
        return False
    say(Line(name, OK, works + (f"; {more}" if more else "")))
    return True


# ------------------------------------------------------------------------- torch


def try_torch() -> None:
    say({"trying": "torch"})
    try:
        import torch
    except FAULTS as error:
        say(
            Line("torch", PROBLEM, f"cannot be imported: {first_line(error)}", "install the versions of the lock again")
        )
        return
    cuda = torch.version.cuda
    say({"fact": "torch", "version": torch.__version__, "cuda": cuda, "architectures": _architectures()})
    say(Line("torch", OK, f"{torch.__version__}, built with {f'CUDA {cuda}' if cuda else 'no CUDA'}"))
    _try_device("cpu", "CPU")
    num_cards = 0
    if cuda:
        say({"trying": "the GPUs"})
        try:
            torch.cuda.init()
            num_cards = torch.cuda.device_count()
        except FAULTS as error:
            say({"fact": "no_cuda", "why": first_line(error)})
    for number in range(num_cards):
        _try_card(number)
    if num_cards > 1:
        _try_peers(num_cards)
    if num_cards == 0:
        say(Line("dtypes and kernels on a GPU", UNTRIED, "torch sees no GPU here"))
    _try_groups(num_cards)


def _architectures() -> list[str]:
    import torch

    flags = torch._C._cuda_getArchFlags() if torch.version.cuda else None
    return flags.split() if flags else []


def _try_card(number: int) -> None:
    import torch

    name = f"GPU {number}"

    def look() -> str:
        with torch.cuda.device(number):
            free, total = torch.cuda.mem_get_info()
        capability = torch.cuda.get_device_capability(number)
        say({"fact": "card", "number": number, "capability": list(capability), "total": total, "free": free})
        return (
            f"{torch.cuda.get_device_name(number)}, compute capability {named(capability)}, "
            f"{total / 2**30:.1f} GiB of memory, {free / 2**30:.1f} free"
        )

    if attempt(name, look, "is there", "look at nvidia-smi; another program may hold it, or it needs a reset"):
        _try_device(f"cuda:{number}", name)


def _try_device(device: str, label: str) -> None:
    """Numbers of each kind, forward and backward, and each attention kernel."""

    for dtype in DTYPES:
        attempt(f"{label}, {dtype}", partial(_multiply, device, dtype), "a product, forward and backward")
    for kernel in KERNELS:
        _try_attention(device, label, kernel)


def _try_attention(device: str, label: str, kernel: str) -> None:
    import torch

    name, dtype = f"{label}, {kernel} attention", "float32" if device == "cpu" else "float16"
    say({"trying": name})
    try:
        from vlm_crash.models.attention import kernel_fault

        fault = kernel_fault(kernel, getattr(torch, dtype), torch.device(device))
    except FAULTS as error:
        fault = first_line(error)
    if fault is None:
        mask = "without a mask" if kernel == "flash" and device != "cpu" else "with a mask"
        say(Line(name, OK, f"works in {dtype}, forward and backward, {mask}"))
    else:
        say(Line(name, PROBLEM, f"does not work: {fault}", "set --model.attention to another one, or to auto"))


def _multiply(device: str, dtype: str) -> str | None:
    import torch

    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=generator).to(device, kind).requires_grad_() for _ in range(2))
    product = left @ right
    product.float().square().mean().backward()
    exact = left.detach().cpu().double() @ right.detach().cpu().double()
    error = float((product.detach().cpu().double() - exact).abs().max() / exact.abs().max())
    if not error < {"float32": 1e-2, "float16": 1e-2, "bfloat16": 3e-2}[dtype]:  # TF32 counts as float32
        raise RuntimeError(f"the product is wrong by {error:.1e} of its largest entry")
    assert left.grad is not None
    if not bool(torch.isfinite(left.grad.float()).all()):
        raise RuntimeError("the gradients are not finite")
    emulated = dtype == "bfloat16" and device != "cpu" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "by emulation, slow: use 16-mixed" if emulated else None


def _try_peers(num_cards: int) -> None:
    import torch

    pairs = [(one, other) for one in range(num_cards) for other in range(num_cards) if one != other]
    say({"trying": "memory of one GPU from another"})
    try:
        reached = [pair for pair in pairs if torch.cuda.can_device_access_peer(*pair)]
    except FAULTS as error:
        say(Line("peer access", WARNING, f"cannot be told: {first_line(error)}"))
        return
    text = f"{len(reached)} of {len(pairs)} ordered pairs of GPUs reach each other's memory"
    remedy = (
        "" if len(reached) == len(pairs) else "the others go through the host's memory: slower gathers, nothing wrong"
    )
    say(Line("peer access", OK if len(reached) == len(pairs) else WARNING, text, remedy))


def _try_groups(num_cards: int) -> None:
    """A group of one process over each backend, ended again."""
    import torch
    import torch.distributed as dist

    def connect(backend: str, device: str) -> str | None:
        dist.init_process_group(
            backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=30),
            device_id=torch.device(device) if device != "cpu" else None,
        )  # fmt: skip
        try:
            number = torch.ones(1, device=device)
            dist.all_reduce(number)
            if float(number) != 1:
                raise RuntimeError(f"a sum over one process is {float(number)}")
        finally:
            dist.destroy_process_group()
        return None

    remedy = "see that the machine's name (hostname) leads to an address of its own, or set GLOO_SOCKET_IFNAME"
    if not dist.is_available():
        say(Line("processes", PROBLEM, "this torch is built without torch.distributed", "install torch from PyPI"))
        return
    attempt("gloo", lambda: connect("gloo", "cpu"), "a group of one process", remedy)
    if num_cards and dist.is_nccl_available():
        attempt("nccl", lambda: connect("nccl", "cuda:0"), "a group of one process", "NCCL_DEBUG=INFO says more")
    else:
        say(Line("nccl", UNTRIED, "it needs a GPU" if not num_cards else "this torch is built without it"))


# ---------------------------------------------------------------------- decoders


def try_decoders() -> None:
    """A clip that is rendered here is read by each reader."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        if not attempt("PyAV, writing", lambda: _render(clip), "a clip of its own (H.264)", "pip install av"):
            say(Line("readers", UNTRIED, "there is no clip to read"))
            return
        attempt("PyAV", lambda: _read_pyav(clip), f"reads the {NUM_FRAMES} frames", "pip install av")
        say({"trying": "decord"})
        try:
            importlib.import_module("decord")
        except FAULTS as error:
            say(Line("decord", WARNING, f"cannot be imported: {first_line(error)}", "PyAV reads everything, slower"))
            return
        attempt(
            "decord", lambda: _read_decord(clip), f"reads the {NUM_FRAMES} frames", "PyAV reads in its place, slower"
        )


def _render(clip: Path) -> str | None:
    """Frames whose brightness counts them."""
    import av
    import numpy as np

    with av.open(str(clip), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for index in range(NUM_FRAMES):
            pixels = np.full((SIDE, SIDE, 3), 20 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return None


def _check(means: Iterator[float]) -> None:
    for index, mean in enumerate(means):
        if abs(mean - 20 * index) > 6:
            raise RuntimeError(f"frame {index} has the brightness {mean:.0f}, and {20 * index} was written")


def _read_pyav(clip: Path) -> str | None:
    import av

    with av.open(str(clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if len(frames) != NUM_FRAMES:
        raise RuntimeError(f"{len(frames)} frames of {NUM_FRAMES} were decoded")
    _check(float(frame.mean()) for frame in frames)
    return None


def _read_decord(clip: Path) -> str | None:
    import decord

    reader = decord.VideoReader(str(clip), num_threads=1)
    if len(reader) != NUM_FRAMES:
        raise RuntimeError(f"it counts {len(reader)} frames of {NUM_FRAMES}")
    _check(float(reader[index].asnumpy().mean()) for index in range(NUM_FRAMES))
    return None


# ------------------------------------------------------------------------- model


def count_parameters(folder: str) -> None:
    """How many parameters each tower of a model folder has, from its shapes alone."""
    say({"trying": "the model's shapes"})
    try:
        from vlm_crash.models.checkpoints import meta_model
        from vlm_crash.models.folder import image_size, read_config
        from vlm_crash.models.internvl import tower_of

        config = read_config(folder)
        counts: dict[str, int] = {}
        for name, parameter in meta_model(config).named_parameters():
            counts[tower_of(name)] = counts.get(tower_of(name), 0) + parameter.numel()
    except (ImportError, ValueError, OSError, RuntimeError, KeyError) as error:
        say(Line("model", PROBLEM, first_line(error), "set --model.path to a model folder"))
        return
    say({"fact": "model", "parameters": counts, "side": image_size(config)[0]})
    say(
        Line("model", OK, f"{sum(counts.values()):,} parameters ({', '.join(f'{k} {v:,}' for k, v in counts.items())})")
    )


def main() -> None:
    what, *arguments = sys.argv[1:]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    actions: dict[str, Callable[..., None]] = {
        "torch": try_torch, "decoders": try_decoders, "model": count_parameters,
    }  # fmt: skip
    actions[what](*arguments)


if __name__ == "__main__":
    main()
