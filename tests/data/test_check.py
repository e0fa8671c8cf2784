"""Clips are looked at one by one: the bad ones cost a row each, and what is finished is not done again."""

import csv
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from tests.video.conftest import write_clip
from vlm_crash.data.check import CheckReport, check
from vlm_crash.data.clip_table import COLUMNS, ClipRow, ClipTable, Key, read_rows
from vlm_crash.video import preflight
from vlm_crash.video.guarded import TIMEOUT_REMEDY
from vlm_crash.video.preflight import Limits

LIMITS = Limits(timeout_s=300, memory_gib=0.25)


@pytest.fixture
def folder(tmp_path, clip_bytes) -> Path:
    path = tmp_path / "clips"
    path.mkdir()
    for name in ("1", "2", "crashes", "eats", "z"):
        (path / f"{name}.mp4").write_bytes(clip_bytes(100) + name.encode())
    (path / "3.mp4").write_bytes(b"no clip")
    return path


@pytest.fixture
def odd(monkeypatch) -> None:
    monkeypatch.setattr(preflight, "MODULE", "tests.video.odd_preflight")


def run(folder: Path, schema, limits: Limits = LIMITS, **options) -> CheckReport:
    return check(folder, schema, limits, **{"num_workers": 2, **options})


def statuses(report: CheckReport) -> dict[str, str]:
    return {row.key.clip: row.status for row in report.rows}


def test_each_bad_clip_costs_a_row(folder, schema, odd):
    told = []
    header, movi, _ = write_clip(folder / "cut.avi", num_frames=5, codec="mpeg4").read_bytes().partition(b"movi")
    (folder / "cut.avi").write_bytes(header + movi)
    report = run(folder, schema, progress=lambda *numbers: told.append(numbers))
    bad = {"3.mp4", "crashes.mp4", "cut.avi", "eats.mp4"}
    names = ["1.mp4", "2.mp4", "3.mp4", "crashes.mp4", "cut.avi", "eats.mp4", "z.mp4"]
    assert statuses(report) == {name: "quarantined" if name in bad else "ok" for name in names}
    reasons = {row.key.clip: row.reason for row in report.rows}
    assert reasons["crashes.mp4"] == "the decoder died by SIGSEGV"
    assert reasons["eats.mp4"] == "the decoder failed: it takes more than 0.25 GiB of memory"
    assert reasons["3.mp4"].startswith("not a video")
    assert reasons["cut.avi"] == "its video stream holds no frames"
    assert [done for done, _, _ in told] == [1, 2, 3, 4, 5, 6, 7] and told[-1] == (7, 7, 4)
    with (folder / "clips.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["clip"] for row in rows] == names
    for row in rows:
        assert row["sha256"] == sha256((folder / row["clip"]).read_bytes()).hexdigest()
    first = rows[0]
    assert (first["codec"], first["size"], first["frames"], first["header_frames"]) == ("h264", "32x32", "5", "5")
    assert (float(first["fps"]), float(first["duration_s"]), float(first["last_s"])) == (10, 0.5, 0.4)


def test_a_file_that_no_run_reads_is_said(folder, schema, tmp_path):
    """Also under another name of the folder it is the one that is read."""
    (tmp_path / "link").symlink_to(folder)
    for out, is_read in ((None, True), (folder, True), (tmp_path / "link", True), (tmp_path / "other", False)):
        report = run(folder, schema, out=out)
        assert report.is_read is is_read
        assert ("no run reads this file" in str(report)) is not is_read
    assert "check without --out" in str(report) and (tmp_path / "other/clips.csv").is_file()


def test_decord_is_compared_where_that_may_kill_its_process(folder, schema, odd):
    pytest.importorskip("decord")
    assert run(folder, schema).num_looked_at == 6
    report = run(folder, schema, decord=True)
    assert report.num_looked_at == 3
    found = {row.key.clip: row.cells["decord"] for row in report.rows}
    died = "the decoder died by SIGSEGV"
    assert found == {"1.mp4": "right", "2.mp4": died, "3.mp4": "", "crashes.mp4": "", "eats.mp4": "", "z.mp4": "right"}
    assert run(folder, schema, decord=True).num_looked_at == 0
    assert statuses(report)["2.mp4"] == "ok" and "decord would get 1 of them wrong" in str(report)


def test_a_decoder_that_hangs(tmp_path, clip_bytes, schema, odd):
    for name in ("hangs", "z"):
        (tmp_path / f"{name}.mp4").write_bytes(clip_bytes(100))
    report = run(tmp_path, schema, replace(LIMITS, timeout_s=5), num_workers=1)
    assert statuses(report) == {"hangs.mp4": "quarantined", "z.mp4": "ok"}
    assert report.rows[0].reason == f"the decoder took longer than 5 s and was killed; {TIMEOUT_REMEDY}"


def test_what_is_done_is_not_done_again(folder, schema, clip_bytes, odd):
    first = run(folder, schema)
    assert first.num_looked_at == 6
    again = run(folder, schema)
    assert again.num_looked_at == 0 and again.rows == first.rows
    (folder / "3.mp4").write_bytes(clip_bytes(50))
    (folder / "z.mp4").unlink()
    third = run(folder, schema)
    assert third.num_looked_at == 1 and statuses(third)["3.mp4"] == "ok" and "z.mp4" not in statuses(third)
    assert run(folder, schema, recheck=True).num_looked_at == 2  # crashes, eats


def test_rows_of_a_check_that_was_killed_are_kept(folder, schema):
    """The last line is cut off."""
    run(folder, schema)
    path = folder / "clips.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    assert len(read_rows(path)) == 3
    report = run(folder, schema)
    assert report.num_looked_at == 3 and len(report.rows) == 6
    path.write_bytes(lines[0][:10])
    assert run(folder, schema).num_looked_at == 6


@pytest.mark.parametrize(("num_workers", "num_done"), [(2, 6), (1, 5)])
def test_ctrl_c_keeps_what_is_finished(folder, schema, odd, num_workers, num_done):
    """While one clip hangs, and with one worker while another clip waits for its turn, too."""
    (folder / "hangs.mp4").write_bytes((folder / "1.mp4").read_bytes())

    def interrupt() -> None:
        end = time.monotonic() + 240
        while len(read_rows(folder / "clips.csv")) < num_done and time.monotonic() < end:
            time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(folder, schema, Limits(None, LIMITS.memory_gib), num_workers=num_workers)
    rows = read_rows(folder / "clips.csv")
    assert len(rows) == num_done and Key.of(None, "hangs.mp4") not in rows
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]


def test_two_checks_do_not_write_into_one_file(folder, schema):
    script = "import sys; from pathlib import Path; from vlm_crash.data.clip_table import ClipTable\n"
    script += f"with ClipTable(Path({str(folder / 'clips.csv')!r})): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another check writes into"):
            run(folder, schema)
        other.communicate("")


def test_names_stand_on_one_line(tmp_path, clip_bytes, schema):
    for name in ("new\nline.mp4", 'a "quoted", name.mp4', "事故.mp4"):
        (tmp_path / name).write_bytes(clip_bytes(100))
    with os.scandir(tmp_path) as entries:
        assert len(list(entries)) == 3
    report = run(tmp_path, schema)
    assert set(statuses(report)) == {"new\\nline.mp4", 'a "quoted", name.mp4', "事故.mp4"}
    assert len((tmp_path / "clips.csv").read_text(encoding="utf-8").split("\n")) == 5
    assert run(tmp_path, schema).num_looked_at == 0


def test_what_is_no_target(tmp_path, schema, clip_bytes):
    with pytest.raises(ValueError, match="no such folder; give what `prepare` wrote, or a folder of clips"):
        run(tmp_path / "nothing", schema)
    (tmp_path / "1.mp4").touch()
    with pytest.raises(ValueError, match=r"1\.mp4 is a file; give the folder of the clips"):
        run(tmp_path / "1.mp4", schema)
    (tmp_path / "1.mp4").unlink()
    with pytest.raises(ValueError, match="has no clips and no diy_ft_data"):
        run(tmp_path, schema)
    (tmp_path / "1.mp4").write_bytes(clip_bytes(100))
    with pytest.raises(ValueError, match="num_workers=0 is below 1"):
        run(tmp_path, schema, num_workers=0)
    with pytest.raises(ValueError, match="clip_timeout_s=-1 is below 0"):
        run(tmp_path, schema, Limits(-1, None))
    (tmp_path / "clips.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="its columns are not those of `check`"):
        run(tmp_path, schema)
    assert (tmp_path / "clips.csv").read_text() == "a,b\n1,2\n"
    (tmp_path / "clips.csv").write_text("1.mp4")
    with pytest.raises(ValueError, match="its columns are not those of `check`"):
        run(tmp_path, schema)
    assert (tmp_path / "clips.csv").read_text() == "1.mp4"
    (tmp_path / "clips.csv").write_text(",".join(COLUMNS) + "\na,b\n")
    with pytest.raises(ValueError, match="line 2: it is no row of `check`"):
        ClipTable(tmp_path / "clips.csv")


def test_a_full_disk_is_told_with_the_file_and_leaves_whole_rows(tmp_path):
    """A real limit: the file may grow to half a row more, the rest the system refuses."""
    path = tmp_path / "clips.csv"
    row = ClipRow(dict.fromkeys(COLUMNS, "") | {"clip": "1.mp4", "status": "ok", "codec": "h264"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    table = ClipTable(path)
    table.add(row)
    whole = path.read_text()
    with (
        pytest.raises(OSError, match=r"cannot write \(File too large\); free some space or set --out") as caught,
        table,
    ):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5, before[1]))
            table.add(row)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(path)
    assert path.read_text() == whole
