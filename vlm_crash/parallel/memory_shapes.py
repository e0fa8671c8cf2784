"""What memory depends on, as numbers: the shape of a model, the settings of a run.

Enters: the config.json of a model folder as a dict, or a name. Leaves: a Shape; a Setting is filled by the caller.
Nothing here knows a model class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
            mlp = {name: (self.width, self.inner) for name in ("gate_proj", "up_proj")}
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
        text_tokens: tokens of a clip that are no frame's: lines, question and answer.
        line_tokens: tokens of text that each frame brings.
        label_tokens: of them, those of the answer.
        is_padded: clips of a batch have unequal lengths, so that attention needs a mask.
        lora_rank: 0: no LoRA.
        lora_targets: linear layers that get adapters, by their names in transformers.
        lora_towers: towers that get them.
        full_towers: towers that are trained whole beside LoRA.
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
    text_tokens: int = 600
    line_tokens: int = 8
    label_tokens: int = 300
    is_padded: bool = False
    lora_rank: int = 0
    lora_targets: frozenset[str] = frozenset()
    lora_towers: frozenset[str] = frozenset()
    full_towers: frozenset[str] = frozenset()
    is_cpu: bool = False

    def num_tokens(self, shape: Shape) -> int:
        """Tokens of a clip's prompt and answer."""
        return self.num_frames * (shape.frame_tokens + self.line_tokens) + self.text_tokens


def _side(given: Any) -> int:
    return int(given[0] if isinstance(given, list | tuple) else given)


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json in transformers' layout says."""
    vision, text = config["vision_config"], config["text_config"]
    settings = config.get("vlm_crash") or {}
    hico = settings.get("hico")
    width, own_side, patch = vision["hidden_size"], _side(vision["image_size"]), _side(vision["patch_size"])
    return Shape(
        vision=Tower(
            width=width,
            layers=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
            kv_heads=vision["num_attention_heads"],
            inner=vision["intermediate_size"],
            gated=False,
            rms=vision.get("norm_type", "layer_norm") == "rms_norm",
            qkv_bias=bool(vision.get("attention_bias", False)),
            out_bias=True,
            qk_norm=bool(vision.get("use_qk_norm", False)),
        ),
        language=Tower(
            width=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text.get("num_key_value_heads") or text["num_attention_heads"],
            inner=text["intermediate_size"],
            gated=True,
            rms=True,
            qkv_bias=text["model_type"] == "qwen2" or bool(text.get("attention_bias")),
            out_bias=text["model_type"] != "qwen2" and bool(text.get("attention_bias")),
        ),
        image_size=settings.get("image_size") or own_side,
        patch_size=patch,
        fold=round(1 / config.get("downsample_ratio", 0.5)),
        vocab_size=text["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", True)),
        keeps_states=config.get("vision_feature_layer", -1) != -1,
        merged_tokens=hico["num_tome_tokens"] // hico["local_num_frames"] if hico else 0,
        positions=(own_side // patch) ** 2 + 1,
        vision_norm=0 if vision.get("use_mean_pooling", True) else 2 * width,
    )
