"""The rule `event` against `middle` where the decisive moment is short: trained, answered and scored by our commands.

Enters: a folder, where finished stages lie and are not done again. Leaves: a Result. The clips are the demo's, but what
tells a crash from a near miss (the last second of a scene) passes in a part of a second: at the end of each clip, or
anywhere in it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benches.commands import command
from benches.common import Bar, Result, Table
from vlm_crash.data.prepared import load_prepared
from vlm_crash.demo.clips import drawn_place, plan_dataset, write_dataset
from vlm_crash.evaluation.bootstrap import Resamples, interval, row_means, share_interval
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.video import FrameSampling, read_frames

BASE_MODEL = Path(__file__).resolve().parents[2] / "vlm_crash/demo/base"
#: Points of balanced accuracy that `event` is to be ahead.
BAR = 10
#: Each place has a section of its own on the page.
PARTS_OPTION = "places"
#: Where in a clip its moment may be: the lines of the table, and which places (drawn_place) each is of.
ANYWHERE = {
    "anywhere": (0, 1),
    "in the first third": (0, 1 / 3),
    "in the second": (1 / 3, 2 / 3),
    "in the last": (2 / 3, 1),
}
NUM_DRAWS = 2000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/sampling"), help="folder to work in")
    parser.add_argument("--clips", type=int, default=420, help="clips, half of them crashes")
    parser.add_argument("--decisive", type=float, default=0.3, help="seconds in which the event shows")
    parser.add_argument("--places", nargs="+", choices=("end", "anywhere"), default=["end", "anywhere"], help="of it")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of training")
    parser.add_argument("--rate", type=float, help="learning rate of the whole model; unset: the demo's")
    parser.add_argument("--rules", nargs="+", default=["middle", "event"], help="rules, the plain one first")
    parser.add_argument("--seed", type=int, default=70, help="of the scenes and of the training")
    parser.add_argument("--until", choices=("clips", "scores"), default="scores", help="last stage to do")
    parser.add_argument("--only", help="do one of the rules alone (the others later)")


def run(options: argparse.Namespace) -> list[Result]:
    for place in options.places:
        out = options.out / place
        if not (out / "dataset" / "splits.json").exists():
            _prepare(out, place == "anywhere", options)
        for rule in [] if options.until == "clips" else [options.only] if options.only else options.rules:
            _fit(out, rule, options)
            for who, model in (("base", BASE_MODEL), ("fit", out / rule / "fit" / "model")):
                _answer(out, rule, who, model, options)
    return [] if options.only or options.until == "clips" else [_result(place, options) for place in options.places]


def _prepare(out: Path, anywhere: bool, options: argparse.Namespace) -> None:
    clips = out / "clips"
    write_dataset(clips, options.clips, options.seed, decisive_s=options.decisive, anywhere=anywhere)
    tables = [(f"--{event}_csv", clips / f"AV_{event}_modified_r.csv") for event in ("crash", "nearmiss")]
    folders = [(f"--{event}_dir", clips / event) for event in ("crash", "nearmiss")]
    given = [word for pair in tables + folders for word in pair]
    command("prepare", *given, "--out", out / "dataset", "--fractions", "[0.45,0.05,0.5]", "--seed", options.seed)


def _fit(out: Path, rule: str, options: argparse.Namespace) -> None:
    if (out / rule / "fit" / "model" / "config.json").exists():
        return
    parts = ("vision", "projector", "language") if options.rate else ()
    rates = [word for part in parts for word in (f"--model.lr_{part}", options.rate)]
    command(
        "fit", "--config", "demo.yaml", *rates, "--model.path", BASE_MODEL, "--data.folder", out / "dataset",
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


def _result(place: str, options: argparse.Namespace) -> Result:
    found = {rule: _clips(options.out / place, rule, place, options) for rule in options.rules}
    plain, other = options.rules[0], options.rules[-1]
    rows: list[tuple[str | int | float | None, ...]] = []
    ahead: dict[str, float] = {}
    for where, (low, high) in (ANYWHERE if place == "anywhere" else {"at the end": (0, 1)}).items():
        trained = {}
        for rule, clips in found.items():
            inside = [clip for clip in clips if low <= clip["place"] <= high]
            base, fit = (balanced([(clip["event"], clip[who]) for clip in inside]) for who in ("base", "fit"))
            shown = 100 * sum(clip["shown"] for clip in inside) / len(inside)
            rows.append((where, rule, len(inside), shown, *base, *fit))
            trained[rule] = fit[0]
        ahead[where] = trained[other] - trained[plain]
    of = "anywhere in it (the scene runs to its end and back again)" if place == "anywhere" else "at the clip's end"
    rate = f" at a learning rate of {options.rate:g}" if options.rate else ""
    table = Table(
        f"A decisive moment of a part of a second, {'anywhere' if place == 'anywhere' else 'at the end'}",
        f"{options.clips} of the demo's clips (seed {options.seed}), whose events show in {options.decisive:g} s {of}; "
        f"{options.frames} frames of each, {options.epochs} epochs{rate}. Crash or near miss, balanced accuracy on the "
        "held-out clips, with the 95 % interval of a bootstrap over clips.",
        ("the moment is", "rule", "clips", "with a frame of the moment (%)", "base alone (%)", "from (%)", "to (%)",
         "fine-tuned (%)", "from (%)", "to (%)"),
        rows,
    )  # fmt: skip
    first = next(iter(ahead))
    bar = Bar(
        f"{first}, `{other}` is {ahead[first]:+.1f} points ahead of `{plain}`; at least {BAR} are asked for",
        ahead[first] >= BAR,
    )
    points = {f"{other} minus {plain}, {where}": by for where, by in ahead.items()}
    return Result(f"sampling {place}", [table], points, option=PARTS_OPTION, bars=[bar])


def _clips(out: Path, rule: str, place: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Of each held-out clip its event, what was answered, where its moment is, and whether a frame shows it."""
    test = load_prepared(out / "dataset", load_schema())["test"]
    seeds = {f"{event}_{number}": seed for event, number, seed in plan_dataset(options.clips, options.seed)}
    answered = {who: _answers(out / rule / who / "scores") for who in ("base", "fit")}
    sampling = FrameSampling(options.frames, rule)
    found = []
    for sample in test:
        at = drawn_place(seeds[sample.id]) if place == "anywhere" else 1.0
        said = {who: answers[sample.id] for who, answers in answered.items()}
        shown = shows_it(sample, sampling, options.decisive, at)
        found.append({"event": sample.event, "place": at, "shown": shown, **said})
    return found


def _answers(scores: Path) -> dict[str, str | None]:
    """By clip the event that was answered; none is none of them."""
    clips = json.loads((scores / "records.json").read_text(encoding="utf-8"))["clips"]
    return {clip["id"]: clip["predicted_event"] for clip in clips}


def balanced(answers: Sequence[tuple[str, str | None]]) -> tuple[float, float, float]:
    """Mean over the events of the share answered right, and its interval, in percent, of (truth, answer) pairs."""
    events = sorted({event for event, _ in answers})
    right_NE = np.array([[float(said == event) if event == of else np.nan for of in events] for event, said in answers])
    mean = np.nanmean(right_NE, axis=0).mean()
    draws_RE = Resamples.of_clips(len(answers), NUM_DRAWS, seed=0).means(right_NE)
    found = interval(row_means(draws_RE))
    if found is None:  # every draw is the same: the mean of each event's exact limits
        counts_E = (~np.isnan(right_NE)).sum(axis=0)
        limits = [share_interval(draws_R, int(n)) for draws_R, n in zip(draws_RE.T, counts_E, strict=True)]
        known = np.array([one for one in limits if one is not None])
        found = tuple(known.mean(axis=0).tolist()) if len(known) == len(limits) else None
    if found is None:
        raise ValueError(f"{len(answers)} clips are too few for an interval; raise --clips")
    return 100 * float(mean), 100 * found[0], 100 * found[1]


def shows_it(sample: VideoSample, sampling: FrameSampling, decisive_s: float, place: float) -> bool:
    """Whether a chosen frame is of the moment in which the event shows; its place as `moments` has it."""
    frames = read_frames(sample.path, sampling)
    start_s = place * (frames.info.duration_s - decisive_s) - 1e-6
    return any(start_s <= time_s <= start_s + decisive_s + 2e-6 for time_s in frames.times_s)
