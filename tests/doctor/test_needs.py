"""A config's needs, and what it takes on disk and in memory."""

import json

import pytest

from tests.cli.conftest import ROOT
from vlm_crash.doctor.needs import Needs, Saves, head_sizes, read_needs

TOWERS = {"vision": 300, "projector": 10, "language": 700}


def test_titan():
    needs = read_needs(ROOT / "configs/titan.yaml", model="m")
    assert (needs.dtype, needs.attention, needs.accelerator, needs.devices) == ("float16", "math", "auto", None)
    assert needs.is_distributed and needs.trains and needs.model == "m"
    assert (needs.num_workers, needs.batch_size, needs.num_frames) == (4, 1, 32)
    # last and one that is being written; the best weights and one that is being written
    assert needs.saves == (Saves(2), Saves(2, weights_only=True))
    assert needs.checkpoint_bytes(TOWERS) == 1010 * (2 * 12 + 2 * 4 + 4)
    # 2 batches of each of 4 workers of 8 processes, 32 frames of 3 x 448 x 448 float32
    assert needs.batch_bytes(448, 8) == 2 * 4 * 8 * 32 * 3 * 448 * 448 * 4


def test_adapters_alone_are_in_the_checkpoints():
    needs = read_needs(ROOT / "configs/titan_lora.yaml", model="m")
    assert needs.lora is not None and needs.lora["rank"] == 16
    # The merged model and the adapters at the end; nothing of the base in a checkpoint.
    assert needs.checkpoint_bytes({**TOWERS, "trained": 20}) == 20 * (2 * 12 + 2 * 4) + (1010 + 20) * 4
    assert needs.host_bytes({**TOWERS, "trained": 20}, 1, False) == 1010 * 4 + 20 * 12


def test_precision_of_a_plugin(tmp_path):
    config = tmp_path / "mine.yaml"
    plugin = "{class_path: vlm_crash.parallel.FSDPPrecision, init_args: {precision: 16-mixed}}"
    config.write_text(f"trainer: {{max_epochs: 1, precision: null, plugins: [{plugin}]}}\n")
    assert read_needs(config).dtype == "float16"


def test_frozen_towers_have_no_moments(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(
        "model: {path: here, freeze: [vision], attention: efficient}\n"
        "trainer: {max_epochs: 1, devices: 2, num_nodes: 2, precision: bf16-mixed, accelerator: cuda,\n"
        "  strategy: {class_path: vlm_crash.parallel.FSDPStrategy, init_args: {cpu_offload: true}}}\n"
        "output_dir: runs/mine\n"
    )
    needs = read_needs(config)
    assert needs.checkpoint_bytes(TOWERS) == 3 * (1010 * 4 + 710 * 8) + 1010 * 4
    assert (needs.dtype, needs.attention, needs.accelerator, needs.devices) == ("bfloat16", "efficient", "gpu", 2)
    assert needs.offloads and needs.num_nodes == 2 and needs.model == "here" and str(needs.output_dir) == "runs/mine"


@pytest.mark.parametrize(
    ("needs", "processes", "on_gpu", "wanted"),
    [
        (Needs(shards=True), 8, True, 1010 * 4),  # parts lie on the cards; the model folder is gathered on the CPU
        (Needs(shards=True, trains=False), 8, True, 0),
        (Needs(shards=True, offloads=True, num_nodes=2), 8, True, 1010 * 16 // 2 + 1010 * 4),
        (Needs(shards=True), 2, False, 1010 * 16 + 1010 * 4),
        (Needs(), 2, True, 2 * 1010 * 4),
        (Needs(frozen=("vision",)), 1, False, 1010 * 4 + 710 * 12),
        (Needs(trains=False), 1, False, 1010 * 4),
    ],
)
def test_memory_of_the_machine(needs, processes, on_gpu, wanted):
    assert needs.host_bytes(TOWERS, processes, on_gpu) == wanted


def test_a_config_of_predict_writes_no_checkpoints():
    assert read_needs(ROOT / "configs/predict.yaml").checkpoint_bytes(TOWERS) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "is no YAML"),
        ("- a", "has no section trainer, model or data"),
        ("out: x", "has no section trainer, model or data"),
        ("trainer: 3", "trainer is 3, no section with keys"),
    ],
)
def test_what_is_no_config(tmp_path, text, message):
    config = tmp_path / "mine.yaml"
    config.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_needs(config)


def test_the_defaults_are_a_run_without_a_config():
    assert Needs().source is None and not Needs().is_distributed


def test_heads_are_tried_in_the_models_sizes(tmp_path):
    """Without a model, or with a folder that says nothing, in those of InternVL2.5."""
    assert head_sizes(Needs()) == head_sizes(Needs(model=str(tmp_path))) == [64, 128]
    for text in ("{", "[]", '{"model_type": "internvl"}'):
        (tmp_path / "config.json").write_text(text)
        assert head_sizes(Needs(model=str(tmp_path))) == [64, 128]
    language = {"hidden_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = {
        "model_type": "internvl",
        "vision_config": {**language, "hidden_size": 1280, "num_attention_heads": 16, "intermediate_size": 64},
        "text_config": {**language, "intermediate_size": 64, "vocab_size": 100},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert head_sizes(Needs(model=str(tmp_path))) == [80, 128]
