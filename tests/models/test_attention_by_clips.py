"""Several clips in a row: loss and gradients of the padded batch, and no token sees another clip."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from tests.models.original_folder import Shape, write_original
from vlm_crash.data.collate import Batch, Collator, Item, PackCollator
from vlm_crash.models.activation_checkpointing import checkpoint_towers
from vlm_crash.models.attention_by_clips import attend_by_clips, restarted_positions
from vlm_crash.models.attention_of_towers import set_tower_attention
from vlm_crash.models.decoding import Decoder, greedy_answers
from vlm_crash.models.internvl import label_loss, last_hidden, load_model
from vlm_crash.models.term_tree import TermTree
from vlm_crash.models.vision import embed_prompt
from vlm_crash.schema.records import VideoSample

TOKENS = 4  # of a frame
HICO = {"local_num_frames": 4, "num_tome_tokens": 4, "merge_heads": 2}


def make(folder: Path, kind: str) -> InternVLForConditionalGeneration:
    """A tiny model: qwen2, llama (InternLM2), or with token merging, whose weights tell tokens apart."""
    write_original(folder, Shape(language="qwen2" if kind == "qwen2" else "internlm2", bias=kind == "qwen2"))
    model = load_model(folder).float()
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
    if kind == "hico":
        model.config.vlm_crash = {**(getattr(model.config, "vlm_crash", None) or {}), "hico": HICO}
    return model.train()


def clips(
    model: InternVLForConditionalGeneration, frames: tuple[int, ...], per_frame: int, seed: int = 0
) -> list[Item]:
    """Clips of so many frames; the last tokens of each are labels."""
    generator = torch.Generator().manual_seed(seed)
    items = []
    for number, count in enumerate(frames):
        ids = torch.randint(6, 300, (7 + count * per_frame + 3 * number,), generator=generator)
        ids[ids == model.config.image_token_id] = 301
        ids[2 : 2 + count * per_frame] = model.config.image_token_id
        labels = ids.clone()
        labels[: 4 + count * per_frame] = -100
        sample = VideoSample(str(number), f"{number}.mp4", Path(f"{number}.mp4"), "crash", None, None)
        items.append(Item(sample, ids, labels, torch.randn(count, 3, 56, 56, generator=generator)))
    return items


def loss_of(model: InternVLForConditionalGeneration, batch: Batch) -> Tensor:
    embeds = embed_prompt(model, batch.input_ids_BS, batch.pixel_values_N3HW, clip_lengths=batch.clip_lengths)
    assert batch.labels_BS is not None
    loss, count = label_loss(model, embeds, batch.attention_mask_BS, batch.labels_BS, batch.clip_lengths)
    return loss / count


def gradients(model: InternVLForConditionalGeneration, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def heads_of_keys(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Of the language model's attention, as torch is called from now on."""
    found: set[int] = set()
    plain = torch.nn.functional.scaled_dot_product_attention

    def call(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        if options.get("is_causal"):
            found.add(key.shape[1])
        return plain(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", call)
    return found


@pytest.mark.parametrize("kind", ["qwen2", "llama", "hico", "checkpointed", "repeated"])
def test_a_pack_is_the_padded_batch(tmp_path, monkeypatch, kind):
    model = make(tmp_path, kind)
    per_frame = 1 if kind == "hico" else TOKENS
    if kind == "checkpointed":
        checkpoint_towers(model, True)
    if kind == "repeated":
        set_tower_attention(model, "efficient", None)
    items = clips(model, (3, 6, 1, 4), per_frame)
    want, wanted = gradients(model, Collator(0)(items))
    heads = heads_of_keys(monkeypatch)
    got, found = gradients(model, PackCollator(10**6)(items))
    assert heads == ({4} if kind == "repeated" else {2}), "keys are repeated, or shared"
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert (found[name] - grad).abs().max() <= 1e-5 * max(1.0, float(grad.abs().max())), name
    # Afterwards a padded batch is what it was.
    again, _ = gradients(model, Collator(0)(items))
    torch.testing.assert_close(again, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["llama", "hico"])
def test_no_token_sees_another_clip(tmp_path, kind):
    """Another first clip of as many tokens: the second's hidden states are bit-equal, and the first's are not."""
    model = make(tmp_path, kind).eval()
    per_frame = 1 if kind == "hico" else TOKENS
    _, second = clips(model, (6, 5), per_frame)
    found = []
    for seed in (1, 2):
        first, _ = clips(model, (6, 5), per_frame, seed)
        batch = PackCollator(10**6)([first, second])
        with torch.no_grad():
            embeds = embed_prompt(model, batch.input_ids_BS, batch.pixel_values_N3HW, clip_lengths=batch.clip_lengths)
            hidden = last_hidden(model, embeds, batch.attention_mask_BS, batch.clip_lengths)
        found.append(model.lm_head(hidden)[0].split(list(batch.clip_lengths or ())))
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.allclose(found[0][0], found[1][0])


def test_a_clip_in_a_pack_is_that_clip_alone(tmp_path):
    model = make(tmp_path, "qwen2").eval()
    items = clips(model, (2, 5, 3), TOKENS)
    with torch.no_grad():
        packed = loss_of(model, PackCollator(10**6)(items))
        alone = [(loss_of(model, PackCollator(10**6)([item])), (item.labels_S != -100).sum()) for item in items]
    mean = sum(loss * count for loss, count in alone) / sum(count for _, count in alone)
    torch.testing.assert_close(packed, mean, rtol=1e-6, atol=0)


def test_transformers_own_mask_for_packs(tmp_path):
    """By restarted positions and without a mask of ours, transformers makes one over the row: the same numbers."""
    model = make(tmp_path, "llama").eval()
    language = model.model.language_model
    embeds = torch.randn(1, 30, 32)
    positions = restarted_positions([11, 12, 7], embeds.device)
    with torch.no_grad():
        # With a cache transformers does not look for packs.
        want = language(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state
        got = last_hidden(model, embeds, torch.ones(1, 30), [11, 12, 7])
        plain = language(inputs_embeds=embeds).last_hidden_state
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(plain[0, 11:], want[0, 11:], atol=1e-3)


def test_answers_stay_what_they_were(tmp_path):
    """Padding on the left, and a cache: after packs were trained on as before."""
    model = make(tmp_path, "llama").eval()
    embeds, mask = torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    found: list[Any] = []
    events = TermTree.of({"one": [6, 7], "other": [8, 9]})
    for _ in range(2):
        with torch.no_grad():
            found.append(greedy_answers(Decoder(model, embeds, mask), events, 6, -1))
        attend_by_clips(model)
    assert found[0].token_ids == found[1].token_ids
    for one, other in zip(found[0].event_probabilities, found[1].event_probabilities, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_a_sliding_window_is_refused(tmp_path):
    model = make(tmp_path, "qwen2")
    config = copy.deepcopy(model.model.language_model.config)
    config.layer_types = ["full_attention", "sliding_attention"]
    model.model.language_model.config = config
    with pytest.raises(ValueError, match=r"sliding_attention.*--data.batching to padded or grouped"):
        attend_by_clips(model)
