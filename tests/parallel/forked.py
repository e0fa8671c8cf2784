"""Processes of a run, forked from a server that has imported torch, Lightning and transformers once.

To import them takes longer than most checks do. On a machine with a GPU each process begins anew: what such a server
imports may ask for the device (accelerate and bitsandbytes do), and CUDA works in no fork of a process that has asked.
"""

import ctypes
import importlib
import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

import torch

CONTEXT = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")
CONTEXT.set_forkserver_preload(
    ["tests.parallel.stock", "tests.parallel.journey", "vlm_crash.cli.lightning_commands", "torch.utils.tensorboard"]
)
#: An environment variable: the network namespace to be in (`ip netns`).
NETWORK = "TEST_NETWORK"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def run(module: str, environment: Mapping[str, str], arguments: Sequence[str], said: str, ends_as_python: bool) -> None:
    """In the new process: what `python -m module arguments` does, with output in a file."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # of workers: Linux' own, not that of this process
    os.environ.update(environment)
    if NETWORK in environment:
        _enter_network(environment[NETWORK])
    output = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [module, *arguments]
    code = 1
    try:
        importlib.import_module(module).main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001  # told by the exit code, as an interpreter does
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if ends_as_python:  # multiprocessing ends workers and waits for threads, as an interpreter does
        sys.exit(code)
    os._exit(code)  # without waiting for threads of gloo


def _enter_network(name: str) -> None:
    clone_newnet = 0x40000000  # linux/sched.h; os.setns is Python 3.12's
    with Path("/run/netns", name).open() as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), clone_newnet):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


class Forked:
    """As much of subprocess.Popen as tests need."""

    def __init__(
        self, module: str, environment: Mapping[str, str], arguments: Sequence[str], ends_as_python: bool = False
    ) -> None:
        descriptor, name = tempfile.mkstemp(prefix="said-")
        os.close(descriptor)
        self._said = Path(name)
        told = (module, dict(environment), list(arguments), name, ends_as_python)
        self._process = CONTEXT.Process(target=run, args=told)
        with patch.dict(os.environ, ONE_THREAD):
            if CONTEXT.get_start_method() == "forkserver":
                forkserver.ensure_running()
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, below 0 where a signal has ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it has said."""
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"{self.pid} has not ended within {timeout} s: {self._said.read_text()[-2000:]}")
        text = self._said.read_text(errors="replace") if self._said.exists() else ""
        self._said.unlink(missing_ok=True)
        return text, ""
