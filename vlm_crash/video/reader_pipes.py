"""The pipes between a process that reads clips and its owner, on the owner's side.

In: a running process, and when to give up. Out: what it says. Must hold: nothing waits beyond its deadline; arrays go
straight into memory of their own.
"""

from __future__ import annotations

import math
import os
import pickle
import select
import subprocess
import time
from typing import Any

import numpy as np

from vlm_crash.video.reader_process import HEADER

_LONGEST_POLL_S = 1e6  # its milliseconds are an int of C


def deadline(timeout_s: float | None) -> float:
    return time.monotonic() + (timeout_s or math.inf)


def write(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)  # a process that waits for it: a pipe holds far more than a path


def sizes(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, int]:
    header = np.empty(2, HEADER)
    fill(process, header.view(np.uint8), deadline)
    return int(header[0]), int(header[1])


def result_of(
    process: subprocess.Popen[bytes], size: int, num_bytes: int, deadline: float
) -> tuple[Any, list[tuple[str, int, str]]]:
    """A pickle of that size; arrays come after it, straight into memory of their own."""
    pickled, pixels = np.empty(size, np.uint8), np.empty(num_bytes, np.uint8)
    fill(process, pickled, deadline)
    fill(process, pixels, deadline)
    found: tuple[Any, list[tuple[str, int, str]]] = pickle.loads(pickled.data, buffers=[pixels])
    return found


def fill(process: subprocess.Popen[bytes], array: np.ndarray, deadline: float) -> None:
    """Read an array's bytes; TimeoutError at the deadline, EOFError where the other end is gone."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    rest = array.data
    while rest:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if not poll.poll(math.ceil(min(left_s, _LONGEST_POLL_S) * 1000)):
            continue
        count = os.readv(pipe, [rest])
        if count == 0:
            raise EOFError
        rest = rest[count:]
