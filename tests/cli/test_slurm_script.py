"""configs/slurm/titan.sbatch: its command is one that `fit` takes; it is queued again after 143 alone.

There is no Slurm here: `srun` and `scontrol` are stand-ins that start the command, or note that they were called.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import ROOT

SCRIPT = ROOT / "configs/slurm/titan.sbatch"


def batch(folder: Path, srun: str, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the script as sbatch would on the first machine; `srun` is what stands in for it."""
    folder.mkdir(exist_ok=True)
    for name, text in {"srun": srun, "scontrol": 'echo "scontrol $*"'}.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "gpu[1-2]", "SLURM_NTASKS_PER_NODE": "8",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "6",
    }  # fmt: skip
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", SCRIPT, *map(str, options)],
        cwd=ROOT, env={**os.environ, **slurm, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_is_one_that_fit_takes(tmp_path):
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0
    start = 'while [[ "$1" == --* ]]; do shift; done; exec "$@"'
    options = ("--model.path", "m", "--data.folder", "d", "--trainer.accumulate_grad_batches", "2", "--print_config")
    ended = batch(tmp_path, start, *options)
    assert ended.returncode == 0, ended.stderr
    first, config = ended.stdout.split("\n", 1)
    assert first.startswith("job 7, start 0, on gpu[1-2]")
    accepted = yaml.safe_load(config)
    assert accepted["ckpt_path"] == "auto"
    trainer = accepted["trainer"]
    assert (int(trainer["devices"]), trainer["num_nodes"], trainer["accumulate_grad_batches"]) == (8, 2, 2)
    settings = trainer["strategy"]["init_args"]
    assert settings["sharding_strategy"] == "zero3", "what titan.yaml says is kept"
    assert (settings["timeout"], settings["checkpoint_timeout"]) == ("0:10:00", "0:30:00")


@pytest.mark.parametrize(("code", "is_queued"), [(143, True), (0, False), (2, False), (3, False)])
def test_queued_again_after_143_alone(tmp_path, code, is_queued):
    ended = batch(tmp_path, f"exit {code}")
    assert ended.returncode == code
    assert ("scontrol requeue 7" in ended.stdout) == is_queued


def test_what_it_asks_slurm_for():
    lines = [line.split()[1] for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    asked = dict(line.removeprefix("--").partition("=")[::2] for line in lines)
    assert asked["signal"] == "TERM@600", "to the processes of srun (no B:), early enough to save 90 GiB"
    assert "requeue" in asked and asked["open-mode"] == "append"
    # One process a card, and each sees all cards of its machine, as Lightning takes them by their number there.
    assert asked["ntasks-per-node"] == asked["gpus-per-node"] and "gpus-per-task" not in asked
