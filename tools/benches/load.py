"""Host memory of several processes that load one checkpoint: each the whole model, or each its slices.

Enters: options, or as a worker a checkpoint. Leaves: a Result. Memory is counted above what a
process held before: the peak of its own (RssAnon), the peak of all that it had mapped (VmHWM, with pages of the files,
which all processes share), and its fair share of both when all have loaded (Pss).
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import InternVLConfig

from benches.common import Result, Table
from vlm_crash.models.checkpoints import fill, meta_model
from vlm_crash.models.folder import is_original, read_config
from vlm_crash.models.original_config import to_original
from vlm_crash.models.saving import save_weights
from vlm_crash.models.weights import StateDict, tensors_on_disk

MODES = ("whole", "slices")
FIGURES = ("peak of its own (MiB)", "peak of all mapped (MiB)", "share at the end (MiB)", "time (s)")
MIB = 2**20
TOOLS = Path(__file__).resolve().parents[1]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, default=4, help="processes that load at once")
    parser.add_argument("--megabytes", type=int, default=400, help="size of the checkpoint")


def run(options: argparse.Namespace) -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_checkpoint(folder, options.megabytes)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / MIB
        _load(folder, options.processes)
        most = {mode: _most(_figures(folder, mode, options.processes)) for mode in MODES}
    table = Table(
        "Loading in several processes",
        f"{options.processes} processes load a checkpoint of {size:.0f} MiB (original layout, bfloat16, InternLM2) at "
        "once; the process that needs most, above what it held before.",
        ("each process holds", *FIGURES),
        [(mode, *figures) for mode, figures in most.items()],
    )
    ratios = {"own_memory_whole_vs_slices": most["whole"][0] / most["slices"][0]}
    return [Result("load", [table], ratios, ["loading straight to GPUs"])]


def _most(ranks: list[list[float]]) -> list[float]:
    return [max(values) for values in zip(*ranks, strict=True)]


def _write_checkpoint(folder: Path, megabytes: int) -> None:
    """A random checkpoint in the original layout, with packed wqkv, in four files."""
    width = 1024
    config = InternVLConfig(
        vision_config={"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512},
        text_config={
            "model_type": "llama",
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": max(1, round(megabytes * 1e6 / (23 * width**2))),
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 2000,
        },
        image_token_id=5,
        tie_word_embeddings=False,
    )
    shapes = {name: tensor.shape for name, tensor in meta_model(config).state_dict().items()}
    weights = StateDict({name: torch.randn(shape).bfloat16() for name, shape in shapes.items()})
    (folder / "config.json").write_text(json.dumps(to_original(config, torch.bfloat16)))
    (folder / "added_tokens.json").write_text('{"<IMG_CONTEXT>": 5}')
    size = sum(tensor.nbytes for tensor in weights.tensors.values())
    save_weights(folder, tensors_on_disk(weights, config, original=True), "as_stored", shard_bytes=size // 4 + 1)


def _load(folder: Path, processes: int) -> None:
    """Every way of loading, by so many processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    paths = os.pathsep.join([str(TOOLS.parent), str(TOOLS)])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": paths}
    subprocess.run([*launch, str(Path(__file__)), str(folder)], check=True, env=environment, cwd=TOOLS.parent)


def _figures(folder: Path, mode: str, processes: int) -> list[list[float]]:
    """Of every process."""
    return [json.loads((folder / f"{mode}-{rank}.json").read_text()) for rank in range(processes)]


# ------------------------------------------------------------------------------------------------------- one process


def _held(name: str) -> int:
    """Bytes, by a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def _share() -> int:
    """This process' fair share of what it has mapped, in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024


class _Peak(threading.Thread):
    """The largest RssAnon while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.002):
            self.most = max(self.most, _held("RssAnon"))


def work(folder: Path, mode: str) -> list[float]:
    """Load in this process, one of several: its FIGURES."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    dist.barrier()
    own, mapped, share = _held("RssAnon"), _held("VmRSS"), _share()
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS (man 5 proc)
    peak = _Peak()
    peak.start()
    start = time.perf_counter()
    model = meta_model(read_config(folder), torch.bfloat16)
    if mode == "slices":
        for layer in (*model.model.vision_tower.encoder.layer, *model.model.language_model.layers):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    fill(model, folder, is_original(folder))
    seconds = time.perf_counter() - start
    peak.done.set()
    peak.join()
    dist.barrier()  # all hold what they hold
    figures = [(peak.most - own) / MIB, (_held("VmHWM") - mapped) / MIB, (_share() - share) / MIB, seconds]
    dist.barrier()
    return figures


def _in_its_process(folder: Path, mode: str) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    agent = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    dist.init_process_group("gloo", store=dist.PrefixStore(mode, agent), rank=rank, world_size=world)
    (folder / f"{mode}-{rank}.json").write_text(json.dumps(work(folder, mode)))
    dist.destroy_process_group()


if __name__ == "__main__":
    # Each way in a process that has loaded nothing yet; the libraries are imported once for all ways.
    for way in MODES:
        child = multiprocessing.get_context("fork").Process(target=_in_its_process, args=(Path(sys.argv[1]), way))
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(f"loading {way}: exit code {child.exitcode}")
