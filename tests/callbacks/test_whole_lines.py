"""A file of lines on a disk that gets full: a real limit, beyond which the system refuses to let a file grow."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vlm_crash.callbacks.whole_lines import WholeLines


@contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", ["append", "keep"])
def test_a_full_disk_is_told_with_the_file_and_leaves_what_there_was(tmp_path, write):
    path = tmp_path / "windows.jsonl"
    lines = WholeLines(path)
    lines.append([{"a": 1}])
    with pytest.raises(OSError, match=r"cannot write \(File too large\); free some space") as caught, files_end_at(20):
        getattr(lines, write)([{"a": 2}, {"a": 3}, {"a": 4}])
    assert caught.value.filename == str(path)
    lines.close()
    assert path.read_text() == '{"a": 1}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["windows.jsonl"]
