"""Frames -> visual tokens where the prompt has its image tokens.

Enters: pixels of all clips of a batch, one clip after the other, and token ids. Leaves: embeddings. Invariants: as many
visual tokens as the prompt has image tokens; a clip's tokens depend on that clip alone, and not on how many frames go
through the tower at once.
"""

# Suffixes: B batch, S sequence, N frames of all clips of the batch, P tokens of a frame after pixel shuffle,
# C their channels, V visual tokens of the batch, D hidden of the language model.

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor
from transformers import InternVLForConditionalGeneration

from vlm_crash.models.folder import HicoSettings, folder_settings, image_size, tokens_per_frame
from vlm_crash.models.token_merging import merge_tokens


def embed_prompt(
    model: InternVLForConditionalGeneration,
    input_ids_BS: Tensor,
    pixel_values_N3HW: Tensor,
    chunk: int | None = None,
    clip_lengths: Sequence[int] | None = None,
) -> Tensor:
    """Token embeddings [B, S, D] with the frames' features where the image tokens stand.

    Args:
        chunk: frames that go through the vision tower at once; None: all.
        clip_lengths: tokens of each clip, where they stand one after the other in one row; None: a row is a clip.

    Raises:
        ValueError: the prompts have other image tokens than the tower makes, or frames are not of the model's size.
    """
    is_image_BS = input_ids_BS == model.config.image_token_id
    clips = is_image_BS if clip_lengths is None else is_image_BS[0].split(list(clip_lengths))
    slots = torch.stack([is_image_S.sum() for is_image_S in clips]).tolist()
    per_frame = tokens_per_frame(model.config)
    num_frames = pixel_values_N3HW.shape[0]
    if sum(slots) != num_frames * per_frame or any(slot % per_frame for slot in slots):
        raise ValueError(
            f"the prompts have {slots} image tokens, the encoder makes {num_frames * per_frame}: {per_frame} for each "
            f"of {num_frames} frames; check num_frames, and in config.json image_size and vlm_crash.hico"
        )
    vision_VD = image_features(model, pixel_values_N3HW, [slot // per_frame for slot in slots], chunk)
    text_BSD = model.get_input_embeddings()(input_ids_BS)
    return text_BSD.masked_scatter(is_image_BS.unsqueeze(-1), vision_VD.to(text_BSD.dtype))


def image_features(
    model: InternVLForConditionalGeneration,
    pixel_values_N3HW: Tensor,
    frames_per_clip: Sequence[int],
    chunk: int | None = None,
) -> Tensor:
    """Visual tokens [V, D] of clips, as the language model takes them.

    With token merging (HiCo), groups of frames never span two clips; the last group of a clip has the frames that are
    left over, and as many tokens a frame as any other.

    Args:
        chunk: most frames that go through the vision tower at once; None: all. Tokens before merging are held for
            that many frames, or for one group where that is more.

    Raises:
        ValueError: frames are not of the model's size.
    """
    assert sum(frames_per_clip) == pixel_values_N3HW.shape[0], (frames_per_clip, pixel_values_N3HW.shape)
    if tuple(pixel_values_N3HW.shape[2:]) != image_size(model.config):
        raise ValueError(
            f"frames are {tuple(pixel_values_N3HW.shape[2:])} pixels, config.json asks for {image_size(model.config)}; "
            "resize them to that"
        )
    hico = folder_settings(model.config).hico
    most = hico.local_num_frames if hico else 1
    groups = [min(most, frames - first) for frames in frames_per_clip for first in range(0, frames, most)]
    features = []
    start = 0
    for block in _blocks(groups, chunk or pixel_values_N3HW.shape[0]):
        pixels_N3HW = pixel_values_N3HW[start : start + sum(block)]
        start += sum(block)
        tokens_NPC = torch.cat([_shuffled(model, piece) for piece in pixels_N3HW.split(chunk or len(pixels_N3HW))])
        tokens_VC = _merged(tokens_NPC, block, hico) if hico else tokens_NPC.flatten(0, 1)
        features.append(model.model.multi_modal_projector(tokens_VC))
    return torch.cat(features)


def _blocks(groups: Sequence[int], chunk: int) -> Iterator[list[int]]:
    """Groups that are held at once: as many as make `chunk` frames, at least one.

    >>> list(_blocks([4, 4, 2, 4], 8)), list(_blocks([4, 4, 2], 3))
    ([[4, 4], [2, 4]], [[4], [4], [2]])
    """
    block: list[int] = []
    for group in groups:
        if block and sum(block) + group > chunk:
            yield block
            block = []
        block.append(group)
    if block:
        yield block


def _shuffled(model: InternVLForConditionalGeneration, pixel_values_N3HW: Tensor) -> Tensor:
    """Tokens [N, P, C] of frames after pixel shuffle: transformers' get_image_features up to its projector."""
    config = model.config
    layer = config.vision_feature_layer
    output = model.model.vision_tower(pixel_values_N3HW.to(model.dtype), output_hidden_states=layer != -1)
    hidden = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
    if config.vision_feature_select_strategy == "default":
        hidden = hidden[:, 1:]  # without the class token
    side = int(hidden.shape[1] ** 0.5)
    return model.model.pixel_shuffle(hidden.unflatten(1, (side, side)), config.downsample_ratio).flatten(1, 2)


def _merged(tokens_NPC: Tensor, groups: Sequence[int], hico: HicoSettings) -> Tensor:
    """Tokens [V, C] after merging each group of frames; groups of one size that follow each other go together."""
    runs = [(size, sum(run)) for size, run in groupby(groups)]
    return torch.cat(
        [
            merge_tokens(run_NPC.unflatten(0, (-1, size)).flatten(1, 2), size * hico.tokens_per_frame, hico.merge_heads)
            .flatten(0, 1)
            for (size, _), run_NPC in zip(runs, tokens_NPC.split([frames for _, frames in runs]), strict=True)
        ]
    )  # fmt: skip
