"""Keys that do not exist, values that do not fit, configs that are not there: one message that says the nearest."""

import re
from typing import Any

import pytest
import yaml

from tests.cli.conftest import QUICK, QUICK_FIT, ROOT
from vlm_crash.cli import main

CONFIGS = sorted(ROOT.glob("configs/*.yaml"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("fit --model.lr_visio 1", "there is no option 'model.lr_visio'; did you mean model.lr_vision?"),
        ("fit --model.pat x", "there is no option 'model.pat'; did you mean model.path?"),
        ("predict --data.num_frame 8", "there is no option 'data.num_frame'; did you mean data.num_frames?"),
        ("predict --num_frames 8", "there is no option 'num_frames'; did you mean data.num_frames?"),
        ("fit --trainer.max_epoch 8", "there is no option 'trainer.max_epoch'; did you mean trainer.max_epochs?"),
        ("prepare --crash_cvs a", "there is no option 'crash_cvs'; did you mean crash_csv?"),
        ("evaluate --truths a", "there is no option 'truths'; did you mean truth?"),
        ("report f --clip a", "there is no option 'clip'; did you mean clips?"),
        ("demo --nim_clips 3", "there is no option 'nim_clips'; did you mean num_clips?"),
        ("fit stray", "'stray' is not expected here"),
        ("fit", "--model.path must be given"),
        ("evaluate --out x", "--predictions and --truth must be given"),
        ("report", "folder must be given"),
        ("fit --data.num_frames abc", "--data.num_frames cannot be that: expected int or null, got abc"),
        ("fit --data.batch_size 1.5", "--data.batch_size cannot be that: expected int, got 1.5"),
        ("demo --num_clips abc", "--num_clips cannot be that: expected int, got abc"),
        ("prepare --out x --fractions [1,2]", "--fractions cannot be that: expected tuple with 3 elements, got [1, 2]"),
        ("fit --config titann.yaml", "did you mean titan.yaml?"),
        ("prepare --config demmo.yaml", "did you mean demo.yaml?"),
        ("demo --config demo.yaml", "no option 'model.attention' in demo: a config with model, data and trainer"),
        ("prepare --out x --prompt dataset", "--prompt cannot be that: expected 'full', 'short', got dataset"),
        ("prepare --out x", "there is nothing to prepare; give --crash_csv and --crash_dir"),
        ("prepare --out x --crash_csv a", "--crash_csv is given without --crash_dir; give both or neither"),
        ("prepare --out x --event_dirs.fall a", "--event_dirs.fall is given without --event_csvs.fall"),
    ],
)
def test_command_line(wrong, args, message):
    assert message in wrong(*args.split())


def among(accepted: Any, given: Any) -> Any:
    """What was accepted of the keys that were given, below each other."""
    return {key: among(accepted[key], given[key]) for key in given} if isinstance(given, dict) else accepted


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_accepted_by_its_command(path, monkeypatch, capsys):
    command = re.search(rf"-m vlm_crash (\w+) --config {path.name}", path.read_text(encoding="utf-8"))
    assert command is not None
    monkeypatch.setattr("sys.argv", ["vlm_crash"])
    assert main([command[1], "--config", path.name, "--print_config"]) == 0
    accepted = yaml.safe_load(capsys.readouterr().out)
    for section, settings in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        given = {name: value for name, value in settings.items() if name != "callbacks"}
        assert among(accepted[section], given) == given


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("fit", "model:\n  lr_visio: 1\n", "there is no option 'model.lr_visio'; did you mean model.lr_vision?"),
        ("fit", "model:\n  num_frames: 1\n", "there is no option 'model.num_frames'; did you mean data.num_frames?"),
        ("predict", "trainr:\n  devices: 1\n", "there is no option 'trainr.devices'; did you mean trainer.devices?"),
        ("predict", "ouput_dir: x\n", "there is no option 'ouput_dir'; did you mean output_dir?"),
        ("prepare", "outt: x\n", "there is no option 'outt'; did you mean out?"),
        ("evaluate", "truths: x\n", "there is no option 'truths'; did you mean truth?"),
        ("report", "clip: x\n", "there is no option 'clip'; did you mean clips?"),
        ("demo", "sed: 1\n", "there is no option 'sed'; did you mean seed?"),
        ("fit", "model: [\n", "Problems parsing config"),
        ("fit", "data:\n  num_frames: abc\n", "--data.num_frames cannot be that: expected int or null, got abc"),
    ],
)
def test_yaml(wrong, tmp_path, command, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert message in wrong(command, "--config", path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data.num_frames 0", "num_frames=0 is below 1; set --data.num_frames"),
        ("--data.batch_size 0", "batch_size=0 is below 1; set --data.batch_size to 1 or more"),
        ("--data.num_workers -1", "num_workers=-1 is below 0"),
        ("--data.prompt long", "prompt='long' is not one of ['full', 'short', 'dataset']"),
        ("--model.freeze [tail]", "freeze=['tail'] are no towers"),
        ("--model.freeze [vision,projector,language]", "leaves nothing to train; leave one of them out"),
        ("--data.split val --data.seed 1", "fit does nothing with --data.split (acts in predict); leave it out"),
        ("--model.attention quick", "attention='quick' is not one of"),
        ("--model.init zeros", "init='zeros' is not one of"),
        ("--model.vision_chunk 0", "vision_chunk=0 is below 1"),
        ("--model.max_new_tokens 0", "max_new_tokens=0 is below 1"),
        ("--model.warmup_ratio 2", "warmup_ratio=2.0 is not in [0, 1]"),
        ("--model.num_validation_answers -1", "num_validation_answers=-1 is below 0"),
        ("--data.schema absent.yaml", "absent.yaml"),
        ("--trainer.precision 17", "--trainer.precision cannot be that: expected 64 or 32 or 16"),
        ("--trainer.strategy quick", "these --trainer settings cannot be"),
        ("--trainer.default_root_dir x", "--trainer.default_root_dir has no effect here; set --output_dir"),
    ],
)
def test_values_that_cannot_be(wrong, tiny_model, prepared, tmp_path, options, message):
    args = ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", tmp_path / "out", *QUICK_FIT]
    assert message in wrong("fit", *QUICK, *args, *options.split())
    assert not (tmp_path / "out" / "config.yaml").exists()


def test_an_embedder_that_is_not_there_is_told_before_the_first_step(wrong, tiny_model, prepared, tmp_path):
    args = ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", tmp_path / "out"]
    options = ["--model.embedder", "no/such/folder", "--model.num_validation_answers", "1"]
    assert "embedder 'no/such/folder' cannot be loaded" in wrong("fit", *QUICK, *QUICK_FIT, *args, *options)
    assert not (tmp_path / "out" / "checkpoints").exists()
