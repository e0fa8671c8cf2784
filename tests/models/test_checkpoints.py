"""Original and transformers' folders -> a model: every tensor in its place, or one message that names what is wrong."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.original_folder import Shape, described, write_original, write_weights
from tests.parallel.forked import Forked
from vlm_crash.models.folder import read_config
from vlm_crash.models.internvl import load_model

SHAPES = [
    Shape(),
    Shape(kv_heads=4, bias=True, seed=1),
    Shape(kv_heads=1, heads=8, tied=True, layers=3, vision_layers=2, seed=2),
    Shape(language="qwen2", qk_norm=True, norm="rms_norm", qkv_bias=False, seed=3),
    Shape(language="qwen2", tied=True, kv_heads=4, vision_heads=2, image=84, dtype=torch.float16, seed=4),
    Shape(dtype=torch.float32, vocab=411, intermediate=56, hidden=48, heads=3, kv_heads=3, seed=5),
]


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("shape", SHAPES, ids=described)
def test_every_tensor_has_its_place(tmp_path: Path, shape: Shape, kind: str) -> None:
    given = {name: tensor.float() for name, tensor in write_original(tmp_path, shape, 3, kind).items()}
    model = load_model(tmp_path)
    found = model.state_dict()
    attention = "model.language_model.layers.{}.self_attn.{}_proj.{}"
    for i in range(shape.layers):
        for what in ("weight", "bias"):
            packed = given.get(f"language_model.model.layers.{i}.attention.wqkv.{what}")
            if packed is None:
                continue
            # Per key-value head: the rows of its queries, then of its key, then of its value.
            size = shape.hidden // shape.heads
            per_head = packed.reshape(shape.kv_heads, -1, size, *packed.shape[1:])
            for name, part in (("q", per_head[:, :-2]), ("k", per_head[:, -2]), ("v", per_head[:, -1])):
                assert torch.equal(found[attention.format(i, name, what)], part.reshape(-1, *packed.shape[1:]))
    for i in range(shape.vision_layers):
        packed = given[f"vision_model.encoder.layers.{i}.attn.qkv.weight"]
        for name, part in zip("qkv", packed.chunk(3), strict=True):
            assert torch.equal(found[f"model.vision_tower.encoder.layer.{i}.attention.{name}_proj.weight"], part)
    # What is not packed: as many numbers on both sides, each of them once.
    alone = [tensor for name, tensor in given.items() if "qkv" not in name]
    theirs = [tensor for name, tensor in found.items() if not ("vision" in name and "attention.q_p" in name)]
    sums = {(tuple(tensor.shape), tensor.double().sum().item()) for tensor in theirs}
    assert all((tuple(tensor.shape), tensor.double().sum().item()) in sums for tensor in alone)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == shape.tied
    number = sum(tensor.numel() for tensor in found.values()) - (found["lm_head.weight"].numel() if shape.tied else 0)
    assert number == sum(tensor.numel() for tensor in given.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_the_one_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    given = write_original(tmp_path, Shape())
    model = load_model(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert torch.equal(model.lm_head.weight, given["language_model.output.weight"].to(dtype))
    assert model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


def test_numbers_that_float16_cannot_hold_are_named(tmp_path: Path) -> None:
    given = write_original(tmp_path, Shape())
    given["mlp1.1.bias"][3] = 7e4
    write_weights(tmp_path, given)
    load_model(tmp_path, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"mlp1\.1\.bias in .* above 65504"):
        load_model(tmp_path, dtype=torch.float16)


def test_names_of_the_modules_are_read_too(tiny_model: Path, tmp_path: Path) -> None:
    """transformers writes language_model.model... where its modules are called model.language_model..."""
    shutil.copytree(tiny_model, tmp_path / "model")
    want = load_model(tiny_model).state_dict()
    assert not set(want) & set(load_file(tiny_model / "model.safetensors"))
    del want["lm_head.weight"]
    save_file(want, tmp_path / "model/model.safetensors")
    found = load_model(tmp_path / "model").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in want.items())


def test_all_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    given = write_original(tmp_path, Shape())
    del given["mlp1.3.bias"], given["language_model.model.layers.1.attention.wqkv.weight"]
    given |= {"stranger": torch.ones(2), "vision_model.encoder.layers.0.ls1": torch.ones(5)}
    given["mlp1.0.bias"] = torch.ones(96, dtype=torch.int8)
    write_weights(tmp_path, given, num_files=2)
    with pytest.raises(ValueError) as error:
        load_model(tmp_path)
    for said in (
        "missing: language_model.model.layers.1.attention.wqkv.weight, mlp1.3.bias;",
        "extra: stranger;",
        "of another shape: vision_model.encoder.layers.0.ls1 [5] (config.json says [24]);",
        "neither float16, bfloat16 nor float32: mlp1.0.bias",
    ):
        assert said in str(error.value)


def test_lora_weights_are_told_apart(tmp_path: Path) -> None:
    given = write_original(tmp_path, Shape())
    write_weights(tmp_path, {**given, "language_model.base_model.lora_A.weight": torch.ones(2)})
    with pytest.raises(ValueError, match="merge the LoRA weights"):
        load_model(tmp_path)


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    given = write_original(tmp_path, Shape(), num_files=2)
    last = sorted(tmp_path.glob("*.safetensors"))[1]
    save_file({**load_file(last), "mlp1.3.bias": given["mlp1.3.bias"]}, last)
    with pytest.raises(ValueError, match=r"mlp1\.3\.bias lies in model-00001-of-00002"):
        load_model(tmp_path)


@pytest.mark.parametrize("language", ["internlm2", "qwen2"])
def test_tied_embeddings_may_be_stored_twice_but_not_differ(tmp_path: Path, language: str) -> None:
    given = write_original(tmp_path, Shape(language=language, tied=True))
    inner, head = ("tok_embeddings", "output") if language == "internlm2" else ("embed_tokens", "lm_head")
    weight = given[f"language_model.model.{inner}.weight"]
    write_weights(tmp_path, {**given, f"language_model.{head}.weight": weight.clone()}, num_files=2)
    model = load_model(tmp_path)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    write_weights(tmp_path, {**given, f"language_model.{head}.weight": weight + 1}, num_files=2)
    with pytest.raises(ValueError, match=f"ties the embeddings, but language_model.*{head}|{inner}.* differs"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"no", "cannot be read"),
        ("pytorch_model.bin", b"no", "cannot be read"),
        ("pytorch_model.bin", pickle.dumps(print), "cannot be read"),
        ("model.safetensors.index.json", b"[]", "is no index of weights"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone.safetensors"}}', "not there: gone.safetensors"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_original(tmp_path, Shape())
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


class _Payload:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("payload-was-here"),)


def test_no_code_of_a_folder_runs(tmp_path: Path) -> None:
    """Neither its .py files nor a pickle, and nobody is asked: there is no stdin."""
    write_original(tmp_path / "model", Shape())
    for name in ("configuration_internvl_chat", "modeling_internvl_chat", "tokenization_internlm2", "conversation"):
        (tmp_path / f"model/{name}.py").write_text("open('remote-code-was-here', 'w')\n")
    torch.save({"weight": _Payload()}, tmp_path / "pytorch_model.bin")
    script = (
        "from vlm_crash.models.internvl import load_model\n"
        "from vlm_crash.models.shards import stored_tensors\n"
        "from pathlib import Path\n"
        "print(load_model('model').config.model_type)\n"
        "try:\n    stored_tensors([Path('pytorch_model.bin')])\nexcept ValueError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert result.stdout.startswith("internvl\nthe weights in pytorch_model.bin cannot be read"), result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "pytorch_model.bin"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
@pytest.mark.parametrize(("kind", "dtype"), [("safetensors", "float32"), ("bin", "bfloat16")])
def test_memory_above_the_model_stays_below_a_file(tmp_path: Path, kind: str, dtype: str) -> None:
    shape = Shape(hidden=1024, heads=8, layers=8, intermediate=2048, vocab=12000)
    write_original(tmp_path / "small", Shape())
    write_original(tmp_path / "big", shape, 3, kind)
    process = Forked("tests.models.load_memory", {}, [str(tmp_path / "small"), str(tmp_path / "big"), dtype])
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    above, largest = map(int, said.splitlines()[-1].split())
    assert largest > 40 * 2**20
    assert above <= 1.2 * largest, f"{above / 2**20:.0f} MiB above the model, largest file {largest / 2**20:.0f} MiB"


def test_force_image_size_interpolates_the_positions(tmp_path: Path) -> None:
    """As the original does while it runs: bicubic, to the grid of the frames."""
    given = write_original(tmp_path, Shape(dtype=torch.float32))
    content = json.loads((tmp_path / "config.json").read_text())
    content["force_image_size"] = 84
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = load_model(tmp_path)
    assert read_config(tmp_path).vlm_crash["image_size"] == 84
    positions = given["vision_model.embeddings.position_embedding"]
    grid = positions[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    larger = torch.nn.functional.interpolate(grid, size=(6, 6), mode="bicubic").flatten(2).mT
    pixels = torch.zeros(1, 3, 84, 84)
    bias = given["vision_model.embeddings.patch_embedding.bias"]
    want = torch.cat([given["vision_model.embeddings.class_embedding"] + positions[:, :1], larger + bias], dim=1)
    torch.testing.assert_close(model.model.vision_tower.embeddings(pixels), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [-2, 1, 0])
def test_select_layer_takes_that_layers_output(tmp_path: Path, layer: int) -> None:
    shape = Shape(vision_layers=3, dtype=torch.float32)
    write_original(tmp_path, shape)
    pixels = torch.randn(1, 3, 56, 56)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "select_layer": layer}))
    found = load_model(tmp_path).model.get_image_features(pixels).pooler_output
    write_original(tmp_path, shape)
    cut = load_model(tmp_path)
    del cut.model.vision_tower.encoder.layer[layer if layer >= 0 else layer + 1 :]
    torch.testing.assert_close(found, cut.model.get_image_features(pixels).pooler_output)


REFUSED = [
    ("ps_version", "v1"),
    ("ps_version", None),
    ("select_layer", 9),
    ("downsample_ratio", 0.4),
    ("force_image_size", 70),
    ("llm_config.architectures", ["Phi3ForCausalLM"]),
    ("quantization_config", {"quant_method": "awq"}),
    ("llm_config.rope_scaling", {"type": "yarn", "factor": 4.0}),
    ("llm_config.rope_pos_id_version", "v2pe_fix"),
    ("llm_config.hidden_act", "strange"),
    ("llm_config.num_key_value_heads", 3),
    ("llm_config.use_sliding_window", True),
    ("llm_config.moe_config", {"experts": 8}),
    ("vision_config.norm_type", "batch_norm"),
    ("vision_config.use_moe", True),
    ("vision_config.num_attention_heads", 5),
]


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=lambda given: str(given)[:24])
def test_what_cannot_be_computed_exactly_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    write_original(tmp_path, Shape())
    content = json.loads((tmp_path / "config.json").read_text())
    *towers, name = key.split(".")
    part = content[towers[0]] if towers else content
    part[name] = value
    if value is None:
        del part[name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"config.json: .*{name}"):
        read_config(tmp_path)


def test_query_norm_with_another_epsilon_is_refused(tmp_path: Path) -> None:
    shape = Shape(language="qwen2", qk_norm=True)
    write_original(tmp_path, shape)
    content = json.loads((tmp_path / "config.json").read_text())
    content["vision_config"]["layer_norm_eps"] = 1e-5
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="layer_norm_eps=1e-05 is not supported with qk_normalization"):
        read_config(tmp_path)
    write_original(tmp_path, replace(shape, qk_norm=False))
    content["vision_config"]["qk_normalization"] = False
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert load_model(tmp_path).model.vision_tower.encoder.layer[0].layernorm_before.eps == 1e-5
