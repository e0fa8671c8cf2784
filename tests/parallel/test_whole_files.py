"""Killed at any moment, a checkpoint of the final name is the old one or the new one, whole."""

import errno
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from vlm_crash.parallel.checkpoint import load_file, save_file
from vlm_crash.parallel.whole_files import part_of, put_in_place, remove, standing, whole_file

NAMES = ("weights", "meta")


def write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(text)


def content(path: Path) -> set[str]:
    """What the files say; a file or folder that is not whole says something that nobody wrote."""
    if not path.exists():
        return {"nothing"}
    if path.is_file():
        return {path.read_text()}
    return {(path / name).read_text() if (path / name).exists() else "a file is missing" for name in NAMES}


def killed_after(calls: int, action) -> bool:
    """Run in a process that is killed (-9) instead of its system call of that number; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(plain):
            def call(*arguments, **options):
                nonlocal count
                count += 1
                if count > calls:
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(*arguments, **options)

            return call

        for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        action()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def new_folder(path: Path) -> None:
    part = part_of(path)
    write(part, "new")
    put_in_place(part, path)


def new_file(path: Path) -> None:
    with whole_file(path) as part:
        part.write_text("new")


@pytest.mark.parametrize("make", [new_folder, new_file])
@pytest.mark.parametrize("old", ["folder", "file", "nothing"])
def test_killed_while_replacing(tmp_path, make, old):
    path = tmp_path / "last.ckpt"
    for calls in range(100):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        if old == "folder":
            write(path, "old")
        elif old == "file":
            path.write_text("old")
        killed = killed_after(calls, lambda: make(path))
        found = content(standing(path))
        assert found in ({"old"} if old != "nothing" else {"nothing"}, {"new"}), calls
        # The next run writes over what was left, and leaves nothing beside it.
        make(path)
        assert content(path) == {"new"}
        assert [item.name for item in tmp_path.iterdir()] == ["last.ckpt"]
        if not killed:
            assert found == {"new"} and calls > 3
            return
    raise AssertionError("never came to its end")


def test_killed_while_removing(tmp_path):
    path = tmp_path / "step.ckpt"
    for calls in range(20):
        shutil.rmtree(tmp_path)
        write(path, "old")
        killed = killed_after(calls, lambda: remove(path))
        assert content(path) in ({"old"}, {"nothing"}), calls
        if not killed:
            assert calls > 2
            return
    raise AssertionError("never came to its end")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), whole_file(path) as part:
        part.write_text("half")
        raise OSError("full")
    assert content(path) == {"old"}
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("limit", [0, 10, 5_000, 300_000, 400_500])
def test_what_the_machine_refuses_is_told_as_that(tmp_path, limit):
    """Files may grow to so many bytes, the rest is refused, as on a full disk."""
    path = tmp_path / "last.ckpt"
    save_file({"weights": torch.zeros(3)}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
            save_file({"weights": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert load_file(path)["weights"].tolist() == [0, 0, 0]
    assert [item.name for item in tmp_path.iterdir()] == ["last.ckpt"]
