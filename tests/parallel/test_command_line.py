"""FSDP from the command line: two processes in fp16 on CPUs, SIGTERM, and a requeue."""

import itertools
import os
import signal

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
    check_events(out / "tensorboard")


def check_events(folder):
    """What two processes have counted together, written by the first one; the scale goes on over the stop."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    found = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    steps = len(found["train/loss"])
    assert found["fp16/loss_scale"][0] == 2**16
    halved = sum(later < before for before, later in itertools.pairwise(found["fp16/loss_scale"]))
    assert halved <= found["fp16/skipped_steps"][-1] <= halved + 1, "the last one is not in the scale yet"
    for tag in ("speed/clips_per_s", "speed/tokens_per_s", "memory/process_gib", "fp16/loss_scale", "lr/language"):
        assert len(found[tag]) == steps and min(found[tag]) >= 0, tag
    assert all(0 <= share <= 1 for share in found["speed/data_wait_share"])
    assert {
        "grad_norm/all",
        "grad_norm/vision",
        "grad_norm/projector",
        "grad_norm/language",
        "val/loss",
    } <= found.keys()
    assert events.Images("val_confusion/event")
    assert events.Images("validation_clip_1/frames")
