"""The tiny model's folder: its shape, its tokenizer, and patches that know where they are."""

from pathlib import Path

import torch

from vlm_crash.models.folder import folder_settings, read_config, tokens_per_frame
from vlm_crash.models.internvl import load_model
from vlm_crash.models.tokenizers import load_tokenizer


def test_shape_and_settings(tiny_model: Path) -> None:
    config = read_config(tiny_model)
    assert tokens_per_frame(config) == 16
    assert folder_settings(config).num_frames == 8
    assert folder_settings(config).prompt == "short"
    assert sum(parameter.numel() for parameter in load_model(tiny_model).parameters()) * 2 < 7_600_000


def test_every_patch_has_its_own_place(tiny_model: Path) -> None:
    places = load_model(tiny_model).model.vision_tower.embeddings.position_embeddings[0, 1:].detach()
    distance = torch.cdist(places, places) + torch.eye(len(places)) * 1e9
    assert distance.min() > 0.5
    # Neighbours are nearer than the far corner.
    assert distance[0, 1] < distance[0, -1] and distance[0, 8] < distance[0, -1]


def test_a_line_start_is_one_token(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokens = [tokenizer.decode([i]) for i in tokenizer("\n- Weather: Clear", add_special_tokens=False)["input_ids"]]
    assert tokens == ["\n- Weather: ", "Clear"]
