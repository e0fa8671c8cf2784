"""What users get wrong: files, folders, clips, checkpoints. One message, exit code 2, and nothing half done."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import QUICK, QUICK_FIT, ROOT
from vlm_crash.data.dataset import UNREADABLE_REMEDY

CSV = "AV_crash_modified_r.csv"


@pytest.fixture
def crash(demo_clips: Path, tmp_path: Path) -> tuple[Path, Path]:
    """CSV and folder of three crash clips, to be spoilt."""
    folder = tmp_path / "crash"
    folder.mkdir()
    lines = (demo_clips / CSV).read_text().splitlines(keepends=True)
    (tmp_path / CSV).write_text("".join(lines[:4]))
    for clip in sorted((demo_clips / "crash").iterdir(), key=lambda path: int(path.stem))[:3]:
        shutil.copy(clip, folder)
    return tmp_path / CSV, folder


def prepare(source: tuple[Path, Path], out: Path) -> list[object]:
    return ["prepare", "--crash_csv", source[0], "--crash_dir", source[1], "--out", out]


def problems(out: Path) -> str:
    with (out / "problems.csv").open(newline="") as file:
        return "\n".join(f"{row['video']}: {row['problem']}" for row in csv.DictReader(file))


def test_missing_csv(wrong, crash, tmp_path):
    crash[0].unlink()
    assert f"{crash[0]}: it does not exist" in wrong(*prepare(crash, tmp_path / "out"))


def test_wrong_delimiter(wrong, crash, tmp_path):
    crash[0].write_text(crash[0].read_text().replace(",", ";"))
    assert "its columns seem to be separated by semicolons; save it with commas" in wrong(
        *prepare(crash, tmp_path / "out")
    )
    assert not (tmp_path / "out").exists()


def test_missing_columns(wrong, crash, tmp_path):
    crash[0].write_text(crash[0].read_text().replace("Weather", "Wether", 1).replace("Lanes", "Tracks", 1))
    message = wrong(*prepare(crash, tmp_path / "out"))
    assert "missing columns: Weather (the nearest there is 'Wether'); Lanes" in message


def test_duplicate_clip_names(say, crash, tmp_path):
    with crash[0].open(newline="") as file:
        rows = list(csv.reader(file))
    column = rows[0].index("video_id")
    for number, row in zip(("1", "2", "2"), rows[1:], strict=True):
        row[column] = number
    with crash[0].open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert say(*prepare(crash, tmp_path / "out"))[0] == 0
    assert "2.mp4: rows 2, 3 name the same clip and say different things" in problems(tmp_path / "out")


def test_a_clip_listed_and_absent(say, crash, tmp_path):
    (crash[1] / "2.mp4").unlink()
    assert say(*prepare(crash, tmp_path / "out"))[0] == 0
    assert "2.mp4: no such clip in" in problems(tmp_path / "out")


def test_empty_folder(wrong, crash, tiny_model, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty}: there are no clips in the folder" in wrong(*prepare((crash[0], empty), tmp_path / "out"))
    message = wrong(
        "predict", *QUICK, "--model.path", tiny_model, "--data.crash_dir", empty, "--output_dir", tmp_path / "p"
    )
    assert f"the folder {empty} has no clips" in message
    assert not list((tmp_path / "p").glob("predictions*"))


def test_what_is_no_folder(wrong, tiny_model, tmp_path):
    args = ["predict", *QUICK, "--model.path", tiny_model, "--output_dir", tmp_path / "p"]
    assert "there is no clip or folder nowhere" in wrong(*args, "--data.clips", "nowhere")
    assert "there is nothing to predict; set --data.crash_dir" in wrong(*args)
    assert "there is nothing to train on or score; set --data.folder" in wrong("validate", *args[1:])
    assert "diy_ft_data.json: no such file" in wrong(*args, "--data.folder", tmp_path)


def test_an_unreadable_clip_in_predict(say, crash, tiny_model, tmp_path):
    (crash[1] / "2.mp4").write_bytes(b"")
    (crash[1] / "3.mp4").write_bytes(b"no video" * 100)
    code, _ = say(
        "predict", *QUICK, "--model.path", tiny_model, "--data.crash_dir", crash[1], "--output_dir", tmp_path / "p"
    )
    assert code == 0
    lines = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    assert {line["video"]: line["status"] for line in lines} == {"1.mp4": "ok", "2.mp4": "failed", "3.mp4": "failed"}
    assert next(line for line in lines if line["video"] == "2.mp4")["error"] == "the file is empty (0 bytes)"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_clip_in_fit(wrong, crash, say, tiny_model, tmp_path, workers):
    dataset = tmp_path / "dataset"
    assert say(*prepare(crash, dataset), "--fractions", "[1,0,0]")[0] == 0
    (crash[1] / "2.mp4").write_bytes(b"")
    args = ["fit", *QUICK, *QUICK_FIT, "--data.num_workers", workers, "--output_dir", tmp_path / "fit"]
    message = wrong(*args, "--model.path", tiny_model, "--data.folder", dataset)
    assert message == f"{crash[1] / '2.mp4'}: the file is empty (0 bytes); {UNREADABLE_REMEDY}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "is no model folder"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            "has no weights (*.safetensors or pytorch_model*.bin)",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), "cannot be read"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer"),
    ],
)
def test_no_model_folder(wrong, tiny_model, prepared, tmp_path, spoil, message):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    spoil(folder)
    assert message in wrong("predict", *QUICK, "--model.path", folder, "--data.folder", prepared)


@pytest.fixture(scope="module")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the tiny model's, with one layer less in the language model."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 1
    config["text_config"].pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "layers.1." not in name},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_a_checkpoint_of_another_model(wrong, tiny_model, other_model, prepared, tmp_path, command):
    from vlm_crash.models.internvl import load_model

    path = tmp_path / "other.ckpt"
    state = {f"model.{name}": tensor for name, tensor in load_model(tiny_model).state_dict().items()}
    torch.save({"state_dict": state}, path)
    args = ["--model.path", other_model, "--data.folder", prepared, "--ckpt_path", path, "--output_dir", tmp_path / "o"]
    message = wrong(command, *QUICK, *args)
    assert f"{path} is a checkpoint of another model than {other_model}" in message
    assert "tensors unknown (first: model.model.language_model.layers.1." in message


def test_what_is_no_checkpoint(wrong, tiny_model, prepared, tmp_path):
    args = ["predict", *QUICK, "--model.path", tiny_model, "--data.folder", prepared, "--output_dir", tmp_path / "o"]
    text, pickled = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    text.write_text("no checkpoint")
    torch.save({"weights": torch.zeros(1)}, pickled)
    assert f"{text} is no checkpoint that can be read" in wrong(*args, "--ckpt_path", text)
    assert f"{pickled} has no state_dict" in wrong(*args, "--ckpt_path", pickled)
    assert "there is no checkpoint nowhere.ckpt" in wrong(*args, "--ckpt_path", "nowhere.ckpt")
    assert "checkpoints/last.ckpt; set --output_dir to the folder of the run" in wrong(*args, "--ckpt_path", "last")


def test_nothing_to_evaluate_or_report(wrong, tmp_path):
    assert "no such predictions: nowhere" in wrong("evaluate", "--predictions", "nowhere", "--truth", "t", "--out", "o")
    assert "metrics.json is missing" in wrong("report", tmp_path)


def test_half_precision_without_a_gpu(wrong, say, tiny_model, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = ["fit", "--config", "titan.yaml", "--model.path", tiny_model, "--data.folder", prepared, *QUICK_FIT]
    args += ["--data.num_workers", "0", "--data.num_frames", "2", "--output_dir", tmp_path / "fit"]
    args += ["--trainer.strategy", "auto"]  # FSDPStrategy has fp16 on CPUs, too
    message = wrong(*args)
    assert "set --trainer.precision 32-true --trainer.accelerator cpu" in message
    cpu = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]
    assert say(*args, *cpu)[0] == 0
    assert (tmp_path / "fit" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "fit" / "checkpoints" / "last.ckpt").is_file()
