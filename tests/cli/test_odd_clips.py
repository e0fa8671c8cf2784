"""`predict` with names and numbers of clips that nobody thinks of: each clip gets its line, and nothing is lost."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import PATIENCE_S, QUICK
from tests.parallel.conftest import finish, start
from vlm_crash.video import guarded


def lines(out: Path) -> list[tuple[str, str]]:
    found = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["video"], line["status"]) for line in found]


def test_names_that_are_not_utf8_and_links_that_lead_nowhere(say, tiny_model, demo_clips, tmp_path, caplog):
    caplog.set_level("INFO")
    folder, out = tmp_path / "clips", tmp_path / "out"
    folder.mkdir()
    for name in (b"1.mp4", b"\xff\xfe.mp4"):
        shutil.copy(demo_clips / "crash" / "1.mp4", os.fsencode(folder) + b"/" + name)
    (folder / "2.mp4").symlink_to("nowhere")
    (folder / "3.mp4").symlink_to("3.mp4")
    (folder / "4.mpeg4").touch()
    args = ["--model.path", tiny_model, "--data.clips", folder, "--data.batch_size", 5, "--output_dir", out]
    assert say("predict", *QUICK, *args)[0] == 0
    assert sorted(lines(out)) == [("1.mp4", "ok"), ("2.mp4", "failed"), ("3.mp4", "failed"), (r"\xff\xfe.mp4", "ok")]
    assert "1 file of another kind was left out: 4.mpeg4" in caplog.text
    assert say("report", out)[0] == 0


def test_more_processes_than_clips(tiny_model, demo_clips, tmp_path):
    clips = json.dumps([str(demo_clips / "crash" / f"{number}.mp4") for number in (1, 2)])
    args = ["--model.path", tiny_model, "--data.clips", clips, "--output_dir", tmp_path / "out"]
    processes = start(3, "command_line", tmp_path, "predict", *QUICK, *args, "--trainer.devices", 3)
    said = finish(processes, PATIENCE_S)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)] == [0, 0, 0], said
    assert lines(tmp_path / "out") == [("1.mp4", "ok"), ("2.mp4", "ok")]


def test_more_processes_than_clips_to_score(tiny_model, prepared, tmp_path):
    """The scores are gathered from all processes; one that has none would be waited for."""
    args = ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", tmp_path / "out"]
    processes = start(5, "command_line", tmp_path, "validate", *QUICK, *args, "--trainer.devices", 5)
    said = finish(processes, PATIENCE_S)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(5)] == [2] * 5, said
    assert all("val clips for 5 processes; set --trainer.devices" in text for text in said)
    assert not any("Traceback" in text for text in said)


@pytest.mark.parametrize("workers", [0, 1])
def test_decoders_that_hang_and_crash_cost_their_clips(say, tiny_model, demo_clips, tmp_path, monkeypatch, workers):
    """Between two good clips: one for which FFmpeg waits for ever, a SIGSEGV, a file that is gone when it is read."""
    folder, out = tmp_path / "clips", tmp_path / "out"
    folder.mkdir()
    names = ("1", "crashes", "hangs", "vanishes", "z")
    for name in names:
        shutil.copy(demo_clips / "crash" / "1.mp4", folder / f"{name}.mp4")
    monkeypatch.setattr(guarded, "MODULE", "tests.video.odd_reader")
    monkeypatch.setattr(guarded, "_own", threading.local())
    args = ["--model.path", tiny_model, "--data.clips", folder, "--output_dir", out, "--data.clip_timeout_s", 5]
    assert say("predict", *QUICK, *args, "--data.num_workers", workers)[0] == 0
    found = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["video"], line["status"], line["error"] or "") for line in found] == [
        ("1.mp4", "ok", ""),
        ("crashes.mp4", "failed", "the decoder died by SIGSEGV"),
        ("hangs.mp4", "failed", f"the decoder took longer than 5 s and was killed; {guarded.TIMEOUT_REMEDY}"),
        ("vanishes.mp4", "failed", "no such file or directory"),
        ("z.mp4", "ok", ""),
    ]


def test_a_pipe_is_a_failed_line(say, tiny_model, demo_clips, tmp_path):
    """Nobody writes into it: whoever opened it would wait. Found in a folder, and given by its name."""
    folder, out = tmp_path / "clips", tmp_path / "out"
    folder.mkdir()
    shutil.copy(demo_clips / "crash" / "1.mp4", folder / "1.mp4")
    os.mkfifo(folder / "2.mp4")
    os.mkfifo(tmp_path / "3.mp4")
    clips = json.dumps([str(folder), str(tmp_path / "3.mp4")])
    assert say("predict", *QUICK, "--model.path", tiny_model, "--data.clips", clips, "--output_dir", out)[0] == 0
    assert lines(out) == [("1.mp4", "ok"), ("2.mp4", "failed"), ("3.mp4", "failed")]
