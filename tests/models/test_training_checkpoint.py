"""Checkpoints of fit, in a file and sharded, become the model's tensors whatever wraps their names."""

import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from transformers import AutoModelForImageTextToText

from tests.models.original_folder import Shape, write_original
from vlm_crash.cli.checkpoints import read_checkpoint
from vlm_crash.models import training_checkpoint
from vlm_crash.models.convert import export_trained
from vlm_crash.models.folder import folder_settings, read_config
from vlm_crash.models.internvl import load_model
from vlm_crash.models.training_checkpoint import TrainedWeights


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
    out = export_trained(partial(read_checkpoint, tmp_path / "last.ckpt"), folder, tmp_path / "out", layout)
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
    weights = TrainedWeights(partial(read_checkpoint, tmp_path / "last.ckpt"), tied=False)
    assert {f"model.{name}" for name in weights.shapes} == set(state)


def test_dtype_is_the_one_asked_for(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "last.ckpt", "file", trained(folder), {})
    out = export_trained(partial(read_checkpoint, tmp_path / "last.ckpt"), folder, tmp_path / "out", dtype="bfloat16")
    assert AutoModelForImageTextToText.from_pretrained(out).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["file", "model"])
def test_one_that_was_set_aside_is_found(folder: Path, tmp_path: Path, kind: str) -> None:
    """A run that was killed while it replaced a checkpoint leaves the old one beside its name."""
    state = trained(folder)
    write(tmp_path / ".last.ckpt.old", kind, state, {"num_frames": 7})
    weights = TrainedWeights(partial(read_checkpoint, tmp_path / "last.ckpt"), tied=True)
    assert torch.equal(
        weights.read("model.language_model.norm.weight"), state["model.model.language_model.norm.weight"]
    )
    assert weights.settings == {"num_frames": 7}


@pytest.mark.parametrize("kind", ["file", "model"])
def test_it_is_opened_again_and_again(folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_checkpoint, "MAPPED_BYTES", 2000)
    state = trained(folder)
    write(tmp_path / "last.ckpt", kind, state, {})
    opened = []
    weights = TrainedWeights(lambda: opened.append(1) or read_checkpoint(tmp_path / "last.ckpt"), tied=False)  # type: ignore[func-returns-value]
    assert all(torch.equal(weights.read(name), state[f"model.{name}"]) for name in weights.shapes)
    assert 5 < len(opened) < len(state)


DAMAGES = [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:3000])]


@pytest.mark.parametrize("damage", DAMAGES, ids=["gone", "cut"])
def test_a_damaged_shard_is_named(folder: Path, tmp_path: Path, damage) -> None:
    write(tmp_path / "last.ckpt", "model", trained(folder), {})
    damage(next((tmp_path / "last.ckpt").glob("*.distcp")))
    with pytest.raises(ValueError, match=r"in .*last\.ckpt cannot be read \(.*copy the whole checkpoint again"):
        export_trained(partial(read_checkpoint, tmp_path / "last.ckpt"), folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "model"]


MEASURE = """
import sys
from functools import partial
from pathlib import Path
from vlm_crash.cli.checkpoints import read_checkpoint
from vlm_crash.models import training_checkpoint
from vlm_crash.models.convert import export_folder, export_trained
training_checkpoint.MAPPED_BYTES = 4 * 2**20
root = Path(sys.argv[1])
def kib(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
def export(size, kind):
    model, out = root / size, root / "out"
    if kind == "folder":
        return export_folder(model, out, overwrite=True)
    return export_trained(partial(read_checkpoint, root / f"{size}-{kind}.ckpt"), model, out, overwrite=True)
for kind in ("file", "model", "folder"):
    export("small", kind)  # whatever is imported and kept is there now
    before = kib("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
    export("big", kind)
    print((kib("VmHWM") - before) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
def test_memory_is_that_of_a_few_tensors(tmp_path: Path) -> None:
    """Of the largest tensor: it, what it is read from and what is written of it; of a folder: one of its files."""
    shape = Shape(hidden=512, heads=8, layers=6, intermediate=1024, vocab=6000, dtype=torch.float32)
    write_original(tmp_path / "small", Shape())
    tensors = write_original(tmp_path / "big", shape, num_files=6)
    for size in ("small", "big"):
        for kind in ("file", "model"):
            write(tmp_path / f"{size}-{kind}.ckpt", kind, trained(tmp_path / size), {})
    largest = max(tensor.nbytes for tensor in tensors.values())
    most = 3 * largest + 12 * 2**20  # 4 of them mapped, the rest the allocator's
    assert sum(tensor.nbytes for tensor in tensors.values()) > 1.4 * most
    assert max(path.stat().st_size for path in (tmp_path / "big").glob("*-of-*")) < 2 * largest
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    grown = [int(line) for line in result.stdout.splitlines()]
    assert len(grown) == 3 and max(grown) <= most, (grown, largest, most)


class _Payload:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("payload-was-here"),)


@pytest.mark.parametrize("place", ["file", "meta.pt", ".metadata"])
def test_no_code_of_a_checkpoint_runs(
    folder: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    if place == "file":
        torch.save({"state_dict": {}, "epoch": _Payload()}, path)
    else:
        write(path, "model", trained(folder), {})
        (path / place).write_bytes(pickle.dumps(_Payload()))
        if place == "meta.pt":
            torch.save({"epoch": _Payload()}, path / place)
    with pytest.raises(ValueError, match=r"last\.ckpt is no checkpoint that can be read"):
        export_trained(partial(read_checkpoint, path), folder, tmp_path / "out")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["last.ckpt", "model"]


def test_what_is_no_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    state = trained(folder)
    write(tmp_path / "other.ckpt", "file", {**state, "model.more": torch.ones(1)}, {})
    write(tmp_path / "wide.ckpt", "file", {name: tensor.double() for name, tensor in state.items()}, {})
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "linear.ckpt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "bare.ckpt")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("gone.ckpt", "gone.ckpt does not exist; give a .ckpt that fit wrote"),
        ("linear.ckpt", "holds no weights of an InternVL model"),
        ("bare.ckpt", "has no state_dict"),
        ("empty", "has no meta.pt: it was not written to its end"),
        ("other.ckpt", r"of another model than .*1 tensors unknown \(first: more\); set --model to"),
        ("wide.ckpt", "neither float16, bfloat16 nor float32"),
    ):
        with pytest.raises(ValueError, match=message):
            export_trained(partial(read_checkpoint, tmp_path / name), folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
