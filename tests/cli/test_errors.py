"""Which failure is whose, and what a worker's failure says."""

import errno
import logging

import pytest
from torch._utils import ExceptionWrapper

from vlm_crash.cli import errors
from vlm_crash.cli.errors import user_message
from vlm_crash.data.csv_table import read_table
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.reader import READERS, read_frames


def raised(function, *args):
    try:
        function(*args)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
        return error
    raise AssertionError("nothing was raised")


def in_worker(function, *args):
    """The error as the main process gets it from a loader's worker."""
    try:
        function(*args)
    except Exception:  # noqa: BLE001
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    return raised(wrapper.reraise)


def test_our_own_refusals_are_the_users(tmp_path):
    message = user_message(raised(read_table, tmp_path / "absent.csv"))
    assert message is not None and "it does not exist" in message


@pytest.mark.parametrize(
    ("command", "kept"),
    [("evaluate", "nothing was written"), ("prepare", "nothing was written"), ("fit", "what was finished is kept")],
)
def test_ctrl_c_says_what_is_kept(monkeypatch, capsys, command, kept):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(errors.importlib, "import_module", interrupted)
    assert errors.run_guarded(command, [], "commands") == 130
    assert capsys.readouterr().err == f"vlm_crash {command}: interrupted; {kept}\n"


def test_a_librarys_complaint_is_ours():
    assert user_message(raised(int, "x")) is None
    assert user_message(raised(lambda: {}["x"])) is None


def test_what_the_machine_refuses():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert user_message(full) == "No space left on device; free some space or write elsewhere"
    assert user_message(PermissionError(errno.EACCES, "Permission denied", "/a")) == (
        "/a: Permission denied; check the path, and who may read and write there"
    )


def test_a_file_where_a_folder_goes(tmp_path):
    (tmp_path / "a.csv").touch()
    error = raised((tmp_path / "a.csv").mkdir)
    assert user_message(error) == f"{tmp_path / 'a.csv'} is a file; give a folder"


def test_a_bug_while_handling_a_full_disk_is_a_bug():
    def bug():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            return None + 1

    assert user_message(raised(bug)) is None


def test_from_a_worker(tmp_path):
    clip = tmp_path / "1.mp4"
    clip.write_bytes(b"")
    assert user_message(in_worker(read_frames, clip, FrameSampling(2))) == f"{clip}: the file is empty (0 bytes)"
    no_reader = f"reader='opencv' is not one of {list(READERS)}; take one of them"
    assert user_message(in_worker(read_frames, clip, FrameSampling(2), "opencv")) == no_reader
    problems = user_message(in_worker(read_table, tmp_path / "absent.csv"))
    assert problems is not None and "absent.csv: it does not exist; give the path" in problems
    assert user_message(in_worker(int, "x")) is None


def test_a_worker_that_was_killed():
    message = user_message(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert message is not None and "lower --data.num_workers or --data.batch_size" in message


@pytest.mark.parametrize(
    ("failure", "code"), [(ZeroDivisionError, 3), (KeyboardInterrupt, 130), (SystemExit, 0), (MemoryError, 3)]
)
def test_exit_codes(monkeypatch, capsys, failure, code):
    def run(command, args):
        raise failure

    monkeypatch.setattr("vlm_crash.cli.commands.run", run)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    assert errors.run_guarded("report", [], "commands") == code
    if code == 3:
        said = capsys.readouterr().err
        assert "Traceback" in said and "an error of ours; please report it" in said
