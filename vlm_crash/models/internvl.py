"""transformers' native InternVL: built from a folder, and its loss.

Enters: a model folder (config.json, weights); embedded prompts with labels (vision.py makes them). Leaves: a model;
the loss over supervised positions. Invariant: a model has exactly the weights of its folder.
"""

# Suffixes: B batch, S sequence, L supervised positions, V vocabulary, D hidden.

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, InternVLForConditionalGeneration

from vlm_crash.models.attention_by_clips import attend_by_clips, restarted_positions
from vlm_crash.models.checkpoints import fill, find_weights, meta_model
from vlm_crash.models.cross_entropy import summed_cross_entropy
from vlm_crash.models.dynamic_rope import scale_rope_by_row
from vlm_crash.models.folder import is_original, read_config
from vlm_crash.models.hub import local_folder

log = logging.getLogger(__name__)

TOWERS = ("vision", "projector", "language")
_LATER = ContextVar("_LATER", default=False)


@contextmanager
def weights_later() -> Iterator[None]:
    """Models that are loaded in this context have shapes alone, until `fill_model` gives them memory and weights.

    For processes that share a model: each reads its own part, after the parameters were shared out. Eight processes
    that each read 8 billion parameters first would want 8 x 30 GiB of the machine's memory.
    """
    token = _LATER.set(True)
    try:
        yield
    finally:
        _LATER.reset(token)


def load_model(
    path: str | Path,
    init: str = "weights",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    device: str | torch.device = "cpu",
) -> InternVLForConditionalGeneration:
    """Build InternVL from a folder in transformers' or in the original OpenGVLab layout.

    Args:
        path: folder with config.json (and weights), or a name on the Hugging Face hub.
        init: "weights" loads them; "random" takes the shapes alone and draws new ones.
        dtype: of the parameters.
        revision: branch, tag or commit, where `path` is a name on the hub.
        device: where the parameters lie; they go there from the file, not by way of the host.

    Returns:
        the model; within `weights_later` without weights, which are only looked for (random ones are always made).

    Raises:
        ValueError: not a model folder; unknown init; weights absent, or others than config.json says.
    """
    folder = local_folder(path, revision)
    config = read_config(folder)
    if init == "random":
        config._attn_implementation = "sdpa"
        model = InternVLForConditionalGeneration(config).to(device)  # type: ignore[arg-type]
        cast_parameters(model, dtype)
        scale_rope_by_row(model)
        return model
    if init != "weights":
        raise ValueError(f"init={init!r} is not one of ['weights', 'random']; set --model.init to one of them")
    model = meta_model(config, dtype)
    if _LATER.get():
        find_weights(model, folder, is_original(folder))  # what is missing is told now
    else:
        fill_model(model, folder, device)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Give the parameters a dtype; buffers stay as they are: RoPE's frequencies, rounded to fp16, turn the tokens of a
    long prompt by as much as a radian too far."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def fill_model(model: InternVLForConditionalGeneration, folder: Path, device: str | torch.device = "cpu") -> None:
    """Memory and weights for a model that was made within `weights_later`; of a shared parameter, this process' part.

    Raises:
        ValueError: as load_model says.
    """
    fill(model, folder, is_original(folder), device)


def label_loss(
    model: InternVLForConditionalGeneration,
    inputs_embeds_BSD: Tensor,
    attention_mask_BS: Tensor,
    labels_BS: Tensor,
    clip_lengths: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross entropy over supervised positions, and their number.

    Logits are made only where there is a label: at a vocabulary of 151k the rest would be most of the memory.

    Args:
        clip_lengths: tokens of each clip where the batch is one row of several clips (B = 1, no padding); None: a row
            is a clip.

    Returns:
        (sum of the loss in fp32, number of supervised tokens)

    Raises:
        ValueError: several clips in a row, and the model's attention is not the same in all layers.
    """
    hidden_BSD = last_hidden(model, inputs_embeds_BSD, attention_mask_BS, clip_lengths)
    # A clip's first token is of its prompt and has no label, so that no clip's end is asked for the next one's start.
    target_BS = labels_BS[:, 1:]
    is_label_BS = target_BS != nn.CrossEntropyLoss().ignore_index
    logits_LV = model.lm_head(hidden_BSD[:, :-1][is_label_BS])
    return summed_cross_entropy(logits_LV, target_BS[is_label_BS]), is_label_BS.sum()


def last_hidden(
    model: InternVLForConditionalGeneration,
    inputs_embeds_BSD: Tensor,
    attention_mask_BS: Tensor,
    clip_lengths: Sequence[int] | None,
) -> Tensor:
    """What the language model makes of embedded prompts, [B, S, D]; arguments of label_loss."""
    language = model.model.language_model
    if clip_lengths is not None:
        attend_by_clips(model)
        return language(
            inputs_embeds=inputs_embeds_BSD,
            position_ids=restarted_positions(clip_lengths, inputs_embeds_BSD.device),
            use_cache=False,
            clip_lengths=clip_lengths,
        ).last_hidden_state
    # Padding gets the last token's position, so that a row's length, which rope may depend on, is its own.
    position_ids_BS = (attention_mask_BS.cumsum(dim=1) - 1).clamp(min=0)
    return language(
        inputs_embeds=inputs_embeds_BSD,
        attention_mask=attention_mask_BS,
        position_ids=position_ids_BS,
        use_cache=False,
    ).last_hidden_state


def tower_of(name: str) -> str:
    """The tower a parameter belongs to, by its name (wrappers may have inserted prefixes).

    >>> tower_of("model.vision_tower.encoder.layer.0.lambda_1"), tower_of("lm_head.weight")
    ('vision', 'language')
    """
    if "vision_tower." in name:
        return "vision"
    return "projector" if "multi_modal_projector." in name else "language"
