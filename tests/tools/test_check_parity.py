"""tools/check_parity.py: every golden is met here; one that is shifted, lost or of no kind is told, by name."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from check_parity import main
from safetensors.torch import load_file, save_file

from vlm_crash.models.attention import set_attention

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _process_as_it_was():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are tiny, and other tests may run beside this one
    yield
    torch.set_num_threads(threads)
    set_attention("auto")
    logging.disable(logging.NOTSET)


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    code = main([str(folder)])
    return code, capsys.readouterr().err


@pytest.fixture
def small(parity: Path, tmp_path: Path) -> Path:
    """A folder of the same form with one checkpoint, two of the goldens and one case of merging alone."""
    folder = tmp_path / "parity"
    shutil.copytree(parity / "checkpoints/qwen2_hico", folder / "checkpoints/qwen2_hico")
    for part in ("goldens", "inputs", "tome"):
        (folder / part).mkdir()
    for file in ("goldens/qwen2_hico.json", "goldens/qwen2_hico.safetensors", "inputs/frames_112.safetensors"):
        shutil.copy(parity / file, folder / file)
    _change_json(folder / "goldens/qwen2_hico.json", lambda facts: facts["cases"].pop("tome4"))
    _change(folder / "goldens/qwen2_hico.safetensors", lambda tensors: _keep(tensors, lambda name: "tome4" not in name))
    shutil.copy(parity / "tome/tome.json", folder / "tome")
    shutil.copy(parity / "tome/tome.safetensors", folder / "tome")
    keep = "odd_counts"
    _change_json(folder / "tome/tome.json", lambda facts: _keep(facts["cases"], lambda name: name == keep))
    _change(folder / "tome/tome.safetensors", lambda tensors: _keep(tensors, lambda name: name.startswith(keep)))
    for name in ("prompts.json", "frame_indices.json"):
        shutil.copy(parity / name, folder)
    _change_json(
        folder / "prompts.json", lambda facts: facts.update(train=facts["train"][:1], infer=facts["infer"][:1])
    )
    return folder


def _keep(values: dict, wanted: Callable[[str], bool]) -> None:
    for name in [name for name in values if not wanted(name)]:
        del values[name]


def _change(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def _change_json(file: Path, change: Callable[[dict], object]) -> None:
    facts = json.loads(file.read_text())
    change(facts)
    file.write_text(json.dumps(facts))


def _shift(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({name: tensors[name] + 1e-3})


def test_every_golden_here_is_met(parity: Path) -> None:
    command = [sys.executable, ROOT / "tools/check_parity.py", parity]
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=here, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    for row in ("internlm2, eager", "internlm2_dynrope, sdpa", "qwen2_hico tome4, sdpa", "qwen2_qknorm, eager", "tome"):
        assert any(line.startswith(row) for line in lines)
    for kind in ("vit", "merged", "visual", "logits", "logsumexp", "loss", "padding", "sdpa-eager", "ids", "tome bf16"):
        assert kind in lines[0]
    assert lines[-1].endswith("every golden is met")


GOLDENS, TOME = "goldens/qwen2_hico.safetensors", "tome/tome.safetensors"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *((GOLDENS, f"{name}.tome16") for name in ("visual", "merged", "train.loss", "batch2.loss", "train.logsumexp")),
        *((GOLDENS, f"{name}.tome16") for name in ("train.logits_tail64", "gen.step0_logits", "batch2.logits_tail12")),
        (GOLDENS, "vit_last_hidden_frames01"),
        ("inputs/frames_112.safetensors", "pixel_values"),
        *((TOME, f"odd_counts.out_{dtype}") for dtype in ("fp32", "fp16")),
    ],
)
def test_a_golden_shifted_by_a_thousandth(
    small: Path, file: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _change(small / file, _shift(name))
    code, errors = check(small, capsys)
    assert code == 1
    shown = "visual" if name == "pixel_values" else name.removesuffix(".tome16").removeprefix("odd_counts.")
    assert any(shown in line and "differs by" in line for line in errors.splitlines())


CHANGES = {
    "a file of goldens": (lambda folder: (folder / GOLDENS).unlink(), "goldens/qwen2_hico.safetensors is missing"),
    "both files": (
        lambda folder: [file.unlink() for file in folder.glob("goldens/*")],
        "checkpoints/qwen2_hico has no goldens",
    ),
    "a tensor": (
        lambda folder: _change(folder / GOLDENS, lambda tensors: tensors.pop("visual.tome16")),
        "golden visual is missing",
    ),
    "a tensor of merging": (
        lambda folder: _change(folder / TOME, lambda tensors: tensors.pop("odd_counts.out_bf16")),
        "golden odd_counts.out_bf16 is missing",
    ),
    "a file of merging": (lambda folder: (folder / TOME).unlink(), "tome/tome.safetensors is missing"),
    "the frames": (lambda folder: (folder / "inputs/frames_112.safetensors").unlink(), "frames_112.safetensors"),
    "a variant of the README": (
        lambda folder: (folder / "README.md").write_text("| variant | case |\n|---|---|\n| qwen3 | base |\n"),
        "goldens/qwen3.json is missing",
    ),
    "a tensor of the README": (
        lambda folder: (folder / "README.md").write_text(
            f"### Tensors in {GOLDENS} (others: too)\n| name | dtype |\n|---|---|\n| `train.logits.tome16` | F32 |\n"
        ),
        "golden train.logits.tome16 is missing",
    ),
    "a part of the README": (
        lambda folder: [(folder / "README.md").write_text("`prompts.json` ids"), (folder / "prompts.json").unlink()],
        "prompts.json is missing",
    ),
    "weights": (lambda folder: next(folder.glob("checkpoints/*/model.safetensors")).unlink(), "qwen2_hico"),
    "a broken file": (lambda folder: (folder / GOLDENS).write_bytes(b"no"), "cannot be read"),
    "a tensor of no kind": (
        lambda folder: _change(folder / GOLDENS, lambda tensors: tensors.update({"new.tome16": torch.zeros(1)})),
        "golden new is of no known kind",
    ),
    "an id": (
        lambda folder: _change(folder / GOLDENS, lambda tensors: tensors["gen.new_ids.tome16"][0, -1].add_(1)),
        "gen.new_ids differs",
    ),
    "an id of a prompt": (
        lambda folder: _change_json(folder / "prompts.json", lambda facts: facts["infer"][0]["ids_rle"][0].reverse()),
        "ids of infer[0]",
    ),
    "a label": (
        lambda folder: _change_json(folder / "prompts.json", lambda facts: facts["train"][0]["label_ids"][0].reverse()),
        "labels of train[0] differs",
    ),
    "an index of a frame": (
        lambda folder: _change_json(
            folder / "frame_indices.json", lambda facts: facts["cases"][0].update(card_indices=list(range(8)))
        ),
        "card_indices of 8 from 240 frames differs",
    ),
    "a loss in the json": (
        lambda folder: _change_json(
            folder / "goldens/qwen2_hico.json", lambda facts: facts["cases"]["tome16"].update(loss=7.96)
        ),
        "train.loss of the json differs",
    ),
    "a name in the json": (
        lambda folder: _change_json(folder / "goldens/qwen2_hico.json", lambda facts: facts.pop("pixel_values")),
        "its json has no 'pixel_values'",
    ),
}


@pytest.mark.parametrize("lost", list(CHANGES))
def test_what_is_missing_or_wrong_is_named(small: Path, lost: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = CHANGES[lost]
    change(small)
    code, errors = check(small, capsys)
    assert code == 1
    assert message in errors


@pytest.mark.parametrize("make", [lambda folder: folder.mkdir(), lambda folder: None])
def test_an_empty_folder_and_none(
    tmp_path: Path, make: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "empty")
    code, errors = check(tmp_path / "empty", capsys)
    assert code == 1 and "holds no goldens" in errors
