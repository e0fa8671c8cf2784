"""Recordings read in a process that may die: it hangs, crashes and is killed here in the middle of one."""

import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlm_crash.demo.clips import encode
from vlm_crash.demo.drives import sample_drive
from vlm_crash.video import cutting, guarded_windows, windows
from vlm_crash.video.frame_sampling import FrameSampling
from vlm_crash.video.guarded_windows import cut_clip, read_window, read_windows
from vlm_crash.video.reader import UnreadableClipError, probe
from vlm_crash.video.window_process import Continued
from vlm_crash.video.windows import Pulse, WindowGrid

GRID = WindowGrid(window_s=4.0, stride_s=1.5, sampling=FrameSampling(3))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "drive.mp4"
    encode(replace(sample_drive(3, 40.0, 1), fps=10).pictures(0.0, 14.0, (96, 54)), path, 10, 3, (96, 54))
    return path


@pytest.fixture
def odd(monkeypatch, recording, tmp_path):
    """A recording of a name, read by a process in which names tell what happens."""
    monkeypatch.setattr(guarded_windows, "MODULE", "tests.video.odd_windows")
    monkeypatch.setattr(guarded_windows, "_own", threading.local())
    yield lambda name: shutil.copy(recording, tmp_path / f"{name}.mp4")
    guarded_windows._own_process().stop()


def same(there, here):
    assert (there.index, there.start_s, there.end_s, there.is_last) == (
        here.index, here.start_s, here.end_s, here.is_last,
    )  # fmt: skip
    assert (there.damage, there.num_moved, there.frames.info) == (here.damage, here.num_moved, here.frames.info)
    assert there.frames.times_s == here.frames.times_s
    np.testing.assert_array_equal(there.frames.frames_FHWC, here.frames.frames_FHWC)


@pytest.mark.parametrize("first", [0, 3])
def test_gives_what_is_read_without_a_process(recording, first):
    here = list(windows.read_windows(recording, GRID, first))
    pids = set()
    for there, expected in zip(read_windows(recording, GRID, first), here, strict=True):
        same(there, expected)
        pids.add(guarded_windows._own_process().pid)
    assert len(pids) == 1 and len(here) == 8 - first and here[-1].is_last
    again = read_window(recording, GRID, here[1].start_s, here[1].end_s, is_steady=True)
    np.testing.assert_array_equal(again.frames_FHWC, here[1].frames.frames_FHWC)


@pytest.mark.parametrize(
    ("name", "timeout_s", "reason"),
    [
        (
            "hangs_9",
            3,
            "somewhere behind 8.5 s the decoder took longer than 3 s and was killed; raise --data.clip_timeout_s ...",
        ),
        ("crashes_9", None, "somewhere behind 8.5 s the decoder died by SIGSEGV"),
    ],
)
def test_what_was_read_before_comes_before_the_error(odd, recording, name, timeout_s, reason):
    path, whole = odd(name), list(windows.read_windows(recording, GRID))
    found = []
    with pytest.raises(UnreadableClipError) as caught:
        for window in read_windows(path, GRID, timeout_s=timeout_s):
            found.append(window)
    assert caught.value.reason.startswith(reason.removesuffix(" ...")) and caught.value.path == path
    assert [window.end_s for window in found] == [4.0, 5.5, 7.0, 8.5]
    for there, here in zip(found, whole, strict=False):
        np.testing.assert_array_equal(there.frames.frames_FHWC, here.frames.frames_FHWC)
    assert len(list(read_windows(recording, GRID, timeout_s=60))) == len(whole)


def test_a_window_read_again_and_a_clip_say_so_at_once(odd):
    path = odd("crashes_9")
    with pytest.raises(UnreadableClipError, match=r"died by SIGSEGV$"):
        read_window(path, GRID, 6.0, 10.0)
    out = path.with_name("clip.mp4")
    with pytest.raises(UnreadableClipError, match=r"died by SIGSEGV$"):
        cut_clip(path, 6.0, 10.0, out)
    assert not out.exists() and not cutting.part_of(out).exists()
    assert cut_clip(path, 2.0, 5.0, out) == 30


def test_a_process_that_dies_between_two_windows_costs_none(recording):
    whole, found = list(windows.read_windows(recording, GRID)), []
    for number, window in enumerate(read_windows(recording, GRID)):
        found.append(window)
        if number in (2, 5):
            os.kill(guarded_windows._own_process().pid, signal.SIGKILL)
            guarded_windows._own_process()._running.wait(60)
    for there, here in zip(found, whole, strict=True):
        same(there, here)


def test_a_clip_is_cut_as_without_a_process(recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cut_clip(recording, 2.0, 5.0, tmp_path.relative_to(tmp_path) / "there.mp4") == 30
    assert cutting.cut_clip(recording, 2.0, 5.0, tmp_path / "here.mp4") == 30
    assert probe("there.mp4").num_frames == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.mp4", "there.mp4"]
    with pytest.raises(FileNotFoundError) as caught:
        cut_clip(recording, 2.0, 5.0, tmp_path / "nowhere/clip.mp4")
    assert caught.value.filename == str(tmp_path / "nowhere/clip.mp4")
    with pytest.raises(UnreadableClipError, match=r"shows nothing from 50\.0"):
        cut_clip(recording, 50.0, 55.0, tmp_path / "late.mp4")


def test_a_pulse_is_a_sign_of_life_and_no_new_beginning():
    begun = []

    def begin(path, first):
        begun.append(first)
        yield from (Pulse(), Pulse(), "window", Pulse(), "end")

    def follow(request, found):
        path, first = request
        return request if isinstance(found, Pulse) else (path, first + 1) if found == "window" else None

    task = Continued(begin, follow)
    assert [task("a", -1.0, first) for first in (4, 4, 4, 5, 5)] == [
        Pulse(), Pulse(), "window", Pulse(), "end",
    ]  # fmt: skip
    assert begun == [4]
    assert task("a", -1.0, 5) == Pulse() and begun == [4, 5]  # it had ended
    assert task("b", -1.0, 5) == Pulse() and begun == [4, 5, 5]
    assert task("b", 3600.0, 5) == "window"


def test_a_short_limit_has_a_shorter_pulse(monkeypatch):
    asked = []

    class Process:
        def ask(self, task, path, arguments, timeout_s):
            asked.append((task, arguments[0], timeout_s))
            return windows.End(None, 0) if task == "next_window" else cutting.Cut(7)

    monkeypatch.setattr(guarded_windows, "_own_process", Process)
    assert list(read_windows("a.mp4", GRID, timeout_s=0.4)) == []
    for limit in (2.0, 120.0, 0, None):
        assert cut_clip("a.mp4", 0.0, 1.0, Path("clip.mp4"), timeout_s=limit) == 7
    pulses = [("next_window", 0.1, 0.4), ("cut", 0.5, 2.0), ("cut", 1.0, 120.0), ("cut", 1.0, 0), ("cut", 1.0, None)]
    assert asked == pulses
