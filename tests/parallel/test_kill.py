"""`kill -9` in the middle of a run that saves after every step, twice; it goes on each time."""

import json
import random
import time

from tests.parallel.conftest import finish, start
from vlm_crash.parallel.checkpoint import Stored


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def kill_after(processes, journal, num_lines):
    """Once so many steps are written, and a moment more."""
    end = time.monotonic() + 300
    while len(lines(journal)) < num_lines:
        assert all(process.poll() is None for process in processes), finish(processes)[0][-4000:]
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(random.random() / 5)
    for process in processes:
        process.kill()
    finish(processes)


def test_killed_twice(resumed, micro_model, prepared, tmp_path):
    out = tmp_path / "run"
    arguments = ("keep_going", tmp_path, micro_model, prepared, out)
    for num_lines in (4, 9):
        kill_after(start(2, *arguments), out / "journal0", num_lines)
        stored = Stored(out / "last.ckpt")
        assert stored.is_sharded
        assert num_lines - 2 <= stored.rest["global_step"] <= num_lines + 3
    processes = start(2, *arguments)
    said = finish(processes)
    assert all(process.returncode == 0 for process in processes), said[0][-4000:]
    for rank, of_rank in enumerate(resumed):
        whole, _ = of_rank["sharded whole"]
        written = lines(out / f"journal{rank}")
        assert {line["step"] for line in written} == set(whole)
        assert len(written) < 17 + 2 * 3, "each time at most the step that was being saved is done again"
        for line in written:
            assert line == whole[line["step"]]
