"""Predictions and truths as files, made of a schema's own terms."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vlm_crash.schema.fields import Schema, load_schema
from vlm_crash.schema.records import Annotation, Prediction
from vlm_crash.schema.response import render


@pytest.fixture
def schema() -> Schema:
    return load_schema()


@pytest.fixture
def write_csv(tmp_path: Path, schema: Schema) -> Callable[..., Path]:
    """An annotation CSV in the old form; each row: clip name -> known values."""

    def write(
        event: str, rows: Mapping[str, Mapping[str, str]], name: str | None = None, used: Schema = schema
    ) -> Path:
        path = tmp_path / (name or f"AV_{event}_modified_r.csv")
        fields = used.event(event).fields
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video_id", *(field.columns[0] for field in fields)])
            writer.writerows(
                [video, *(values.get(field.name, "") for field in fields)] for video, values in rows.items()
            )
        return path

    return write


@pytest.fixture
def say(schema: Schema) -> Callable[..., Prediction]:
    """A prediction whose text says an event and some values; the rest is missing from the text."""

    def make(
        video: str, event: str, values: Mapping[str, str], source: str | None = None, used: Schema = schema, **more: Any
    ) -> Prediction:
        text = render(used, Annotation.of(used, event, values))
        kept = "\n".join(line for line in text.split("\n") if not line.endswith(": Unknown"))
        keys: dict[str, Any] = {"event_probability": None, "status": "ok", **more}
        return Prediction(
            video=video, event=event, fields=dict(values), field_probabilities={}, response=kept,
            source_event=source, **keys,
        )  # fmt: skip

    return make


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    def write(predictions: Iterable[Prediction], name: str = "predictions.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(p.to_json_dict()) + "\n" for p in predictions), encoding="utf-8")
        return path

    return write


def write_clip(path: Path, colour: tuple[int, int, int], noise: int = 0) -> Path:
    """Twelve frames of 96x64 in one colour, with a little seeded noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(noise)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=6)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(12):
            pixels = np.clip(np.array(colour) + rng.normal(0, 8, (64, 96, 3)), 0, 255).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, colour: tuple[int, int, int] = (90, 120, 150), noise: int = 0) -> Path:
        return write_clip(tmp_path / name, colour, noise)

    return make
