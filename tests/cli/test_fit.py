"""A run of `fit` from the command line: what it learns, logs, saves, and how it goes on after a stop."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.conftest import QUICK
from vlm_crash.cli import main
from vlm_crash.lightning_module import CrashVLM
from vlm_crash.models.internvl import tower_of

RATES = {"vision": 1e-3, "projector": 2e-3, "language": 3e-3}
OPTIONS = [
    *QUICK, "--data.batch_size", "2", "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1",
    "--trainer.num_sanity_val_steps", "0", "--trainer.gradient_clip_val", "0.01", "--model.warmup_ratio", "0.2",
    "--model.num_validation_answers", "2", *(f"--model.lr_{tower}={rate}" for tower, rate in RATES.items()),
]  # fmt: skip


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, prepared: Path) -> list[str]:
    return ["fit", "--model.path", str(tiny_model), "--data.folder", str(prepared), *OPTIONS]


@pytest.fixture(scope="module")
def run(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten steps over two epochs, not interrupted."""
    out = tmp_path_factory.mktemp("run") / "fit"
    assert main([*arguments, "--output_dir", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    found.Reload()
    return found


def scalars(events: EventAccumulator, tag: str) -> list[float]:
    return [event.value for event in events.Scalars(tag)]


def test_loss_falls(events):
    losses = scalars(events, "train/loss")
    assert len(losses) == 10
    assert losses[-1] < losses[0]


def test_what_is_logged(events):
    tags = set(events.Tags()["scalars"])
    assert tags >= {"train/loss", "val/loss", "speed/tokens_per_s", "speed/clips_per_s", "speed/data_wait_share"}
    assert tags >= {f"grad_norm/{tower}" for tower in (*RATES, "all")}
    assert tags >= {f"lr/{tower}{kind}" for tower in RATES for kind in ("", "_vectors")}
    assert any(tag.startswith("val/crash/") for tag in tags) or any(tag.startswith("val/nearmiss/") for tag in tags)
    assert all(0 <= share <= 1 for share in scalars(events, "speed/data_wait_share"))
    assert all(rate > 0 for rate in scalars(events, "speed/clips_per_s"))


def test_learning_rates_by_step(events):
    factors = [0.5, 1.0, *(0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8))]
    for tower, rate in RATES.items():
        assert scalars(events, f"lr/{tower}") == pytest.approx([rate * factor for factor in factors], rel=1e-5)


def test_the_validation_clips_are_shown(events):
    """Two are answered."""
    for number in (1, 2):
        frames = events.Images(f"validation_clip_{number}/frames")
        assert frames and frames[0].width > 0
        text = events.Tensors(f"validation_clip_{number}/answer/text_summary")[0].tensor_proto.string_val[0].decode()
        assert "| field | truth | answer |" in text
        assert "| Weather |" in text
    assert "validation_clip_3/frames" not in events.Tags()["images"]


def test_confusion_matrices_are_shown(events):
    """A picture for the event and for each categorical field with a truth, after each epoch."""
    tags = [tag for tag in events.Tags()["images"] if tag.startswith("val_confusion/")]
    assert "val_confusion/event" in tags and any(tag.endswith("/Weather") for tag in tags)
    for tag in tags:
        assert [event.step for event in events.Images(tag)] == [5, 10]


def test_memory_is_logged(events):
    assert all(0.1 < gib < 100 for gib in scalars(events, "memory/process_gib"))
    assert not any(tag.startswith("fp16/") for tag in events.Tags()["scalars"]), "no loss scale in fp32"


def test_gradients_are_clipped(arguments, tmp_path, monkeypatch):
    """A norm of 0.01 is left of what was larger, when the optimizer steps."""
    norms = []
    plain = torch.optim.AdamW.step

    def step(self: Any, closure: Any = None) -> Any:
        def watched() -> Any:
            loss = closure()
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(grads)))
            return loss

        return plain(self, watched)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    assert main([*arguments, "--trainer.max_steps", "2", "--output_dir", str(tmp_path / "fit")]) == 0
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


def test_files(run):
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert {path.name for path in (run / "model").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    settings = json.loads((run / "model" / "config.json").read_text())["vlm_crash"]
    assert (settings["num_frames"], settings["prompt"]) == (2, "short")
    # How it was asked in training is how it will be asked.
    remembered = {"preset": "demo", "template": "internvl2_5", "frame_rule": "middle", "question": None}
    assert {name: settings[name] for name in remembered} == remembered
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["warmup_ratio"] == 0.2
    assert config["trainer"]["gradient_clip_val"] == 0.01


def test_the_saved_config_runs_again(run, tmp_path):
    out = tmp_path / "again"
    args = ["fit", "--config", run / "config.yaml", "--output_dir", out]
    assert main([*map(str, args)]) == 0
    assert_same_weights(run, out)


def test_a_run_is_not_written_over(run, arguments, capsys):
    assert main([*arguments, "--output_dir", str(run)]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_overwrite(arguments, tmp_path):
    out = tmp_path / "fit"
    out.mkdir()
    (out / "config.yaml").write_text("old")
    assert main([*arguments, "--output_dir", str(out), "--trainer.max_steps", "1"]) == 2
    assert main([*arguments, "--output_dir", str(out), "--trainer.max_steps", "1", "--overwrite", "true"]) == 0
    assert (out / "config.yaml").read_text() != "old"


def assert_same_weights(left: Path, right: Path) -> None:
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (left, right))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("batches", [5], ids=["between epochs"])
def test_a_resumed_run_ends_with_the_same_weights(run, arguments, tmp_path, monkeypatch, old_signal_handlers, batches):
    out = tmp_path / "fit"
    plain = CrashVLM.training_step
    seen = 0

    def stop(self: CrashVLM, batch: Any, batch_idx: int) -> Any:
        nonlocal seen
        seen += 1
        if seen > batches:
            raise KeyboardInterrupt
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(CrashVLM, "training_step", stop)
    assert main([*arguments, "--output_dir", str(out)]) == 130
    monkeypatch.setattr(CrashVLM, "training_step", plain)
    assert not (out / "model").exists()
    assert main([*arguments, "--output_dir", str(out), "--ckpt_path", "last"]) == 0
    assert_same_weights(run, out)


def test_a_checkpoint_of_the_best_validation_needs_one(tiny_model, demo_clips, say, tmp_path):
    """Said before anything is trained; the remedy is one."""
    args = ["--out", tmp_path / "all", "--fractions", "[1,0,0]"]
    args += ["--crash_csv", demo_clips / "AV_crash_modified_r.csv", "--crash_dir", demo_clips / "crash"]
    assert say("prepare", *args)[0] == 0
    fit = ["fit", "--config", "demo.yaml", *QUICK, "--model.path", tiny_model, "--data.folder", tmp_path / "all"]
    fit += ["--output_dir", tmp_path / "fit", "--trainer.max_steps", "1"]
    code, message = say(*fit)
    assert code == 2
    assert "checkpoints are chosen by val/loss, and there is no validation" in message
    assert "all has no val clips" in message and "--trainer.callbacks null" in message
    assert not (tmp_path / "fit" / "config.yaml").exists()
    code, message = say(*fit, "--trainer.callbacks", "null")
    assert code == 0, message
    assert (tmp_path / "fit" / "checkpoints" / "last.ckpt").is_file()


def test_freeze_and_the_model_folder(arguments, tiny_model, tmp_path):
    out = tmp_path / "fit"
    assert main([*arguments, "--output_dir", str(out), "--trainer.max_steps", "1", "--model.freeze", "[vision]"]) == 0
    before, after = load_file(tiny_model / "model.safetensors"), load_file(out / "model" / "model.safetensors")
    moved = {tower_of(name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"projector", "language"}


@pytest.mark.parametrize("command", ["validate", "test"])
def test_scores_of_a_split(run, prepared, tmp_path, command):
    args = ["--model.path", run / "model", "--data.folder", prepared, "--output_dir", tmp_path / command]
    assert main([command, *QUICK, *map(str, args)]) == 0
    found = EventAccumulator(str(tmp_path / command / "tensorboard"))
    found.Reload()
    stage = "val" if command == "validate" else "test"
    tags = found.Tags()["scalars"]
    assert f"{stage}/loss" in tags
    assert any(tag.startswith((f"{stage}/crash/", f"{stage}/nearmiss/")) for tag in tags)
    assert (tmp_path / command / f"{command}_config.yaml").is_file()
