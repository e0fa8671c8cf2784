"""Prompts that a model has no places for, and forms that it was not fitted with, are told before an answer is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import QUICK, QUICK_FIT
from vlm_crash.models.context import Context

ROOT = Path(__file__).parents[2]
MINE = ROOT / "tests/schema/mine.yaml"
FREE = ["--model.decoding", "free"]


def model(tiny_model: Path, folder: Path, **text: Any) -> Path:
    """The tiny model with other numbers in the config of its language model."""
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(text)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def prompt_tokens(message: str) -> int:
    return int(message.split(" takes ")[1].split()[0])


def test_a_prompt_too_long_is_refused_and_an_answer_is_cut(say, wrong, tiny_model, demo_clips, tmp_path, caplog):
    clips = ["--data.clips", demo_clips / "crash" / "1.mp4"]
    small = model(tiny_model, tmp_path / "small", max_position_embeddings=20)
    message = wrong("predict", *QUICK, *FREE, *clips, "--model.path", small, "--output_dir", tmp_path / "a")
    assert "and the model has places for 20 (max_position_embeddings in its config.json); lower --data" in message
    assert not (tmp_path / "a" / "predictions.jsonl").exists()
    # The tiny model never ends an answer by itself.
    size = prompt_tokens(message) - 1
    tight = model(tiny_model, tmp_path / "tight", max_position_embeddings=size + 5)
    code, _ = say("predict", *QUICK, *FREE, *clips, "--model.path", tight, "--output_dir", tmp_path / "b")
    assert code == 0
    assert f"prompt tokens {size} + max_new_tokens 12 is more than max_position_embeddings {size + 5}" in caplog.text
    assert "cut at " in caplog.text
    cut = int(caplog.text.split(" cut at ")[1].split()[0])
    assert 5 <= cut < 12
    scaled = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    longer = model(tiny_model, tmp_path / "longer", max_position_embeddings=20, rope_parameters=scaled)
    code, _ = say("predict", *QUICK, *FREE, *clips, "--model.path", longer, "--output_dir", tmp_path / "c")
    assert code == 0
    assert "the model's rope scaling goes on from there" in caplog.text


def test_training_is_refused_before_the_first_step(wrong, tiny_model, prepared, tmp_path):
    small = model(tiny_model, tmp_path / "small", max_position_embeddings=100)
    args = ["--model.path", small, "--data.folder", prepared, "--output_dir", tmp_path / "a"]
    assert "a prompt and its answer takes" in wrong("fit", *QUICK, *QUICK_FIT, *args)


@pytest.mark.parametrize(("num_tokens", "room"), [(90, 10), (99, 1), (10, 50)])
def test_room(num_tokens: int, room: int):
    assert Context(100, is_extended=False).room(num_tokens, 50) == room
    assert Context(100, is_extended=True).room(num_tokens, 50) == 50


def test_the_form_goes_with_the_model(say, wrong, tiny_model, prepared, demo_clips, tmp_path, caplog):
    from vlm_crash.schema.fields import SHIPPED, load_schema

    args = ["--model.path", tiny_model, "--data.folder", prepared, "--output_dir", tmp_path / "fit"]
    assert say("fit", *QUICK, *QUICK_FIT, *args)[0] == 0
    fitted = tmp_path / "fit" / "model"
    config = json.loads((fitted / "config.json").read_text())
    assert config["vlm_crash"]["schema"] == load_schema().form
    open_fields = {f.name for f in load_schema().fields if f.kind == "categorical" and not f.closed}
    terms = config["vlm_crash"]["terms"]
    assert set(terms) == open_fields and all(terms.values())
    clips = ["--data.clips", demo_clips / "crash" / "1.mp4"]
    code, _ = say("predict", *QUICK, *clips, "--model.path", fitted, "--output_dir", tmp_path / "same")
    assert code == 0
    assert "another form" not in caplog.text
    line = json.loads((tmp_path / "same" / "predictions.jsonl").read_text())
    for name in open_fields & set(line["fields"]):  # a random model may say near miss, which has none of them
        assert list(line["field_probabilities"][name]) == terms[name]
    given = ["--data.schema", MINE]
    code, _ = say("predict", *QUICK, *clips, "--model.path", fitted, "--output_dir", tmp_path / "other", *given)
    assert code == 0
    assert "was fitted with another form" in caplog.text
    config["vlm_crash"]["schema"] = load_schema(MINE).form
    (fitted / "config.json").write_text(json.dumps(config))
    message = wrong("predict", *QUICK, *clips, "--model.path", fitted, "--output_dir", tmp_path / "lacking")
    assert "was fitted with another form than the shipped one; give --data.schema" in message
    caplog.clear()
    checkpoint = ["--ckpt_path", tmp_path / "fit" / "checkpoints" / "last.ckpt"]
    code, _ = say("predict", *QUICK, *clips, "--model.path", fitted, "--output_dir", tmp_path / "ckpt", *checkpoint)
    assert code == 0
    assert "another form" not in caplog.text
    by_checkpoint = json.loads((tmp_path / "ckpt" / "predictions.jsonl").read_text())
    assert by_checkpoint["field_probabilities"].keys() == line["field_probabilities"].keys()
    given = ["--data.schema", SHIPPED]
    assert say("predict", *QUICK, *clips, "--model.path", fitted, "--output_dir", tmp_path / "forced", *given)[0] == 0
