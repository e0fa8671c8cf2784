"""No space while writing: a message, exit code 2, and no half-written file of a final name."""

import errno
import json
import os
from io import FileIO
from pathlib import Path

import pytest

from tests.cli.conftest import PATIENCE_S, QUICK, QUICK_FIT, begin

FULL = os.strerror(errno.ENOSPC)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, FULL)


def test_prepare(wrong, demo_clips, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    source = ["--crash_csv", demo_clips / "AV_crash_modified_r.csv", "--crash_dir", demo_clips / "crash"]
    message = wrong("prepare", *source, "--out", tmp_path / "out")
    assert f"{FULL} (cannot write; nothing was changed; free some space there" in message
    assert list((tmp_path / "out").iterdir()) == []


def test_predictions(wrong, tiny_model, demo_clips, tmp_path, monkeypatch):
    """The disk fills up in the third line: two whole lines stay."""
    import vlm_crash.callbacks.predictions as module

    class SmallDisk(FileIO):
        calls = 0

        def write(self, content):
            self.calls += 1
            if self.calls > 3:
                full()
            return super().write(bytes(content)[: 100 if self.calls == 3 else None])

    monkeypatch.setattr(module, "FileIO", SmallDisk)
    args = ["--model.path", tiny_model, "--data.crash_dir", demo_clips / "crash", "--output_dir", tmp_path / "p"]
    message = wrong("predict", *QUICK, *args)
    path = tmp_path / "p" / "predictions.jsonl"
    assert message == f"{path}: cannot write ({FULL}); free some space or set --output_dir elsewhere"
    assert [json.loads(line)["video"] for line in path.read_text().splitlines()] == ["1.mp4", "2.mp4"]


@pytest.mark.parametrize(
    ("blocks", "options", "file"),
    [
        (1000, (), "checkpoints/epoch=0-step=2.ckpt"),
        (100, ("--trainer.enable_checkpointing", "false"), "model"),
    ],
)
def test_checkpoint_and_model_folder(tiny_model, prepared, tmp_path, blocks, options, file):
    """A real limit: files may grow to so many KiB, the rest the system refuses."""
    out = tmp_path / "fit"
    args = ["fit", *QUICK, *QUICK_FIT, *options, "--model.path", tiny_model, "--data.folder", prepared]
    process = begin(*args, "--output_dir", out, file_limit_kib=blocks)
    error = process.communicate(PATIENCE_S)[0]
    assert process.returncode == 2, error
    assert "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith(f"vlm_crash fit: error: {out / file}: cannot write (")
    assert files_of(out) == {"config.yaml", "hparams.yaml"}


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name}
