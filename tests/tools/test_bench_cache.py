"""tools/bench.py cache: what a format changes in answers is counted, and lossless formats change nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench import main
from benches.cache_answers import Changes, changes

from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Prediction
from vlm_crash.video.frame_formats import FRAME_FORMATS


def test_changes_are_counted_over_the_fields_of_the_first_event() -> None:
    schema = load_schema(None)
    event = schema.event("nearmiss")
    said = {field.name: "x" for field in event.fields}
    terms = {"Weather": {"Clear": 0.75, "Rainy": 0.25}}
    old = Prediction("1.mp4", "nearmiss", 0.25, said, terms, "", "ok", path="1")
    text = next(field.name for field in event.fields if field.kind == "text")
    moved = {"Weather": {"Clear": 0.5, "Rainy": 0.5}}
    new = replace(old, fields={**said, "Weather": "y", text: "y"}, event_probability=0.375, field_probabilities=moved)
    num_texts = sum(field.kind == "text" for field in event.fields)
    counts = {"num_fields": len(event.fields) - num_texts, "num_texts": num_texts}
    same = Changes(events=0, fields=0, texts=0, crash=0.0, term=0.0, **counts)
    assert changes(schema, {"1": old}, {"1": old}) == same
    assert changes(schema, {"1": old}, {"1": new}) == replace(same, fields=1, texts=1, crash=0.125, term=0.25)
    other = replace(new, event="crash", fields={}, event_probability=0.75)
    lost = replace(same, events=1, fields=counts["num_fields"], texts=num_texts, crash=0.5)
    assert changes(schema, {"1": old}, {"1": other}) == lost


def test_answers_of_a_small_run(tmp_path: Path, tiny_model: Path, prepared: Path) -> None:
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit/model").symlink_to(tiny_model)
    (tmp_path / "dataset").symlink_to(prepared)
    file = tmp_path / "found.json"
    arguments = ["cache", "--parts", "answers", "--demo", str(tmp_path), "--clips", str(tmp_path), "--qualities", "1"]
    arguments += ["--most_tokens", "1"]
    assert main([*arguments, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    table = found["tables"][0]
    plain, zstd, webp, jpeg = (dict(zip(table["columns"], row, strict=True)) for row in table["rows"])
    assert [row["format"] for row in (plain, zstd, webp, jpeg)] == ["lz4", "zstd", "webp", "jpeg 1"]
    for row in (plain, zstd, webp):
        assert (
            row["other events"] == row["other fields"] == row["other texts"] == row["P(crash)"] == row["P(term)"] == 0
        )
    assert jpeg["P(crash)"] > 0 and jpeg["size (share)"] < webp["size (share)"] and plain["of fields"] > 0
    assert found["notes"] == ["real clips: there are none"] and "jpeg 1" not in FRAME_FORMATS
    with pytest.raises(SystemExit, match="needs a folder that"):
        main([*arguments[:4], str(tmp_path / "nowhere")])
