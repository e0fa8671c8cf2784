"""Checkpoints of fit, in a file and sharded, become the model's tensors whatever wraps their names."""

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from transformers import AutoModelForImageTextToText

from tests.models.original_folder import Shape, write_original
from vlm_crash.models.convert import export
from vlm_crash.models.folder import folder_settings, read_config
from vlm_crash.models.internvl import load_model
from vlm_crash.models.training_checkpoint import read_training_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_original(tmp_path / "model", Shape(tied=True))
    return tmp_path / "model"


def trained(folder: Path) -> dict[str, Tensor]:
    """The model's tensors after some training, under the names of the Lightning module."""
    model = load_model(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5
    return {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}


def write(path: Path, kind: str, state: dict[str, Tensor], settings: dict) -> None:
    if kind == "file":
        torch.save({"state_dict": state, "vlm_crash": settings, "epoch": 3}, path)
        return
    optimizer = {"state": {name: {"exp_avg": torch.zeros_like(tensor)} for name, tensor in state.items()}}
    dcp.save({kind: state, "optimizer_0": optimizer}, storage_writer=dcp.FileSystemWriter(path), no_dist=True)
    torch.save({"vlm_crash": settings, "epoch": 3}, path / "meta.pt")


@pytest.mark.parametrize("layout", ["transformers", "original"])
@pytest.mark.parametrize("kind", ["file", "state_dict", "model"])
def test_a_checkpoint_becomes_a_folder(folder: Path, tmp_path: Path, kind: str, layout: str) -> None:
    state = trained(folder)
    write(tmp_path / "last.ckpt", kind, state, {"num_frames": 7, "prompt": "short"})
    out = export(tmp_path / "last.ckpt", tmp_path / "out", folder, layout)
    found = load_model(out)
    assert all(torch.equal(tensor, state[f"model.{name}"]) for name, tensor in found.state_dict().items())
    settings = folder_settings(read_config(out))
    assert (settings.num_frames, settings.prompt, settings.template) == (7, "short", "internvl2_5")
    if layout == "transformers":
        plain = AutoModelForImageTextToText.from_pretrained(out)
        assert plain.dtype == torch.float32
        assert torch.equal(plain.lm_head.weight, state["model.lm_head.weight"])


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module."])
def test_wrappers_in_names_do_not_matter(folder: Path, tmp_path: Path, wrapper: str) -> None:
    state = trained(folder)
    wrapped = {name.replace("layers.0.", f"layers.0.{wrapper}"): tensor for name, tensor in state.items()}
    assert wrapped.keys() != state.keys()
    write(tmp_path / "last.ckpt", "file", wrapped, {})
    weights, _ = read_training_checkpoint(tmp_path / "last.ckpt", tied=False)
    assert {f"model.{name}" for name in weights.shapes} == set(state)


def test_dtype_is_the_one_asked_for(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "last.ckpt", "file", trained(folder), {})
    out = export(tmp_path / "last.ckpt", tmp_path / "out", folder, dtype="bfloat16")
    assert AutoModelForImageTextToText.from_pretrained(out).dtype == torch.bfloat16


def test_what_is_no_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    state = trained(folder)
    write(tmp_path / "other.ckpt", "file", {**state, "model.more": torch.ones(1)}, {})
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "linear.ckpt")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("gone.ckpt", "there is no checkpoint"),
        ("linear.ckpt", "holds no weights of an InternVL model"),
        ("empty", "is no sharded checkpoint"),
        ("other.ckpt", r"of another model than .*1 tensors unknown \(first: more\)"),
    ):
        with pytest.raises(ValueError, match=message):
            export(tmp_path / name, tmp_path / "out", folder)
    with pytest.raises(ValueError, match="set --model to the model folder"):
        export(tmp_path / "other.ckpt", tmp_path / "out")
    with pytest.raises(ValueError, match="leave out --model"):
        export(folder, tmp_path / "out", folder)
    assert not (tmp_path / "out").exists()
