"""Weights on disk -> a model's tensors, file by file and row by row.

Enters: a folder in transformers' or in the original OpenGVLab layout. Leaves: a model. Invariants: every tensor on
disk is used exactly once and every tensor of the model is filled, or one ValueError names them all; memory above the
model stays below a file and a few MiB; a process that holds slices (DTensor) reads its rows only.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from transformers import InternVLConfig, InternVLForConditionalGeneration

from vlm_crash.models.dynamic_rope import scale_rope_by_row
from vlm_crash.models.original_config import architecture_of
from vlm_crash.models.original_names import Packed, original_layout, own_layout
from vlm_crash.models.shards import Shard, Stored, open_shard, stored_tensors, weight_files

log = logging.getLogger(__name__)

# Bytes that are copied at once: what reading needs beside the file itself.
CHUNK_BYTES = 4 * 2**20
# Where transformers' names on disk differ from its modules' (conversion_mapping.py, "llava"); the first that fits.
NAMES_ON_DISK = (
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)


def meta_model(config: InternVLConfig, dtype: torch.dtype = torch.float32) -> InternVLForConditionalGeneration:
    """A model without memory: shapes and dtype only. `materialise` gives it memory, `load_weights` fills it."""
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    return model.to(dtype=dtype)  # type: ignore[call-arg]


def materialise(model: InternVLForConditionalGeneration, device: str | torch.device = "cpu") -> None:
    """Give every parameter of a meta model memory (not yet a value) and every buffer its value; ties stay ties."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(
                        torch.empty_like(parameter, device=device), requires_grad=parameter.requires_grad
                    )
                module._parameters[name] = made[id(parameter)]
    # The only buffers are those of the rotary embedding, which are computed from the config.
    language: Any = model.model.language_model
    language.rotary_emb = type(language.rotary_emb)(language.config).to(device)
    assert not any(buffer.is_meta for buffer in model.buffers())
    scale_rope_by_row(model)


def fill(
    model: InternVLForConditionalGeneration, folder: Path, original: bool, device: str | torch.device = "cpu"
) -> None:
    """Give a meta model memory on a device, and a folder's weights.

    For several processes: build `meta_model` in each, let fully_shard make its parameters DTensors, then call this:
    each process reads its own rows. Whole (replicated) models on GPUs: with `device`, weights go there from the file, a
    few MiB at a time, and the file's pages are shared by all processes.

    Args:
        model: on meta.
        folder: local folder.
        original: whether it is in the original OpenGVLab layout.
        device: of the parameters.

    Raises:
        ValueError: as load_weights says.
    """
    materialise(model, device)
    load_weights(model, folder, original)


def load_weights(model: InternVLForConditionalGeneration, folder: Path, original: bool) -> None:
    """Fill the model's tensors from the folder's files.

    Args:
        model: with memory; its parameters may be DTensors, of which only this process' rows are read.
        folder: local folder.
        original: whether it is in the original OpenGVLab layout.

    Raises:
        ValueError: files that cannot be read; missing, extra or misshapen tensors, all of them; numbers too large for
            the model's dtype.
    """
    targets: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    files, layout, names = find_weights(model, folder, original)
    filled: set[int] = set()
    with torch.no_grad():
        for file in files:
            with open_shard(file) as shard:
                for name in shard.names():
                    packed = layout[names[name]]
                    for index, part in enumerate(packed.parts):
                        target = targets[part]
                        _fill(target, shard, name, packed, index, compare=id(target) in filled)
                        filled.add(id(target))


def find_weights(
    model: InternVLForConditionalGeneration, folder: Path, original: bool
) -> tuple[list[Path], dict[str, Packed], dict[str, str]]:
    """Where each tensor of a model lies, from the headers of the files alone; the model may be on meta.

    Returns:
        the files; name in the layout -> where its rows go; name on disk -> name in the layout.

    Raises:
        ValueError: as load_weights says, but for the numbers.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}
    layout = layout_of(model.config, shapes, original)
    files = weight_files(folder)
    return files, layout, match(stored_tensors(files), layout, model.config, folder, original)


def layout_of(config: InternVLConfig, shapes: Mapping[str, tuple[int, ...]], original: bool) -> dict[str, Packed]:
    """Name on disk -> where in the model its rows go."""
    text: Any = config.text_config
    return (
        original_layout(shapes, architecture_of(config), text.num_key_value_heads) if original else own_layout(shapes)
    )


def match(
    stored: Mapping[str, Stored],
    layout: Mapping[str, Packed],
    config: InternVLConfig,
    folder: Path,
    original: bool,
) -> dict[str, str]:
    """Name on disk -> name in the layout, where every tensor has its place.

    Raises:
        ValueError: names every tensor that is missing, extra, of another shape or of another kind of numbers.
    """
    names = {name: name if original else _module_name(name) for name in stored}
    missing = set(layout) - set(names.values())
    if config.tie_word_embeddings:
        ends = [
            name
            for name, packed in layout.items()
            if packed.parts[0].endswith(("lm_head.weight", "embed_tokens.weight"))
        ]
        missing -= set(ends) if set(ends) - missing else set()
    extra = [name for name, known in names.items() if known not in layout]
    misshapen, strange = [], []
    for name, tensor in stored.items():
        if names[name] in layout and tensor.shape != layout[names[name]].shape:
            misshapen.append(f"{name} {list(tensor.shape)} (config.json says {list(layout[names[name]].shape)})")
        if tensor.dtype is None and names[name] in layout:
            strange.append(name)
    kinds = {
        "missing": sorted(missing),
        "extra": sorted(extra),
        "of another shape": sorted(misshapen),
        "neither float16, bfloat16 nor float32": sorted(strange),
    }
    problems = [f"{kind}: {', '.join(found)}" for kind, found in kinds.items() if found]
    if problems:
        lora = "; merge the LoRA weights into the model first" if any("lora_" in name for name in extra) else ""
        raise ValueError(f"the weights in {folder} do not fit its config.json: {'; '.join(problems)}{lora}")
    return names


def _module_name(name: str) -> str:
    """A tensor's name in the model, from its name in a folder of transformers.

    >>> _module_name("language_model.model.norm.weight")
    'model.language_model.norm.weight'
    """
    for disk, module in NAMES_ON_DISK:
        if name.startswith(disk):
            return module + name.removeprefix(disk)
    return name


def name_on_disk(name: str) -> str:
    """A tensor's name in a folder of transformers, from its name in the model.

    >>> name_on_disk("model.language_model.norm.weight")
    'language_model.model.norm.weight'
    """
    for disk, module in NAMES_ON_DISK:
        if name.startswith(module):
            return disk + name.removeprefix(module)
    return name


def _fill(target: Tensor, shard: Shard, name: str, packed: Packed, index: int, compare: bool) -> None:
    """Copy this process' rows of a part, a few at a time; `compare` where a tied tensor was filled already."""
    local, offsets = target, (0,) * target.ndim
    if isinstance(target, DTensor):
        _, offsets = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
        local = target.to_local()
    if not local.numel():
        return
    for start, stop in _chunks(local, packed.num_rows[index] if packed.groups > 1 else 1):
        first = offsets[0]
        value = packed.read(index, first + start, first + stop, lambda low, high: shard.rows(name, low, high))
        for dim in range(1, local.ndim):
            value = value.narrow(dim, offsets[dim], local.shape[dim])
        if compare:
            if not torch.equal(local[start:stop], value.to(local)):
                raise ValueError(
                    f"config.json ties the embeddings, but {name} in {shard.stored(name).file} differs from them"
                )
            continue
        if local.dtype == torch.float16 and value.dtype != torch.float16 and bool((value.abs() > 65504).any()):
            raise ValueError(f"{name} in {shard.stored(name).file} has numbers above 65504, the largest of float16")
        local[start:stop].copy_(value)


def _chunks(tensor: Tensor, multiple: int) -> Iterable[tuple[int, int]]:
    bytes_per_row = tensor.nbytes // tensor.shape[0]
    step = max(1, CHUNK_BYTES // max(1, bytes_per_row) // multiple) * multiple
    return ((start, min(start + step, tensor.shape[0])) for start in range(0, tensor.shape[0], step))
