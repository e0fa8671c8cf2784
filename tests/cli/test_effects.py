"""Options that cannot act: refused on the command line, named where a config has them, and not in the help."""

import logging

import pytest
import yaml

from tests.cli.conftest import QUICK
from vlm_crash.cli import main
from vlm_crash.cli.effects import ACTS_IN, REPLACED, idle_in
from vlm_crash.cli.shipped_help import shipped_help

LIGHTNING = ("fit", "validate", "test", "predict")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("fit --data.clips a", "fit does nothing with --data.clips (acts in predict); leave it out"),
        ("validate --data.event_dirs.fall a", "validate does nothing with --data.event_dirs (acts in predict)"),
        ("test --data.num_videos 3 --data.split train", "--data.split, --data.num_videos (acts in predict)"),
        ("predict --model.lr_vision=1 --model.freeze [vision]", "--model.lr_vision, --model.freeze (acts in fit)"),
        ("predict --model.num_validation_answers 3", "--model.num_validation_answers (acts in fit and validate)"),
        ("predict --model.embedder mine", "--model.embedder (acts in fit and validate and test)"),
        ("predict --overflow_sentinel 3", "predict does nothing with --overflow_sentinel (acts in fit); leave it out"),
        ("predict --model.fp32_modules [lm_head]", "--model.fp32_modules (acts in fit and validate and test)"),
        ("fit --overflow_sentinel 0", "overflow_sentinel=0 is below 1; set --overflow_sentinel to the steps in a row"),
        ("fit --model.fp32_modules [lm_haed]", "fp32_modules has 'lm_haed', and the model has no module of that name"),
        ("predict --data.seed 3", "predict does nothing with --data.seed (acts in fit)"),
        ("predict --trainer.max_epochs 3", "predict does nothing with --trainer.max_epochs (acts in fit)"),
        ("fit --trainer.use_distributed_sampler true", "--trainer.use_distributed_sampler (acts in no command)"),
        (
            "fit --trainer.sync_batchnorm true --trainer.model_registry x",
            "--trainer.sync_batchnorm, --trainer.model_reg",
        ),
        ("test --trainer.overfit_batches 1", "test does nothing with --trainer.overfit_batches (acts in fit)"),
        ("validate --trainer.log_every_n_steps 1", "nothing with --trainer.log_every_n_steps (acts in fit)"),
        ("predict --trainer.enable_checkpointing true", "nothing with --trainer.enable_checkpointing (acts in fit)"),
        ("predict --weights_only false", "there is no option 'weights_only'"),
        (
            "predict --data.frames.fps 2",
            "fps=2 has no effect with frame_rule='middle'; leave it out, or set --data.frame_rule",
        ),
        (
            "fit --data.frame_rule fps",
            "frame_rule='fps' needs frames a second, and fps is None; set --data.frames.fps (of",
        ),
        ("predict --data.frames.end_s 1 --data.frames.start_s 2", "there is no window from 2 to 1 s"),
        (
            "predict --data.augment.flip 0.5",
            "predict does nothing with --data.augment.flip (acts in fit); leave it out",
        ),
        ("fit --data.augment.crop 0.9", "augment.crop=0.9 is not in [0, 0.5]; 0 leaves it out"),
        ("predict --data.split tests", "split='tests' is not one of ['train', 'val', 'test']"),
    ],
)
def test_on_the_command_line(wrong, tiny_model, tmp_path, args, message):
    command, *options = args.split()
    said = wrong(command, *QUICK, "--model.path", tiny_model, "--output_dir", tmp_path / "out", *options)
    assert message in said


@pytest.mark.parametrize("command", LIGHTNING)
def test_off_and_defaults_may_be_given(tiny_model, command, monkeypatch, capsys):
    """They say what is so anyway."""
    monkeypatch.setattr("sys.argv", ["vlm_crash"])
    options = ["--model.embedder=null", "--model.lr_vision=2e-6", "--data.split=test", "--data.num_videos=0"]
    args = [command, "--model.path", str(tiny_model), "--output_dir", "absent", *options]
    assert main([*args, "--trainer.default_root_dir", "x"]) == 2  # comes after the check
    assert "default_root_dir has no effect" in capsys.readouterr().err


def test_the_help_has_what_acts():
    for command in LIGHTNING:
        text = shipped_help(command)
        assert text is not None
        found = {option for option in (*ACTS_IN, *REPLACED) if f"  --{option} " in text}
        assert found == set(ACTS_IN) - set(idle_in(command))
        assert text.startswith(f"usage: vlm_crash {command} [")
        assert "<class" not in text


def test_a_config_for_several_commands(say, tiny_model, prepared, tmp_path, caplog):
    """The config of a fit serves all others: what does nothing there is named, once."""
    fit = tmp_path / "fit"
    options = ["--data.batch_size", "2", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "1"]
    settings = ["--model.lr_vision", "1e-3", "--model.num_validation_answers", "1"]
    paths = ["--model.path", tiny_model, "--data.folder", prepared]
    assert say("fit", *QUICK, *options, *settings, *paths, "--output_dir", fit)[0] == 0
    saved = yaml.safe_load((fit / "config.yaml").read_text())
    assert saved["model"]["lr_vision"] == 1e-3
    for command in ("validate", "test", "predict"):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            code, error = say(command, "--config", fit / "config.yaml", "--output_dir", tmp_path / command)
        assert code == 0, error
        (line,) = [text for text in caplog.messages if text.startswith("without effect")]
        head, _, keys = line.partition(": ")
        assert head == f"without effect in {command}, and set by the config"
        assert {"model.lr_vision", "trainer.max_steps"} <= set(keys.split(", "))
        assert ("model.num_validation_answers" in keys) == (command != "validate")


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_towers_may_all_be_frozen_where_nothing_is_trained(say, tiny_model, prepared, tmp_path, command):
    config = tmp_path / "frozen.yaml"
    config.write_text("model:\n  freeze: [vision, projector, language]\n")
    args = ["--config", config, *QUICK, "--model.path", tiny_model, "--data.folder", prepared]
    code, message = say(command, *args, "--output_dir", tmp_path / "out")
    assert code == 0, message


@pytest.mark.parametrize("config", ["predict.yaml", "predict_legacy.yaml"])
def test_the_shipped_configs_name_nothing_idle(say, tiny_model, tmp_path, caplog, config):
    with caplog.at_level(logging.INFO):
        args = ["--config", config, "--model.path", tiny_model, "--output_dir", tmp_path]
        code, message = say("predict", *args, "--trainer.accelerator", "cpu")
    assert code == 2 and "there is nothing to predict" in message
    assert "without effect" not in caplog.text
