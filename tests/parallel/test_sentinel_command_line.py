"""`fit` with the sentinel, two processes in fp16 on CPUs: one end for both."""

import json

from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.conftest import start
from tests.parallel.test_command_line import OPTIONS

LAYER = "model.model.vision_tower.encoder.layer.1.mlp"


def test_it_ends_on_both_with_one_message(micro_model, prepared, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for file in micro_model.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    weights = load_file(model / "model.safetensors")
    name = next(key for key in weights if key.endswith("vision_tower.encoder.layer.1.mlp.fc1.weight"))
    weights[name] *= 2e5
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    process = start(
        "fit", "--model.path", model, "--data.folder", prepared, "--output_dir", tmp_path / "fit", *OPTIONS,
        "--trainer.max_steps", 9, "--overflow_sentinel", 2,
    )  # fmt: skip
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2, said
    assert "Traceback" not in said
    assert said.count("vlm_crash fit: error: stopped before the step was taken: 2 optimizer steps in a row") == 1
    assert f"--model.fp32_modules [{LAYER}]" in said
    lines = [json.loads(line) for line in (tmp_path / "fit/overflow.jsonl").read_text().splitlines()]
    assert [(line["step"], line["module"], line["processes"]) for line in lines] == [
        (step, f"{LAYER}.fc1", [0, 1]) for step in (0, 1)
    ]
    assert all(line["clips"] and line["num_batches"] == 2 for line in lines)
    events = EventAccumulator(str(tmp_path / "fit/tensorboard"))
    events.Reload()
    assert len(events.Tensors("overflow/text_summary")) == 2
