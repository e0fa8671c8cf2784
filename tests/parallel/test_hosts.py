"""Two machines, as network namespaces on this one: a lost one ends the other, the run goes on. Slurm's variables."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.command import DISTURBANCE
from tests.cli.conftest import PATIENCE_S
from tests.parallel.conftest import free_port
from tests.parallel.forked import NETWORK, Forked
from tests.parallel.network import ADDRESSES, LINK, ip, two_hosts
from vlm_crash.parallel.checkpoint import Stored

STEPS = 14
LAST = "checkpoints/last.ckpt"
PORT = 29507  # free in a namespace that has just been made
FIT = {
    "trainer": {
        "accelerator": "cpu", "precision": "16-mixed", "max_steps": STEPS, "max_epochs": 100,
        "accumulate_grad_batches": 2, "gradient_clip_val": 1.0, "num_sanity_val_steps": 0, "limit_val_batches": 0,
        "log_every_n_steps": 1, "logger": False,
        "strategy": {
            "class_path": "vlm_crash.parallel.FSDPStrategy",
            "init_args": {"timeout": "0:10:00", "checkpoint_timeout": "0:10:00"},
        },
        "callbacks": {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {
                "every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}", "save_last": True,
                "save_on_exception": True,
            },
        },
    },
    "model": {"embedder": None, "num_validation_answers": 0, "lr_language": 1e-2, "lr_vision": 1e-2},
    "data": {"num_frames": 2, "num_workers": 1},
    "ckpt_path": "auto",
}  # fmt: skip
#: Where nothing comes: long enough for a process that others keep waiting.
SOON_S = 12
SOON = [f"--trainer.strategy.init_args.{name}=0:00:{SOON_S}" for name in ("timeout", "checkpoint_timeout")]


@pytest.fixture(scope="module")
def arguments(micro_model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    config = tmp_path_factory.mktemp("config") / "hosts.yaml"
    config.write_text(yaml.safe_dump(FIT))
    return ["fit", "--config", str(config), "--model.path", str(micro_model), "--data.folder", str(prepared)]


class Run:
    """Processes of one run; once they have ended, what each has said."""

    def __init__(self) -> None:
        self.processes: list[Forked] = []
        self.said: list[str] = []

    def start(
        self, arguments: list[str], environment: dict[str, str], module: str = "tests.cli.command", **disturbance: Any
    ) -> None:
        """Disturbance: of tests/cli/command.py, after so many steps."""
        if disturbance:
            after = {"after": "vlm_crash.callbacks.monitoring.TrainingMonitor._log_work", **disturbance}
            environment = {**environment, DISTURBANCE: json.dumps(after)}
        plain = {"GLOO_SOCKET_IFNAME": ""}
        self.processes.append(Forked(module, {**plain, **environment}, arguments, ends_as_python=True))

    def finish(self) -> list[int | None]:
        self.said = [process.communicate(PATIENCE_S)[0] for process in self.processes]
        return [process.returncode for process in self.processes]

    def losses(self) -> dict[int, str]:
        return {int(n): loss for n, loss in re.findall(rf"step (\d+) of {STEPS}: loss ([\d.]+)", self.said[0])}

    def end(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers, too


@pytest.fixture
def run() -> Iterator[Any]:
    """A maker of runs, all of whose processes are gone at the end."""
    made: list[Run] = []

    def make() -> Run:
        made.append(Run())
        return made[-1]

    yield make
    for one in made:
        one.end()


def start_on(
    hosts: tuple[str, str], run: Run, arguments: list[str], by_torchrun: bool = False, disturbed: int = 0, **how: Any
) -> None:
    """One process on each host, by torchrun or by the variables that it sets; one of them is disturbed."""
    options = ["--trainer.devices", "1", "--trainer.num_nodes", "2"]
    for rank, host in enumerate(hosts):
        place = {NETWORK: host, "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT)}
        if by_torchrun:
            launcher = ["--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"]
            launcher += ["--master_addr", ADDRESSES[0], "--master_port", str(PORT), "-m"]
            run.start([*launcher, "vlm_crash", *arguments, *options], {NETWORK: host}, "torch.distributed.run")
        else:
            ranks = {"RANK": str(rank), "LOCAL_RANK": "0", "GROUP_RANK": str(rank), "WORLD_SIZE": "2"}
            ranks |= {"LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "test"}
            run.start([*arguments, *options], {**place, **ranks}, **(how if rank == disturbed else {}))


@pytest.fixture(scope="module")
def on_one_machine(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Run]]:
    """Two processes as Slurm starts them, ended by signals to them and their workers."""
    out, one, port = tmp_path_factory.mktemp("slurm"), Run(), str(free_port())
    try:
        for rank, number in enumerate((signal.SIGTERM, signal.SIGUSR1)):
            slurm = {
                "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
                "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_JOB_ID": "7",
                "SLURM_JOB_NAME": "titan", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            options = ["--trainer.devices", "2", "--trainer.num_nodes", "1", "--output_dir", str(out)]
            one.start([*arguments, *options], slurm, count=8, signal=number.value, group=True)
        one.finish()
        yield out, one
    finally:
        one.end()


def weights(checkpoint: Path, step: int) -> dict[str, torch.Tensor]:
    stored = Stored(checkpoint)
    assert stored.rest["global_step"] == step
    return dict(stored.read_model())


def test_slurm(on_one_machine):
    """SIGTERM and SIGUSR1, also to data workers, as some sites send them: saved, and 143."""
    out, one = on_one_machine
    assert [process.returncode for process in one.processes] == [143, 143], one.said[0][-4000:]
    assert "ended by SIGTERM; what was finished is kept" in one.said[0]
    assert max(one.losses()) == 8
    assert all(tensor.isfinite().all() for tensor in weights(out / LAST, max(one.losses())).values())
    assert not list(out.glob("hpc_ckpt*")) and "auto-requeueing" not in one.said[0], "Lightning's own way is off"


def test_two_hosts_lose_each_other_and_go_on(on_one_machine, arguments, run, tmp_path):
    reference, on_one = on_one_machine
    want, common = on_one.losses(), max(on_one.losses())
    out = tmp_path / "out"
    arguments = [*arguments, "--output_dir", str(out)]
    with two_hosts() as hosts:
        cut, killed, whole = run(), run(), run()

        network = ["ip", "-n", hosts[1], "link", "set", LINK, "down"]
        start_on(hosts, cut, [*arguments, *SOON], count=3, command=network)
        assert cut.finish() == [3, 3], cut.said
        for said in cut.said:
            lost = rf"error: another process is lost[^:]*: waited {SOON_S} s (for|while) .*, in vain"
            assert re.search(lost, said), said
            assert "Traceback" not in said
        ip("-n", hosts[1], "link", "set", LINK, "up")

        start_on(hosts, killed, arguments, disturbed=1, count=4, signal=signal.SIGKILL.value)
        assert killed.finish() == [3, -signal.SIGKILL], killed.said
        said = killed.said[0]
        assert "Traceback" not in said
        # At once: it does not wait for as long as it might.
        assert f"vlm_crash fit: error: another process is lost ({ADDRESSES[1]}): it closed the connection" in said
        assert "start all processes again: fit " in said

        start_on(hosts, whole, arguments, by_torchrun=True)
        assert whole.finish() == [0, 0], whole.said[0][-4000:]
    steps = [sorted(one.losses()) for one in (cut, killed, whole)]
    assert steps[1][0] in (steps[0][-1], steps[0][-1] + 1) and steps[2][-1] == STEPS, steps
    seen = [(step, loss) for one in (cut, killed, whole) for step, loss in one.losses().items() if step <= common]
    assert {step for step, _ in seen} == set(want) and all(want[step] == loss for step, loss in seen)
    assert Stored(out / LAST).rest["global_step"] == STEPS
    found = weights(out / f"checkpoints/step={common}.ckpt", common)
    expected = weights(reference / LAST, common)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
