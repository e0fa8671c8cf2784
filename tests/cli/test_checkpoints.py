"""Which checkpoint of a run --ckpt_path's words mean, and that a run leaves a last one wherever it stops."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.cli.conftest import QUICK, QUICK_FIT
from vlm_crash.cli.checkpoints import HELP, WORDS, find_checkpoint, inputs_of, tell_changes
from vlm_crash.data.dataset import ModelInputs
from vlm_crash.parallel import checkpoint as checkpoints

READ = ("validate", "test", "predict")


@pytest.fixture
def save(tmp_path: Path) -> Any:
    """Write a checkpoint, later than those before."""
    count = 0

    def write(name: str, best: dict[str, str] | None = None, weights_only: bool = False) -> Path:
        nonlocal count
        count += 1
        state = {f"Keeper {monitor}": {"monitor": monitor, "best_model_path": path} for monitor, path in best.items()} \
            if best else {}  # fmt: skip
        rest = {} if weights_only else {"callbacks": state, "optimizer_states": []}
        torch.save({"state_dict": {"weight": torch.zeros(1)}, **rest}, tmp_path / name)
        os.utime(tmp_path / name, ns=(count, count))
        return tmp_path / name

    return write


def test_last_is_the_newest_that_a_run_can_go_on_from(tmp_path, save):
    save("last.ckpt")
    newer = save("last-v1.ckpt")
    assert find_checkpoint("last", tmp_path, "fit") == newer
    epoch = save("epoch=3-step=8.ckpt")  # killed before its last one was written
    save("best-epoch=4.ckpt", weights_only=True)
    for command in WORDS:
        assert find_checkpoint("last", tmp_path, command) == epoch
    assert find_checkpoint("auto", tmp_path, "fit") == epoch


def test_last_of_weights_alone(tmp_path, save):
    last = save("last.ckpt", weights_only=True)
    save("epoch=1.ckpt", weights_only=True)
    assert find_checkpoint("last", tmp_path, "predict") == last


def test_best_is_what_the_newest_state_calls_so(tmp_path, save):
    first = save("epoch=0.ckpt")
    save("last.ckpt", best={"val/loss": f"/moved/since/{first.name}"})
    for command in READ:
        assert find_checkpoint("best", tmp_path, command) == first
    first.unlink()
    with pytest.raises(ValueError, match=r"last.ckpt calls .*epoch=0.ckpt the best checkpoint, and it is not there"):
        find_checkpoint("best", tmp_path, "test")


def test_no_best(tmp_path, save):
    save("last.ckpt", best={})
    with pytest.raises(ValueError, match=r"knows no best checkpoint: none was chosen by a score"):
        find_checkpoint("best", tmp_path, "predict")
    save("last.ckpt", best={"val/loss": "/a.ckpt", "val/mean": "/b.ckpt"})
    with pytest.raises(ValueError, match=r"knows 2 best checkpoints, by val/loss, val/mean: a.ckpt, b.ckpt; set"):
        find_checkpoint("best", tmp_path, "predict")
    save("best-epoch=4.ckpt", weights_only=True)  # killed before the state that knows it
    with pytest.raises(ValueError, match=r"best-epoch=4.ckpt is newer than the newest whole state, last.ckpt"):
        find_checkpoint("best", tmp_path, "predict")


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize("word", ["last", "best", "auto", "hpc", "registry", "registry:model"])
def test_every_word_has_its_meaning_or_is_refused(tmp_path, command, word):
    if word == "auto" and command == "fit":
        assert find_checkpoint(word, tmp_path, command) is None
        return
    meant = word in WORDS[command]
    message = r"there is no checkpoint .*last.ckpt; set --output_dir to the folder of the run" if meant else (
        rf"--ckpt_path {word} has no meaning in {command}; set --ckpt_path to a .ckpt that fit wrote, or to "
        rf"{' or '.join(WORDS[command])}"
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        find_checkpoint(word, tmp_path, command)


@pytest.mark.parametrize("command", WORDS)
def test_the_help_tells_what_works(command):
    told = {word for word in ("last", "best", "auto", "hpc", "registry") if f"{word}:" in HELP[command]}
    assert told == set(WORDS[command])


def test_last_and_best_of_a_run(say, wrong, tiny_model, prepared, tmp_path):
    """Watched upside down the second epoch is worse: the best is the first's, and the last is the second's."""
    out = tmp_path / "run"
    run = ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", out, "--trainer.limit_val_batches", 1]
    fit = ["fit", *QUICK, *run, "--data.batch_size", 10, "--model.num_validation_answers", 0]
    fit += ["--trainer.num_sanity_val_steps", 0, "--trainer.max_epochs", 2, "--model.warmup_ratio", 0]
    fit += [f"--model.lr_{tower}=1e-3" for tower in ("vision", "projector", "language")]
    keeper = ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.mode=max"]
    keeper += ["--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.save_last=true"]
    code, said = say(*fit, *keeper, "--trainer.callbacks.filename={epoch}")
    assert code == 0, said
    files = {path.name: checkpoints.load_file(path) for path in (out / "checkpoints").iterdir()}
    assert {name: content["global_step"] for name, content in files.items()} == {"epoch=0.ckpt": 1, "last.ckpt": 2}
    predict = ["predict", *QUICK, *run[:-2], "--overwrite", "true"]
    for word, name in (("best", "epoch=0.ckpt"), ("last", "last.ckpt")):
        assert say(*predict, "--ckpt_path", word, "--trainer.limit_predict_batches", 1)[0] == 0
        facts = json.loads((out / "run.json").read_text())
        assert list(facts["checkpoint"]) == [str(out / "checkpoints" / name)]
    assert "--ckpt_path best has no meaning in fit" in wrong(*fit, "--ckpt_path", "best")
    # A run that has come to its end goes on from there.
    assert say(*fit, *keeper, "--ckpt_path", "last", "--trainer.max_epochs", 3)[0] == 0
    assert checkpoints.load_file(out / "checkpoints" / "last.ckpt")["global_step"] == 3


def test_a_checkpoint_says_how_its_model_is_asked(say, tiny_model, prepared, demo_clips, tmp_path, caplog):
    """Before the folder beside it, which is the base's, and after the command line."""
    out = tmp_path / "run"
    quick = [*QUICK[:4], *QUICK[6:], "--model.path", tiny_model]
    fit = ["fit", *quick, *QUICK_FIT, "--data.folder", prepared, "--output_dir", out, "--trainer.limit_val_batches", 0]
    rule = ["--data.frame_rule", "fps", "--data.frames.fps", 1, "--data.num_frames", 3, "--data.prompt", "full"]
    assert say(*fit, *rule, "--trainer.max_steps", 1)[0] == 0
    last = out / "checkpoints" / "last.ckpt"
    predict = ["predict", *quick, "--data.clips", demo_clips / "crash" / "1.mp4", "--ckpt_path", last]
    for name, given, num_frames in (("p", [], 3), ("q", ["--data.num_frames", 2], 2)):
        assert say(*predict, "--output_dir", tmp_path / name, *given)[0] == 0
        sampling = json.loads((tmp_path / name / "run.json").read_text())["sampling"]
        want = {"num_frames": num_frames, "frame_rule": "fps", "frames": {"fps": 1.0}, "prompt": "full"}
        assert {key: sampling[key] for key in want} == want
    fit += ["--ckpt_path", "last"]
    assert say(*fit, "--trainer.max_steps", 2)[0] == 0
    assert "was trained in another way" not in caplog.text
    assert checkpoints.load_file(last)["vlm_crash"]["frames"] == {"fps": 1.0}
    assert json.loads((out / "model" / "config.json").read_text())["vlm_crash"]["frame_rule"] == "fps"
    assert say(*fit, "--trainer.max_steps", 3, "--data.frame_rule", "middle")[0] == 0
    changes = "(frame_rule: fps -> middle; frames: {'fps': 1.0} -> None)"
    assert f"was trained in another way, and this run goes on with what is given now {changes}" in caplog.text


def test_a_checkpoint_without_settings_leaves_the_folders(caplog):
    inputs = ModelInputs(None, 1, 28, prompt="short", num_frames=8, frame_rule="fps", frames={"fps": 2.0})
    stored = SimpleNamespace(rest={}, path="other.ckpt")
    assert inputs_of(None, inputs) == inputs_of(stored, inputs) == inputs
    stored.rest["vlm_crash"] = {"num_frames": 4, "frame_rule": "middle"}  # of before rules had settings
    words = replace(inputs, told_sampling="event")  # the folder's; then every prompt had the same
    assert inputs_of(stored, words) == replace(inputs, num_frames=4, frame_rule="middle", frames=None)
    tell_changes(stored, {"frame_rule": "middle", "frames": None, "told_sampling": "uniform"})
    assert not caplog.text
    tell_changes(stored, {"told_sampling": "event"})
    assert "(told_sampling: uniform -> event)" in caplog.text


@pytest.mark.parametrize("place", ["before the last", "in the last"])
def test_ctrl_c_between_an_epochs_checkpoint_and_the_last(say, tiny_model, prepared, tmp_path, monkeypatch, place):
    out = tmp_path / "fit"
    args = ["fit", *QUICK, *QUICK_FIT, "--model.path", tiny_model, "--data.folder", prepared, "--output_dir", out]
    owner, name = (ModelCheckpoint, "_save_last_checkpoint") if place == "before the last" else (torch, "save")
    plain, calls = getattr(owner, name), 0

    def interrupted(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == (1 if owner is ModelCheckpoint else 2):
            if owner is torch:
                given[1].write(b"half")
            raise KeyboardInterrupt
        return plain(*given, **options)

    monkeypatch.setattr(owner, name, interrupted)
    assert say(*args)[0] == 130
    files = {path.name: checkpoints.load_file(path)["global_step"] for path in (out / "checkpoints").iterdir()}
    assert files == {"epoch=0-step=2.ckpt": 2, "last.ckpt": 2}
    assert say(*args, "--trainer.max_steps", 3, "--ckpt_path", "last")[0] == 0
    assert checkpoints.load_file(out / "checkpoints" / "last.ckpt")["global_step"] == 3


def test_ctrl_c_while_a_checkpoint_is_restored_leaves_it(say, tiny_model, prepared, tmp_path, monkeypatch):
    """Steps are counted again by then, and the optimizer is still empty."""
    from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

    out = tmp_path / "fit"
    args = ["fit", *QUICK, *QUICK_FIT, "--model.path", tiny_model, "--data.folder", prepared, "--output_dir", out]
    assert say(*args)[0] == 0
    before = {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()}

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_CheckpointConnector, "restore_optimizers", interrupted)
    assert say(*args, "--trainer.max_steps", 3, "--ckpt_path", "last")[0] == 130
    assert {path.name: path.read_bytes() for path in (out / "checkpoints").iterdir()} == before
