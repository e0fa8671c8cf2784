"""What is left of a scan: whole batches stay, failures are kept or tried again, other files are not mixed in."""

from pathlib import Path

import pytest

from vlm_crash.callbacks.scan_events import failed_line
from vlm_crash.callbacks.scan_resume import changed_files, is_steady, left_of, refusal
from vlm_crash.schema.records import VideoSample


def line(recording, window, is_last=False, num_moved=0):
    return {"recording": recording, "window": window, "is_last": is_last, "num_moved": num_moved}


def failed(recording):
    return failed_line(VideoSample(recording, Path("a.mp4"), "a.mp4", None, None, None), "the decoder died by SIGSEGV")


@pytest.mark.parametrize(("retry_failed", "first"), [(False, None), (True, 2)])
def test_a_recording_that_failed_is_left_or_read_on(retry_failed, first):
    done = [line("a", number) for number in range(4)] + [line("a", 4, is_last=True)]
    broken = [line("b", number) for number in range(3)] + [failed("b")]
    torn = [line("c", 0), line("c", 1), line("c", 4, num_moved=3)]
    left = left_of("abcd", done + broken + torn, 2, retry_failed)
    assert left.first == {"a": None, "b": first, "c": 2, "d": 0}
    assert left.lines == done + (broken[:2] if retry_failed else broken) + torn[:2]
    assert left.failed == ([] if retry_failed else ["b"])
    assert left.unsteady == set()
    assert left_of("c", [*torn, line("c", 5)], 2, retry_failed).unsteady == {"c"}


def test_what_the_lines_say_of_the_time_stamps():
    assert is_steady([line("a", 0), line("a", 1, is_last=True)]) is True
    assert is_steady([line("a", 0), line("a", 1, is_last=True, num_moved=1)]) is False
    assert is_steady([line("a", 0)]) is None
    assert is_steady([line("a", 0), failed("a")]) is None
    assert is_steady([]) is None


def run(sizes, run_id="r"):
    return {"run_id": run_id, "recordings": [[name, name, size] for name, size in sizes.items()]}


def test_other_recordings_models_and_files_are_refused():
    old = run({"a": 1, "b": 2})
    assert refusal(old, run({"a": 1, "b": 2}), [], False) is None
    assert refusal(old, run({"a": 1}), [], False) == "a scan with other recordings"
    assert "another model" in refusal(old, run({"a": 1, "b": 2}, "other"), [], False)
    changed = run({"a": 1, "b": None})
    assert changed_files(old, changed) == {"b"}
    assert refusal(old, changed, ["a"], True) == "a scan of files that have changed since"
    assert "--retry_failed true reads them again" in refusal(old, changed, ["b"], False)
    assert refusal(old, changed, ["b"], True) is None
