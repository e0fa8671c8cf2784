"""A row's rope depends on the row alone, and equals transformers' on a model that has seen nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tests.models.original_folder import Shape, config, write_original
from vlm_crash.models.decoding import Decoder, greedy_answers
from vlm_crash.models.dynamic_rope import RowDynamicRope
from vlm_crash.models.internvl import label_loss, load_model
from vlm_crash.models.term_tree import TermTree


def _rope() -> LlamaRotaryEmbedding:
    scaled = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    return LlamaRotaryEmbedding(
        LlamaConfig(hidden_size=32, num_attention_heads=2, max_position_embeddings=16, rope_parameters=scaled)
    )


def _scaled_from_8(folder: Path) -> Any:
    """A tiny model whose rope is scaled from eight tokens on."""
    write_original(folder, Shape())
    content = config(Shape())
    content["llm_config"]["max_position_embeddings"] = 8
    (folder / "config.json").write_text(json.dumps(content))
    return load_model(folder)


@pytest.mark.parametrize("length", [3, 16, 17, 40])
def test_one_row_equals_a_fresh_transformers_model(length: int) -> None:
    positions = torch.arange(length)[None]
    want = _rope()(torch.zeros(1), positions)
    torch.testing.assert_close(RowDynamicRope(_rope())(torch.zeros(1), positions), want, atol=1e-5, rtol=0)


def test_neither_the_past_nor_a_longer_row_matters() -> None:
    rope, short = RowDynamicRope(_rope()), torch.arange(20)
    want = rope(torch.zeros(1), short[None])[0]
    rope(torch.zeros(1), torch.arange(90)[None])
    assert torch.equal(rope(torch.zeros(1), short[None])[0], want)
    both = torch.stack([short, torch.arange(70, 90)])
    assert torch.equal(rope(torch.zeros(1), both)[0][:1], want)
    assert not torch.allclose(rope(torch.zeros(1), both)[0][1], rope(torch.zeros(1), both[1:] - 70)[0])


def test_a_clip_in_a_pack_has_its_own_length() -> None:
    rope = RowDynamicRope(_rope())
    packed = torch.cat([torch.arange(20), torch.arange(70), torch.arange(5)])[None]
    found = torch.stack(rope(torch.zeros(1), packed))[:, 0].split([20, 70, 5], dim=1)
    for length, part in zip((20, 70, 5), found, strict=True):
        alone = torch.stack(rope(torch.zeros(1), torch.arange(length)[None]))[:, 0]
        torch.testing.assert_close(part, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_has_the_losses_of_its_clips(tmp_path: Path, packed: bool) -> None:
    """At lengths where the scaling acts."""
    model = _scaled_from_8(tmp_path)
    torch.manual_seed(0)
    ids = torch.randint(3, 380, (2, 30))
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
        if packed:
            row = [torch.cat([x[:1], x[1:, :20]], dim=1) for x in (embeds, mask, labels)]
            row[2][0, 30] = -100  # a clip's first token is of its prompt
            whole, _ = label_loss(model, row[0], row[1], row[2], [30, 20])
        else:
            whole, _ = label_loss(model, embeds, mask, labels)
        first, _ = label_loss(model, embeds[:1], mask[:1], labels[:1])
        second, _ = label_loss(model, embeds[1:, :20], mask[1:, :20], labels[1:, :20])
    torch.testing.assert_close(whole, first + second, rtol=1e-5, atol=0)


def test_a_batch_has_the_answers_of_its_clips(tmp_path: Path) -> None:
    """Longer and longer past where the scaling acts; with transformers' own rope a clip's answer is its neighbour's."""
    model = _scaled_from_8(tmp_path)
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)  # so that logits are far from ties
    ids, sizes = torch.randint(6, 380, (3, 40)), (40, 25, 12)
    mask = torch.stack([torch.arange(40) >= 40 - size for size in sizes]).long()
    events = TermTree.of({"one": [6, 7, 9], "other": [8, 9]})

    def answered(rows: list[int]) -> tuple[list[list[int]], list[dict[str, float]]]:
        size = max(sizes[row] for row in rows)
        with torch.no_grad():
            embeds = model.get_input_embeddings()(ids[rows, 40 - size :])
            found = greedy_answers(Decoder(model, embeds, mask[rows, 40 - size :]), events, 10, -1)
        return found.token_ids, found.event_probabilities

    together, probabilities = answered([0, 1, 2])
    for row in range(3):
        alone, of_alone = answered([row])
        assert alone == [together[row]] and len(together[row]) == 10
        assert of_alone[0] == pytest.approx(probabilities[row], abs=1e-5)
    model.model.language_model.rotary_emb = LlamaRotaryEmbedding(model.config.text_config)
    of_longest = answered([0, 1, 2])[1][2]
    model.model.language_model.rotary_emb = LlamaRotaryEmbedding(model.config.text_config)
    assert answered([2])[1][0] != pytest.approx(of_longest, abs=1e-4)
