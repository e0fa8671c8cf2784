"""Parquet in and out, where pyarrow is installed; else one message."""

import errno
import json
import os
import resource
import sys
from pathlib import Path

import pytest

from vlm_crash.data import parquet
from vlm_crash.data.clip_sources import loose_clips
from vlm_crash.schema.fields import load_schema


def lines(number: int) -> list[bytes]:
    rows = [
        {
            "video": f"{n}.mp4", "event": "crash" if n % 2 else None, "event_probability": n / 10 if n % 2 else None,
            "fields": {"Weather": "Rain", "b": "2"} if n % 2 else {},
            "field_probabilities": {"Weather": {"Rain": 0.75, "Clear": 0.25}} if n % 2 else {},
            "response": f"about\u2028{n}", "status": "ok" if n % 2 else "failed",
            "error": None if n % 2 else "cannot be read", "seconds": 0.5, "provenance": "run",
            "path": f"/clips/{n}.mp4", "source_event": None,
        }
        for n in range(number)
    ]  # fmt: skip
    return [json.dumps(row).encode() + b"\n" for row in rows]


def test_what_goes_in_comes_out(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "predictions-00007.parquet").write_text("of an earlier run")
    written = parquet.write_predictions(lines(7), tmp_path, rows_per_file=3)
    assert written == [tmp_path / f"predictions-0000{n}.parquet" for n in range(3)]
    assert sorted(tmp_path.iterdir()) == written
    back = [row for path in written for row in parquet.read_rows(path)]
    assert back == [json.loads(line) for line in lines(7)]


def test_a_column_that_nobody_knows(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"the keys \['colour'\], which have no column"):
        parquet.write_predictions([b'{"video": "a", "colour": 1}'], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_message(tmp_path, monkeypatch):
    """The second file does not fit: the first one is whole, and nothing is half written."""
    pytest.importorskip("pyarrow")
    plain, calls = os.fsync, []

    def sync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match=r"cannot write; nothing was changed; free some space there") as caught:
        parquet.write_predictions(lines(7), tmp_path, rows_per_file=3)
    assert caught.value.filename == str(tmp_path / "predictions-00001.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["predictions-00000.parquet"]
    assert len(list(parquet.read_rows(tmp_path / "predictions-00000.parquet"))) == 3


@pytest.mark.parametrize("limit", [0, 2_000])
def test_what_the_system_refuses_while_it_is_written(tmp_path, limit):
    pytest.importorskip("pyarrow")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OSError, match=f"{os.strerror(errno.EFBIG)} .cannot write; nothing was changed") as caught:
            parquet.write_predictions(lines(7), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_a_list(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "list.parquet"
    table = pyarrow.table({"n": [1, 2, 3], "video": ["a.mp4", "b.mp4", "c.mp4"], "event": ["crash", None, ""]})
    parquet.pyarrow().parquet.write_table(table, path)
    store = loose_clips({}, [path], None, load_schema())
    assert [(clip.event, clip.video) for clip in store] == [("crash", "a.mp4"), (None, "b.mp4"), (None, "c.mp4")]
    parquet.pyarrow().parquet.write_table(pyarrow.table({"video": ["a.mp4", None]}), path)
    with pytest.raises(ValueError, match="row 2: it names no clip"):
        loose_clips({}, [path], None, load_schema())
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        loose_clips({}, [path], None, load_schema())


def test_without_pyarrow_one_message(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"need the package pyarrow .*; install it \(pip install pyarrow\), or use"):
        loose_clips({}, [tmp_path / "list.parquet"], None, load_schema())
