"""Building and loading; the loss over labels alone; frames where the image tokens stand."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlm_crash.models.folder import read_config, tokens_per_frame
from vlm_crash.models.internvl import fill_model, label_loss, load_model, weights_later
from vlm_crash.models.vision import embed_prompt


@pytest.fixture
def prompt() -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows with two frames each: ids [2, 40] and pixels [4, 3, 128, 128]."""
    torch.manual_seed(1)
    ids = torch.randint(6, 300, (2, 40))
    ids[:, 4:36] = 5
    return ids, torch.randn(4, 3, 128, 128)


def test_label_loss_is_transformers_own_loss(tiny_model: Path, prompt: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = load_model(tiny_model)
    ids, pixels = prompt
    labels = ids.clone()
    labels[:, :37] = -100
    labels[1, 38] = -100
    with torch.no_grad():
        want = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), labels=labels).loss
        loss, count = label_loss(model, embed_prompt(model, ids, pixels), torch.ones_like(ids), labels)
    assert int(count) == 5
    torch.testing.assert_close(loss / count, want)


def test_random_init_differs_and_keeps_the_shape(tiny_model: Path) -> None:
    given, drawn = load_model(tiny_model).state_dict(), load_model(tiny_model, "random").state_dict()
    assert {name: tensor.shape for name, tensor in given.items()} == {name: t.shape for name, t in drawn.items()}
    name = "model.multi_modal_projector.linear_1.weight"
    assert not torch.equal(given[name], drawn[name])


def test_weights_come_later(tiny_model: Path) -> None:
    with weights_later():
        model = load_model(tiny_model)
    assert all(parameter.is_meta for parameter in model.parameters())
    fill_model(model, tiny_model)
    found = model.state_dict()
    for name, tensor in load_model(tiny_model).state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_tokens_per_frame_of_the_tiny_model(tiny_model: Path) -> None:
    assert tokens_per_frame(read_config(tiny_model)) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "is no model folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llava"}'), "'llava'"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: _drop_tensor(folder / "model.safetensors"), "lambda_1"),
    ],
)
def test_bad_folders_are_refused(tiny_model: Path, tmp_path: Path, change, message: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    change(folder)
    with pytest.raises(ValueError, match=message):
        load_model(folder)
    with pytest.raises(ValueError, match=message), weights_later():  # not only when they come
        load_model(folder)


def _drop_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors[next(name for name in tensors if name.endswith("layer.0.lambda_1"))]
    save_file(tensors, path, metadata={"format": "pt"})


def test_unknown_folder_settings_are_named(tiny_model: Path, tmp_path: Path) -> None:
    from vlm_crash.models.folder import folder_settings

    config = json.loads((tiny_model / "config.json").read_text())
    config["vlm_crash"]["pictures"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="pictures"):
        folder_settings(read_config(tmp_path))


@pytest.mark.parametrize("init", ["weights", "random"])
def test_half_precision_leaves_the_frequencies_of_rope(tiny_model: Path, init: str) -> None:
    model = load_model(tiny_model, init, torch.float16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    rope = model.model.language_model.rotary_emb
    assert rope.inv_freq.dtype == rope.original_inv_freq.dtype == torch.float32
