"""How large the page of a whole dataset is, how long it takes to make, and how soon a browser shows it.

Enters: a number of clips. Leaves: a Result. Truths are of the demo's scenes, answers are these with mistakes and with
probabilities, `evaluate` scores them and `report` makes the page, as a user would. A few files stand for all clips;
with grain on every frame, as a camera at night has it, a picture takes the most bytes that a page can meet.
"""

import argparse
import csv
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np

from benches.common import Bar, Result, Table, timed
from vlm_crash.demo.draw import render_frame
from vlm_crash.demo.scene import sample_scene
from vlm_crash.demo.world import Scene
from vlm_crash.evaluation.evaluate import evaluate
from vlm_crash.evaluation.report import report
from vlm_crash.evaluation.settings import EvaluationSettings
from vlm_crash.schema.fields import UNKNOWN, Field, Schema, load_schema
from vlm_crash.schema.records import Annotation, Prediction
from vlm_crash.schema.response import render

SIZE = (640, 360)
RATE, SECONDS = 5, 2
#: What the page may take: megabytes, and seconds to the first paint.
MOST_MB, MOST_S = 60.0, 3.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=int, default=1642, help="clips of the evaluation")
    parser.add_argument("--files", type=int, default=12, help="video files that stand for them")
    parser.add_argument("--grain", type=float, nargs="+", default=[0.0, 12.0], help="of a frame, of 255 levels")
    parser.add_argument("--rounds", type=int, default=3, help="times that a page is opened")


def run(options: argparse.Namespace) -> list[Result]:
    rows, slowest, largest = [], 0.0, 0.0
    for grain in options.grain:
        with tempfile.TemporaryDirectory() as folder:
            page, seconds = _page(Path(folder), options.clips, options.files, grain)
            size_mb = page.stat().st_size / 1e6
            opened = [_opened(page) for _ in range(options.rounds)]
            middle = {name: statistics.median(one[name] for one in opened) for name in opened[0]}
            rows.append((grain, options.clips, seconds, size_mb, *middle.values()))
            slowest, largest = max(slowest, middle["paint_s"]), max(largest, size_mb)
    table = Table(
        "The page of an evaluation",
        f"{options.clips:,} clips, {options.files} files of {SIZE[0]} x {SIZE[1]} pixels standing for them; opened "
        f"from disk {options.rounds} times in headless Chromium, medians. “Read” is when the last frame has been read "
        "(tables and filters work before); “filter” types a word into the search; “next” opens a clip, its frames "
        "decoded.",
        ("grain (levels)", "clips", "made in (s)", "size (MB)", "first paint (s)", "read (s)", "filter (ms)",
         "next (ms)"),
        rows,
    )  # fmt: skip
    bars = [
        Bar(f"{largest:.1f} MB at most; less than {MOST_MB:g} are asked for", largest < MOST_MB),
        Bar(f"{slowest:.2f} s to the first paint at most; less than {MOST_S:g} are asked for", slowest < MOST_S),
    ]
    return [Result("report", [table], {}, bars=bars)]


def _page(folder: Path, num_clips: int, num_files: int, grain: float) -> tuple[Path, float]:
    """The page, and how long it took to make, without the scoring."""
    files = [_write_file(folder / f"clip_{n}.mp4", sample_scene(n), grain, n) for n in range(num_files)]
    schema = load_schema()
    scenes = [sample_scene(seed) for seed in range(num_clips)]
    names = [f"{n}.mp4" for n in range(num_clips)]
    truth = []
    for event in schema.events:
        truth.append(folder / f"{event.name}.csv")
        with truth[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video_id", *(field.columns[0] for field in event.fields)])
            for name, scene in zip(names, scenes, strict=True):
                if scene.event == event.name:
                    writer.writerow([name, *(scene.values.get(field.name, "") for field in event.fields)])
    lines = folder / "predictions.jsonl"
    said = [
        _answer(schema, scene, name, str(files[n % num_files]), Random(n))
        for n, (name, scene) in enumerate(zip(names, scenes, strict=True))
    ]
    lines.write_text("".join(json.dumps(one.to_json_dict()) + "\n" for one in said), encoding="utf-8")
    evaluate([lines], truth, folder / "scores", schema, EvaluationSettings(None, num_draws=100))
    return folder / "scores/report.html", timed(lambda: report(folder / "scores"))


def _write_file(path: Path, scene: Scene, grain: float, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "superfast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for n in range(RATE * SECONDS):
            frame_HWC = np.asarray(render_frame(scene, n / RATE, SIZE)).astype(np.float32)
            noisy_HWC = np.clip(frame_HWC + grain * rng.standard_normal(frame_HWC.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy_HWC, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _answer(schema: Schema, scene: Scene, name: str, path: str, random: Random) -> Prediction:
    """The truth, one field in five another term of it, with probabilities."""
    values, probabilities = dict(scene.values), {}
    for field in schema.event(scene.event).fields:
        if field.kind == "text":
            continue
        terms = _terms(field, values[field.name])
        values[field.name] = random.choice(terms) if random.random() < 0.2 else values[field.name]
        weights = [random.random() ** 4 + 4.0 * (term == values[field.name]) for term in terms]
        probabilities[field.name] = {term: weight / sum(weights) for term, weight in zip(terms, weights, strict=True)}
    is_first = scene.event == schema.events[0].name
    return Prediction(
        video=name, event=scene.event, event_probability=random.uniform(0.5, 1) if is_first else random.uniform(0, 0.5),
        fields=values, field_probabilities=probabilities, status="ok", path=path, source_event=scene.event,
        response=render(schema, Annotation.of(schema, scene.event, values)),
    )  # fmt: skip


def _terms(field: Field, value: str) -> list[str]:
    terms = list(field.vocabulary) if field.kind == "categorical" else ["1", "2", "3", "4"]
    return list(dict.fromkeys([*terms, value])) if value != UNKNOWN else terms


def _opened(page: Path) -> dict[str, float]:
    """Seconds and milliseconds of one opening in a fresh browser."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("no chromium on this machine; install it, or leave this benchmark out")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.goto(page.as_uri(), wait_until="load", timeout=300_000)
        found: dict[str, Any] = opened.evaluate(_MEASURE)
        browser.close()
    return {name: float(value) for name, value in found.items()}


_MEASURE = """async () => {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const took = async (what) => {
    const start = performance.now();
    await what();
    await painted();
    return performance.now() - start;
  };
  await painted();
  const box = document.getElementById("text");
  const filter = await took(() => { box.value = "rainy"; box.dispatchEvent(new Event("input", { bubbles: true })); });
  const next = await took(async () => {
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
    await Promise.all([...document.querySelectorAll("#detail img")].map((image) => image.decode()));
  });
  const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime / 1000;
  const read = performance.getEntriesByType("navigation")[0].domComplete / 1000;
  return { paint_s: paint, read_s: read, filter_ms: filter, next_ms: next };
}"""
