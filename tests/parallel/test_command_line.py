"""FSDP from the command line: two processes in fp16 on CPUs, SIGTERM, and a requeue."""

import os
import signal

import torch

from tests.cli.conftest import start
from vlm_crash.models.internvl import load_model
from vlm_crash.parallel.checkpoint import Stored

OPTIONS = [
    "--trainer.strategy", "vlm_crash.parallel.FSDPStrategy", "--trainer.accelerator", "cpu", "--trainer.devices", 2,
    "--trainer.precision", "16-mixed", "--trainer.accumulate_grad_batches", 2, "--trainer.gradient_clip_val", 1.0,
    "--trainer.num_sanity_val_steps", 0, "--trainer.log_every_n_steps", 1, "--model.embedder", "null",
    "--model.max_new_tokens", 4, "--model.num_validation_answers", 4, "--data.num_frames", 2, "--data.num_workers", 1,
    "--ckpt_path", "auto",
]  # fmt: skip


def test_sigterm_saves_and_a_requeue_goes_on(micro_model, prepared, tmp_path):
    out = tmp_path / "fit"
    command = ["fit", "--model.path", micro_model, "--data.folder", prepared, "--output_dir", out, *OPTIONS]
    process = start(*command, "--trainer.max_steps", 500)
    said = []
    for line in process.stderr:
        said.append(line)
        if "step 3 of 500" in line:
            os.kill(process.pid, signal.SIGTERM)
            break
    said = "".join(said) + process.communicate(timeout=300)[1]
    assert process.returncode == 143, said
    assert "Traceback" not in said
    assert "vlm_crash fit: ended by SIGTERM; what was finished is kept" in said
    step = Stored(out / "checkpoints" / "last.ckpt").rest["global_step"]
    assert 3 <= step < 500
    assert not (out / "model").exists()

    process = start(*command, "--trainer.max_steps", step + 2)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert f"step {step + 1} of {step + 2}" in said and f"step {step - 1} of {step + 2}" not in said
    stored = Stored(out / "checkpoints" / "last.ckpt")
    assert stored.is_sharded and stored.rest["global_step"] == step + 2
    weights = dict(load_model(out / "model").named_parameters(remove_duplicate=False))
    found = {name.removeprefix("model."): tensor for name, tensor in stored.read_model()}
    assert found.keys() == weights.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(weights[name].detach(), tensor, rtol=0, atol=0)
