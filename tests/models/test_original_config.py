"""config.json of the original layout: forms of it that real folders have, there and back."""

import json
import logging

import pytest
import torch

from tests.models.original_folder import Shape, config
from vlm_crash.models.original_config import from_original, to_original


def test_newer_folders_say_the_same_in_other_words() -> None:
    """Fine-tunes saved by transformers 5 have dtype for torch_dtype, and rope_parameters."""
    old = config(Shape(language="qwen2"))
    new = json.loads(json.dumps(old))
    new["dtype"] = new.pop("torch_dtype")
    theta, scaling = (new["llm_config"].pop(name) for name in ("rope_theta", "rope_scaling"))
    new["llm_config"]["rope_parameters"] = {"rope_theta": theta, "rope_type": "dynamic", "factor": scaling["factor"]}
    assert from_original(new, 393).to_dict() == from_original(old, 393).to_dict()
    assert to_original(from_original(new, 393), torch.bfloat16, new) == new
    assert to_original(from_original(new, 393), torch.float16, new) == {**new, "dtype": "float16"}


@pytest.mark.parametrize("shape", [Shape(bias=True), Shape(language="qwen2", tied=True, norm="rms_norm")])
def test_a_new_config_means_the_same(shape: Shape) -> None:
    wanted = from_original(config(shape), 393)
    made = to_original(wanted, torch.bfloat16)
    found = from_original(made, 393)
    for part in ("text_config", "vision_config"):
        one, other = (getattr(each, part).to_dict() for each in (wanted, found))
        assert one.pop("dtype", None) in (other.pop("dtype", None), None)
        assert one == other
    # InternLM2's own check lets rope_scaling have two keys.
    assert len(made["llm_config"]["rope_scaling"]) == (2 if shape.language == "internlm2" else 3)


@pytest.mark.parametrize(("scaling", "kind"), [(None, "default"), ({"type": "linear", "factor": 3}, "linear")])
def test_rope_scaling(scaling: dict | None, kind: str) -> None:
    content = config(Shape())
    content["llm_config"]["rope_scaling"] = scaling
    rope = from_original(content, 393).text_config.rope_parameters
    assert (rope["rope_type"], rope["rope_theta"], rope.get("factor")) == (kind, 1e6, 3.0 if scaling else None)
    again = to_original(from_original(content, 393), torch.bfloat16)["llm_config"]["rope_scaling"]
    assert again == (scaling and {**scaling, "factor": 3.0})


def test_what_the_original_assumes_where_a_key_is_absent() -> None:
    """InternVL 2410d1db configuration_intern_vit.py and configuration_internlm2.py."""
    absent = {
        "llm_config": {"architectures": ["InternLM2ForCausalLM"]},
        "vision_config": {},
        "ps_version": "v2",
        "force_image_size": 448,
    }
    found = from_original(absent, 7)
    vision, text = found.vision_config, found.text_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.norm_type) == (3200, 48, "rms_norm")
    assert vision.use_qk_norm and not vision.attention_bias and list(vision.image_size) == [224, 224]
    assert (text.hidden_size, text.vocab_size, text.num_key_value_heads) == (4096, 103168, 32)
    assert text.attention_bias and not found.tie_word_embeddings and found.image_token_id == 7


def test_stochastic_depth_is_said_not_to_act(caplog: pytest.LogCaptureFixture) -> None:
    content = config(Shape())
    content["vision_config"]["drop_path_rate"] = 0.1
    with caplog.at_level(logging.WARNING):
        from_original(content, 393)
    assert "drop_path_rate=0.1 is not applied" in caplog.text
