"""Another lab's events and fields, from CSVs to scores, without a change of code."""

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest

from tests.cli.conftest import QUICK, QUICK_FIT
from vlm_crash.cli import main

SCHEMA = Path(__file__).parents[1] / "schema" / "mine.yaml"
ROWS = {
    "fall": {"Rider_count": "1", "Helmet": "Yes", "Cause": "ice on the path"},
    "conflict": {"Rider_count": "2", "Helmet": "No", "Partner kind": "dog", "Yield": "First rider"},
    "nothing": {"Rider_count": "1", "Pavement": "Gravel"},
}


def write_clip(path: Path, level: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fall/, conflict/, nothing/ with three clips each, and a CSV beside each."""
    folder = tmp_path_factory.mktemp("sources")
    for number, (event, row) in enumerate(ROWS.items()):
        (folder / event).mkdir()
        for clip in range(1, 4):
            write_clip(folder / event / f"{clip}.mp4", 20 + 60 * number + 15 * clip)
        with (folder / f"{event}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows([row] * 3)
    return folder


def test_three_events_end_to_end(sources, tiny_model, tmp_path):
    dataset, fit, out, scores = (tmp_path / name for name in ("dataset", "fit", "predictions", "scores"))
    args: list[object] = ["prepare", "--schema", SCHEMA, "--out", dataset, "--fractions", "[0.7,0,0.3]"]
    for event in ROWS:
        args += [f"--event_csvs.{event}", sources / f"{event}.csv", f"--event_dirs.{event}", sources / event]
    assert main([*map(str, args)]) == 0
    assert {path.name for path in dataset.glob("*.jsonl")} == {f"{event}_ft.jsonl" for event in ROWS}
    args = ["fit", *QUICK, *QUICK_FIT, "--data.schema", SCHEMA, "--data.folder", dataset, "--output_dir", fit]
    assert main([*map(str, args), "--model.path", str(tiny_model)]) == 0
    args = ["predict", *QUICK, "--data.schema", SCHEMA, "--model.path", fit / "model", "--output_dir", out]
    for event in ROWS:
        args += [f"--data.event_dirs.{event}", sources / event]
    assert main([*map(str, args)]) == 0
    assert {path.name for path in out.glob("*_results.json")} == {f"{event}_results.json" for event in ROWS}
    args = ["evaluate", "--schema", SCHEMA, "--predictions", out, "--truth", dataset, "--out", scores]
    assert main([*map(str, args), "--embedder", "null"]) == 0
    metrics = json.loads((scores / "metrics.json").read_text())
    assert set(ROWS) <= set(metrics)
    assert metrics["conflict"]["fields"]["Helmet"]["n"] == 3
