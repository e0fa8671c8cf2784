"""Answers: seconds, forward passes and memory per clip, beside the scripts' way; terms, and the demo's accuracy.

Enters: nothing but options; `--parts accuracy` a folder that `demo` made. Leaves: a Result a part, with the bars beside
the ratios. On the tiny model that ships with the package, from files to records; on a random one of 1B's shape, its
vision tower and its language model apart.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benches.common import Bar, Result, Row, Table, side_by_side
from benches.model import TINY, random_model, shape_config
from benches.predict_checks import accuracy, count_answers
from benches.predict_int8 import run_int8
from benches.predict_ways import Clip, Run, System, Way, answer, random_clips, system_for, ways
from vlm_crash.demo.clips import write_dataset
from vlm_crash.models.folder import image_size
from vlm_crash.models.vision import image_features
from vlm_crash.schema.fields import load_schema
from vlm_crash.schema.records import VideoSample
from vlm_crash.schema.response import parse

PARTS = ("speed", "large", "memory", "vocabulary", "accuracy", "int8")
#: What the issue asks for: ratio -> (bar, whether it is the least).
BARS = {
    "language_seconds_a200_over_d": (6.0, True),
    "language_passes_d_over_a200": (0.35, False),
    "end_to_end_a200_over_d": (2.0, True),
}
GIB = 2**30


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--parts", nargs="+", default=["speed", "large", "memory", "vocabulary"], choices=PARTS, help="what to measure")
    add("--shapes", nargs="+", default=["tiny", "1B"], choices=["tiny", "1B"], help="models whose memory is measured")
    add("--frames", type=int, nargs="+", default=[8, 32], help="frames of a clip of the tiny model")
    add("--large_frames", type=int, default=8, help="frames of a clip of the 1B model")
    add("--clips", type=int, default=8, help="clips of the tiny model, and of its batch")
    add("--large_clips", type=int, default=8, help="clips of a batch of the 1B model; ways without batches answer one")
    add("--rounds", type=int, default=3, help="rounds of the tiny model, after one that is not counted")
    add("--large_rounds", type=int, default=1, help="rounds of the 1B model, of minutes each")
    add("--most_tokens", type=int, default=400, help="most tokens of a free answer")
    add("--least_tokens", type=int, default=200, help="fewest tokens of the scripts' answers, where they are forced")
    add("--text_tokens", type=int, default=24, help="most tokens of each text field of a form")
    add("--large_prompt", default="short", choices=["short", "full"], help="the question of the 1B model")
    add("--answers", type=int, default=1000, help="answers of random weights to check")
    add("--demo", type=Path, default=Path("runs/demo"), help="a folder that `demo` made, for --parts accuracy")


def run(options: argparse.Namespace) -> list[Result]:
    found = []
    for part in options.parts:
        if part == "speed":
            found.append(_speed("predict speed", [("tiny", frames) for frames in options.frames], options))
        elif part == "large":
            found.append(_speed("predict large", [("1B", options.large_frames)], options))
        elif part == "memory":
            found.append(_memory(options))
        elif part == "vocabulary":
            found.append(count_answers(options.answers, options.text_tokens))
        elif part == "int8":
            found.append(run_int8(prompt_tokens=360, rounds=options.large_rounds))
        else:
            found.append(accuracy(options.demo, options.most_tokens))
    return found


# ---------------------------------------------------------------------------------------------------------------- speed


def _speed(name: str, sizes: Sequence[tuple[str, int]], options: argparse.Namespace) -> Result:
    tables: list[Table] = []
    ratios: dict[str, float] = {}
    bars: list[Bar] = []
    for shape, frames in sizes:
        with system_of(shape, frames, options) as (system, clips):
            rounds = _rounds(system, clips, shape, options)
        tables.append(_table(shape, frames, rounds, options, system))
        medians = {key: median_run(runs) for key, runs in rounds.items()}
        for key, value in ratios_of(medians, options.least_tokens, is_whole=shape == "tiny").items():
            ratios[f"{key} ({shape}, {frames} frames)"] = value
            if key in BARS:
                bars.append(bar_of(key, f"{shape}, {frames} frames", value))
        if shape == "1B":
            tables.append(_vision(frames, medians))
    return Result(name, tables, ratios, bars=bars)


def bar_of(key: str, what: str, value: float) -> Bar:
    """Whether the bar of a ratio is reached, in words."""
    bar, is_least = BARS[key]
    met = value >= bar if is_least else value <= bar
    return Bar(f"{key} ({what}) is {value:.2f}, {'at least' if is_least else 'at most'} {bar:g}", met)


@contextmanager
def system_of(shape: str, frames: int, options: argparse.Namespace) -> Iterator[tuple[System, list[Clip]]]:
    """A model and its clips: drawn ones, as files; noise for a large model, whose tower has one layer here."""
    limits = options.most_tokens, options.text_tokens
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shape == "tiny":
            yield system_for(TINY, "weights", frames, *limits), drawn_clips(folder, options.clips)
        else:
            write_large(folder)
            system = system_for(folder, "random", frames, *limits, options.large_prompt)
            yield system, random_clips(system.recipe, options.large_clips)


def drawn_clips(folder: Path, number: int) -> list[Clip]:
    """Files of rendered scenes, crashes and near misses in turns."""
    write_dataset(folder, num_clips=max(4, number), seed=5, workers=1)
    files = sorted(folder.glob("*/*.mp4"), key=lambda file: (file.stem, file.parent.name))[:number]
    return [Clip(VideoSample(f"clip:{file}", file.name, file, None, None, None)) for file in files]


def write_large(folder: Path) -> None:
    """InternVL2.5-1B's shape, tokens merged, with the demo's tokenizer and one layer of its vision tower."""
    config = shape_config("1B", is_merged=True)
    config.vision_config.num_hidden_layers = 1  # type: ignore[union-attr]
    config.image_token_id = 5
    config.save_pretrained(folder)
    for file in TINY.glob("tokenizer*"):
        shutil.copy(file, folder)


def _rounds(system: System, clips: Sequence[Clip], shape: str, options: argparse.Namespace) -> dict[str, list[Run]]:
    """Every way in turns, so that noise meets all."""
    all_ways = ways(options.least_tokens, is_random=shape != "tiny")
    found: dict[str, list[Run]] = {way.key: [] for way in all_ways}
    warm = 1 if shape == "tiny" else 0
    for number in range(warm + (options.rounds if warm else options.large_rounds)):
        for way in sorted(all_ways, key=lambda way: way.key != "d"):  # the others are led to its answers
            start = time.perf_counter()
            run = answer(system, clips if warm or way.is_batched else clips[:1], way)
            print(f"{time.perf_counter() - start:.1f} s for {shape}, {way}: {run.passes} passes", file=sys.stderr)
            if number >= warm:
                found[way.key].append(run)
    return found


def median_run(runs: Sequence[Run]) -> Run:
    """Medians of the seconds over rounds; counts and answers do not change from round to round."""
    parts = {
        name: statistics.median(getattr(run, name) for run in runs)
        for name in ("loading", "vision", "prefill", "decode")
    }
    first = runs[0]
    return Run(**parts, passes=first.passes, clips=first.clips, tokens=first.tokens, texts=first.texts)


def passes(run: Run, way: Way) -> float:
    """Forward passes that a clip waits for: those of its batch, not divided by its neighbours."""
    return run.passes if way.is_batched else run.passes / run.clips


def ratios_of(runs: Mapping[str, Run], least_tokens: int, is_whole: bool) -> dict[str, float]:
    """The ratios that the issue names, per clip; those of whole answers where loading was measured."""
    found = {}
    by_key = {way.key: way for way in ways(least_tokens)}
    new = runs["d"]
    for key, old in runs.items():
        if key in ("d", "a, free"):
            continue
        found[f"language_seconds_{key}_over_d"] = (old.language / old.clips) / (new.language / new.clips)
        found[f"language_passes_d_over_{key}"] = passes(new, by_key["d"]) / passes(old, by_key[key])
        if is_whole:
            found[f"end_to_end_{key}_over_d"] = (old.seconds / old.clips) / (new.seconds / new.clips)
    return found


def fields_answered(texts: Sequence[str]) -> float:
    """Mean number of fields that have a value."""
    schema = load_schema()
    return statistics.mean(len(parse(schema, text).values) for text in texts)


def longest_text(texts: Sequence[str], tokenizer: Any) -> int:
    """Tokens of the longest text field."""
    schema = load_schema()
    names = {field.name for field in schema.fields if field.kind == "text"}
    values = [value for text in texts for name, value in parse(schema, text).values.items() if name in names]
    return max((len(tokenizer(value).input_ids) for value in values), default=0)


def _table(
    shape: str, frames: int, rounds: Mapping[str, Sequence[Run]], options: argparse.Namespace, system: System
) -> Table:
    rows: list[Row] = []
    for way in ways(options.least_tokens, is_random=shape != "tiny"):
        run = median_run(rounds[way.key])
        per_clip = [run.prefill / run.clips, run.decode / run.clips, run.language / run.clips]
        whole = [run.loading / run.clips, run.vision / run.clips] if shape == "tiny" else []
        rows.append(
            [
                way.key, way.what, run.clips if way.is_batched else 1, *whole, *per_clip,
                *([run.seconds / run.clips] if whole else []), passes(run, way), run.passes / run.clips,
                run.tokens / run.clips, fields_answered(run.texts), longest_text(run.texts, system.tokenizer),
            ]
        )  # fmt: skip
    prompt = len(random_clips(system.recipe, 1)[0].item.input_ids_S)  # type: ignore[union-attr]
    counted = len(rounds["d"])
    what = (
        f"{frames} frames, a prompt of {prompt} tokens, fp32 on the CPU; seconds and tokens per clip, medians of "
        f"{counted} round{'s' if counted > 1 else ''} in turns. a: transformers' generate, one clip at a time, eager "
        f"attention, at most {options.most_tokens} new tokens, frames loaded as the old scripts did. b to d: CrashVLM "
        f"with --model.attention auto; texts of at most {options.text_tokens} tokens. a and b are led token by token "
        "to the answers of d, so that all write the same fields. Passes: forward passes of the language model that a "
        "clip waits for, and divided by the clips of its batch. Fields: with a value, of 19 or 9. Longest text: tokens."
    )
    parts = ["loading (s)", "vision (s)"] if shape == "tiny" else []
    if shape != "tiny":
        what += " Random weights; the vision tower is measured below."
    return Table(
        f"Answers of the {shape} model, {frames} frames",
        what,
        [
            "", "way", "clips at once", *parts, "prefill (s)", "decode (s)", "language (s)",
            *(["whole (s)"] if parts else []), "passes", "passes / clip", "tokens", "fields", "longest text",
        ],
        rows,
    )  # fmt: skip


def _vision(frames: int, runs: Mapping[str, Run]) -> Table:
    """The whole tower for one clip, and what a clip takes with it."""
    config = shape_config("1B", is_merged=True)
    config.text_config.num_hidden_layers = 1  # type: ignore[union-attr]
    with torch.inference_mode():
        model = random_model(config)
        pixels = torch.randn(frames, 3, *image_size(config))
        (seconds,), counted = side_by_side([partial(image_features, model, pixels, [frames])], 1, limit_s=60)
    rows: list[Row] = [
        [key, seconds, run.language / run.clips, seconds + run.language / run.clips] for key, run in runs.items()
    ]
    return Table(
        "Seconds per clip of the 1B model",
        f"The whole vision tower with merging for {frames} frames ({counted} round), and the language model's part as "
        "above; without reading the file.",
        ["way", "vision (s)", "language (s)", "both (s)"],
        rows,
    )


# --------------------------------------------------------------------------------------------------------------- memory


def _memory(options: argparse.Namespace) -> Result:
    rows: list[Row] = []
    sizes = {"tiny": options.frames, "1B": [options.large_frames]}
    for shape, frames in ((one, frames) for one in options.shapes for frames in sizes[one]):
        for way in ways(options.least_tokens):
            if way.decoding is None and not way.least_tokens:
                continue  # the longest answers take the most
            # A process each: what a way leaves behind would stand beside the next one.
            with get_context("spawn").Pool(1) as pool:
                before, peak = pool.apply(resident_peak, (shape, frames, way, options))
            rows.append(
                [f"{shape}, {frames} frames", way.key, way.what, before / GIB, peak / GIB, (peak - before) / GIB]
            )
            print(rows[-1], file=sys.stderr, flush=True)
    table = Table(
        "Memory of answers",
        "Largest resident memory of a process of its own for each way, with libraries and weights (fp32), and what it "
        "had before the first answer.",
        ["model", "", "way", "before (GiB)", "peak (GiB)", "added (GiB)"],
        rows,
    )
    return Result("predict memory", [table], {})


def resident_peak(shape: str, frames: int, way: Way, options: argparse.Namespace) -> tuple[int, int]:
    """Resident bytes before the first answer and at most; to be called once in a process."""
    options.most_tokens = max(options.least_tokens, way.least_tokens)
    with system_of(shape, frames, options) as (system, clips):
        mine = clips if shape == "tiny" or way.is_batched else clips[:1]
        if way.is_led:
            system.answers = dict.fromkeys((clip.sample.id for clip in mine), "one " * options.least_tokens)
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM begins again
        answer(system, mine, way)
    return before, _status("VmHWM")


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
