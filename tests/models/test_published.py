"""config.json as it is published: InternVL 2.5, 3 and HiCo in the original layout, and transformers' -hf folders.

The keys and values are those of the folders on the hub (models of InternVL, MIT licence; the language models' sizes are
Qwen2.5's and InternLM2.5's). The weights are not here: sizes are held against the number of parameters that the hub
shows, and tiny weights of the same form are loaded.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from tests.models.original_folder import Shape, config, write_original
from vlm_crash.models.checkpoints import layout_of, meta_model
from vlm_crash.models.convert import convert, export_folder
from vlm_crash.models.folder import folder_settings, read_config, tokens_per_frame
from vlm_crash.models.internvl import load_model

CHAT = "modeling_internvl_chat.InternVLChatModel"
TOP: dict[str, Any] = {
    "_commit_hash": None,
    "architectures": ["InternVLChatModel"],
    "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig", "AutoModel": CHAT,
                 "AutoModelForCausalLM": CHAT},
    "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": 448, "hidden_size": 896,
    "image_fold": None, "max_dynamic_patch": 12, "min_dynamic_patch": 1, "model_type": "internvl_chat",
    "output_attentions": False, "pad2square": False, "ps_version": "v2", "select_layer": -1, "system_message": None,
    "template": "internvl2_5", "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": None,
    "use_backbone_lora": 0, "use_llm_lora": 0, "use_thumbnail": True,
}  # fmt: skip
VISION: dict[str, Any] = {
    "_name_or_path": "OpenGVLab/InternViT-6B-448px-V1-5", "architectures": ["InternVisionModel"],
    "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_intern_vit.InternVisionConfig",
                                           "AutoModel": "modeling_intern_vit.InternVisionModel"},
    "capacity_factor": 1.2, "drop_path_rate": 0.1, "dropout": 0.0, "eval_capacity_factor": 1.4, "hidden_act": "gelu",
    "hidden_size": 1024, "image_size": 448, "initializer_factor": 0.1, "initializer_range": 1e-10,
    "intermediate_size": 4096, "laux_allreduce": "all_nodes", "layer_norm_eps": 1e-06, "model_type": "intern_vit_6b",
    "moe_coeff_ratio": 0.5, "moe_intermediate_size": 768, "moe_output_scale": 4.0,
    "noisy_gate_policy": "RSample_before", "norm_type": "layer_norm", "num_attention_heads": 16, "num_channels": 3,
    "num_experts": 8, "num_hidden_layers": 24, "num_routed_experts": 4, "num_shared_experts": 4, "patch_size": 14,
    "qk_normalization": False, "qkv_bias": True, "shared_expert_intermediate_size": 3072, "torch_dtype": "bfloat16",
    "use_bfloat16": True, "use_flash_attn": True, "use_moe": False, "use_residual": True, "use_rts": False,
    "use_weighted_residual": False,
}  # fmt: skip
QWEN2: dict[str, Any] = {
    "_name_or_path": "./pretrained/Qwen2.5-32B-Instruct", "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu",
    "initializer_range": 0.02, "max_position_embeddings": 32768, "max_window_layers": 70, "model_type": "qwen2",
    "moe_config": None, "rms_norm_eps": 1e-06,
    "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}, "rope_theta": 1000000.0,
    "sliding_window": None, "torch_dtype": "bfloat16", "use_bfloat16": True,
    "use_cache": False, "use_sliding_window": False, "vocab_size": 151674,
}  # fmt: skip
INTERNLM2: dict[str, Any] = {
    "_name_or_path": "internlm/internlm2_5-7b-chat", "add_cross_attention": False,
    "architectures": ["InternLM2ForCausalLM"], "attn_implementation": "flash_attention_2",
    "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config",
                 "AutoModel": "modeling_internlm2.InternLM2ForCausalLM"},
    "bad_words_ids": None, "bias": False, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "initializer_range": 0.02, "max_length": 20,
    "max_position_embeddings": 32768, "model_type": "internlm2", "num_beams": 1, "pad_token_id": 2, "prefix": None,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 2.0, "type": "dynamic"},
    "rope_theta": 1000000, "tie_encoder_decoder": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "use_bfloat16": True, "use_cache": True, "vocab_size": 92553,
}  # fmt: skip
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
#: Name -> (language model, its sizes, parameters in billions as the hub shows them).
PUBLISHED: dict[str, tuple[dict[str, Any], tuple[int, ...], float]] = {
    "InternVL2_5-1B": (QWEN2, (896, 4864, 24, 14, 2), 0.938),
    "InternVL2_5-2B": (INTERNLM2, (2048, 8192, 24, 16, 8), 2.21),
    "InternVL2_5-4B": (QWEN2, (2048, 11008, 36, 16, 2), 3.71),
    "InternVL2_5-8B": (INTERNLM2, (4096, 14336, 32, 32, 8), 8.08),
    "InternVL3-2B": (QWEN2, (1536, 8960, 28, 12, 2), 2.09),
    "InternVL3-8B": (QWEN2, (3584, 18944, 28, 28, 4), 7.94),
    "InternVideo2_5_Chat_8B": (INTERNLM2, (4096, 14336, 32, 32, 8), 8.08),
}


def published(name: str) -> dict[str, Any]:
    """config.json of a model."""
    language, sizes, _ = PUBLISHED[name]
    content = {**TOP, "llm_config": {**language, **dict(zip(SIZES, sizes, strict=True))}, "vision_config": VISION}
    if "Video" in name:
        content["auto_map"] = {kind: CHAT.replace("chat.", "chat_hico2.") for kind in ("AutoModel",)}
    return content


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_of_the_hub(tmp_path: Path, name: str) -> None:
    language, _, billions = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(published(name)))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<IMG_CONTEXT>": language["vocab_size"] - 7}))
    found = read_config(tmp_path)
    model = meta_model(found)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters(remove_duplicate=False)}
    assert sum(value.numel() for value in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.003)
    assert len(layout_of(found, shapes, original=True)) < len(shapes)  # what is packed on disk
    is_hico = "Video" in name
    assert tokens_per_frame(found) == (16 if is_hico else 256)
    assert (folder_settings(found).hico is not None) == is_hico
    text: Any = found.text_config
    assert text.rope_parameters == {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0}


def small(name: str, shape: Shape) -> dict[str, Any]:
    """The published config with the sizes of a small one, and nothing else of it."""
    sizes, content = config(shape), published(name)
    for tower in ("llm_config", "vision_config"):
        keys = {"hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "image_size"}
        keys |= {"num_key_value_heads", "vocab_size"}
        content[tower] = {**content[tower], **{key: sizes[tower][key] for key in keys & sizes[tower].keys()}}
    return {**content, "force_image_size": sizes["force_image_size"]}


@pytest.mark.parametrize("without", [(), ("auto_map",), ("use_thumbnail", "dynamic_image_size", "max_dynamic_patch")])
@pytest.mark.parametrize("name", PUBLISHED)
def test_their_configs_load_and_come_back(tmp_path: Path, name: str, without: tuple[str, ...]) -> None:
    language = "internlm2" if PUBLISHED[name][0] is INTERNLM2 else "qwen2"
    given = write_original(tmp_path / "source", Shape(language=language))
    content = {key: value for key, value in small(name, Shape(language=language)).items() if key not in without}
    (tmp_path / "source/config.json").write_text(json.dumps(content))
    assert (folder_settings(read_config(tmp_path / "source")).hico is None) == (
        "Video" not in name or "auto_map" in without
    )
    export_folder(convert(tmp_path / "source", tmp_path / "model"), tmp_path / "back", "original")
    assert json.loads((tmp_path / "back/config.json").read_text()) == content
    back = load_file(tmp_path / "back/model.safetensors")
    assert back.keys() == given.keys() and all(torch.equal(back[key], given[key]) for key in given)


REFUSED = {
    "InternVL3-9B": {"architectures": ["InternLM3ForCausalLM"], "model_type": "internlm3"},
    "InternVL3_5-8B": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
    "InternVL3_5-30B-A3B": {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"},
    "InternVL2-4B": {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"},
    "InternVL-Chat-V1-2": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_language_models_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content = published("InternVL3-2B")
    content["llm_config"] |= REFUSED[name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "added_tokens.json").write_text('{"<IMG_CONTEXT>": 5}')
    with pytest.raises(ValueError, match=rf"architectures\[0\]='{REFUSED[name]['architectures'][0]}' is not supported"):
        read_config(tmp_path)


def test_quantised_ones_are_refused_by_name(tmp_path: Path) -> None:
    given = {**published("InternVL2_5-8B"), "quantization_config": {"quant_method": "awq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(given))
    (tmp_path / "added_tokens.json").write_text('{"<IMG_CONTEXT>": 5}')
    with pytest.raises(ValueError, match=r"quantization_config=.*awq.* is not supported"):
        read_config(tmp_path)


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    """A folder as transformers 4.52 wrote the published -hf ones: nothing of ties, rope in its old words."""
    write_original(tmp_path / "source", Shape(language="qwen2", dtype=torch.float32))
    folder = convert(tmp_path / "source", tmp_path / "hf")
    shutil.rmtree(folder / "original")
    content = json.loads((folder / "config.json").read_text())
    for name in ("vlm_crash", "tie_word_embeddings", "dtype"):
        content.pop(name, None)
        content["text_config"].pop(name, None)
    rope = content["text_config"].pop("rope_parameters")
    content["text_config"] |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"factor": rope["factor"], "rope_type": "dynamic", "type": "dynamic"},
    }
    content |= {"torch_dtype": "bfloat16", "transformers_version": "4.52.0.dev0"}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_a_published_hf_folder_has_its_own_output_embedding(hf: Path, tmp_path: Path) -> None:
    model = load_model(hf)
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    ids = torch.arange(3, 40)[None]
    plain = AutoModelForImageTextToText.from_pretrained(hf, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert model.config.text_config.rope_parameters["rope_type"] == "dynamic"
    back = export_folder(hf, tmp_path / "back", "original")
    want = load_file(tmp_path / "source/model.safetensors")
    assert all(torch.equal(tensor, want[name]) for name, tensor in load_file(back / "model.safetensors").items())


def test_one_that_is_tied_stores_one_tensor(hf: Path) -> None:
    tensors = load_file(hf / "model.safetensors")
    del tensors["language_model.lm_head.weight"]
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    model = load_model(hf)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    content = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps({**content, "tie_word_embeddings": False}))
    with pytest.raises(ValueError, match=r"missing: .*lm_head\.weight"):
        load_model(hf)
