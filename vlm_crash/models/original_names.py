"""Where each tensor of a model lies on disk: one table for both directions.

Enters: the shapes of a model's tensors. Leaves: name on disk -> Packed. Invariant: every tensor of the model lies in
exactly one place (a tied embedding in one or two), and a Packed gives any rows of its parts, so that a process that
holds a slice reads no more than it needs.
"""

# Suffixes: R rows (first dimension).

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from vlm_crash.models.original_config import LANGUAGE

_VIT, _OURS_VIT = "vision_model.encoder.layers.{i}", "model.vision_tower.encoder.layer.{i}"
_LLM, _OURS_LLM = "language_model.model", "model.language_model"
_LAYER, _OURS_LAYER = f"{_LLM}.layers.{{i}}", f"{_OURS_LLM}.layers.{{i}}"
_QKV = ("q_proj", "k_proj", "v_proj")

# (name in the original, names in transformers); {i} is a layer, {p} is weight or bias. Several names: packed by rows.
VISION_NAMES = (
    ("vision_model.embeddings.class_embedding", "model.vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    (
        "vision_model.embeddings.patch_embedding.{p}",
        "model.vision_tower.embeddings.patch_embeddings.projection.{p}",
    ),
    (f"{_VIT}.attn.qkv.{{p}}", tuple(f"{_OURS_VIT}.attention.{name}.{{p}}" for name in _QKV)),
    (f"{_VIT}.attn.q_norm.{{p}}", f"{_OURS_VIT}.attention.q_norm.{{p}}"),
    (f"{_VIT}.attn.k_norm.{{p}}", f"{_OURS_VIT}.attention.k_norm.{{p}}"),
    (f"{_VIT}.attn.proj.{{p}}", f"{_OURS_VIT}.attention.projection_layer.{{p}}"),
    (f"{_VIT}.norm1.{{p}}", f"{_OURS_VIT}.layernorm_before.{{p}}"),
    (f"{_VIT}.norm2.{{p}}", f"{_OURS_VIT}.layernorm_after.{{p}}"),
    (f"{_VIT}.mlp.fc1.{{p}}", f"{_OURS_VIT}.mlp.fc1.{{p}}"),
    (f"{_VIT}.mlp.fc2.{{p}}", f"{_OURS_VIT}.mlp.fc2.{{p}}"),
    (f"{_VIT}.ls1", f"{_OURS_VIT}.lambda_1"),
    (f"{_VIT}.ls2", f"{_OURS_VIT}.lambda_2"),
    ("mlp1.0.{p}", "model.multi_modal_projector.layer_norm.{p}"),
    ("mlp1.1.{p}", "model.multi_modal_projector.linear_1.{p}"),
    ("mlp1.3.{p}", "model.multi_modal_projector.linear_2.{p}"),
)
QWEN2_NAMES = (
    (f"{_LLM}.embed_tokens.weight", f"{_OURS_LLM}.embed_tokens.weight"),
    *((f"{_LAYER}.self_attn.{name}.{{p}}", f"{_OURS_LAYER}.self_attn.{name}.{{p}}") for name in (*_QKV, "o_proj")),
    *(
        (f"{_LAYER}.mlp.{name}.weight", f"{_OURS_LAYER}.mlp.{name}.weight")
        for name in ("gate_proj", "up_proj", "down_proj")
    ),
    (f"{_LAYER}.input_layernorm.weight", f"{_OURS_LAYER}.input_layernorm.weight"),
    (f"{_LAYER}.post_attention_layernorm.weight", f"{_OURS_LAYER}.post_attention_layernorm.weight"),
    (f"{_LLM}.norm.weight", f"{_OURS_LLM}.norm.weight"),
    ("language_model.lm_head.weight", "lm_head.weight"),
)
INTERNLM2_NAMES = (
    (f"{_LLM}.tok_embeddings.weight", f"{_OURS_LLM}.embed_tokens.weight"),
    (f"{_LAYER}.attention.wqkv.{{p}}", tuple(f"{_OURS_LAYER}.self_attn.{name}.{{p}}" for name in _QKV)),
    (f"{_LAYER}.attention.wo.{{p}}", f"{_OURS_LAYER}.self_attn.o_proj.{{p}}"),
    (f"{_LAYER}.feed_forward.w1.weight", f"{_OURS_LAYER}.mlp.gate_proj.weight"),
    (f"{_LAYER}.feed_forward.w3.weight", f"{_OURS_LAYER}.mlp.up_proj.weight"),
    (f"{_LAYER}.feed_forward.w2.weight", f"{_OURS_LAYER}.mlp.down_proj.weight"),
    (f"{_LAYER}.attention_norm.weight", f"{_OURS_LAYER}.input_layernorm.weight"),
    (f"{_LAYER}.ffn_norm.weight", f"{_OURS_LAYER}.post_attention_layernorm.weight"),
    (f"{_LLM}.norm.weight", f"{_OURS_LLM}.norm.weight"),
    ("language_model.output.weight", "lm_head.weight"),
)
NAMES = {"Qwen2ForCausalLM": VISION_NAMES + QWEN2_NAMES, "InternLM2ForCausalLM": VISION_NAMES + INTERNLM2_NAMES}


@dataclass(frozen=True)
class Packed:
    """A tensor on disk: `groups` times the rows of each part, one part after the other.

    InternLM2's wqkv holds, for each key-value head, the rows of its queries, of its key and of its value; the vision
    tower's qkv is the same with one group; most tensors are one part in one group.

    Args:
        parts: names in the model.
        num_rows: rows of each part within a group.
        groups: how often they repeat.
        shape: of the tensor on disk.
    """

    parts: tuple[str, ...]
    num_rows: tuple[int, ...]
    groups: int
    shape: tuple[int, ...]

    def read(self, part: int, start: int, stop: int, rows: Callable[[int, int], Tensor]) -> Tensor:
        """Rows [start, stop) of a part; `rows(a, b)` reads rows of the tensor on disk."""
        offset, size, total = sum(self.num_rows[:part]), self.num_rows[part], sum(self.num_rows)
        if self.groups == 1:
            return rows(offset + start, offset + stop)
        first, last = start // size, -(-stop // size)
        tensor_R = rows(first * total, last * total).unflatten(0, (last - first, total))[:, offset : offset + size]
        return tensor_R.flatten(0, 1)[start - first * size : stop - first * size]

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """The tensor on disk from its parts."""
        if len(parts) == 1:
            return parts[0]
        return torch.cat([part.unflatten(0, (self.groups, -1)) for part in parts], dim=1).flatten(0, 1)


def original_layout(
    shapes: Mapping[str, tuple[int, ...]], architecture: str, num_key_value_heads: int
) -> dict[str, Packed]:
    """Name in the original layout -> where in the model its rows go.

    Args:
        shapes: of every tensor of the model, by transformers' names.
        architecture: of the language model, as in llm_config.architectures.
        num_key_value_heads: of the language model.
    """
    assert architecture in LANGUAGE
    num_layers = 1 + max(int(piece) for name in shapes for piece in name.split(".") if piece.isdigit())
    layout: dict[str, Packed] = {}
    for theirs, ours in NAMES[architecture]:
        patterns = (ours,) if isinstance(ours, str) else ours
        layers = range(num_layers) if "{i}" in theirs else (0,)
        for i, p in product(layers, ("weight", "bias") if "{p}" in theirs else ("",)):
            parts = tuple(pattern.format(i=i, p=p) for pattern in patterns)
            if parts[0] not in shapes:
                continue
            rows = [shapes[part][0] for part in parts]
            groups = num_key_value_heads if ".wqkv." in theirs else 1
            layout[theirs.format(i=i, p=p)] = Packed(
                parts, tuple(size // groups for size in rows), groups, (sum(rows), *shapes[parts[0]][1:])
            )
    assert {part for packed in layout.values() for part in packed.parts} == set(shapes), "a tensor has no name on disk"
    return layout


def own_layout(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Packed]:
    """The layout of transformers' folders: every tensor under its own name."""
    return {name: Packed((name,), (shape[0],), 1, shape) for name, shape in shapes.items()}
