"""convert and export on the command line: original checkpoint -> folder -> fit -> checkpoint -> folder."""

import signal
from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.cli.conftest import PATIENCE_S, QUICK, QUICK_FIT, begin
from tests.models.original_folder import Shape, write_original
from vlm_crash.models.folder import folder_settings, read_config
from vlm_crash.models.internvl import load_model


def test_there_and_back(say, tmp_path: Path) -> None:
    write_original(tmp_path / "source", Shape())
    assert say("convert", tmp_path / "source", "--out", tmp_path / "a", "--hico", "on", "--dtype", "float32")[0] == 0
    settings = folder_settings(read_config(tmp_path / "a"))
    assert settings.hico is not None and load_model(tmp_path / "a").config.dtype == torch.float32
    assert say("export", tmp_path / "a", "--out", tmp_path / "b", "--layout", "original", "--dtype", "bfloat16")[0] == 0
    assert (tmp_path / "b/tokenizer.model").is_file()
    assert say("convert", tmp_path / "source", "--out", tmp_path / "a", "--hico=off", "--overwrite", "true")[0] == 0
    assert folder_settings(read_config(tmp_path / "a")).hico is None


def test_fit_from_an_original_folder_and_export(say, prepared: Path, tmp_path: Path) -> None:
    write_original(tmp_path / "source", Shape())
    args = ["--model.path", tmp_path / "source", "--data.folder", prepared, "--output_dir", tmp_path / "fit"]
    assert say("fit", *QUICK, *QUICK_FIT, *args)[0] == 0
    checkpoint = tmp_path / "fit/checkpoints/last.ckpt"
    args = [checkpoint, "--model", tmp_path / "source", "--out", tmp_path / "exported"]
    assert say("export", *args)[0] == 0
    # What fit wrote at its end, and what export makes of the last checkpoint, are the same folder.
    ours, plain = tmp_path / "fit/model", tmp_path / "exported"
    assert {path.name: path.read_bytes() for path in ours.glob("*.*")} == {
        path.name: path.read_bytes() for path in plain.glob("*.*")
    }
    assert folder_settings(read_config(plain)).num_frames == 2
    assert type(AutoProcessor.from_pretrained(plain)).__name__ == "InternVLProcessor"
    model = AutoModelForImageTextToText.from_pretrained(plain)
    trained = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(model.lm_head.weight, trained["model.lm_head.weight"])
    assert not torch.equal(model.lm_head.weight, load_model(tmp_path / "source").lm_head.weight)


def test_what_users_get_wrong(wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("offline"))
    )
    source, out = tmp_path / "source", tmp_path / "out"
    write_original(source, Shape())
    assert "is no model folder" in wrong("convert", tmp_path / "gone", "--out", out)
    assert "from the Hugging Face hub failed" in wrong("convert", "NoSuchOwner/NoSuchModel", "--out", out)
    assert "revision='main' is for names on the Hugging Face hub" in wrong(
        "convert", source, "--out", out, "--revision", "main"
    )
    assert "dtype='int8' is not one of" in wrong("convert", source, "--out", out, "--dtype", "int8")
    assert "hico='maybe' is not one of ['auto', 'on', 'off']" in wrong(
        "convert", source, "--out", out, "--hico", "maybe"
    )
    assert "layout='flat' is not one of" in wrong("export", source, "--out", out, "--layout", "flat")
    assert "a.ckpt does not exist; give a .ckpt that fit wrote" in wrong(
        "export", tmp_path / "a.ckpt", "--model", source, "--out", out
    )
    assert "--out must be given" in wrong("convert", source)
    assert "set --model to the model folder that" in wrong("export", tmp_path / "a.ckpt", "--out", out)
    assert "leave out --model" in wrong("export", source, "--model", source, "--out", out)
    assert f"source='{tmp_path / 'gone'}' is no model folder" in wrong("convert", tmp_path / "gone", "--out", out)
    assert "lies in the source" in wrong("convert", source, "--out", source / "in")
    (tmp_path / "note").write_text("")
    assert "is a file; set --out to a folder" in wrong("convert", source, "--out", tmp_path / "note")
    assert "File exists" in (said := wrong("convert", source, "--out", tmp_path / "note/in")) or "Not a" in said
    assert "set --out to a folder that can be written to" in said
    (tmp_path / "run/checkpoints/last.ckpt").mkdir(parents=True)
    assert "folder with checkpoints in it; give one of them: checkpoints/last.ckpt" in wrong(
        "export", tmp_path / "run", "--model", source, "--out", out
    )
    weights = source / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    assert f"the weights in {weights} cannot be read" in wrong("convert", source, "--out", out)
    weights.write_bytes(whole)
    (source / "config.json").write_text('{"model_type": "llava"}')
    assert "has model_type='llava'" in wrong("convert", source, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("stop", "code", "words"),
    [
        pytest.param(False, 2, "cannot write (File too large); free some space or set --out elsewhere", id="disk full"),
        pytest.param(True, 130, "interrupted; what was finished is kept", id="Ctrl-C"),
    ],
)
def test_nothing_half_written_is_left(tmp_path: Path, stop: bool, code: int, words: str) -> None:
    """While the weights are written, and the folder that is to be replaced stays as it was."""
    write_original(tmp_path / "source", Shape(hidden=512, heads=8, layers=12, intermediate=2048, vocab=6000))
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    args = ["convert", tmp_path / "source", "--out", out, "--dtype", "float32", "--overwrite", "true"]
    tensor = ("vlm_crash.models.saving.cast", 20, signal.SIGINT)
    process = begin(*args, file_limit_kib=60000, signal_after=tensor if stop else None)
    said = process.communicate(PATIENCE_S)[0]
    assert process.returncode == code and words in said and "Traceback" not in said, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]
    assert (out / "config.json").read_text() == "{}"
