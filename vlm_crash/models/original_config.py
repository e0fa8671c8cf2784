"""config.json of the original OpenGVLab layout (model_type internvl_chat) <-> transformers' InternVLConfig.

Enters: the JSON as a dict; no code of a folder is ever run. Leaves: an InternVLConfig, or the dict again. Invariant:
a setting that changes the numbers is carried over or refused by name; the same tables serve both directions.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import InternVLConfig
from transformers.activations import ACT2FN

log = logging.getLogger(__name__)

# (name in the original, name in transformers, what the original code assumes where the key is absent), after
# InternVL 2410d1db internvl_chat/internvl/model/internvl_chat/configuration_intern_vit.py.
VISION_KEYS = (
    ("hidden_size", "hidden_size", 3200),
    ("num_hidden_layers", "num_hidden_layers", 48),
    ("num_attention_heads", "num_attention_heads", 25),
    ("intermediate_size", "intermediate_size", 12800),
    ("num_channels", "num_channels", 3),
    ("qkv_bias", "attention_bias", False),
    ("qk_normalization", "use_qk_norm", True),
    ("norm_type", "norm_type", "rms_norm"),
    ("layer_norm_eps", "layer_norm_eps", 1e-6),
    ("hidden_act", "hidden_act", "gelu"),
    ("dropout", "projection_dropout", 0.0),
    ("attention_dropout", "attention_dropout", 0.0),
    ("initializer_range", "initializer_range", 0.02),
    ("initializer_factor", "layer_scale_init_value", 0.1),
)
_SHARED_KEYS = (
    ("hidden_size", "hidden_size", 4096),
    ("num_hidden_layers", "num_hidden_layers", 32),
    ("num_attention_heads", "num_attention_heads", 32),
    ("hidden_act", "hidden_act", "silu"),
    ("rms_norm_eps", "rms_norm_eps", 1e-6),
    ("initializer_range", "initializer_range", 0.02),
    ("tie_word_embeddings", "tie_word_embeddings", False),
    ("bos_token_id", "bos_token_id", None),
    ("eos_token_id", "eos_token_id", None),
    ("pad_token_id", "pad_token_id", None),
)
# Architecture of the original -> (model_type in transformers, keys).
LANGUAGE = {
    "Qwen2ForCausalLM": (
        "qwen2",
        (
            *_SHARED_KEYS,
            ("vocab_size", "vocab_size", 151936),
            ("num_key_value_heads", "num_key_value_heads", 32),
            ("intermediate_size", "intermediate_size", 22016),
            ("max_position_embeddings", "max_position_embeddings", 32768),
            ("attention_dropout", "attention_dropout", 0.0),
        ),
    ),
    "InternLM2ForCausalLM": (
        "llama",
        (
            *_SHARED_KEYS,
            ("vocab_size", "vocab_size", 103168),
            ("num_key_value_heads", "num_key_value_heads", None),
            ("intermediate_size", "intermediate_size", 11008),
            ("max_position_embeddings", "max_position_embeddings", 2048),
            ("bias", "attention_bias", True),
        ),
    ),
}
DEFAULT_ROPE_THETA = 10000.0
ROPE_TYPES = ("default", "linear", "dynamic")


def from_original(original: Mapping[str, Any], image_token_id: int) -> InternVLConfig:
    """The InternVLConfig that computes what the original code computes.

    Args:
        original: content of config.json.
        image_token_id: id of <IMG_CONTEXT>, which config.json does not say.

    Raises:
        ValueError: a setting that transformers' InternVL does not have; its name, value and what is allowed.
    """
    vision, language = original.get("vision_config") or {}, original.get("llm_config") or {}
    architecture = (language.get("architectures") or [None])[0]
    _one_of("llm_config.architectures[0]", architecture, tuple(LANGUAGE))
    _one_of("ps_version", original.get("ps_version", "v1"), ("v2",))  # absent: v1 (configuration_internvl_chat.py:38)
    _one_of("quantization_config", original.get("quantization_config"), (None,))
    _refuse_what_changes_numbers(vision, language)
    model_type, keys = LANGUAGE[architecture]
    text_config = {ours: language.get(theirs, default) for theirs, ours, default in keys}
    if text_config["num_key_value_heads"] is None:
        text_config["num_key_value_heads"] = text_config["num_attention_heads"]
    vision_config = {ours: vision.get(theirs, default) for theirs, ours, default in VISION_KEYS}
    side, patch = vision.get("image_size", 224), vision.get("patch_size", 14)
    vision_config |= {"image_size": [side, side], "patch_size": [patch, patch], "model_type": "internvl_vision"}
    ratio = original.get("downsample_ratio", 0.5)
    image_size = original.get("force_image_size") or side
    _check_shapes(vision_config, text_config, image_size, ratio)
    layer, num_layers = original.get("select_layer", -1), vision_config["num_hidden_layers"]
    _one_of("select_layer", layer, range(-num_layers - 1, num_layers + 1))
    dtype = original.get("dtype") or original.get("torch_dtype") or "float32"
    tie = bool(text_config["tie_word_embeddings"])
    return InternVLConfig(
        vision_config=vision_config,
        text_config={
            **text_config,
            "model_type": model_type,
            "rope_parameters": _rope(language),
            "dtype": dtype,
        },
        image_token_id=image_token_id,
        image_seq_length=round((image_size // patch * ratio) ** 2),
        downsample_ratio=ratio,
        # Counted from the end: transformers takes layer 0 for "no layer".
        vision_feature_layer=layer if layer < 0 else layer - num_layers - 1,
        tie_word_embeddings=tie,
        dtype=dtype,
    )


def _refuse_what_changes_numbers(vision: Mapping[str, Any], language: Mapping[str, Any]) -> None:
    _one_of("vision_config.norm_type", vision.get("norm_type", "rms_norm"), ("layer_norm", "rms_norm"))
    _one_of("vision_config.use_moe", bool(vision.get("use_moe")), (False,))
    _one_of("llm_config.moe_config", language.get("moe_config"), (None,))
    _one_of("llm_config.use_sliding_window", bool(language.get("use_sliding_window")), (False,))
    _one_of("llm_config.rope_pos_id_version", language.get("rope_pos_id_version", "default"), ("default",))
    if vision.get("drop_path_rate"):
        log.warning("drop_path_rate=%s is not applied: no layer is left out in training", vision["drop_path_rate"])
    if vision.get("qk_normalization", True):
        # transformers' norm of queries and keys has no other epsilon (modeling_internvl.py, InternVLVisionAttention).
        _one_of("vision_config.layer_norm_eps", vision.get("layer_norm_eps", 1e-6), (1e-6,), "with qk_normalization")
    for tower, value in (
        ("vision_config", vision.get("hidden_act", "gelu")),
        ("llm_config", language.get("hidden_act")),
    ):
        _one_of(f"{tower}.hidden_act", value or "silu", tuple(ACT2FN))


def _rope(language: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' rope_parameters from rope_theta and rope_scaling; folders saved by transformers 5 have them so."""
    scaling = language.get("rope_scaling") or language.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    _one_of("llm_config.rope_scaling.type", kind, ROPE_TYPES)
    theta = language.get("rope_theta", scaling.get("rope_theta", DEFAULT_ROPE_THETA))
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": float(theta)}
    return rope if kind == "default" else {**rope, "factor": float(scaling.get("factor", 1.0))}


def _check_shapes(vision: Mapping[str, Any], text: Mapping[str, Any], image_size: int, ratio: float) -> None:
    for tower, config in (("vision_config", vision), ("llm_config", text)):
        width, heads = config["hidden_size"], config["num_attention_heads"]
        if width % heads:
            raise ValueError(
                f"config.json: {tower}.hidden_size={width} is not a multiple of num_attention_heads={heads}"
            )
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    if heads % groups:
        raise ValueError(
            f"config.json: llm_config.num_attention_heads={heads} is not a multiple of num_key_value_heads={groups}"
        )
    fold = round(1 / ratio)
    if abs(fold * ratio - 1) > 1e-6:
        raise ValueError(f"config.json: downsample_ratio={ratio} is not 1 over a whole number (1, 0.5, 0.25 ...)")
    if image_size // vision["patch_size"][0] % fold:
        raise ValueError(
            f"config.json: force_image_size={image_size} at patch_size={vision['patch_size'][0]} gives "
            f"{image_size // vision['patch_size'][0]} patches a side, no multiple of {fold} (downsample_ratio={ratio})"
        )


def _one_of(name: str, value: Any, allowed: Sequence[Any], where: str = "") -> None:
    if value not in allowed:
        shown = str(allowed) if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise ValueError(
            f"config.json: {name}={value!r} is not supported{f' {where}' if where else ''} (supported: {shown}); "
            "this checkpoint cannot be loaded without changing its numbers"
        )


def architecture_of(config: InternVLConfig) -> str:
    """The original's name for the language model of a config.

    Raises:
        ValueError: the original layout has none for it.
    """
    text: Any = config.text_config
    names = {model_type: name for name, (model_type, _) in LANGUAGE.items()}
    if text.model_type not in names:
        raise ValueError(
            f"a language model of type {text.model_type!r} has no place in the original layout "
            f"({', '.join(names)} have); use the folder in transformers' layout"
        )
    return names[text.model_type]


def to_original(config: InternVLConfig, dtype: torch.dtype, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """config.json of the original layout.

    Args:
        config: of the model; its `vlm_crash` settings are the caller's.
        dtype: of the weights.
        before: the config.json that the folder came with; it is kept where it still says the same.

    Raises:
        ValueError: settings that the original layout has no place for.
    """
    name = str(dtype).removeprefix("torch.")
    if before is not None and not _differences(from_original(before, config.image_token_id), config):
        key = "dtype" if "dtype" in before else "torch_dtype"
        return dict(before) if before.get(key) == name else {**before, key: name}
    made = _new_original(config, name)
    lost = _differences(from_original(made, config.image_token_id), config)
    if lost:
        raise ValueError(
            f"the original layout has no place for {', '.join(lost)} of config.json; "
            "use the folder in transformers' layout"
        )
    return made


def _new_original(config: InternVLConfig, dtype: str) -> dict[str, Any]:
    text: Any = config.text_config
    vision: Any = config.vision_config
    settings = getattr(config, "vlm_crash", None) or {}
    architecture = architecture_of(config)
    _, keys = LANGUAGE[architecture]
    rope = dict(text.rope_parameters)
    kind, theta, factor = (
        rope.get("rope_type", "default"),
        rope.get("rope_theta", DEFAULT_ROPE_THETA),
        rope.get("factor"),
    )
    # InternLM2's own check lets rope_scaling have two keys (configuration_internlm2.py, _rope_scaling_validation).
    names = ("type",) if architecture == "InternLM2ForCausalLM" else ("type", "rope_type")
    scaling = None if kind == "default" else {**dict.fromkeys(names, kind), "factor": factor}
    modelling = f"modeling_internvl_chat{'_hico2' if settings.get('hico') else ''}.InternVLChatModel"
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": modelling,
            "AutoModelForCausalLM": modelling,
        },
        "downsample_ratio": config.downsample_ratio,
        "dynamic_image_size": False,
        "force_image_size": settings.get("image_size") or vision.image_size[0],
        "llm_config": {
            "architectures": [architecture],
            "model_type": "internlm2" if architecture == "InternLM2ForCausalLM" else text.model_type,
            **{theirs: getattr(text, ours) for theirs, ours, _ in keys},
            "rope_theta": theta,
            "rope_scaling": scaling,
            "torch_dtype": dtype,
        },
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "select_layer": config.vision_feature_layer,
        "template": settings.get("template") or "internvl2_5",
        "torch_dtype": dtype,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            **{theirs: getattr(vision, ours) for theirs, ours, _ in VISION_KEYS},
            "image_size": vision.image_size[0],
            "patch_size": vision.patch_size[0],
            "torch_dtype": dtype,
        },
    }


# What says nothing about the numbers that a model computes; `type` is the old word beside rope_type.
_SAYS_NOTHING = {
    "transformers_version", "architectures", "vlm_crash", "dtype", "_name_or_path", "use_cache", "max_window_layers",
    "id2label", "label2id", "pretraining_tp", "chunk_size_feed_forward", "image_seq_length", "initializer_range",
    "layer_scale_init_value", "is_encoder_decoder", "type", "return_dict", "output_hidden_states", "output_attentions",
}  # fmt: skip


def _differences(one: InternVLConfig, other: InternVLConfig) -> list[str]:
    """Names of the settings that change numbers and differ."""
    first, second = _flat(one.to_dict()), _flat(other.to_dict())
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name in _SAYS_NOTHING:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
