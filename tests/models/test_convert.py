"""original -> transformers -> original gives the same bits; plain transformers loads what is between."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, InternVLConfig

from tests.models.original_folder import Shape, described, write_original, write_weights
from vlm_crash.models.convert import convert, export_folder
from vlm_crash.models.folder import HicoSettings, folder_settings, is_original, read_config
from vlm_crash.models.internvl import load_model
from vlm_crash.models.original_config import to_original
from vlm_crash.models.saving import Entry, save_weights
from vlm_crash.models.shards import open_shard, weight_files
from vlm_crash.models.tokenizers import load_tokenizer

PLAIN = [Shape(), Shape(language="qwen2", kv_heads=4, seed=1)]
TEXT = "Two cars\n<img></img> met: 撞车 <IMG_CONTEXT>!"


def stored(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder as it lies there."""
    found = {}
    for file in weight_files(folder):
        with open_shard(file) as shard:
            found |= {name: shard.rows(name, 0, shard.stored(name).shape[0]).clone() for name in shard.names()}
    return found


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


shapes = st.builds(
    Shape,
    language=st.sampled_from(["internlm2", "qwen2"]),
    hidden=st.sampled_from([32, 48]),
    heads=st.sampled_from([4, 8]),
    kv_heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(1, 3),
    vocab=st.integers(400, 420),
    bias=st.booleans(),
    tied=st.booleans(),
    vision_layers=st.integers(1, 2),
    qkv_bias=st.booleans(),
    qk_norm=st.booleans(),
    norm=st.sampled_from(["layer_norm", "rms_norm"]),
    image=st.sampled_from([56, 84]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(shape=shapes, num_files=st.integers(1, 3), kind=st.sampled_from(["safetensors", "bin"]))
def test_there_and_back_gives_the_same_bits(shape: Shape, num_files: int, kind: str) -> None:
    with TemporaryDirectory() as name:
        source, there, back = (Path(name) / part for part in ("source", "there", "back"))
        tensors = write_original(source, shape, num_files, kind)
        convert(source, there)
        export_folder(there, back, layout="original")
        assert same_bits(stored(back), tensors)
        assert is_original(back) and not is_original(there)
        weights = {path.name for path in (*weight_files(source), *source.glob("*.index.json"))}
        kept = {path.name: path.read_bytes() for path in source.iterdir() if path.name not in weights}
        assert {name: (back / name).read_bytes() for name in kept} == kept


def test_without_the_original_files_the_meaning_is_the_same(tmp_path: Path) -> None:
    """The sub-folder `original` may be lost; then config.json is made anew and the tokenizer stays transformers'."""
    shape = Shape(language="qwen2", tied=True)
    tensors = write_original(tmp_path / "source", shape)
    convert(tmp_path / "source", tmp_path / "there", hico=True)
    shutil.rmtree(tmp_path / "there/original")
    export_folder(tmp_path / "there", tmp_path / "back", layout="original")
    assert same_bits(stored(tmp_path / "back"), tensors)
    one, other = (read_config(tmp_path / name).to_dict() for name in ("there", "back"))
    for config in (one, other):
        for part in (config, config["text_config"], config["vision_config"]):
            for silent in ("architectures", "transformers_version", "dtype"):
                part.pop(silent, None)
    assert one == other
    assert load_tokenizer(tmp_path / "back")(TEXT).input_ids == load_tokenizer(tmp_path / "source")(TEXT).input_ids


@pytest.mark.parametrize("shape", PLAIN, ids=described)
def test_plain_transformers_loads_and_generates(tmp_path: Path, shape: Shape) -> None:
    write_original(tmp_path / "source", shape)
    folder = convert(tmp_path / "source", tmp_path / "model", dtype="float32")
    model, problems = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(problems.values()) and model.dtype == torch.float32
    processor = AutoProcessor.from_pretrained(folder)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), dtype=np.uint8))
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=True, return_dict=True,
        return_tensors="pt", processor_kwargs={"images_kwargs": {"crop_to_patches": False}},
    )  # fmt: skip
    assert inputs["pixel_values"].shape == (1, 3, 56, 56)
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 4
    ours = load_model(tmp_path / "source")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, ours(**inputs).logits, atol=1e-5, rtol=0)
    answers = [
        m.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False) for m in (model, ours)
    ]  # fmt: skip
    assert torch.equal(*answers) and answers[0].shape[1] == inputs["input_ids"].shape[1] + 5
    assert AutoTokenizer.from_pretrained(folder)(TEXT).input_ids == load_tokenizer(tmp_path / "source")(TEXT).input_ids
    again = load_model(folder).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.state_dict().items())


def test_generation_ends_with_the_turn_where_the_source_does_not_say(tmp_path: Path) -> None:
    write_original(tmp_path / "source", Shape())
    (tmp_path / "source/generation_config.json").unlink()
    convert(tmp_path / "source", tmp_path / "model")
    content = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert content["eos_token_id"] == load_tokenizer(tmp_path / "source").convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize(
    ("hico", "auto_map", "want"),
    [
        (None, "modeling_internvl_chat.InternVLChatModel", None),
        (None, "modeling_internvl_chat_hico2.InternVLChatModel", HicoSettings(4, 64, 4)),
        (True, "modeling_internvl_chat.InternVLChatModel", HicoSettings(4, 64, 4)),
        (False, "modeling_internvl_chat_hico2.InternVLChatModel", None),
    ],
)
def test_token_merging_travels_both_ways(tmp_path: Path, hico: bool | None, auto_map: str, want: object) -> None:
    write_original(tmp_path / "source", Shape())
    content = json.loads((tmp_path / "source/config.json").read_text())
    content["auto_map"]["AutoModel"] = auto_map
    (tmp_path / "source/config.json").write_text(json.dumps(content))
    convert(tmp_path / "source", tmp_path / "model", hico=hico)
    assert folder_settings(read_config(tmp_path / "model")).hico == want
    export_folder(tmp_path / "model", tmp_path / "back", layout="original")
    assert folder_settings(read_config(tmp_path / "back")).hico == want
    assert ("vlm_crash" in json.loads((tmp_path / "back/config.json").read_text())) == (hico is not None)


def test_the_configs_own_keys_of_token_merging_are_taken(tmp_path: Path) -> None:
    write_original(tmp_path, Shape(heads=8, kv_heads=2, vision_hidden=21))
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "local_num_frames": 2, "num_tome_tokens": 4}))
    # 84 channels: 8 heads do not divide them, 7 do.
    assert folder_settings(read_config(tmp_path)).hico == HicoSettings(2, 4, 7)


def test_another_dtype(tmp_path: Path) -> None:
    given_ = write_original(tmp_path / "source", Shape())
    convert(tmp_path / "source", tmp_path / "model", dtype="float16")
    assert {tensor.dtype for tensor in stored(tmp_path / "model").values()} == {torch.float16}
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "model").dtype == torch.float16
    export_folder(tmp_path / "model", tmp_path / "back", layout="original")
    assert json.loads((tmp_path / "back/config.json").read_text())["torch_dtype"] == "float16"
    given_["mlp1.0.bias"][0] = -1e9
    write_weights(tmp_path / "source", given_)
    with pytest.raises(ValueError, match=r"layer_norm\.bias has numbers above 65504"):
        convert(tmp_path / "source", tmp_path / "other", dtype="float16")
    assert not (tmp_path / "other").exists() and not list(tmp_path.glob(".*"))


def test_frames_of_another_size_than_the_tower(tmp_path: Path) -> None:
    tensors = write_original(tmp_path / "source", Shape())
    content = json.loads((tmp_path / "source/config.json").read_text())
    (tmp_path / "source/config.json").write_text(json.dumps({**content, "force_image_size": 84}))
    convert(tmp_path / "source", tmp_path / "model")
    assert AutoProcessor.from_pretrained(tmp_path / "model").image_processor.size["height"] == 84
    assert read_config(tmp_path / "model").image_seq_length == 9
    export_folder(tmp_path / "model", tmp_path / "back", layout="original")
    assert same_bits(stored(tmp_path / "back"), tensors)
    assert (tmp_path / "back/config.json").read_text() == (tmp_path / "source/config.json").read_text()


def test_a_folder_of_transformers_goes_into_the_original_layout(tiny_model: Path, tmp_path: Path) -> None:
    export_folder(tiny_model, tmp_path / "original", layout="original")
    want, found = load_model(tiny_model), load_model(tmp_path / "original")
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in want.state_dict().items())
    assert folder_settings(found.config) == folder_settings(want.config)
    ids = torch.randint(6, 300, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(found(input_ids=ids).logits, want(input_ids=ids).logits, atol=0, rtol=0)


def test_what_the_original_layout_has_no_place_for_is_named(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    content = json.loads((tmp_path / "model/config.json").read_text())
    content["projector_hidden_act"] = "relu"
    content["vision_config"]["hidden_dropout_prob"] = 0.1
    (tmp_path / "model/config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"no place for projector_hidden_act, vision_config.hidden_dropout_prob"):
        export_folder(tmp_path / "model", tmp_path / "out", layout="original")
    with pytest.raises(ValueError, match="'qwen3' has no place"):
        to_original(InternVLConfig(text_config={"model_type": "qwen3"}), torch.float32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_used_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write_original(tmp_path / "source", Shape())
    (tmp_path / "out").mkdir()
    convert(tmp_path / "source", tmp_path / "out")
    with pytest.raises(ValueError, match="is not empty"):
        convert(tmp_path / "source", tmp_path / "out")
    (tmp_path / "out/old.txt").write_text("")
    convert(tmp_path / "source", tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out/old.txt").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("")
    for taken, message in (("other", "is no model folder"), ("source", "holds the source"), ("", "holds the source")):
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / "source", tmp_path / taken, overwrite=True)
    assert (tmp_path / "other/thesis.txt").exists()


def entries(tensors: dict[str, Tensor]) -> list[Entry]:
    """What save_weights writes, of tensors in memory."""
    return [Entry(name, tuple(t.shape), t.dtype, lambda t=t: t) for name, t in tensors.items()]


def test_weights_in_several_files(tmp_path: Path) -> None:
    tensors = {f"t{n}": torch.full((n + 1, 50), float(n)) for n in range(6)}
    save_weights(tmp_path, entries(tensors), "as_stored", shard_bytes=800)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-{n:05d}-of-00005.safetensors" for n in range(1, 6)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}
    assert index["metadata"]["total_size"] == 4 * 50 * 21
    assert all(file.stat().st_size < 1200 for file in files[:2]) and same_bits(stored(tmp_path), tensors)


@pytest.mark.parametrize("seed", range(3))
def test_a_file_is_byte_for_byte_that_of_safetensors(tmp_path: Path, seed: int) -> None:
    """Dtypes side by side, odd sizes, empty and scalar tensors, names that JSON escapes."""
    torch.manual_seed(seed)
    dtypes = (torch.float16, torch.bfloat16, torch.float32)
    sizes = {
        "z": (3,),
        "a.b": (5, 7),
        "ü": (1, 1, 3),
        'q"uote': (2,),
        "l.10": (9, 3),
        "l.2": (4,),
        "e": (0, 4),
        "s": (),
    }
    tensors = {name: torch.randn(size).to(dtypes[(n + seed) % 3]) for n, (name, size) in enumerate(sizes.items())}
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    (tmp_path / "ours").mkdir()
    save_weights(tmp_path / "ours", entries(tensors), "as_stored")
    assert (tmp_path / "ours/model.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_tied_embeddings_stored_twice_stay_so(tmp_path: Path) -> None:
    tensors = write_original(tmp_path / "source", Shape(tied=True))
    tensors["language_model.output.weight"] = tensors["language_model.model.tok_embeddings.weight"].clone()
    write_weights(tmp_path / "source", tensors)
    convert(tmp_path / "source", tmp_path / "model")
    export_folder(tmp_path / "model", tmp_path / "back", layout="original")
    assert same_bits(stored(tmp_path / "back"), tensors)
    tensors["language_model.output.weight"] += 1
    write_weights(tmp_path / "source", tensors)
    with pytest.raises(ValueError, match="ties the embeddings"):
        convert(tmp_path / "source", tmp_path / "other")


def test_a_wrong_tokenizer_is_told_before_anything_is_written(tmp_path: Path) -> None:
    write_original(tmp_path / "source", replace(Shape(), vocab=399))
    with pytest.raises(ValueError, match="ids go up to 399, and the model has 399 embeddings"):
        convert(tmp_path / "source", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
