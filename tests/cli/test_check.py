"""`check`, and what the other commands do with what it found."""

import json
import shutil

import pytest

from tests.cli.conftest import QUICK, QUICK_FIT
from tests.copies import copied, samples_of, spoil
from vlm_crash.cli import main


@pytest.fixture(scope="module")
def dataset(prepared, demo_clips, tmp_path_factory):
    """A training clip and a test clip are none."""
    folder = copied(prepared, tmp_path_factory.mktemp("spoilt"))
    for split in ("train", "test"):
        spoil(samples_of(folder, split)[0])
    return folder


@pytest.fixture(scope="module")
def checked(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked") / "dataset"
    shutil.copytree(dataset, folder)
    assert main(["check", str(folder), "--num_workers", "2"]) == 0
    return folder


def test_what_it_prints_and_its_exit_codes(checked, say, wrong, capsys, tmp_path, caplog):
    caplog.set_level("INFO")
    assert main(["check", str(checked)]) == 0
    said = capsys.readouterr().out
    assert f"{checked / 'clips.csv'}: 20 clips: 18 ok, 0 damaged, 2 quarantined" in said
    assert "quarantined: not a video, or one cut off before its index was written" in said
    assert "looked at" not in said
    assert say("check", checked, "--strict", "true")[0] == 1
    clips = samples_of(checked, "val")[0].path.parent
    assert say("check", clips, "--out", tmp_path / "out", "--num_workers", 2, "--strict", "true")[0] in (0, 1)
    assert (tmp_path / "out" / "clips.csv").is_file() and not (clips / "clips.csv").exists()
    assert "clips, " in caplog.text and "a minute)" in caplog.text
    assert "no such folder" in wrong("check", tmp_path / "nothing")
    assert "clip_memory_gib=-1.0 is below 0" in wrong("check", checked, "--clip_memory_gib", -1)


def test_fit_names_a_bad_clip_or_keeps_it_out(dataset, checked, tiny_model, wrong, say, tmp_path, caplog):
    caplog.set_level("INFO")
    bad = samples_of(dataset, "train")[0]
    args = ["--model.path", tiny_model, *QUICK, *QUICK_FIT, "--trainer.max_steps", 5, "--trainer.limit_val_batches", 0]
    message = wrong("fit", "--data.folder", dataset, "--output_dir", tmp_path / "a", *args)
    assert str(bad.path) in message and "not a video" in message
    assert "run `check`, which keeps such clips out, or leave them out of training by --data.on_bad_clip" in message
    assert say("fit", "--data.folder", checked, "--output_dir", tmp_path / "b", *args)[0] == 0
    assert f"13 of 14 clips used, 1 quarantined: {checked / 'clips.csv'}" in caplog.text
    assert (
        say("fit", "--data.folder", dataset, "--output_dir", tmp_path / "c", "--data.on_bad_clip", "skip", *args)[0]
        == 0
    )
    assert f"{bad.path} is left out of training: not a video" in caplog.text
    assert f"epoch 0: 9 of 10 training clips used, 1 left out as they cannot be read: {bad.video}" in caplog.text


def test_a_quarantined_clip_is_a_failed_line_that_counts(checked, tiny_model, say, tmp_path, caplog):
    bad = samples_of(checked, "test")[0]
    caplog.set_level("INFO")
    args = ["--model.path", tiny_model, "--data.folder", checked, "--output_dir", tmp_path / "answers"]
    assert say("predict", *QUICK, *args)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "answers/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    failed = [line for line in lines if line["status"] == "failed"]
    assert [line["video"] for line in failed] == [bad.video]
    assert failed[0]["error"].startswith("quarantined: not a video")
    assert "5 of 6 clips used, 1 quarantined" in caplog.text
    scores = ["--truth", checked, "--split", "test", "--embedder", "null", "--out", tmp_path / "scores"]
    assert say("evaluate", "--predictions", tmp_path / "answers", *scores)[0] == 0
    metrics = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert metrics["event"]["n"] == 6


def test_on_bad_clip_is_for_training(wrong, tiny_model, checked, tmp_path):
    args = ["--model.path", tiny_model, "--data.folder", checked, "--output_dir", tmp_path / "a", *QUICK]
    assert "does nothing with --data.on_bad_clip" in wrong("test", *args, "--data.on_bad_clip", "skip")
    assert "on_bad_clip='drop' is not one of" in wrong("fit", *args, "--data.on_bad_clip", "drop")
