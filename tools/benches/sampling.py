"""The rule `event` against `middle` where the decisive moment is short: trained, answered and scored by our commands.

Enters: a folder, where finished stages lie and are not done again. Leaves: a Result. The clips are the demo's, but what
tells a crash from a near miss (the last second of a scene) passes in a part of a second, at the end of the clip.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benches.commands import command
from benches.common import Bar, Result, Table
from vlm_crash.data.prepared import load_prepared
from vlm_crash.demo.clips import write_dataset
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.video import FrameSampling, read_frames

BASE_MODEL = Path(__file__).resolve().parents[2] / "vlm_crash/demo/base"
#: Points of balanced accuracy that `event` is to be ahead.
BAR = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/sampling"), help="folder to work in")
    parser.add_argument("--clips", type=int, default=420, help="clips, half of them crashes")
    parser.add_argument("--decisive", type=float, default=0.3, help="seconds in which the event shows")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of training")
    parser.add_argument("--rules", nargs="+", default=["middle", "event"], help="rules, the plain one first")
    parser.add_argument("--seed", type=int, default=70, help="of the scenes and of the training")
    parser.add_argument("--until", choices=("clips", "scores"), default="scores", help="last stage to do")
    parser.add_argument("--only", help="do one of the rules alone (the others later)")


def run(options: argparse.Namespace) -> list[Result]:
    out: Path = options.out
    if not (out / "dataset" / "splits.json").exists():
        _prepare(out, options)
    if options.until == "clips":
        return []
    for rule in [options.only] if options.only else options.rules:
        _fit(out, rule, options)
        for who, model in (("base", BASE_MODEL), ("fit", out / rule / "fit" / "model")):
            _answer(out, rule, who, model, options)
    return [] if options.only else [_result(out, options)]


def _prepare(out: Path, options: argparse.Namespace) -> None:
    clips = out / "clips"
    write_dataset(clips, options.clips, options.seed, decisive_s=options.decisive)
    tables = [(f"--{event}_csv", clips / f"AV_{event}_modified_r.csv") for event in ("crash", "nearmiss")]
    folders = [(f"--{event}_dir", clips / event) for event in ("crash", "nearmiss")]
    given = [word for pair in tables + folders for word in pair]
    command("prepare", *given, "--out", out / "dataset", "--fractions", "[0.45,0.05,0.5]", "--seed", options.seed)


def _fit(out: Path, rule: str, options: argparse.Namespace) -> None:
    if (out / rule / "fit" / "model" / "config.json").exists():
        return
    command(
        "fit", "--config", "demo.yaml", "--model.path", BASE_MODEL, "--data.folder", out / "dataset",
        "--data.frame_rule", rule, "--data.num_frames", options.frames, "--trainer.max_epochs", options.epochs,
        "--seed_everything", options.seed, "--output_dir", out / rule / "fit", "--overwrite", "true",
    )  # fmt: skip


def _answer(out: Path, rule: str, who: str, model: Path, options: argparse.Namespace) -> None:
    """Answers to the held-out clips, scored. A trained model's folder says which frames it wants; the base is told."""
    answers, scores = out / rule / who / "answers", out / rule / who / "scores"
    if (scores / "metrics.json").exists():
        return
    told = ("--data.frame_rule", rule, "--data.num_frames", options.frames) if who == "base" else ()
    command(
        "predict", "--model.path", model, "--data.folder", out / "dataset", "--data.split", "test", *told,
        "--data.batch_size", 16, "--trainer.accelerator", "cpu", "--output_dir", answers,
    )  # fmt: skip
    command(
        "evaluate", "--predictions", answers, "--truth", out / "dataset", "--split", "test", "--out", scores,
        "--embedder", "null",
    )  # fmt: skip


def _result(out: Path, options: argparse.Namespace) -> Result:
    test = load_prepared(out / "dataset", load_schema())["test"]
    rows: list[tuple[str | int | float | None, ...]] = []
    trained: dict[str, float] = {}
    for rule in options.rules:
        shown = np.mean([_shows_it(sample, FrameSampling(options.frames, rule), options.decisive) for sample in test])
        base, fit = (_event(out / rule / who / "scores") for who in ("base", "fit"))
        trained[rule] = 100 * fit["balanced_accuracy"]
        rows.append((rule, 100 * float(shown), *_points(base), *_points(fit), fit["n"]))
    table = Table(
        "A decisive moment of a part of a second",
        f"{options.clips} of the demo's clips (seed {options.seed}), whose events show in their last "
        f"{options.decisive:g} s; {options.frames} frames of each, {options.epochs} epochs. Crash or near miss, "
        "balanced accuracy on the held-out clips, with the 95 % interval of a bootstrap over clips.",
        ("rule", "clips with a frame of the moment (%)", "base alone (%)", "from (%)", "to (%)", "fine-tuned (%)",
         "from (%)", "to (%)", "clips"),
        rows,
    )  # fmt: skip
    plain, other = options.rules[0], options.rules[-1]
    ahead = trained[other] - trained[plain]
    bar = Bar(f"`{other}` is {ahead:+.1f} points ahead of `{plain}`; at least {BAR} are asked for", ahead >= BAR)
    return Result("sampling", [table], {f"{other}_minus_{plain}_points": ahead}, bars=[bar])


def _event(scores: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((scores / "metrics.json").read_text(encoding="utf-8"))["event"]
    return found


def _points(event: dict[str, Any]) -> tuple[float, ...]:
    low, high = event["intervals"]["balanced_accuracy"]
    return 100 * event["balanced_accuracy"], 100 * low, 100 * high


def _shows_it(sample: VideoSample, sampling: FrameSampling, decisive_s: float) -> bool:
    """Whether a chosen frame is of the moment in which the event shows."""
    frames = read_frames(sample.path, sampling)
    return frames.times_s[-1] >= frames.info.duration_s - decisive_s - 1e-6
