import errno
import os
from pathlib import Path

import pytest

from vlm_crash.data import files
from vlm_crash.data.files import write_files


def test_writes_all_and_makes_folders(tmp_path):
    write_files({tmp_path / "new" / "a.txt": "é\r\n", tmp_path / "b.txt": "b"})
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é\r\n".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.txt", "new"]
    assert (tmp_path / "b.txt").stat().st_mode & 0o777 == 0o644


def full_disk_at(monkeypatch, stage: str) -> None:
    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if stage == "fsync":
        monkeypatch.setattr(files.os, "fsync", fail)
    elif stage == "create":
        monkeypatch.setattr(files.tempfile, "mkstemp", fail)
    else:
        real = os.fdopen

        def full(handle, *args, **kwargs):  # /dev/full answers every write with "no space left"
            real(handle, "w").close()
            return Path("/dev/full").open(*args, **kwargs)

        monkeypatch.setattr(files.os, "fdopen", full)


@pytest.mark.parametrize("stage", ["create", "write", "fsync"])
def test_full_disk_names_path_and_remedy_and_leaves_no_half_file(tmp_path, monkeypatch, stage):
    if stage == "write" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    (tmp_path / "a.txt").write_text("old")
    full_disk_at(monkeypatch, stage)
    with pytest.raises(OSError, match="No space left") as caught:
        write_files({tmp_path / "a.txt": "new" * 100, tmp_path / "b.txt": "new"})
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "a.txt") in str(caught.value)
    assert "free some space" in str(caught.value)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_when_the_second_file_fails_the_first_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")
    calls = []
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail_at_second(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise full

    monkeypatch.setattr(files.os, "fsync", fail_at_second)
    with pytest.raises(OSError, match=r"c\.txt"):
        write_files({tmp_path / "a.txt": "new", tmp_path / "c.txt": "new"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OSError, match="out") as caught:
        write_files({tmp_path / "out" / "a.txt": "a"})
    assert "give a folder" in str(caught.value)
