"""Signals to processes that read clips."""

import os
import signal
import time

import torch
from torch.utils.data import DataLoader, Dataset

from vlm_crash.data.workers import heed_parent_alone


class Slow(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        time.sleep(0.05)
        return os.getpid()


def send(number: int, pid: int) -> None:
    """From another process than the parent."""
    child = os.fork()
    if child == 0:
        os.kill(pid, number)
        os._exit(0)
    os.waitpid(child, 0)


def test_signals_of_others_are_passed_over():
    found = []
    for index, pid in enumerate(DataLoader(Slow(), num_workers=1, worker_init_fn=heed_parent_alone, batch_size=None)):
        found.append(pid)
        if index in (0, 2):
            send((signal.SIGTERM, signal.SIGUSR1)[index // 2], pid)
    assert len(found) == 6 and len(set(found)) == 1


def test_the_parent_is_heeded():
    loader = DataLoader(Slow(), num_workers=1, worker_init_fn=heed_parent_alone, batch_size=None)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers  # type: ignore[attr-defined]
    worker.terminate()
    worker.join(timeout=300)
    assert worker.exitcode == 0
    assert torch.utils.data.get_worker_info() is None
