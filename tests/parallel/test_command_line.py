"""titan.yaml from the command line: two processes in fp16 on CPUs, SIGTERM, a requeue, and what comes of it."""

import itertools
import signal

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.conftest import PATIENCE_S, begin
from tests.parallel.conftest import finish
from tests.parallel.conftest import start as start_each
from vlm_crash.cli import main
from vlm_crash.models.internvl import load_model
from vlm_crash.parallel.checkpoint import Stored

OPTIONS = [
    "--config", "titan.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", 2,
    "--trainer.accumulate_grad_batches", 2, "--trainer.max_epochs", 200, "--trainer.log_every_n_steps", 1,
    "--model.embedder", "null", "--model.max_new_tokens", 4, "--model.num_validation_answers", 3,
    "--data.num_frames", 2, "--data.num_workers", 1, "--ckpt_path", "auto",
]  # fmt: skip


def same_weights(folder, weights):
    found = dict(load_model(folder).named_parameters(remove_duplicate=False))
    assert found.keys() == weights.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.detach(), weights[name], rtol=0, atol=0)


@pytest.fixture(scope="module")
def fitted(micro_model, prepared, tmp_path_factory):
    """The folder of a run that was told to stop, and went on: it ends two steps later."""
    out = tmp_path_factory.mktemp("titan") / "fit"
    command = ["fit", "--model.path", micro_model, "--data.folder", prepared, "--output_dir", out, *OPTIONS]
    step = ("vlm_crash.callbacks.monitoring.TrainingMonitor._log_work", 3, signal.SIGTERM)
    process = begin(*command, "--trainer.max_steps", 500, signal_after=step)
    said = process.communicate(PATIENCE_S)[0]
    assert process.returncode == 143, said
    assert "Traceback" not in said
    assert "vlm_crash fit: ended by SIGTERM; what was finished is kept" in said
    assert "sharded over 2 processes: 1 x Embedding" in said
    step = Stored(out / "checkpoints" / "last.ckpt").rest["global_step"]
    assert 3 <= step < 500
    assert not (out / "model").exists()

    # This time as torchrun or Slurm start it: every process by itself.
    processes = start_each(2, "command_line", out.parent, *command, "--trainer.max_steps", step + 2)
    said = finish(processes, PATIENCE_S)[0]
    assert [torch.load(out.parent / f"{rank}.pt") for rank in range(2)] == [0, 0], said
    assert f"step {step + 1} of {step + 2}" in said and f"step {step - 1} of {step + 2}" not in said
    return out, step + 2


def test_sigterm_saves_and_a_requeue_goes_on(fitted):
    """The model folder has the weights of the last step."""
    out, step = fitted
    stored = Stored(out / "checkpoints" / "last.ckpt")
    assert stored.is_sharded and stored.rest["global_step"] == step
    same_weights(out / "model", {name.removeprefix("model."): tensor for name, tensor in stored.read_model()})
    check_events(out / "tensorboard")


def test_export_reads_the_shards(fitted, micro_model, tmp_path):
    out, _ = fitted
    weights = dict(load_model(out / "model").named_parameters(remove_duplicate=False))
    checkpoint = str(out / "checkpoints" / "last.ckpt")
    assert main(["export", checkpoint, "--model", str(micro_model), "--out", str(tmp_path / "model")]) == 0
    same_weights(tmp_path / "model", weights)


def test_a_scaler_of_the_config_acts(launch, micro_model, prepared, tmp_path):
    """Named by its class path; the checkpoint, of one file here, holds its state, and `export` reads it."""
    scaler = {"class_path": "torch.amp.GradScaler", "init_args": {"device": "cpu", "init_scale": 1024.0}}
    plugin = {
        "class_path": "vlm_crash.parallel.FSDPPrecision",
        "init_args": {"precision": "16-mixed", "scaler": scaler},
    }
    config = tmp_path / "scaler.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"precision": None, "plugins": [plugin]}}))
    out = tmp_path / "fit"
    options = [str(option) for option in OPTIONS]
    options += ["--config", str(config), "--trainer.strategy.state_dict_type", "full", "--trainer.max_steps", "2"]
    command = ["fit", "--model.path", micro_model, "--data.folder", prepared, "--output_dir", out, *options]
    assert launch("command_line", 2, *command, "--trainer.limit_val_batches", 0, "--trainer.callbacks", "null") == [
        0,
        0,
    ]
    stored = Stored(out / "checkpoints" / "last.ckpt")
    assert not stored.is_sharded
    assert stored.rest["FSDPPrecision"]["scale"] == 1024.0
    checkpoint = str(out / "checkpoints" / "last.ckpt")
    assert main(["export", checkpoint, "--model", str(micro_model), "--out", str(tmp_path / "model")]) == 0
    weights = dict(load_model(out / "model").named_parameters(remove_duplicate=False))
    same_weights(tmp_path / "model", weights)


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
        "val_macro_f1/event",
    } <= found.keys()
    assert events.Images("val_confusion/event")
    assert events.Images("validation_clip_1/frames")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.strategy.sharding_strategy", "zero9"], "sharding_strategy='zero9' is not one of"),
        (["--trainer.strategy.reduce_dtype", "int8"], "reduce_dtype='int8' is not one of"),
    ],
)
def test_settings_of_the_strategy_that_cannot_be(micro_model, prepared, tmp_path, capsys, options, message):
    command = ["fit", "--config", "titan.yaml", "--model.path", micro_model, "--data.folder", prepared]
    assert main([str(part) for part in [*command, "--output_dir", tmp_path / "fit", *options]]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and "Union" not in said
