"""torch on the CPU and on each GPU: kinds of numbers, attention kernels, groups of processes, tried.

Enters: nothing. Leaves: findings, said as they are made. torch is imported inside: that it cannot be is a finding, too.
"""

from datetime import timedelta
from functools import partial

from vlm_crash.doctor.cuda_builds import named
from vlm_crash.doctor.lines import OK, PROBLEM, UNTRIED, WARNING, Line
from vlm_crash.doctor.saying import FAULTS, attempt, first_line, say

DTYPES = ("float32", "float16", "bfloat16")
KERNELS = ("math", "efficient", "flash")
ONE_PROCESS = "a group of one process; that others are reached is not tried"
ONE_NCCL = (
    "a group of one process on the first GPU; not tried: sums over several GPUs, other machines, and what happens when "
    "one is lost"
)


def try_torch(*head_sizes: str) -> None:
    """Args: sizes of heads that attention is tried with."""
    sizes = [int(size) for size in head_sizes]
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
    _try_device("cpu", "CPU", sizes)
    num_cards = 0
    if cuda:
        say({"trying": "the GPUs"})
        try:
            torch.cuda.init()
            num_cards = torch.cuda.device_count()
        except FAULTS as error:
            say({"fact": "no_cuda", "why": first_line(error)})
    for number in range(num_cards):
        _try_card(number, sizes)
    if num_cards > 1:
        _try_peers(num_cards)
    if num_cards == 0:
        say(Line("dtypes and kernels on a GPU", UNTRIED, "torch sees no GPU here"))
    _try_groups(num_cards)


def _architectures() -> list[str]:
    import torch

    flags = torch._C._cuda_getArchFlags() if torch.version.cuda else None
    return flags.split() if flags else []


def _try_card(number: int, sizes: list[int]) -> None:
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
        _try_device(f"cuda:{number}", name, sizes)


def _try_device(device: str, label: str, sizes: list[int]) -> None:
    """Numbers of each kind, forward and backward, and each attention kernel."""

    for dtype in DTYPES:
        attempt(f"{label}, {dtype}", partial(_multiply, device, dtype), "a product, forward and backward")
    for kernel in KERNELS:
        _try_attention(device, label, kernel, sizes)


def _try_attention(device: str, label: str, kernel: str, sizes: list[int]) -> None:
    import torch

    name, dtype = f"{label}, {kernel} attention", "float32" if device == "cpu" else "float16"
    say({"trying": name})
    faults: dict[int, str | None] = {}
    for size in sizes:
        try:
            from vlm_crash.models.attention_kernels import kernel_fault

            faults[size] = kernel_fault(kernel, getattr(torch, dtype), torch.device(device), size)
        except FAULTS as error:
            faults[size] = first_line(error)
    wrong = [
        f"with heads of {_listed([size for size in sizes if faults[size] == fault])}: {fault}"
        for fault in dict.fromkeys(faults.values())
        if fault is not None
    ]
    if not wrong:
        mask = "without a mask" if kernel == "flash" and device != "cpu" else "with a mask"
        say(Line(name, OK, f"works in {dtype}, forward and backward, {mask}, heads of {_listed(sizes)}"))
    else:
        remedy = "set --model.attention to another one, or to auto"
        say(Line(name, PROBLEM, f"does not work {'; '.join(wrong)}", remedy))


def _listed(sizes: list[int]) -> str:
    return " and ".join(str(size) for size in sizes)


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
    attempt("gloo", lambda: connect("gloo", "cpu"), ONE_PROCESS, remedy)
    if num_cards and dist.is_nccl_available():
        attempt("nccl", lambda: connect("nccl", "cuda:0"), ONE_NCCL, "NCCL_DEBUG=INFO says more")
    else:
        say(Line("nccl", UNTRIED, "it needs a GPU" if not num_cards else "this torch is built without it"))
