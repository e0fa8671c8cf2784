"""Real dashcam and roadside clips through the shipped base model: a line each, none lost, and a page of them."""

import json
from pathlib import Path

import pytest

from vlm_crash.cli import main
from vlm_crash.cli.demo import BASE_MODEL

REAL = Path(__file__).parents[3] / "shared" / "clips" / "real"


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared clips are not beside this clone")
def test_every_real_clip_has_its_line_and_its_place_on_the_page(tmp_path: Path) -> None:
    out = tmp_path / "answers"
    args = ["--model.path", BASE_MODEL, "--data.clips", REAL, "--data.batch_size", 8, "--model.max_new_tokens", 128]
    options = ["--trainer.accelerator", "cpu", "--model.embedder", "null", "--output_dir", out]
    assert main([str(arg) for arg in ["predict", *args, *options]]) == 0
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    clips = sorted(path.name for path in REAL.iterdir() if path.suffix != ".csv")
    assert sorted(line["video"] for line in lines) == clips
    assert [line["error"] for line in lines if line["status"] == "failed"] == []
    page = tmp_path / "page.html"
    assert main(["report", str(out), "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert all(clip in text for clip in clips)
    assert text.count('"/9j/') >= 8 * len(clips)  # JPEG, base64
