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
        ("frames a --out x --frames.start_s 9", "there is no option 'frames.start_s'; did you mean start_s?"),
        (
            "fit --model.path x --data.cache.folder y --data.cache.max_gib abc",
            "--data.cache.max_gib cannot be abc; `fit --help` says what fits",
        ),
        ("report f --clip a", "there is no option 'clip'; did you mean clips?"),
        ("demo --nim_clips 3", "there is no option 'nim_clips'; did you mean num_clips?"),
        ("fit stray", "'stray' is not expected here"),
        (
            "predict -data.num_frames 4",
            "there is no option '-data.num_frames'; options begin with two dashes: --data.n",
        ),
        ("fit", "--model.path must be given"),
        (
            "fit --model.path x --data.cache.format raw",
            "--data.cache needs --data.cache.folder; give it, too, or leave all of --data.cache out",
        ),
        ("evaluate --out x", "--predictions and --truth must be given; `evaluate --help` says what they are"),
        ("report", "folder must be given; `report --help` says what it is"),
        ("check x --strict", "--strict is given without a value; write it behind, as in --strict true for a switch"),
        ("check x --clip_timeout_s inf", "--clip_timeout_s cannot be that: expected a finite number or null, got inf"),
        ("prepare --out x --event_of.1.0 crash", "--event_of: a dot parts names, and is no part of one; write a name"),
        ("fit --data.num_frames abc", "--data.num_frames cannot be that: expected int or null, got abc"),
        ("fit --data.batch_size 1.5", "--data.batch_size cannot be that: expected int, got 1.5"),
        ("demo --num_clips abc", "--num_clips cannot be that: expected int, got abc"),
        (
            "prepare --out x --fractions [1,2]",
            "--fractions cannot be that: expected tuple[float, float, float] or null, got [1, 2]",
        ),
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
    command = re.search(
        rf"Command: .*?-m vlm_crash (\w+) --config {path.name}", path.read_text(encoding="utf-8"), re.DOTALL
    )
    assert command is not None
    monkeypatch.setattr("sys.argv", ["vlm_crash"])
    assert main([command[1], "--config", path.name, "--print_config"]) == 0
    accepted = yaml.safe_load(capsys.readouterr().out)
    for section, settings in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        given = {n: v for n, v in settings.items() if n != "callbacks"} if isinstance(settings, dict) else settings
        assert among(accepted[section], given) == given


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("fit", "model:\n  lr_visio: 1\n", "there is no option 'model.lr_visio'; did you mean model.lr_vision?"),
        ("fit", "model:\n  num_frames: 1\n", "there is no option 'model.num_frames'; did you mean data.num_frames?"),
        ("predict", "trainr:\n  devices: 1\n", "there is no option 'trainr.devices'; did you mean trainer.devices?"),
        ("predict", "ouput_dir: x\n", "there is no option 'ouput_dir'; did you mean output_dir?"),
        (
            "fit",
            "model:\n  path: x\ndata:\n  cache:\n    max_gib: 5\n",
            "--data.cache needs --data.cache.folder; give it, too, or leave all of --data.cache out",
        ),
        ("prepare", "outt: x\n", "there is no option 'outt'; did you mean out?"),
        ("evaluate", "truths: x\n", "there is no option 'truths'; did you mean truth?"),
        ("report", "clip: x\n", "there is no option 'clip'; did you mean clips?"),
        ("demo", "sed: 1\n", "there is no option 'sed'; did you mean seed?"),
        ("fit", "data:\n  num_frames: abc\n", "--data.num_frames cannot be that: expected int or null, got abc"),
    ],
)
def test_yaml(wrong, tmp_path, command, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert message in wrong(command, "--config", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"model: [\n",
            "line 2, column 1: not YAML (expected the node content, but found '<stream end>'); write options",
        ),
        (b"a:\n  b: 1\n\tc: 2\n", "line 3, column 1: not YAML (found character '\\t' that cannot start any token)"),
        (b"a: &b [*c]\n", "line 1, column 8: not YAML (found undefined alias 'c')"),
        (b"- a\n- b\n", "line 1: a list, not options (`name: value`); write options there as `--print_config` prints"),
        (b"# mine\nwords\n", "line 2: a text, not options"),
        (b"", " is empty; write options there as `--print_config` prints them, or leave it out"),
        (b"# nothing\n", " is empty"),
        (b"\x00\x01\x02", "line 1, column 1: not YAML"),
        (b"out: x\nseed: \xff\xfe", "line 2: not UTF-8 text; give a YAML, saved as UTF-8"),
        (b"out: x\n\nout: y\n", "line 3: 'out' is given twice, first in line 1; leave one"),
        (b"model:\n  path: x\n  path: y\n", "line 3: 'path' is given twice, first in line 2; leave one"),
        (None, " is a folder; give a YAML file in it, or leave --config out"),
    ],
)
def test_a_config_that_cannot_be_read_is_named(wrong, tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    for option in (["--config", path], [f"--config={path}"], ["-c", path]):
        said = wrong("prepare", *option)
        assert said.startswith(f"config {path}") and message in said and "\n" not in said
    assert wrong("fit", "--config", path).startswith(f"config {path}")


def test_configs_of_sections(wrong, tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("[")
    for option in ("--model", "--data", "--trainer"):
        assert f"config {path}, line 1, column 2: not YAML" in wrong("fit", option, path)
        assert f"there is no config nowhere.yaml; give {option} a YAML file, or its options as {option}.NAME" in wrong(
            "fit", f"{option}=nowhere.yaml"
        )
    path.write_text("num_frames: 3\n")
    monkeypatch.setattr("sys.argv", ["vlm_crash"])
    for value in (str(path), "{num_frames: 3}"):
        assert main(["fit", "--data", value, "--model", "{path: x}", "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["data"]["num_frames"] == 3


@pytest.mark.parametrize("schema", ["--schema", "--data.schema"])
def test_a_schema_that_cannot_be_read_is_named(wrong, tiny_model, prepared, tmp_path, schema):
    path = tmp_path / "mine.yaml"
    path.write_text("events:\n  fall: [\n")
    args = ["evaluate", "--predictions", "p", "--truth", "t", "--out", "o"]
    if schema == "--data.schema":
        args = [
            "predict",
            *QUICK,
            "--model.path",
            tiny_model,
            "--data.folder",
            prepared,
            "--output_dir",
            tmp_path / "o",
        ]
    for spoil, message in (
        (lambda: None, f"schema {path}, line 3, column 1: not YAML"),
        (lambda: path.write_text("- a\n"), f"{path}: 1 problem"),
        (lambda: path.write_bytes(b"\xff"), f"schema {path}, line 1: not UTF-8"),
        (path.unlink, f"schema {path}: no such file"),
        (path.mkdir, f"schema {path}: a folder"),
    ):
        spoil()
        said = wrong(*args, schema, path)
        assert message in said
        assert "crash.yaml" in said or "saved as UTF-8" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data.num_frames 0", "num_frames=0 is below 1; set --data.num_frames"),
        ("--data.batch_size 0", "batch_size=0 is below 1; set --data.batch_size to 1 or more"),
        ("--data.num_workers -1", "num_workers=-1 is below 0"),
        ("--data.clip_timeout_s -1", "clip_timeout_s=-1.0 is below 0; set --data.clip_timeout_s to 0 or more"),
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
        (
            "--trainer.accumulate_grad_batches 0",
            "accumulate_grad_batches=0 is not a number from 1 on; set --trainer.acc",
        ),
        ("--trainer.log_every_n_steps 0", "log_every_n_steps=0 is not a number from 1 on"),
        ("--trainer.check_val_every_n_epoch 0", "check_val_every_n_epoch=0 is not a number from 1 on"),
        ("--trainer.val_check_interval 0", "val_check_interval=0 is not above 0; set --trainer.val_check_interval to"),
        ("--trainer.gradient_clip_val -1", "gradient_clip_val=-1 is not a number from 0 on"),
        ("--model.lr_language -1", "lr_language=-1.0 is not a number from 0 on; set --model.lr_language to one"),
        ("--model.weight_decay .nan", "weight_decay=nan is not a number from 0 on"),
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
