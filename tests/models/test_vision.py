"""Visual tokens: transformers' own where nothing is merged; with HiCo, per clip and in chunks of any size."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from vlm_crash.models.internvl import load_model
from vlm_crash.models.token_merging import merge_tokens
from vlm_crash.models.vision import embed_prompt, image_features

IMAGE, TOKENS = 5, 16  # id of the image token, and tokens of a frame, of the tiny model


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> InternVLForConditionalGeneration:
    """The tiny model with weights that make frames, and the tokens of a frame, differ."""
    model = load_model(tiny_model)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def hico(plain: InternVLForConditionalGeneration) -> InternVLForConditionalGeneration:
    """The same with token merging: 4 frames of 16 tokens become 16 tokens."""
    model = copy.deepcopy(plain)
    settings = {"local_num_frames": 4, "num_tome_tokens": 16, "merge_heads": 4}
    model.config.vlm_crash = {**(getattr(model.config, "vlm_crash", None) or {}), "hico": settings}
    return model


def frames(num_frames: int) -> Tensor:
    return torch.randn(num_frames, 3, 128, 128, generator=torch.Generator().manual_seed(num_frames))


def prompt(frames_per_clip: list[int], per_frame: int) -> Tensor:
    """Ids of one row a clip, padded on the right."""
    ids_BS = torch.full((len(frames_per_clip), 6 + max(frames_per_clip) * per_frame), 7)
    for row, count in enumerate(frames_per_clip):
        ids_BS[row, 3 : 3 + count * per_frame] = IMAGE
    return ids_BS


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_without_merging_it_is_transformers_own(plain: Any, layer: int) -> None:
    model = copy.deepcopy(plain)
    model.config.vision_feature_layer = layer
    pixels = frames(3)
    want_VD = model.model.get_image_features(pixels, vision_feature_layer=layer).pooler_output.flatten(0, 1)
    torch.testing.assert_close(image_features(model, pixels, [3]), want_VD, rtol=0, atol=0)


def test_layers_differ(plain: Any) -> None:
    model = copy.deepcopy(plain)
    model.config.vision_feature_layer = -2
    assert not torch.allclose(image_features(model, frames(1), [1]), image_features(plain, frames(1), [1]))


def test_merging_stands_between_pixel_shuffle_and_projector(plain: Any, hico: Any) -> None:
    pixels = frames(8)
    shuffled: list[Tensor] = []
    hook = plain.model.multi_modal_projector.register_forward_pre_hook(lambda _, args: shuffled.append(args[0]))
    plain.model.get_image_features(pixels)
    hook.remove()
    groups_GPC = shuffled[0].reshape(2, 4 * TOKENS, -1)
    want_VD = plain.model.multi_modal_projector(merge_tokens(groups_GPC, 16, 4)).flatten(0, 1)
    torch.testing.assert_close(image_features(hico, pixels, [8]), want_VD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames_per_clip", [[8], [6], [7, 1], [4, 9, 2]])
@pytest.mark.parametrize("chunk", [1, 3, 4, 5, 8, 100])
def test_chunks_change_nothing(hico: Any, frames_per_clip: list[int], chunk: int) -> None:
    pixels = frames(sum(frames_per_clip))
    whole_VD = image_features(hico, pixels, frames_per_clip)
    assert whole_VD.shape[0] == 4 * sum(frames_per_clip)
    torch.testing.assert_close(image_features(hico, pixels, frames_per_clip, chunk), whole_VD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_change_nothing_without_merging(plain: Any, chunk: int) -> None:
    pixels = frames(4)
    torch.testing.assert_close(
        image_features(plain, pixels, [1, 3], chunk), image_features(plain, pixels, [1, 3]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("frames_per_clip", [[6, 7], [1, 8], [4, 4], [5, 3, 2]])
def test_a_clip_depends_on_itself_alone(hico: Any, frames_per_clip: list[int]) -> None:
    pixels = frames(sum(frames_per_clip))
    together = image_features(hico, pixels, frames_per_clip).split([4 * count for count in frames_per_clip])
    for clip_VD, clip_pixels, count in zip(together, pixels.split(frames_per_clip), frames_per_clip, strict=True):
        torch.testing.assert_close(image_features(hico, clip_pixels, [count]), clip_VD, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_frames", [1, 6, 7])
def test_the_last_group_is_made_of_the_frames_left_over(hico: Any, num_frames: int) -> None:
    pixels = frames(num_frames)
    full = num_frames // 4 * 4
    whole_VD = image_features(hico, pixels, [num_frames])
    alone_VD = image_features(hico, pixels[full:], [num_frames - full])
    torch.testing.assert_close(whole_VD[4 * full :], alone_VD, rtol=1e-5, atol=1e-5)
    if full:
        torch.testing.assert_close(whole_VD[: 4 * full], image_features(hico, pixels[:full], [full]))


def test_no_more_frames_than_the_chunk_go_through_the_tower(hico: Any) -> None:
    seen: list[int] = []
    hook = hico.model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len((args or tuple(kwargs.values()))[0])), with_kwargs=True
    )
    merged: list[int] = []
    hook2 = hico.model.multi_modal_projector.register_forward_pre_hook(lambda _, args: merged.append(len(args[0])))
    image_features(hico, frames(14), [14], chunk=9)
    image_features(hico, frames(6), [6], chunk=3)
    hook.remove()
    hook2.remove()
    assert seen == [8, 6, 3, 1, 2]
    assert merged == [32, 24, 16, 8]


@pytest.mark.parametrize("frames_per_clip", [[6, 7], [4, 1]])
def test_prompts_of_different_length(hico: Any, frames_per_clip: list[int]) -> None:
    pixels, ids_BS = frames(sum(frames_per_clip)), prompt(frames_per_clip, 4)
    embeds_BSD = embed_prompt(hico, ids_BS, pixels, chunk=5)
    features_VD = image_features(hico, pixels, frames_per_clip)
    torch.testing.assert_close(embeds_BSD[ids_BS == IMAGE], features_VD, rtol=1e-5, atol=1e-5)
    text = hico.get_input_embeddings()(ids_BS[ids_BS != IMAGE])
    assert torch.equal(embeds_BSD[ids_BS != IMAGE], text)


def test_gradient_reaches_the_tower_through_merging(hico: Any) -> None:
    model = copy.deepcopy(hico)
    with torch.enable_grad():
        image_features(model, frames(6), [6], chunk=5).square().mean().backward()
    gradients = [parameter.grad for parameter in model.model.vision_tower.encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_wrong_number_of_image_tokens(plain: Any, hico: Any) -> None:
    with pytest.raises(ValueError, match=r"\[32, 32\] image tokens, the encoder makes 48: 16 for each of 3 frames"):
        embed_prompt(plain, prompt([2, 2], TOKENS), frames(3))
    ids_BS = prompt([4, 4], 4)
    ids_BS[0, 3], ids_BS[1, 0] = 7, IMAGE
    with pytest.raises(ValueError, match=r"\[15, 17\] image tokens, the encoder makes 32: 4 for each of 8 frames"):
        embed_prompt(hico, ids_BS, frames(8))


def test_frames_of_another_size(plain: Any) -> None:
    with pytest.raises(ValueError, match=r"frames are \(64, 64\) pixels, config.json asks for \(128, 128\)"):
        image_features(plain, torch.randn(1, 3, 64, 64), [1])
