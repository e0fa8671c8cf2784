"""A video checkpoint in the original layout, trained and asked with token merging; no number of frames is special."""

import json
import shutil
from pathlib import Path

from tests.cli.conftest import QUICK
from vlm_crash.cli import main
from vlm_crash.models.folder import HicoSettings, folder_settings, read_config


def test_a_hico_checkpoint_is_trained_and_answers(parity: Path, prepared: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    shutil.copytree(parity / "checkpoints/qwen2_hico", source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "num_tome_tokens": 16}))
    data = ["--data.folder", str(prepared), *QUICK, "--data.prompt", "short", "--data.num_frames", "6"]
    steps = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "1", "--model.num_validation_answers", "0"]
    fit = ["fit", "--model.path", str(source), "--model.vision_chunk", "3", *data, *steps]
    assert main([*fit, "--output_dir", str(tmp_path / "fit")]) == 0
    trained = tmp_path / "fit/model"
    assert folder_settings(read_config(trained)).hico == HicoSettings(4, 16, 4)
    predict = ["predict", "--model.path", str(trained), "--model.max_new_tokens", "4", *data, "--data.split", "test"]
    assert main([*predict, "--output_dir", str(tmp_path / "answers")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "answers/predictions.jsonl").read_text().splitlines()]
    assert lines and all(line["status"] == "ok" for line in lines)
