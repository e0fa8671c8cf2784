"""Ctrl-C and SIGTERM in a process of its own: 130 and 143, no traceback, and what was finished is usable."""

import json
import os
import signal

import pytest
import torch

from tests.cli.conftest import PATIENCE_S, QUICK, QUICK_FIT, begin, start

ENDS = [
    pytest.param(signal.SIGINT, 130, "interrupted; what was finished is kept", id="Ctrl-C"),
    pytest.param(signal.SIGTERM, 143, "ended by SIGTERM; what was finished is kept", id="SIGTERM"),
]
# As in titan.yaml: the best by validation loss, the last, and one where the run was stopped.
CHECKPOINTS = [
    "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.monitor=val/loss",
    "--trainer.callbacks.save_last=true", "--trainer.callbacks.save_on_exception=true",
]  # fmt: skip


STEP = "vlm_crash.callbacks.monitoring.TrainingMonitor.on_train_batch_end"
BATCH = "vlm_crash.callbacks.predictions.PredictionWriter.on_predict_batch_end"


@pytest.mark.parametrize(("number", "code", "words"), ENDS)
def test_in_fit(say, tiny_model, prepared, tmp_path, number, code, words):
    out = tmp_path / "fit"
    args = ["fit", *QUICK, *QUICK_FIT, "--model.path", tiny_model, "--data.folder", prepared, "--output_dir", out]
    args += CHECKPOINTS
    args += ["--data.num_workers", 2]
    process = begin(*args, "--trainer.max_steps", 500, signal_after=(STEP, 3, number))
    said = process.communicate(PATIENCE_S)[0]
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert f"vlm_crash fit: {words}" in said
    last = out / "checkpoints" / "last.ckpt"
    step = torch.load(last, weights_only=True, mmap=True)["global_step"]
    assert step == 3
    if number == signal.SIGINT:
        assert say(*args, "--trainer.max_steps", step + 1, "--ckpt_path", "last")[0] == 0
        assert (out / "model" / "model.safetensors").is_file()


def test_ctrl_c_at_any_time_as_a_shell_sends_it(tiny_model, prepared, tmp_path):
    """While the run takes steps, validates, saves or starts workers: wherever it is when the signal is there."""
    out = tmp_path / "fit"
    args = ["fit", *QUICK, *QUICK_FIT, "--model.path", tiny_model, "--data.folder", prepared, "--output_dir", out]
    process = start(*args, *CHECKPOINTS, "--data.num_workers", 2, "--trainer.max_steps", 10**6)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "step 3 of" in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    all_said = "".join(said) + process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130, all_said
    assert "Traceback" not in all_said
    assert "vlm_crash fit: interrupted; what was finished is kept" in all_said
    last = out / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True, mmap=True)["global_step"] >= 3


@pytest.mark.parametrize(("number", "code", "words"), ENDS)
def test_in_predict(say, tiny_model, demo_clips, tmp_path, number, code, words):
    """A clip each batch; each that has ended has its line."""
    out = tmp_path / "predictions"
    args = ["--model.path", tiny_model, "--data.crash_dir", demo_clips / "crash", "--output_dir", out]
    process = begin("predict", *QUICK, *args, "--data.num_workers", 1, signal_after=(BATCH, 2, number))
    said = process.communicate(PATIENCE_S)[0]
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert f"vlm_crash predict: {words}" in said
    videos = [json.loads(line)["video"] for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert videos == (["1.mp4", "2.mp4"] if number == signal.SIGINT else ["1.mp4", "2.mp4", "3.mp4"])
    assert [row["video"] for row in json.loads((out / "crash_results.json").read_text())] == videos
    truth = demo_clips / "AV_crash_modified_r.csv"
    scores = ["--predictions", out, "--truth", truth, "--out", tmp_path / "scores", "--embedder", "null"]
    assert say("evaluate", *scores)[0] == 0
