"""Six clips with hostile texts, evaluated, and their page: right, wrong event, wrong field, right, failed, absent."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.evaluation.additions import add_all
from tests.evaluation.conftest import write_clip
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.report import report
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import Annotation, Prediction
from vlm_crash.schema.response import render

HOSTILE = "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\"> & \u2028 'q'"
BAD_NAME = "<b onclick=x>&'.mp4"
WET = {"Weather": "Rainy", "Lanes": "2", "Crash_reason": HOSTILE}
DRY = {"Weather": "Clear", "Lanes": "3"}
TRUTHS = {
    "crash": {"1.mp4": WET, "2.mp4": WET, BAD_NAME: WET},
    "nearmiss": {"1.mp4": DRY, "2.mp4": DRY, "3.mp4": DRY},
}


def evaluation(folder: Path) -> Path:
    """The folder that `evaluate` writes of them, without any text score."""
    schema = load_schema()
    clip = str(write_clip(folder / "clips/crash/1.mp4", (90, 120, 150)))
    for event, rows in TRUTHS.items():
        fields = schema.event(event).fields
        with (folder / f"AV_{event}_modified_r.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video_id", *(field.columns[0] for field in fields)])
            writer.writerows([video, *(values.get(f.name, "") for f in fields)] for video, values in rows.items())
    failed = _said("2.mp4", "nearmiss", {}, "nearmiss")
    said = [
        _said("1.mp4", "crash", WET, "crash", path=clip, event_probability=0.9),
        _said("2.mp4", "nearmiss", {"Weather": "Rainy"}, "crash", path=clip, event_probability=0.2),
        _said(BAD_NAME, "crash", {**WET, "Weather": "Foggy"}, "crash", path="gone.mp4", event_probability=0.8),
        _said("1.mp4", "nearmiss", DRY, "nearmiss", event_probability=0.1),
        replace(failed, event=None, response="", status="failed", error="no <video> stream"),
    ]
    lines = folder / "predictions.jsonl"
    lines.write_text("".join(json.dumps(one.to_json_dict()) + "\n" for one in said), encoding="utf-8")
    truth = [folder / f"AV_{event}_modified_r.csv" for event in TRUTHS]
    evaluate([lines], truth, folder / "out", schema, EvaluationSettings(None, num_draws=100))
    return folder / "out"


def full_page(folder: Path) -> Path:
    """The page of an evaluation that has every optional part."""
    out = evaluation(folder)
    metrics, records = (json.loads((out / name).read_text()) for name in ("metrics.json", "records.json"))
    add_all(metrics, records)
    (out / "metrics.json").write_text(json.dumps(metrics))
    (out / "records.json").write_text(json.dumps(records))
    return report(out)


def _said(video: str, event: str, values: Mapping[str, str], source: str, **more: object) -> Prediction:
    schema = load_schema()
    text = render(schema, Annotation.of(schema, event, values))
    kept = "\n".join(line for line in text.split("\n") if not line.endswith(": Unknown"))
    blank = Prediction(video, event, None, dict(values), {}, kept, "ok", source_event=source)
    return replace(blank, **more)  # type: ignore[arg-type]
