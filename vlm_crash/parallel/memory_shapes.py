"""What memory depends on, as numbers: the shape of a model, the settings of a run.

Enters: the config.json of a model folder as a dict, or a name. Leaves: a Shape; a Setting is filled by the caller.
Nothing here knows a model class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

#: Tokens of a clip beside its frames' own: the full question has 2,212 characters, the longest of 200 rendered answers
#: 905, and a token of a large vocabulary three to four; a frame's line has "Frame12: <img></img>" and its break.
TEXT_TOKENS, LABEL_TOKENS, LINE_TOKENS = 900, 300, 8


@dataclass(frozen=True)
class Tower:
    """A stack of transformer layers.

    Args:
        width: of a token.
        layers: their number.
        heads: of attention.
        kv_heads: heads of keys and values.
        inner: width inside the MLP.
        gated: whether the MLP is SwiGLU (three matrices, no biases) or two matrices with biases.
        rms: RMSNorm, not LayerNorm.
        qkv_bias: biases of queries, keys and values.
        out_bias: bias of attention's output.
        qk_norm: norms of queries and keys.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    gated: bool
    rms: bool
    qkv_bias: bool
    out_bias: bool
    qk_norm: bool = False

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Linear layers of one layer by their names in transformers: (in, out)."""
        small = self.kv_heads * self.head_size
        qkv = {"q_proj": (self.width, self.width), "k_proj": (self.width, small), "v_proj": (self.width, small)}
        if self.gated:
            mlp = dict.fromkeys(("gate_proj", "up_proj"), (self.width, self.inner))
            return {**qkv, "o_proj": (self.width, self.width), **mlp, "down_proj": (self.inner, self.width)}
        return {
            **qkv,
            "projection_layer": (self.width, self.width),
            "fc1": (self.width, self.inner),
            "fc2": (self.inner, self.width),
        }

    @property
    def layer(self) -> int:
        """Weights of one layer."""
        small = self.kv_heads * self.head_size
        biases = (self.width + 2 * small if self.qkv_bias else 0) + (self.width if self.out_bias else 0)
        norms = 2 * self.width * (1 if self.rms else 2) + (2 * self.width if self.qk_norm else 0)
        if not self.gated:
            biases += self.inner + self.width
            norms += 2 * self.width  # LayerScale
        return sum(wide * narrow for wide, narrow in self.matrices.values()) + biases + norms

    def adapters(self, rank: int, targets: frozenset[str]) -> int:
        """Weights of LoRA's thin matrices in one layer."""
        return sum(rank * sum(sizes) for name, sizes in self.matrices.items() if name in targets)


@dataclass(frozen=True)
class Shape:
    """A model.

    Args:
        vision: its vision tower.
        language: its language model.
        image_size: side of a frame in pixels.
        patch_size: side of a patch.
        fold: patches a side that pixel shuffle makes one token of.
        vocab_size: rows of the embedding.
        tied: embedding and head are one matrix.
        keeps_states: the vision tower hands out all its states (vision_feature_layer is not the last).
        merged_tokens: tokens a frame after merging (HiCo); 0: no merging.
        positions: places of the vision tower's own image size, where frames have another.
    """

    vision: Tower
    language: Tower
    image_size: int
    patch_size: int
    fold: int
    vocab_size: int
    tied: bool
    keeps_states: bool = False
    merged_tokens: int = 0
    positions: int = 0
    vision_norm: int = 0

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def frame_tokens(self) -> int:
        """Tokens of a frame in the prompt."""
        return self.merged_tokens or self.patches // self.fold**2

    @property
    def patch_weights(self) -> int:
        return (3 * self.patch_size**2 + 1) * self.vision.width

    @property
    def vision_root(self) -> int:
        """Weights of the vision tower outside its layers."""
        positions = self.positions or self.patches + 1
        return self.patch_weights + (positions + 1) * self.vision.width + self.vision_norm

    @property
    def language_root(self) -> int:
        """Weights of the language model outside its layers, and outside embedding and head where they are two."""
        return self.language.width * (1 + (self.vocab_size if self.tied else 0))

    @property
    def projector(self) -> int:
        wide, d = self.vision.width * self.fold**2, self.language.width
        return 2 * wide + wide * d + d + d * d + d

    @property
    def parameters(self) -> dict[str, int]:
        """Weights by tower."""
        tables = 0 if self.tied else 2 * self.vocab_size * self.language.width
        return {
            "vision": self.vision_root + self.vision.layers * self.vision.layer,
            "projector": self.projector,
            "language": self.language_root + tables + self.language.layers * self.language.layer,
        }

    def largest_weight(self, tower: str) -> int:
        """Elements of a tower's largest tensor."""
        if tower == "projector":
            return max(self.vision.width * self.fold**2 * self.language.width, self.language.width**2)
        own = self.vision if tower == "vision" else self.language
        largest = max(wide * narrow for wide, narrow in own.matrices.values())
        return max(largest, self.vocab_size * own.width) if tower == "language" else largest


@dataclass(frozen=True)
class Setting:
    """A run, on each of its processes.

    Args:
        num_frames: of a clip.
        word: zero3, zero2, none, hybrid, plain or ddp (see memory_units.Sharding).
        sharers: processes that share one copy of the model.
        compute_width: bytes of a number in computation (2: half precision).
        reduce_width: bytes of a number while gradients are summed.
        cpu_offload: shards and optimizer state lie in the machine's memory.
        kernel: math, or another that makes no score matrices.
        checkpointed: towers that compute their activations again.
        vision_chunk: frames that go through an attention of the vision tower at once; None: all.
        batch_size: clips of a batch.
        freeze: towers that are not trained.
        accumulate: batches of an optimizer step.
        text_tokens: tokens of a clip that no frame brings: system message, question and answer.
        line_tokens: tokens of text that each frame brings.
        label_tokens: of them, those of the answer.
        is_padded: clips of a batch have unequal lengths, so that attention needs a mask.
        is_packed: they stand in one row, without padding.
        lora_rank: 0: no LoRA.
        lora_targets: linear layers that get adapters, by their names in transformers.
        lora_towers: towers that get them; the weights themselves are frozen.
        lora_projector: the projector is trained as a whole beside them.
        base_width: bytes of a number in weights that LoRA leaves as they are.
        is_cpu: AdamW goes weight by weight, as it does on a CPU.
    """

    num_frames: int
    word: str = "zero3"
    sharers: int = 1
    compute_width: int = 4
    reduce_width: int = 4
    cpu_offload: bool = False
    kernel: str = "math"
    checkpointed: frozenset[str] = frozenset()
    vision_chunk: int | None = None
    batch_size: int = 1
    freeze: frozenset[str] = frozenset()
    accumulate: int = 1
    text_tokens: int = TEXT_TOKENS
    line_tokens: int = LINE_TOKENS
    label_tokens: int = LABEL_TOKENS
    is_padded: bool = False
    is_packed: bool = False
    lora_rank: int = 0
    lora_targets: frozenset[str] = frozenset()
    lora_towers: frozenset[str] = frozenset()
    lora_projector: bool = True
    base_width: int = 4
    is_cpu: bool = False

    def trains(self, tower: str) -> bool:
        """Whether the tower's own weights are trained."""
        if self.lora_rank:
            return tower == "projector" and self.lora_projector
        return tower not in self.freeze

    def num_tokens(self, shape: Shape) -> int:
        """Tokens of a clip's prompt and answer."""
        return self.num_frames * (shape.frame_tokens + self.line_tokens) + self.text_tokens


def tower(given: Mapping[str, Any], where: str, **kind: Any) -> Tower:
    """A tower from its part of a config.json."""
    kv_heads = "num_key_value_heads" if given.get("num_key_value_heads") else "num_attention_heads"
    return Tower(
        width=_number(given, "hidden_size", where),
        layers=_number(given, "num_hidden_layers", where),
        heads=_number(given, "num_attention_heads", where),
        kv_heads=_number(given, kv_heads, where),
        inner=_number(given, "intermediate_size", where),
        **kind,
    )  # fmt: skip


def _number(given: Mapping[str, Any], name: str, where: str) -> int:
    value = given.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"config.json: {where}.{name}={value!r} is no number above 0; copy the model folder again")
    return value


def _side(given: Any) -> int:
    return int(given[0] if isinstance(given, list | tuple) else given)


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json says, in transformers' layout or the original one.

    Raises:
        ValueError: neither, or a number is missing.
    """
    kind = config.get("model_type")
    if kind not in ("internvl", "internvl_chat"):
        raise ValueError(
            f"config.json has model_type={kind!r}; InternVL folders have 'internvl' (transformers' own layout) or "
            "'internvl_chat' (the original OpenGVLab layout)"
        )
    return (_native if kind == "internvl" else _original)(config)


def _native(config: Mapping[str, Any]) -> Shape:
    vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
    settings = config.get("vlm_crash") or {}
    hico = settings.get("hico")
    own_side, patch = _side(vision.get("image_size", 448)), _side(vision.get("patch_size", 14))
    is_qwen = text.get("model_type") == "qwen2"
    read = tower(
        vision, "vision_config", gated=False, rms=vision.get("norm_type", "layer_norm") == "rms_norm",
        qkv_bias=bool(vision.get("attention_bias", False)), out_bias=True, qk_norm=bool(vision.get("use_qk_norm")),
    )  # fmt: skip
    bias = bool(text.get("attention_bias"))
    return Shape(
        vision=read,
        language=tower(
            text, "text_config", gated=True, rms=True, qkv_bias=is_qwen or bias, out_bias=bias and not is_qwen
        ),
        image_size=settings.get("image_size") or own_side,
        patch_size=patch,
        fold=round(1 / config.get("downsample_ratio", 0.5)),
        vocab_size=_number(text, "vocab_size", "text_config"),
        tied=bool(config.get("tie_word_embeddings", True)),
        keeps_states=config.get("vision_feature_layer", -1) != -1,
        merged_tokens=hico["num_tome_tokens"] // hico["local_num_frames"] if hico else 0,
        positions=(own_side // patch) ** 2 + 1,
        vision_norm=0 if vision.get("use_mean_pooling", True) else 2 * read.width,
    )


def _original(config: Mapping[str, Any]) -> Shape:
    """As models/original_config.py reads it; what it refuses, fit refuses."""
    vision, text = config.get("vision_config") or {}, config.get("llm_config") or {}
    settings = config.get("vlm_crash") or {}
    is_qwen = "Qwen2ForCausalLM" in (text.get("architectures") or ())
    bias = bool(text.get("bias", True)) and not is_qwen
    names = ("local_num_frames", "num_tome_tokens")
    merges = any(config.get(name) for name in names) or "hico" in str(config.get("auto_map")).lower()
    frames, tokens = (config.get(name) or default for name, default in zip(names, (4, 64), strict=True))
    hico = settings.get("hico") or ({"local_num_frames": frames, "num_tome_tokens": tokens} if merges else None)
    own_side, patch = vision.get("image_size", 224), vision.get("patch_size", 14)
    return Shape(
        vision=tower(
            vision, "vision_config", gated=False, rms=vision.get("norm_type", "rms_norm") == "rms_norm",
            qkv_bias=bool(vision.get("qkv_bias", False)), out_bias=True,
            qk_norm=bool(vision.get("qk_normalization", True)),
        ),
        language=tower(text, "llm_config", gated=True, rms=True, qkv_bias=is_qwen or bias, out_bias=bias),
        image_size=settings.get("image_size") or config.get("force_image_size") or own_side,
        patch_size=patch,
        fold=round(1 / config.get("downsample_ratio", 0.5)),
        vocab_size=_number(text, "vocab_size", "llm_config"),
        tied=bool(text.get("tie_word_embeddings", False)),
        keeps_states=config.get("select_layer", -1) != -1,
        merged_tokens=hico["num_tome_tokens"] // hico["local_num_frames"] if hico else 0,
        positions=(own_side // patch) ** 2 + 1,
        # transformers' InternVL has no norm behind the layers, as the original has none.
    )  # fmt: skip


_INTERN_VIT_300M = Tower(1024, 24, 16, 16, 4096, gated=False, rms=False, qkv_bias=True, out_bias=True)


#: Tokens of a frame that video checkpoints merge to (InternVideo2.5: 64 of 4 frames).
MERGED = 16


def _named(vocab_size: int, qkv_bias: bool, **language: Any) -> Shape:
    own = Tower(**language, gated=True, rms=True, qkv_bias=qkv_bias, out_bias=False)
    return Shape(_INTERN_VIT_300M, own, 448, 14, 2, vocab_size, tied=False, merged_tokens=MERGED, positions=1025)


#: InternVL2.5 by size (InternViT-300M with Qwen2.5-0.5B, InternLM2.5-1.8B, Qwen2.5-3B, InternLM2.5-7B), tokens merged.
NAMED = {
    "1B": _named(151674, True, width=896, layers=24, heads=14, kv_heads=2, inner=4864),
    "2B": _named(92553, False, width=2048, layers=24, heads=16, kv_heads=8, inner=8192),
    "4B": _named(151674, True, width=2048, layers=36, heads=16, kv_heads=2, inner=11008),
    "8B": _named(92553, False, width=4096, layers=32, heads=32, kv_heads=8, inner=14336),
}
#: The same as they were published: 256 tokens a frame.
NAMED |= {f"{name}-plain": replace(shape, merged_tokens=0) for name, shape in NAMED.items()}
