"""Processes that find each other over gloo, as torchrun starts them."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.parallel.forked import Forked


def free_port() -> int:
    """One that nobody takes between now and its use.

    Not one that the system gives: it gives those to every connection, and gloo opens dozens beside this. Other workers
    of pytest have thousands of their own, and other programs on this machine begin elsewhere.
    """
    while True:
        port = next(PORTS)
        with socket.socket() as server:
            try:
                server.bind(("", port))
            except OSError:
                continue
        return port


def _ports() -> Iterator[int]:
    """Below 32768, where Linux' own begin."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    number = random.SystemRandom().randrange(3000)
    while True:
        number = (number + 1) % 3000
        yield 20_000 + worker % 4 * 3000 + number


PORTS = _ports()


def start(num_processes: int, *arguments: object, module: str = "tests.parallel.worker") -> list[Forked]:
    """Start so many processes of one run, as torchrun does."""
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(num_processes),
        "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": str(num_processes), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    return [
        Forked(module, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, [str(item) for item in arguments])
        for rank in range(num_processes)
    ]


def finish(processes: list[Forked], timeout: float = 900) -> list[str]:
    """Wait for all; what each has said."""
    try:
        return [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """Run a check of worker.py on so many processes; what it returned on each."""

    def run(check: str, num_processes: int, *arguments: object) -> list[Any]:
        out = tmp_path_factory.mktemp(check)
        processes = start(num_processes, check, out, *arguments)
        said = finish(processes)
        for process, text in zip(processes, said, strict=True):
            assert process.returncode == 0, text[-6000:]
        return [torch.load(out / f"{rank}.pt", weights_only=False) for rank in range(num_processes)]

    return run


@pytest.fixture(scope="session")
def micro_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.parallel.micro import write_micro_model

    folder = tmp_path_factory.mktemp("micro_model")
    write_micro_model(folder)
    return folder


@pytest.fixture(scope="session")
def resume_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="session")
def resumed(launch: Callable[..., list[Any]], micro_model: Path, prepared: Path, resume_folder: Path) -> list[Any]:
    """Whole runs on two processes, and runs that go on from their checkpoints."""
    return launch("resume", 2, micro_model, prepared, resume_folder)


@pytest.fixture(scope="module")
def one_thread() -> Any:
    """So that sums are made in one order; what a module makes once is made so, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
