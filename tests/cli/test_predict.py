"""`predict` from the command line: lines as batches end, the old files, run ids, options, two processes."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import PATIENCE_S, QUICK
from tests.parallel.conftest import finish, start
from vlm_crash.cli import main
from vlm_crash.lightning_module import CrashVLM


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def answers(out: Path) -> list[dict[str, Any]]:
    """The lines without what differs from run to run."""
    return [{key: value for key, value in line.items() if key not in ("seconds", "provenance")} for line in lines(out)]


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, demo_clips: Path) -> list[str]:
    folders = ["--data.crash_dir", demo_clips / "crash", "--data.nearmiss_dir", demo_clips / "nearmiss"]
    return ["predict", *QUICK, "--model.path", str(tiny_model), *map(str, folders), "--data.num_videos", "2"]


@pytest.fixture(scope="module")
def first(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two crash and two near-miss clips, answered."""
    out = tmp_path_factory.mktemp("first") / "predictions"
    assert main([*arguments, "--output_dir", str(out)]) == 0
    return out


@pytest.fixture
def again(arguments: list[str], tmp_path: Path) -> Callable[..., Path]:
    """The same command into another folder, with options over it."""

    def predict(name: str, *options: object) -> Path:
        out = tmp_path / name
        assert main([*arguments, "--output_dir", str(out), *map(str, options)]) == 0
        return out

    return predict


def test_a_line_per_clip(first, demo_clips):
    found = lines(first)
    assert [(line["source_event"], line["video"]) for line in found] == [
        ("crash", "1.mp4"), ("crash", "2.mp4"), ("nearmiss", "1.mp4"), ("nearmiss", "2.mp4"),
    ]  # fmt: skip
    for line in found:
        assert line["status"] == "ok"
        assert 0 <= line["event_probability"] <= 1
        assert line["provenance"] == json.loads((first / "run.json").read_text())["run_id"]
        assert Path(line["path"]).is_file()


def test_the_old_files_by_folder(first):
    for event in ("crash", "nearmiss"):
        rows = json.loads((first / f"{event}_results.json").read_text())
        assert rows == [
            {"video": line["video"], "response": line["response"]}
            for line in lines(first)
            if line["source_event"] == event
        ]
    assert not (first / "unknown_results.json").exists()


def test_clips_of_unknown_event(say, tiny_model, demo_clips, tmp_path):
    """A random model that writes freely names no event: its answers go into a file of their own."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    clips = json.dumps([str(demo_clips / "crash" / "1.mp4"), str(broken)])
    args = ["--model.path", tiny_model, "--data.clips", clips, "--output_dir", tmp_path / "p"]
    assert say("predict", *QUICK, *args, "--model.decoding", "free")[0] == 0
    rows = json.loads((tmp_path / "p" / "unknown_results.json").read_text())
    assert [row["video"] for row in rows] == ["1.mp4", "broken.mp4"]
    assert rows[1]["response"] == "Failed: the file is empty (0 bytes)"


def test_lines_are_on_disk_when_the_next_batch_begins(again, monkeypatch, tmp_path):
    seen = []
    plain = CrashVLM.predict_step

    def watched(self: CrashVLM, batch: Any, batch_idx: int) -> Any:
        seen.append(len((tmp_path / "p" / "predictions.jsonl").read_text().splitlines()))
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(CrashVLM, "predict_step", watched)
    again("p", "--data.num_videos", "3", "--data.batch_size", "2")
    assert seen == [0, 2, 4]


def test_twice_and_in_other_batches_gives_the_same(again, first):
    same, batched = again("same"), again("batched", "--data.batch_size", "3")
    assert answers(same) == answers(first)
    assert lines(same)[0]["provenance"] == lines(first)[0]["provenance"]
    assert [line["response"] for line in answers(batched)] == [line["response"] for line in answers(first)]


def run_id(out: Path) -> str:
    return str(json.loads((out / "run.json").read_text())["run_id"])


def test_run_id_follows_what_decides_an_answer(again, first, tiny_model, tmp_path):
    moved, changed = tmp_path / "moved", tmp_path / "changed"
    shutil.copytree(tiny_model, moved)
    shutil.copytree(tiny_model, changed)
    tensors = load_file(changed / "model.safetensors")
    tensors[next(name for name in tensors if name.endswith("linear_1.bias"))] += 1
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})
    few = ("--data.num_videos", 1, "--data.nearmiss_dir", "null")
    assert run_id(again("a", *few, "--model.path", moved)) == run_id(first)
    ids = {
        run_id(first),
        run_id(again("b", *few, "--model.path", changed)),
        run_id(again("c", *few, "--data.num_frames", 3)),
        run_id(again("d", *few, "--data.blank_frames", "true")),
        run_id(again("e", *few, "--data.tell_event", "true")),
    }
    assert len(ids) == 5


def test_a_checkpoint_over_the_folder(again, first, tiny_model, tmp_path):
    """--ckpt_path gives the weights, the command line the settings."""
    model = CrashVLM(tiny_model, embedder=None)
    with torch.no_grad():
        model.model.get_parameter("lm_head.weight").neg_()
    path = tmp_path / "negative.ckpt"
    old = {"path": "elsewhere", "max_new_tokens": 3}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": old, "pytorch-lightning_version": "2.6.0"}, path)
    out = again("p", "--ckpt_path", path)
    assert run_id(out) != run_id(first)
    assert lines(out)[0]["response"] != lines(first)[0]["response"]
    assert json.loads((out / "run.json").read_text())["model"]["max_new_tokens"] == "12"


def test_overwrite(say, wrong, arguments, first, tmp_path):
    out = tmp_path / "p"
    shutil.copytree(first, out)
    few = ["--output_dir", out, "--data.num_videos", "1", "--data.nearmiss_dir", "null"]
    assert "max_new_tokens: 12 -> 11" in wrong(*arguments, *few, "--model.max_new_tokens", "11")
    assert len(lines(out)) == 4
    assert say(*arguments, *few)[0] == 0
    assert len(lines(out)) == 4
    assert say(*arguments, *few, "--overwrite", "true")[0] == 0
    assert len(lines(out)) == 1
    assert not (out / "nearmiss_results.json").exists()


def test_logger_and_seed(again, monkeypatch):
    found = []
    plain = CrashVLM.predict_step

    def watched(self: CrashVLM, batch: Any, batch_idx: int) -> Any:
        found.append((len(self.trainer.loggers), float(self.model.lm_head.weight.sum())))
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(CrashVLM, "predict_step", watched)
    few = ("--data.num_videos", 1, "--data.nearmiss_dir", "null", "--model.init", "random")
    again("a", *few, "--seed_everything", 1)
    again("b", *few, "--seed_everything", 1, "--trainer.logger", "true")
    again("c", *few, "--seed_everything", 2)
    (plain_loggers, one), (given_loggers, same), (_, two) = found
    assert (plain_loggers, given_loggers) == (0, 1)
    assert one == same != two


def test_an_original_folder_asked_as_the_model_card_asks(demo_clips, parity, say, caplog, tmp_path):
    clip, out = demo_clips / "crash" / "1.mp4", tmp_path / "predictions"
    folder = parity / "checkpoints" / "internlm2"
    args = ["predict", "--config", "predict_legacy.yaml", *QUICK, "--model.path", folder, "--data.clips", clip]
    options = ["--data.template", "internlm2-chat", "--data.prompt", "short", "--output_dir", out]
    with caplog.at_level("INFO"):
        code, error = say(*args, *options)
    assert code == 0, error
    (line,) = lines(out)
    assert (line["status"], line["error"]) == ("ok", None)
    # The line break that the card puts behind a frame is there, and the BOS of InternLM2.
    assert re.search(r"first prompt:\n ?<s><\|im_start\|>", caplog.text)
    assert re.search(
        r"Frame2: *<img> *16 x <IMG_CONTEXT></img> *\nDescribe the traffic event\.<\|im_end\|><", caplog.text
    )
    sampling = json.loads((out / "run.json").read_text())["sampling"]
    names = ("preset", "frame_rule", "template", "prompt")
    assert [sampling[name] for name in names] == ["card", "card", "internlm2-chat", "short"]


def test_two_processes_give_what_one_gives(arguments, again, tmp_path):
    """Three clips on two processes: each once, in the order of one process."""
    options = ["--data.num_videos", "3", "--data.nearmiss_dir", "null"]
    out = tmp_path / "two"
    two = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]
    said = finish(start(2, "command_line", tmp_path, *arguments, *options, "--output_dir", out, *two), PATIENCE_S)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [0, 0], said
    assert answers(out) == answers(again("one", *options))
    assert len(json.loads((out / "crash_results.json").read_text())) == 3
    assert not list(out.glob("predictions.rank*"))
    assert len({line["provenance"] for line in lines(out)}) == 1
