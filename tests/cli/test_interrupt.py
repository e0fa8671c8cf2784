"""Ctrl-C and SIGTERM in a process of its own: 130 and 143, no traceback, and what was finished is usable."""

import json
import os
import signal
import subprocess

import pytest
import torch

from tests.cli.conftest import QUICK, QUICK_FIT, start

ENDS = [
    pytest.param(signal.SIGINT, 130, "interrupted; what was finished is kept", id="Ctrl-C"),
    pytest.param(signal.SIGTERM, 143, "ended by SIGTERM; what was finished is kept", id="SIGTERM"),
]
# As in titan.yaml: the best by validation loss, the last, and one where the run was stopped.
CHECKPOINTS = [
    "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.monitor=val/loss",
    "--trainer.callbacks.save_last=true", "--trainer.callbacks.save_on_exception=true",
]  # fmt: skip


def stop_at(process: subprocess.Popen[str], words: str, number: signal.Signals) -> str:
    """Stop the process (Ctrl-C: its workers too, as a terminal does) when a line has the words; all it says."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            break
    rest = process.communicate(timeout=120)[1]
    return "".join(said) + rest


@pytest.mark.parametrize(("number", "code", "words"), ENDS)
def test_in_fit(say, tiny_model, prepared, tmp_path, number, code, words):
    out = tmp_path / "fit"
    args = ["fit", *QUICK, *QUICK_FIT, "--model.path", tiny_model, "--data.folder", prepared, "--output_dir", out]
    args += CHECKPOINTS
    process = start(*args, "--data.num_workers", 2, "--trainer.max_steps", 500)
    said = stop_at(process, "step 3 of 500", number)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert f"vlm_crash fit: {words}" in said
    last = out / "checkpoints" / "last.ckpt"
    step = torch.load(last, weights_only=True, mmap=True)["global_step"]
    assert 3 <= step < 500
    if number == signal.SIGINT:
        assert say(*args, "--trainer.max_steps", step + 1, "--ckpt_path", "last")[0] == 0
        assert (out / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(("number", "code", "words"), ENDS)
def test_in_predict(say, tiny_model, demo_clips, tmp_path, number, code, words):
    out = tmp_path / "predictions"
    args = ["--model.path", tiny_model, "--data.crash_dir", demo_clips / "crash", "--output_dir", out]
    process = start("predict", *QUICK, *args, "--data.num_workers", 1, "--model.max_new_tokens", 400,
                    "--model.decoding", "free")  # fmt: skip
    said = stop_at(process, "2 of 10 batches predicted", number)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert f"vlm_crash predict: {words}" in said
    videos = [json.loads(line)["video"] for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert 2 <= len(videos) < 10
    assert videos == [f"{number}.mp4" for number in range(1, len(videos) + 1)]
    assert [row["video"] for row in json.loads((out / "crash_results.json").read_text())] == videos
    truth = demo_clips / "AV_crash_modified_r.csv"
    scores = ["--predictions", out, "--truth", truth, "--out", tmp_path / "scores", "--embedder", "null"]
    assert say("evaluate", *scores)[0] == 0
