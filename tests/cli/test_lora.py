"""A run with adapters from the command line: what it leaves, how it goes on, and what its checkpoints are taken by."""

import json
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
from vlm_crash.models.convert import export_folder
from vlm_crash.models.internvl import tower_of

LORA = ["--model.lora.rank", "4", "--model.lora.towers", "[language]", "--model.lora.dropout", "0.1"]
OPTIONS = [
    *QUICK, *LORA, "--data.batch_size", "2", "--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1",
    "--trainer.num_sanity_val_steps", "0", "--model.num_validation_answers", "0", "--model.lr_language", "0.01",
]  # fmt: skip


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, prepared: Path) -> list[str]:
    return ["fit", "--model.path", str(tiny_model), "--data.folder", str(prepared), *OPTIONS]


@pytest.fixture(scope="module")
def run(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epoch of five steps."""
    out = tmp_path_factory.mktemp("lora") / "fit"
    assert main([*arguments, "--output_dir", str(out)]) == 0
    return out


def last(folder: Path) -> Path:
    return folder / "checkpoints/last.ckpt"


def test_what_a_run_leaves(run, tiny_model):
    content = torch.load(last(run), weights_only=True)
    state, base = content["state_dict"], load_file(tiny_model / "model.safetensors")
    assert {name for name in state if "lora_" not in name} == {
        f"model.model.{name}" for name in base if tower_of(name) == "projector"
    }
    trained = sum(value.nbytes for value in state.values())
    whole = sum(value.nbytes for value in base.values())
    # Weights and two moments; the rest is settings, names and random states.
    assert last(run).stat().st_size < 3 * trained + 150_000 < 1.5 * whole
    assert len(content["optimizer_states"][0]["state"]) == len(state)
    merged = load_file(run / "model/model.safetensors")
    assert {tower_of(name) for name in base if not torch.equal(base[name], merged[name])} == {"projector", "language"}
    assert {path.name for path in (run / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((run / "adapter/adapter_config.json").read_text())["r"] == 4
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["lora"]["towers"] == ["language"]


def same_weights(left: Path, right: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (left, right))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_export(run, tiny_model, say, tmp_path):
    args = ["export", last(run), "--model", tiny_model]
    code, said = say(*args, "--out", tmp_path / "merged")
    assert code == 0, said
    assert same_weights(tmp_path / "merged", run / "model")
    assert say(*args, "--out", tmp_path / "adapter", "--layout", "adapter")[0] == 0
    first, second = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "adapter", run / "adapter")
    )
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_resumed_run_ends_with_the_same_bits(run, arguments, tmp_path, monkeypatch, old_signal_handlers):
    """Dropout draws the same numbers, too; the LoRA comes from the checkpoint where it is not given again."""
    out = tmp_path / "fit"
    plain = CrashVLM.training_step
    seen = 0

    def stop(self: CrashVLM, batch: Any, batch_idx: int) -> Any:
        nonlocal seen
        seen += 1
        if seen > 3:
            raise KeyboardInterrupt
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(CrashVLM, "training_step", stop)
    assert main([*arguments, "--output_dir", str(out)]) == 130
    monkeypatch.setattr(CrashVLM, "training_step", plain)
    without = [arg for arg in arguments if arg not in LORA]
    assert main([*without, "--output_dir", str(out), "--ckpt_path", "last"]) == 0
    assert same_weights(run / "model", out / "model")


def answers(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("video", "response", "event", "fields", "status")} for line in lines]


def test_a_checkpoint_answers_as_the_merged_model(run, tiny_model, prepared, say, tmp_path):
    data = [*QUICK, "--data.folder", prepared, "--data.split", "test"]
    base = ["--model.path", tiny_model]
    for name, args in (
        ("merged", ["--model.path", run / "model"]),
        ("checkpoint", [*base, "--ckpt_path", last(run)]),
        ("adapter", [*base, "--model.lora.adapter", run / "adapter", "--model.lora.rank", "4"]),
        ("base", base),
    ):
        code, message = say("predict", *data, *args, "--output_dir", tmp_path / name)
        assert code == 0, message
    assert answers(tmp_path / "checkpoint") == answers(tmp_path / "adapter") == answers(tmp_path / "merged")
    assert answers(tmp_path / "base") != answers(tmp_path / "merged")
    ids = [json.loads((tmp_path / name / "run.json").read_text())["run_id"] for name in ("adapter", "base")]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_is_scored_as_the_merged_model(run, tiny_model, prepared, say, tmp_path, command):
    losses = []
    answers = ["--model.num_validation_answers", "0"] if command == "validate" else []
    for name, args in (("merged", ["--model.path", run / "model"]), ("checkpoint", ["--ckpt_path", last(run)])):
        args = ["--model.path", tiny_model, *args, "--data.folder", prepared, "--output_dir", tmp_path / name]
        code, message = say(command, *QUICK, *answers, *args)
        assert code == 0, message
        events = EventAccumulator(str(tmp_path / name / "tensorboard"))
        events.Reload()
        losses.append(events.Scalars("val/loss" if command == "validate" else "test/loss")[0].value)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_does_not_fit_is_named(run, arguments, tiny_model, prepared, wrong, say, tmp_path, caplog):
    other = export_folder(tiny_model, tmp_path / "other", dtype="float16")
    out = ["--output_dir", tmp_path / "out"]
    data = [*QUICK, "--data.folder", prepared, *out]
    message = wrong("predict", *data, "--model.path", other, "--ckpt_path", last(run))
    assert f"was trained beside the weights of {tiny_model} (" in message and f"{other} has others" in message
    resumed = [*arguments, *out, "--ckpt_path", last(run)]
    assert "trained with lora.rank 4, not 8" in wrong(*resumed, "--model.lora.rank", "8", "--model.lora.alpha", "8")
    assert "lora.rank=0 is below 1" in wrong(*arguments, *out, "--model.lora.rank", "0")
    assert "lora.targets=['wq'] are no layers" in wrong(*arguments, *out, "--model.lora.targets", "[wq]")
    assert "--model.freeze and in --model.lora.towers" in wrong(*arguments, *out, "--model.freeze", "[language]")
    assert "there is no option" in wrong(*arguments, *out, "--model.lora.ranks", "3")
    untrained = "predict does nothing with adapters that were not trained"
    assert untrained in wrong("predict", *data, "--model.path", tiny_model, *LORA)
    assert not (tmp_path / "out").exists()
    # The config of a run serves its other commands, too.
    code, message = say("predict", "--config", run / "config.yaml", "--model.path", run / "model", *out)
    assert code == 0, message
    assert "without effect in predict, and set by the config: model.lora" in caplog.text


def test_a_whole_checkpoint_is_not_loras(arguments, tiny_model, wrong, tmp_path):
    without = [arg for arg in arguments if arg not in LORA]
    assert main([*without, "--trainer.max_steps", "1", "--output_dir", str(tmp_path / "whole")]) == 0
    found = wrong(*arguments, "--output_dir", tmp_path / "out", "--ckpt_path", last(tmp_path / "whole"))
    assert "is a checkpoint of a whole model, not of LoRA" in found


def test_it_begins_from_an_adapter(run, arguments, tmp_path):
    """A new run, of another schedule; its first step begins where the other has ended."""
    out = tmp_path / "fit"
    begun = [*arguments, "--model.lora.adapter", str(run / "adapter"), "--trainer.max_steps", "1"]
    assert main([*begun, "--model.lr_language=0", "--model.lr_projector=0", "--output_dir", str(out)]) == 0
    assert same_weights(out / "model", run / "model")
    # The same command goes on, from the checkpoint and not from the adapter.
    assert main([*begun, "--trainer.max_steps", "2", "--output_dir", str(out), "--ckpt_path", "last"]) == 0
