"""`predict --model.decoding` from the command line: what a line says, and that neighbours do not change it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import PATIENCE_S
from tests.parallel.conftest import finish, start
from vlm_crash.cli.demo import BASE_MODEL
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.response import parse

OPTIONS = [
    "--trainer.accelerator", "cpu", "--trainer.devices", 1, "--data.num_workers", 0, "--data.num_frames", 4,
    "--data.num_videos", 3, "--model.path", BASE_MODEL,
]  # fmt: skip


def predicted(say: Any, demo_clips: Path, out: Path, *options: object) -> list[dict[str, Any]]:
    folders = ["--data.crash_dir", demo_clips / "crash", "--data.nearmiss_dir", demo_clips / "nearmiss"]
    assert say("predict", *OPTIONS, *folders, "--output_dir", out, *options)[0] == 0
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def same(found: list[dict[str, Any]], want: list[dict[str, Any]]) -> None:
    for one, other in zip(found, want, strict=True):
        assert (one["path"], one["response"], one["fields"]) == (other["path"], other["response"], other["fields"])
        assert one["event_probabilities"] == pytest.approx(other["event_probabilities"], abs=1e-5)
        for name, probabilities in other["field_probabilities"].items():
            assert one["field_probabilities"][name] == pytest.approx(probabilities, abs=1e-5)
        texts = other["text_log_probabilities"]
        assert one["text_log_probabilities"] == pytest.approx(texts, abs=1e-4)


@pytest.mark.parametrize("how", [[], ["--model.decoding", "free", "--model.max_new_tokens", 24]], ids=["form", "free"])
def test_neighbours_batches_and_processes_change_nothing(say, demo_clips, tmp_path, how):
    alone = predicted(say, demo_clips, tmp_path / "alone", "--data.batch_size", 1, *how)
    # Both forms in a batch; free answers differ from their first words on.
    assert len({line["event"] or line["response"] for line in alone}) >= 2
    same(predicted(say, demo_clips, tmp_path / "batch", "--data.batch_size", 6, *how), alone)
    folders = ["--data.crash_dir", demo_clips / "crash", "--data.nearmiss_dir", demo_clips / "nearmiss"]
    many = ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--data.batch_size", 2]
    command = ["predict", *OPTIONS, *folders, "--output_dir", tmp_path / "processes", *many, *how]
    said = finish(start(2, "command_line", tmp_path, *command), PATIENCE_S)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [0, 0], said
    lines = (tmp_path / "processes" / "predictions.jsonl").read_text().splitlines()
    same([json.loads(line) for line in lines], alone)


def test_every_choice_has_its_probabilities(say, demo_clips, tmp_path):
    schema = load_schema()
    for line in predicted(say, demo_clips, tmp_path / "best", "--data.batch_size", 6):
        event = schema.event(line["event"])
        assert dict(parse(schema, line["response"]).values) == line["fields"]
        assert list(line["fields"]) == list(event.field_names)
        assert line["event_probability"] == line["event_probabilities"]["crash"]
        assert sum(line["event_probabilities"].values()) == pytest.approx(1, abs=1e-8)
        for name in event.field_names:
            field = event.field(name)
            if not field.vocabulary and field.kind != "count":
                assert line["text_log_probabilities"][name] <= 0
                continue
            probabilities = line["field_probabilities"][name]
            assert list(probabilities) == list(field.vocabulary or map(str, range(100)))
            assert sum(probabilities.values()) == pytest.approx(1, abs=1e-8)
            assert line["fields"][name] == max(probabilities, key=probabilities.__getitem__)


def test_free_and_form_are_told_apart(say, wrong, demo_clips, tmp_path):
    free = predicted(say, demo_clips, tmp_path / "free", "--model.decoding", "free", "--data.num_videos", 1)
    form = predicted(say, demo_clips, tmp_path / "form", "--model.decoding", "greedy", "--data.num_videos", 1)
    for one, other in zip(free, form, strict=True):
        assert one["field_probabilities"] == one["text_log_probabilities"] == {}
        assert one["event_probabilities"] == pytest.approx(other["event_probabilities"], abs=1e-5)
        assert one["provenance"] != other["provenance"]
    message = wrong("predict", *OPTIONS, "--data.clips", demo_clips, "--model.decoding", "beam")
    assert "decoding='beam' is not one of ['best_term', 'greedy', 'free']; set --model.decoding to one" in message
