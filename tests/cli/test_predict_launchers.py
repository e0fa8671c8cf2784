"""`predict` started by torchrun, or by srun: two processes share the list, and the folder is as of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import QUICK
from tests.parallel.conftest import free_port
from tests.parallel.forked import Forked
from vlm_crash.cli import main

ROOT = Path(__file__).parents[2]
LAUNCHED = ("GLOO_SOCKET_IFNAME", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture(scope="module")
def clip_list(demo_clips, tmp_path_factory):
    """Five clips, so that one process has more of them than the other; one is not there."""
    folder = tmp_path_factory.mktemp("list")
    for number in (1, 2, 4, 5):
        (folder / f"{number}.mp4").symlink_to(demo_clips / "crash" / f"{number}.mp4")
    (folder / "list.txt").write_text("".join(f"{number}.mp4\n" for number in range(1, 6)))
    return folder / "list.txt"


@pytest.fixture(scope="module")
def arguments(tiny_model, clip_list):
    options = ["--model.path", tiny_model, "--data.clips", clip_list, "--data.batch_size", 1]
    return ["predict", *map(str, [*QUICK, *options])]


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory):
    """What one process writes."""
    out = tmp_path_factory.mktemp("alone")
    assert main([*arguments, "--output_dir", str(out)]) == 0
    return out


def launch(command, **environment):
    plain = {name: value for name, value in os.environ.items() if name not in LAUNCHED and not name.startswith("SLURM")}
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**plain, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def ended(*processes):
    try:
        for process in processes:
            said = process.communicate(timeout=300)
            assert process.returncode == 0, "".join(text or "" for text in said)[-4000:]
    finally:
        for process in processes:
            process.kill()


def by_torchrun(arguments):
    port = ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", *port]
    return [launch([sys.executable, *launcher, "-m", "vlm_crash", *arguments])]


def by_srun(arguments):
    """Its variables: a task a process, both on this machine."""
    job = {
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "scoring", "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "",
    }  # fmt: skip
    tasks = [{**job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    return [Forked("tests.cli.command", task, arguments, ends_as_python=True) for task in tasks]


def answers(folder):
    """The lines of a folder, in their order, to the last digit; how long each took is another thing."""
    found = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


@pytest.mark.parametrize("started", [by_torchrun, by_srun])
def test_two_processes_write_what_one_does(arguments, alone, tmp_path, started):
    out = tmp_path / "p"
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--output_dir", str(out)]
    ended(*started([*arguments, *two]))
    here, there = answers(alone), answers(out)
    assert there == here
    statuses = ["ok", "ok", "failed", "ok", "ok"]
    assert [line["video"] for line in there] == [f"{number}.mp4" for number in range(1, 6)]
    assert [line["status"] for line in there] == statuses
    assert not list(out.glob("predictions.rank*"))
    before, after = (json.loads((folder / "run.json").read_text()) for folder in (alone, out))
    assert before["run_id"] == after["run_id"]
    assert after["finished"] is not None
